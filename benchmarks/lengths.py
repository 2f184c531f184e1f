"""The curve by length: attention over more and more events, against hard search among them.

``python -m benchmarks.lengths [--seeds 2] [--only WORD] [--ways ...]`` fits with the newest 50, 200
and 1,000 events for attention, every time with item neighbours of all 1,000, and prints AUC, GAUC,
log loss and the seconds of each fit; "with the newest 50 alone" leaves neighbours and attention no
more. Hard search (SIM, Pi et al., CIKM 2020) is a second behaviour beside the newest 50: of the
1,000 events those of the candidate's category, the newest 50 of them.

``--cells`` asks for something smaller: the same attention, once with cells as long as it sees and
once with longer ones, which item neighbours alone see.

Logs: MovieLens by time and by user (the films liked so far), click logs whose clicks follow from
all 1,000 events of the candidate's category, also from the newer ones more, and chains of items,
where the next one is a partner of any earlier one.
"""

import argparse
import time
from functools import partial

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import Pipeline

from benchmarks import made_logs, quality, workloads
from benchmarks.quality_tables import _markdown
from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history
from sklearn_din.datasets import make_click_log
from sklearn_din.metrics import group_roc_auc_score

LONGEST, SEARCHED = 1_000, 50
HISTORIES = {"hist_item": "item", "hist_category": "category"}
WAYS = {
    "with the newest 50 alone": {"max_length": 50, "longest": 50},
    "the newest 50": {"max_length": 50},
    "the newest 200": {"max_length": 200},
    "the newest 1,000": {"max_length": LONGEST},
    "the newest 50 and hard search": {"max_length": SEARCHED, "searches": True},
}


def movielens(*, split, seed):
    """Return frame, labels and each row's part of MovieLens, the histories as lists."""
    return _of_workload(workloads.movielens(split=split, cap=LONGEST, seed=seed), split)


def chain(*, seed):
    """Return the same of long chains: 1,000 items, some 300 events of a user."""
    rng = np.random.RandomState(seed)
    made = made_logs._Chain(n_items=1000, n_categories=30, n_partners=4, steepness=20, rng=rng)
    options = {"n_last": 10, "shares": (0.3, 0.4, 0.3), "cap": LONGEST}
    rows = made.rows(n_users=800, lengths=(100, 500), **options)
    return _of_workload(
        made_logs._by_user("chain", rows, ["item", "category"], LONGEST, seed), "user"
    )


def clicks(*, recency, seed):
    """Return the same of a click log of 300 events a user, by time."""
    log = make_click_log(
        n_users=1000,
        n_items=2000,
        n_categories=100,
        mean_length=300,
        recency=recency,
        max_length=LONGEST,
        random_state=seed,
    )
    columns = ["item", "category"]
    X = attach_history(
        log.impressions, log.events, user="user", time="time", columns=columns, max_length=LONGEST
    )
    part = np.searchsorted([0.8, 0.9], np.arange(len(X)) / len(X), side="right")
    return X.rename(columns={"user": "group"}), log.y, part, True


def _of_workload(workload, split):
    parts = [workloads.to_frame(workload, name) for name in workloads.PARTS]
    labels = np.concatenate([workload[name]["label"] for name in workloads.PARTS])
    part = np.repeat(np.arange(len(parts)), [len(frame) for frame in parts])
    return pd.concat(parts, ignore_index=True), labels, part, split == "time"


LOGS = {
    "MovieLens by time": partial(movielens, split="time"),
    "MovieLens by user": partial(movielens, split="user"),
    "clicks": partial(clicks, recency=None),
    "clicks, newer events count more": partial(clicks, recency=100.0),
    "chain": chain,
}


CELLS = {  # rows, events that attention sees, events of the longer cells
    "MovieLens by time": (partial(workloads.movielens, split="time"), 50, LONGEST),
    "MovieLens by user": (partial(workloads.movielens, split="user"), 50, LONGEST),
    "long baskets": (partial(made_logs.long_baskets, n_users=4000), 10, 50),
    "sparse catalogue": (partial(made_logs.sparse_catalogue, n_users=6000), 4, 11),
    "e-shop": (partial(workloads.eshop, n_negatives=2), 5, 50),
    "answers": (partial(made_logs.answers, n_users=1500), 10, 50),
}


