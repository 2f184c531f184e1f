"""The default with bins of all its numbers and without: log loss, AUC, GAUC and CPU seconds.

``python -m benchmarks.number_bins [--seeds 3] [--only WORD]`` fits both in turn on each set that
has numbers, and prints means over seeds, and differences with their standard errors of pairs.
"live" has levels of a memory among its numbers, as in ``known_now.py``.
"""

import argparse
import time
from unittest.mock import patch

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score

from benchmarks import requests
from benchmarks.default_fit import frames_of
from benchmarks.known_now import attach_levels
from benchmarks.tables import print_frame
from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history, attach_request
from sklearn_din.metrics import group_roc_auc_score
from sklearn_din.network.number_bins import find_bins
from sklearn_din.training import training

SETS = ["matches", "matches, differences", "shelf", "click log: many items, short, strong"]
SETS += ["MovieLens by user, means", "movies", "videos", "videos, live"]
WAYS = "without", "bins"


def make_frames(name, seed):
    """Return training rows, labels, test rows, labels, users; the encoder's parameters."""
    if name == "shelf":
        shown = requests.N_SHOWN
        frame, probability = requests.make_shelves(seed, requests.N_SHELVES, shown)
        y, cut = requests.buy(probability, shown, seed), requests.N_SHELVES * 4 // 5 * shown
        encoder = {"user": "user", "time": "time"}
        X = attach_history(frame, frame[y == 1], columns=["brand", "kind"], **encoder)
        X = attach_request(X, request="shelf", columns="price").drop(columns="shelf")
        return X[:cut], y[:cut], X[cut:], y[cut:], X["user"][cut:], encoder
    base = name.removesuffix(", live")
    X, y, rows, labels, users, encoder = frames_of(base, seed)
    if base == name:
        return X, y, rows, labels, users, encoder
    X, rows = X.reset_index(drop=True), rows.reset_index(drop=True)
    user, ids = encoder["user"], [column for column in X if f"hist_{column}" in X]
    train = X.assign(label=y)
    log = pd.concat([train, rows.assign(label=labels)], ignore_index=True)
    frames = (attach_levels(*pair, user, ids) for pair in ((X, train), (rows, log)))
    return next(frames), y, next(frames), labels, users, encoder


def measure(name, seed, way):
    """Return measures of one fit on test rows."""
    X, y, rows, labels, users, parameters = make_frames(name, seed)
    always = way == "bins"  # also where the classifier would have none
    encoder, began = HistorySequenceEncoder(**parameters), time.process_time()
    with patch.object(
        training, "choose_bins", lambda X, y, rows, out: find_bins(X, out) if always else {}
    ):
        classifier = DINClassifier(random_state=seed).fit(encoder.fit_transform(X), y)
    seconds = time.process_time() - began
    p = classifier.predict_proba(encoder.transform(rows))[:, 1]
    gauc = group_roc_auc_score(labels, p, groups=np.asarray(users))
    measured = {"loss": log_loss(labels, p), "auc": roc_auc_score(labels, p), "gauc": gauc}
    return measured | {"seconds": seconds}


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.number_bins")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="part of a set's name")
    options, table = parser.parse_args(), []
    for name in (name for name in SETS if options.only in name):
        ways = {way: [] for way in WAYS}
        for seed in range(options.seeds):
            for way, measured in ways.items():
                measured.append(measure(name, seed, way))
                print(name, seed, way, *(f"{v:.4f}" for v in measured[-1].values()), flush=True)
        without, bins = (pd.DataFrame(ways[way]) for way in WAYS)
        row = {"set": name}
        for what in ("loss", "auc", "gauc"):
            more = bins[what] - without[what]
            row[what] = f"{bins[what].mean():.4f} ({more.mean():+.4f} ± {more.sem():.4f})"
        row["seconds"] = f"{(bins['seconds'] / without['seconds']).median():.2f}"
        table.append(row)
    print_frame(pd.DataFrame(table), "With bins, and what they add")


if __name__ == "__main__":
    main()
