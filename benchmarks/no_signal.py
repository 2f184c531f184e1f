"""No split inflates: on logs whose labels are coin flips, every score by any split is chance.

    python -m benchmarks.no_signal [--seeds 10] [--users 50 200 5000] [--network] [--signal]

Labels are drawn by chance, and histories are made of the log itself in several ways: then nothing
that is learnt from the training rows can tell a click of the test rows, unless it knows the row.
For each log, each way to split, and each way to name users and times: the columns of item
neighbours, aggregates of the label and, with ``--network``, the classifier without early stopping
(the rule of the base rate would hide a leak). Printed is the fold that is farthest from .5, in
units of its standard error: four and more is a leak. ``--signal`` prints scores of made logs with
signal.
"""

import argparse

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline

from sklearn_din import (
    DINClassifier,
    HistorySequenceEncoder,
    ItemNeighbours,
    TimeSplit,
    attach_aggregates,
    attach_history,
)
from sklearn_din.datasets import make_click_log, make_market_log
from sklearn_din.metrics import group_roc_auc_score

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
    model = ItemNeighbours(**columns).fit(train.drop(columns=unused), y)
    test = test.drop(columns=unused)
    added = model.transform(test).drop(columns=[*test.columns])
    return [distance(y_test, added[name].to_numpy()) for name in added]


def of_aggregates(train, y, test, y_test, columns):
    """Distances of the item's and the user's rates of clicks so far, of the training rows."""
    keys = ("item", "user")
    rates = {key + "_rate": (key, "click", "mean") for key in keys}
    added = attach_aggregates(test, train.assign(click=y), time="time", aggregates=rates)
    return [distance(y_test, added[name].fillna(y.mean()).to_numpy()) for name in rates]


def of_network(train, y, test, y_test, columns):
    """Distance of the classifier's probabilities, two epochs without early stopping."""
    model = make_pipeline(
        HistorySequenceEncoder(**columns, drop=["user", "time"]),
        DINClassifier(early_stopping=False, max_epochs=2, random_state=0),
    ).fit(train, y)
    return [distance(y_test, model.predict_proba(test)[:, 1])]


def table_of_noise(options):
    """Print the farthest fold by log, order and split; return whether all are chance."""
    measures = [of_columns, of_aggregates] + [of_network] * options.network
    worst = 0.0
    print(f"{'log':<20}{'users':>6} {'order':<6}" + "".join(f"{name:>16}" for name in SPLITS))
    for kind in KINDS:
        for n_users in options.users:
            for order, columns in ORDERS.items():
                farthest = dict.fromkeys(SPLITS, 0.0)
                for seed in range(options.seeds):
                    X, y = coin_flips(kind, n_users, seed)
                    for name, split in SPLITS.items():
                        groups = X["user"] if name == "GroupKFold" else None
                        for train, test in split.split(X, y, groups):
                            rows = X.iloc[train], y[train], X.iloc[test], y[test]
                            for measure in measures:
                                farthest[name] = max(farthest[name], *measure(*rows, columns))
                line = "".join(f"{value:>16.2f}" for value in farthest.values())
                print(f"{kind:<20}{n_users:>6} {order:<6}{line}", flush=True)
                worst = max(worst, *farthest.values())
    print(f"farthest: {worst:.2f} standard errors")
    return worst


def made_with_signal():
    """Return logs whose labels have reasons, with histories: by name."""
    logs = {}
    for seed in range(2):
        log = make_click_log(
            n_users=1500, n_items=800, n_categories=20, mean_length=15, random_state=seed
        )
        logs[f"clicks {seed}"] = log.impressions, log.events, log.y
        log = make_market_log(random_state=seed)
        logs[f"market {seed}"] = log.impressions, log.events, log.y
    return logs


def table_of_signal(options):
    """Print GAUC and log loss by time, and by users without times."""
    for name, (shown, events, y) in made_with_signal().items():
        columns = [c for c in ("item", "category") if c in events]
        X = attach_history(shown, events, user="user", time="time", columns=columns)
        y = np.asarray(y)
        splits = {"time": next(iter(TimeSplit(1, test_size=0.2, time="time").split(X)))}
        splits["user"] = next(iter(GroupKFold(5).split(X, y, X["user"])))
        for order, (train, test) in splits.items():
            encoder = HistorySequenceEncoder(**ORDERS[order], drop=["user", "time"])
            scores = []
            for seed in range(options.seeds):
                model = make_pipeline(encoder, DINClassifier(random_state=seed))
                model.fit(X.iloc[train], y[train])
                p = model.predict_proba(X.iloc[test])[:, 1]
                users = X["user"].iloc[test]
                gauc = group_roc_auc_score(y[test], p, groups=users)
                scores.append((gauc, log_loss(y[test], p)))
            gauc, loss = np.mean(scores, axis=0)
            print(f"{name:<12}{order:<6} GAUC {gauc:.4f} log loss {loss:.4f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--users", type=int, nargs="+", default=[50, 200, 5000])
    parser.add_argument("--network", action="store_true")
    parser.add_argument("--signal", action="store_true")
    options = parser.parse_args()
    table_of_signal(options) if options.signal else table_of_noise(options)


if __name__ == "__main__":
    main()
