"""Small logs that tell nothing: how far the numbers of item neighbours, logits and losses go.

``python -m benchmarks.small_logs [--logs 500]`` fits the default on 200 to 400 rows of coin flips,
by user, by time or neither, half with ``early_stopping=True``, a third of them with rows given
twice, and predicts 500 fresh rows: mean, worst and largest of the scaled numbers, the log-odds, and
the log loss less that of the base rate, and the sum of the last over all logs. It asks for nothing
that an older commit lacks: ``PYTHONPATH=CHECKOUT python benchmarks/small_logs.py`` measures that.
"""

import argparse
import warnings

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss

from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history

COLUMNS = {"user": ["user"], "time": ["user", "time"], "neither": []}
N_FRESH = 500
N_USERS, N_ITEMS = 20, 300


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
    classifier = DINClassifier(early_stopping=early_stopping, random_state=0).fit(encoded, y)
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


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.small_logs")
    parser.add_argument("--logs", type=int, default=500)
    options, rows = parser.parse_args(), []
    warnings.simplefilter("ignore")
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
