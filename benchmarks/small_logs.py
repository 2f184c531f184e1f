"""Small logs that tell nothing: how far the numbers of item neighbours, logits and losses go.

``python -m benchmarks.small_logs [--logs 500] [--few | --shops] [--trees]`` fits the default on 200
to 400 rows of coin flips, by user, by time or neither, half with ``early_stopping=True``, a third
with rows twice, and predicts 500 fresh rows: mean, worst and largest of the scaled numbers, the
log-odds, and the log loss less that of the base rate, and the sum of the last over all logs.
``--few``: 30 to 100 rows, in half of the logs of users who differ, in order of time, without a
memory and with one that ended with training ("frozen") or is told each twentieth ("live").
``--shops``: 300 rows of a small shop, 20 users and 300 items in order of time, whose labels are
drawn at one rate, and its next 500 rows: the log losses above the base rate's, and the worst logs.
It asks for nothing that an older commit lacks: ``PYTHONPATH=CHECKOUT python
benchmarks/small_logs.py`` measures that.
"""

import argparse
import warnings

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline

from sklearn_din import (
    DINClassifier,
    HistoryBuilder,
    HistorySequenceEncoder,
    attach_history,
    live_predictions,
)

COLUMNS = {"user": ["user"], "time": ["user", "time"], "neither": []}
FIT = {"random_state": 0}
N_FRESH = 500
N_USERS, N_ITEMS = 20, 300
N_OF_SHOP, RATES_OF_SHOPS = 300, (0.05, 0.2, 0.5)