def add_found(X):
    """Add the newest events of the candidate's category: hard search."""
    cells = {name: [np.asarray(cell) for cell in X[name]] for name in HISTORIES}
    same = [
        np.flatnonzero(events == shown)[-SEARCHED:]
        for events, shown in zip(cells["hist_category"], X["category"], strict=True)
    ]
    found = {
        f"found_{candidate}": [cell[rows] for cell, rows in zip(cells[history], same, strict=True)]
        for history, candidate in HISTORIES.items()
    }
    return X.assign(**found)


def fit(X, y, by_time, *, seed, n_valid, max_length, longest=LONGEST, searches=False):
    """Fit one way; return how rows are prepared, and the model."""

    def prepare(X):
        if longest < LONGEST:
            return X.assign(**{n: [np.asarray(c)[-longest:] for c in X[n]] for n in HISTORIES})
        return add_found(X) if searches else X

    histories = {tuple(HISTORIES): tuple(HISTORIES.values())}
    if searches:
        histories[("found_item", "found_category")] = ("item", "category")
    encoder = HistorySequenceEncoder(
        histories=histories,
        user="group",
        time="time" if by_time else None,
        drop=() if by_time else ["time"],
        max_length=max_length,
    )
    din = DINClassifier(
        early_stopping=True,
        validation="last",
        validation_fraction=n_valid / len(y),
        random_state=seed,
    )
    return prepare, Pipeline([("encode", encoder), ("din", din)]).fit(prepare(X), y)


def measure(log, way, seed):
    """Fit one way on one log; return what was measured on its test rows."""
    X, y, part, by_time = LOGS[log](seed=seed)
    X["time"] = 2 * X["time"].astype("int64") + (part == 1)  # no validation row at a training time
    train, n_valid = part < 2, np.count_nonzero(part == 1)
    began = time.perf_counter()
    prepare, model = fit(X[train], y[train], by_time, seed=seed, n_valid=n_valid, **WAYS[way])
    seconds = time.perf_counter() - began
    test, label = prepare(X[part == 2]), y[part == 2]
    probability = model.predict_proba(test)[:, 1]
    return {
        "AUC": roc_auc_score(label, probability),
        "GAUC": group_roc_auc_score(label, probability, groups=test["group"]),
        "log loss": log_loss(label, probability),
        "seconds": seconds,
        "epochs": model["din"].n_iter_,
    }


def measure_cells(name, seed):
    """Print test measures of the same attention over cells as long as it, and over longer ones."""
    make, attention, longer = CELLS[name]
    for n_events in (attention, longer):
        workload = make(cap=n_events, seed=seed) | {"max_length": attention}
        model = quality.fit_ours(workload, seed=seed)
        probability = model.predict_proba(quality.frame_of(workload, "test")[0])[:, 1]
        found = quality.measures(workload["test"], probability)
        shown = "  ".join(f"{key} {value:.4f}" for key, value in found.items())
        print(f"{name} {seed}: attention {attention}, cells of {n_events}: {shown}", flush=True)


def main():
    """Print a line per fit, and a table per log."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lengths")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1])
    parser.add_argument("--only", default="", help="part of a log's name")
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--cells", action="store_true", help="longer cells for neighbours alone")
    options = parser.parse_args()
    for name in CELLS if options.cells else ():
        for seed in options.seeds if options.only in name else ():
            measure_cells(name, seed)
    for log in [name for name in LOGS if options.only in name and not options.cells]:
        rows = []
        for seed in options.seeds:
            for way in options.ways:
                rows.append({"way": way} | measure(log, way, seed))
                print(log, seed, rows[-1], flush=True)
        table = pd.DataFrame(rows).groupby("way", sort=False).mean().map("{:.4f}".format)
        print(f"\n{log}\n{_markdown(table)}", flush=True)


if __name__ == "__main__":
    main()
