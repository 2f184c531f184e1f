"""The default fit against that of a commit: how good it is on test rows, and how long it takes.

``python -m benchmarks.default_fit COMMIT [--seeds 5] [--only WORD]`` fits both in turn, each in a
process of its own that imports the package from its files, and prints by set: this one's AUC, GAUC
and log loss, the paired differences with their standard errors, and the median of the ratios of
CPU seconds of one thread (encoder and classifier). Where the log has times, the encoder is told, so
that the last rows stop the training and are learnt then. ``trees`` in place of COMMIT compares this
one with boosted trees and without.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd

SETS = ["movies", "videos", "market, 2 %", "MovieLens by time"]
SETS += ["turning catalogue, 20 %", "turning catalogue, 60 %", "e-shop by time, popularity"]
SETS += ["repetition tires", "long baskets", "long baskets, last events", "offers"]
SETS += ["offers, 100 of them", "answers"]
SETS += ["click log: many items, short, strong"]
SETS += ["MovieLens by time, all attached", "answers, all attached"]  # up to 1,000 events
MEASURES = ["auc", "gauc", "loss"]


def frames_of(name, seed):
    """Training rows, labels, test rows, labels, users; the encoder's parameters."""
    from benchmarks import quality
    from benchmarks.data_sets import data_set
    from sklearn_din import HistorySequenceEncoder
    from tests.real_data import real_data_folder

    if name in ("movies", "videos"):
        X = pd.read_parquet(real_data_folder() / f"{name}.parquet")
        y, is_test = X.pop("label").to_numpy(), X.pop("part").to_numpy() == "test"
        encoder = {"user": "user", "time": "time"}
        return X[~is_test], y[~is_test], X[is_test], y[is_test], X["user"][is_test], encoder
    workload = data_set(name, seed)
    X, y = quality.frame_of(workload, "train", "valid")
    rows, labels = quality.frame_of(workload, "test")
    encoder = quality.encoder_of(workload).get_params().items()  # the commit may lack some of them
    usual = HistorySequenceEncoder().get_params()
    given = {name: value for name, value in encoder if value is not usual[name]}
    return X, y, rows, labels, rows["group"], given


def fit_once(path, seed, *trees):
    """Fit the defaults, or with trees, on pickled rows; print measures of test rows, seconds."""
    from sklearn.metrics import log_loss, roc_auc_score

    from sklearn_din import DINClassifier, HistorySequenceEncoder
    from sklearn_din.metrics import group_roc_auc_score

    X, y, rows, labels, users, parameters = pd.read_pickle(path)
    encoder = HistorySequenceEncoder(**parameters)
    began = time.process_time()
    options = {"trees": True} if trees else {}
    classifier = DINClassifier(random_state=seed, **options).fit(encoder.fit_transform(X), y)
    seconds = time.process_time() - began
    p = classifier.predict_proba(encoder.transform(rows))[:, 1]
    measured = {"auc": roc_auc_score(labels, p), "loss": log_loss(labels, p)}
    has_pairs = not users.is_unique  # each gets one of the offers
    gauc = group_roc_auc_score(labels, p, groups=users) if has_pairs else np.nan
    print(json.dumps(measured | {"gauc": gauc, "seconds": seconds}))


def compare(other, name, n_seeds):
    """Return a row of the table for a set."""
    from benchmarks import guard

    pairs = []
    for seed in range(n_seeds):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.pickle"
            pd.to_pickle(frames_of(name, seed), path)
            rows = str(path), str(seed)
            own = rows if other != guard.HERE else (*rows, "trees")
            both = (other, *rows), (guard.HERE, *own)
            answers = [guard.ask(*way, file=__file__) for way in both]
            pairs.append([json.loads(answer) for answer in answers])
    before, own = map(pd.DataFrame, zip(*pairs, strict=True))
    row = {"set": name}
    for measure in MEASURES:
        more = own[measure] - before[measure]
        error = more.std() / np.sqrt(n_seeds) if n_seeds > 1 else np.nan
        row[measure] = f"{own[measure].mean():.4f} ({more.mean():+.4f} ± {error:.4f})"
    ratio = (own["seconds"] / before["seconds"]).median()
    row["seconds"] = f"{own['seconds'].median():.1f} ({ratio:.2f})"
    print(row, flush=True)
    return row | {"ratio": ratio}


def main():
    from benchmarks import guard
    from benchmarks.tables import print_frame

    parser = argparse.ArgumentParser(prog="python -m benchmarks.default_fit")
    parser.add_argument("commit")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default="", help="sets whose name has this word")
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}")
    os.environ["OMP_NUM_THREADS"] = "1"
    here = nullcontext(guard.HERE)
    with here if options.commit == "trees" else guard.check_out(options.commit) as other:
        rows = [compare(other, n, options.seeds) for n in SETS if options.only in n]
    table = pd.DataFrame(rows).set_index("set")
    print(f"mean ratio of seconds {table.pop('ratio').mean():.2f}")
    print_frame(table, "Default fit against the commit")


if __name__ == "__main__":
    if sys.argv[2:] and sys.argv[1].endswith(".pickle"):
        fit_once(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
    else:
        main()
