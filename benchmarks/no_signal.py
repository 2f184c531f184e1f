"""No split inflates: on logs whose labels are coin flips, every score by any split is chance.

    python -m benchmarks.no_signal [--seeds 10] [--users 50 200 5000] [--network] [--fits 24]

Labels are drawn by chance, and histories are made of the log itself in several ways: then nothing
that is learnt from the training rows can tell a click of the test rows, unless it knows the row.
For each log, each way to split, and each way to name users and times: the columns of item
neighbours, aggregates of the label, levels of a memory (of the training rows, and told all rows
twice) and, with ``--network``, the classifier after two epochs. Printed is the fold that is
farthest from .5, in units of its standard error: four and more is a leak; and the root mean square
over all folds. With ``--fits`` only the default fit is measured, on so many logs: log loss on later
rows less that of the base rate, standard errors of the AUC, and the largest log-odds.
"""

import argparse
from itertools import product

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline

from sklearn_din import (
    DINClassifier,
    HistoryBuilder,
    HistorySequenceEncoder,
    TimeSplit,
    attach_aggregates,
    attach_history,
    remember,
)
from sklearn_din.neighbours.tables import learn_neighbours

FIT = {"random_state": 0}
SPLITS = {
    "KFold": KFold(3),
    "StratifiedKFold": StratifiedKFold(3),
    "shuffled": StratifiedKFold(3, shuffle=True, random_state=0),
    "GridSearchCV's": StratifiedKFold(2),
    "GroupKFold": GroupKFold(3),
    "TimeSplit": TimeSplit(3, time="time"),
}
ORDERS = {"time": {"user": "user", "time": "time"}, "user": {"user": "user"}}


def coin_flips(kind, n_users, seed, n_rows=5000):
    """Return impressions with histories, and labels that nothing tells."""
    random = np.random.RandomState(seed)
    items = random.randint(400, size=n_rows)
    if kind == "long tail":
        items = np.minimum(random.zipf(1.2, size=n_rows), 10**6) + random.randint(3, size=n_rows)
    X = pd.DataFrame(
        {"user": random.randint(n_users, size=n_rows), "item": items, "time": np.arange(n_rows)}
    )
    y = random.randint(2, size=n_rows)
    events = X[y == 1]
    if kind == "clicks and others":
        events = X[(y == 1) | (random.random_sample(n_rows) < 0.5)]
    if kind == "separate log":
        events = X.assign(item=random.permutation(items), time=random.permutation(X["time"]))
    X = attach_history(X, events, user="user", time="time", columns=["item"])
    return X, y


KINDS = ("clicks", "clicks and others", "separate log", "long tail")


def distance(y, score):
    """Return how many standard errors an AUC is from .5."""
    n_ones = y.sum()
    spread = np.sqrt((1 / n_ones + 1 / (len(y) - n_ones)) / 12)
    return abs(roc_auc_score(y, score) - 0.5) / spread


def of_columns(train, y, test, y_test, columns):
    """Distances of each column of item neighbours in the test rows."""
    train, test = (X[["user", "time", "item", "hist_item"]] for X in (train, test))
    unused = [] if "time" in columns else ["time"]
    encoder = HistorySequenceEncoder(**columns, drop=unused)
    encoded, order = encoder.fit_transform(train), "user" if unused else "time"
    tables, _ = learn_neighbours(encoded, y == 1, order=order, y=y)
    added = tables.add_to(encoder.transform(test))
    return [distance(y_test, added[name]) for name in tables.names]


def of_aggregates(train, y, test, y_test, columns):
    """Distances of the item's and the user's rates of clicks so far, of the training rows."""
    pairs = product(("item", "user"), ("mean", "shrunk_rate"))
    rates = {f"{key} {statistic}": (key, "click", statistic) for key, statistic in pairs}
    added = attach_aggregates(test, train.assign(click=y), time="time", aggregates=rates)
    return [distance(y_test, added[name].fillna(y.mean()).to_numpy()) for name in rates]