def make_log(seed):
    """Return a log's training rows, their labels, fresh rows and their labels."""
    random = np.random.RandomState(seed)
    n_rows = random.randint(200, 401)
    time = np.arange(n_rows + N_FRESH)
    log = pd.DataFrame(
        {
            "user": random.randint(N_USERS, size=len(time)),
            "item": random.randint(N_ITEMS, size=len(time)),
            "time": time,
        }
    )
    y = (random.random_sample(len(time)) < random.choice([0.05, 0.2, 0.5])).astype(int)
    y[:2] = 0, 1
    events = log[y == 1]
    if seed % 2:  # what users do elsewhere, too
        events = log.assign(item=random.permutation(log["item"]))
    X = attach_history(log, events, user="user", time="time", columns=["item"])
    rows = np.arange(n_rows)
    if seed % 3 == 0:
        rows = np.sort(np.append(rows, random.choice(rows, n_rows // 2, replace=False)))
    fresh = time[n_rows:]
    return X.iloc[rows].reset_index(drop=True), y[rows], X.iloc[fresh], y[fresh]


def measure(seed, order, early_stopping):
    """Return how far the numbers, the log-odds and the log loss go on fresh rows of a log."""
    X, y, fresh, labels = make_log(seed)
    columns = COLUMNS[order]
    encoder = HistorySequenceEncoder(**dict(zip(columns, columns, strict=True)))
    unused = [name for name in ("user", "time") if name not in columns]
    encoded = encoder.fit_transform(X.drop(columns=unused))
    classifier = DINClassifier(early_stopping=early_stopping, **FIT).fit(encoded, y)
    asked = encoder.transform(fresh.drop(columns=unused))
    tables = classifier.net_.neighbours_
    numbers = tables.add_to(asked)
    names = [name for pair in tables.pairs for name in pair.names]
    base = log_loss(labels, np.full(N_FRESH, y.mean()), labels=[0, 1])
    return {
        "number": max((float(np.abs(numbers[name]).max()) for name in names), default=0.0),
        "log-odds": float(np.abs(classifier.decision_function(asked)).max()),
        "excess": log_loss(labels, classifier.predict_proba(asked)[:, 1], labels=[0, 1]) - base,
    }


def measure_few(seed):
    """Yield by how much log losses are above the base rate's, of 30 to 100 rows."""
    random = np.random.RandomState(seed)
    n_rows, columns = random.randint(30, 101), {"user": N_USERS, "item": 30}
    X = pd.DataFrame(
        {n: random.randint(most, size=n_rows + N_FRESH) for n, most in columns.items()}
    )
    X["time"] = np.arange(len(X))
    differ = seed % 2 * random.normal(size=N_USERS)[X["user"]]
    odds = np.log(random.choice([0.1, 0.3, 0.5])) + differ
    y = (random.random_sample(len(X)) < 1 / (1 + np.exp(-odds))).astype(int)
    y[:2] = 0, 1
    train, fresh, labels = slice(n_rows), slice(n_rows, None), y[n_rows:]
    base = log_loss(labels, np.full(N_FRESH, y[train].mean()), labels=[0, 1])
    for levels in (None, "auto"):
        memory = HistoryBuilder(user="user", time="time", columns=["item"], levels=levels)
        encoder = HistorySequenceEncoder(user="user", time="time")
        model = make_pipeline(memory, encoder, DINClassifier(**FIT))
        model.fit(X[train], y[train])
        ways = {"frozen": model.predict_proba(X[fresh])[:, 1]}
        ways["live"] = live_predictions(model, X[fresh], labels, every=N_FRESH / 20)
        for way, p in ways.items():
            excess = log_loss(labels, p, labels=[0, 1]) - base
            yield {"memory": str(levels), "way": way, "users differ": seed % 2, "excess": excess}


def make_shop(seed):
    """Return rows of a small shop in order of time, labels that nothing explains, and histories."""
    random = np.random.RandomState(seed)
    n_rows = N_OF_SHOP + N_FRESH
    ids = {
        "user": random.randint(N_USERS, size=n_rows),
        "item": random.randint(N_ITEMS, size=n_rows),
    }
    shown = pd.DataFrame({**ids, "time": np.arange(n_rows)})
    y = (random.random_sample(n_rows) < random.choice(RATES_OF_SHOPS)).astype(int)
    y[:2] = 0, 1
    return attach_history(shown, shown[y == 1], user="user", time="time", columns=["item"]), y


def measure_shop(seed):
    """Return by how much the log loss of a shop's next rows is above the base rate's."""
    X, y = make_shop(seed)
    model = make_pipeline(HistorySequenceEncoder(user="user", time="time"), DINClassifier(**FIT))
    model.fit(X[:N_OF_SHOP], y[:N_OF_SHOP])
    later, base = y[N_OF_SHOP:], np.full(N_FRESH, y[:N_OF_SHOP].mean())
    losses = [log_loss(later, p) for p in (model.predict_proba(X[N_OF_SHOP:])[:, 1], base)]
    return {"seed": seed, "excess": losses[0] - losses[1]}


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.small_logs")
    parser.add_argument("--logs", type=int, default=500)
    parser.add_argument("--few", action="store_true", help="30 to 100 rows")
    parser.add_argument("--shops", action="store_true", help="300 rows of small shops")
    parser.add_argument("--trees", action="store_true", help="with boosted trees")
    options, rows = parser.parse_args(), []
    FIT.update({"trees": True} if options.trees else {})
    warnings.simplefilter("ignore")
    if options.few:
        table = pd.DataFrame([row for seed in range(options.logs) for row in measure_few(seed)])
        of = table.groupby(["memory", "way", "users differ"])["excess"]
        print(of.agg(["mean", "max", lambda excess: (excess > 0.05).sum()]).round(4).to_string())
        return
    if options.shops:
        table = pd.DataFrame([measure_shop(seed) for seed in range(options.logs)])
        print(table["excess"].agg(["mean", "max"]).round(4).to_string())
        print(table.nlargest(3, "excess").round(4).to_string(index=False))
        return
    kinds = [(order, stops) for stops in ("auto", True) for order in COLUMNS]
    for seed in range(options.logs):
        order, stops = kinds[seed // 6 % 6]  # six seeds have all that a log varies in
        twice = "twice" if seed % 3 == 0 else "once"
        rows.append({"order": order, "stops": stops, "rows": twice, **measure(seed, order, stops)})
    table = pd.DataFrame(rows)
    of = table.groupby(["order", "stops", "rows"])[["number", "log-odds", "excess"]]
    print(of.agg(["mean", "max"]).round(4).to_string())
    print(table[["number", "log-odds", "excess"]].agg(["mean", "max", "sum"]).round(4).to_string())


if __name__ == "__main__":
    main()