def of_memory(train, y, test, y_test, columns):
    """Distances of each level of a memory of the training rows, and of one told all rows twice."""
    names = {"user": "user", "time": "time", "columns": ["item"]}
    train, test = (X[["user", "time", "item"]] for X in (train, test))
    memory = HistoryBuilder(**names, levels="auto", events="all").fit(train, y)
    twice = [pd.concat([X, X]) for X in (train, test)]
    told = HistoryBuilder(**names, levels="auto", events="all").fit(twice[0], np.tile(y, 2))
    told = remember(told, twice[1], np.tile(y_test, 2))
    levels = (known.transform(test)[memory.memory_.names].fillna(-1) for known in (memory, told))
    return [distance(y_test, own[name]) for own in levels for name in own]


def of_network(train, y, test, y_test, columns):
    """Distance of the classifier's probabilities, two epochs without early stopping."""
    model = make_pipeline(
        HistorySequenceEncoder(**columns, drop=["user", "time"]),
        DINClassifier(early_stopping=False, max_epochs=2, **FIT),
    ).fit(train, y)
    return [distance(y_test, model.predict_proba(test)[:, 1])]


def table_of_noise(options):
    """Print the farthest fold by log, order and split."""
    measures = [of_columns, of_aggregates, of_memory] + [of_network] * options.network
    distances = []
    print(f"{'log':<20}{'users':>6} {'order':<6}" + "".join(f"{name:>16}" for name in SPLITS))
    for kind in KINDS:
        for n_users in options.users:
            for order, columns in ORDERS.items():
                by_split = {name: [] for name in SPLITS}
                for seed in range(options.seeds):
                    X, y = coin_flips(kind, n_users, seed)
                    for name, split in SPLITS.items():
                        groups = X["user"] if name == "GroupKFold" else None
                        for train, test in split.split(X, y, groups):
                            rows = X.iloc[train], y[train], X.iloc[test], y[test]
                            for measure in measures:
                                by_split[name] += measure(*rows, columns)
                line = "".join(f"{max(values):>16.2f}" for values in by_split.values())
                print(f"{kind:<20}{n_users:>6} {order:<6}{line}", flush=True)
                distances += [value for values in by_split.values() for value in values]
    rms = np.sqrt(np.mean(np.square(distances)))
    print(f"farthest: {max(distances):.2f} standard errors, root mean square {rms:.2f}")


def measure_fits(n_logs, n_train=4000):
    """Print how far the default fit is from the base rate, on such logs."""
    rows = []
    for seed in range(n_logs):
        X, y = coin_flips(KINDS[seed % len(KINDS)], 200, seed)
        encoder = HistorySequenceEncoder(user="user", time="time")
        model = make_pipeline(encoder, DINClassifier(**FIT)).fit(X[:n_train], y[:n_train])
        p, later = model.predict_proba(X[n_train:])[:, 1], y[n_train:]
        base = log_loss(later, np.full(len(later), y[:n_train].mean()))
        odds = np.abs(np.log(p / (1 - p))).max()
        rows.append((log_loss(later, p) - base, distance(later, p), odds))
    excess, errors, odds = np.array(rows).T
    print(f"log loss less the base rate's {excess.mean():.5f}, at most {excess.max():.5f}")
    print(f"AUC: z rms {np.sqrt(np.mean(errors**2)):.2f}; log-odds at most {odds.max():.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--users", type=int, nargs="+", default=[50, 200, 5000])
    parser.add_argument("--network", action="store_true")
    parser.add_argument("--fits", type=int, default=0)
    parser.add_argument("--trees", action="store_true", help="with boosted trees")
    options = parser.parse_args()
    FIT.update({"trees": True} if options.trees else {})
    measure_fits(options.fits) if options.fits else table_of_noise(options)


if __name__ == "__main__":
    main()
