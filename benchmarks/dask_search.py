"""A search on a Dask cluster of two worker processes beside the same search with n_jobs=2.

``python -m benchmarks.dask_search [--rounds 3] [--users 1000]``: GridSearchCV of four candidates
and three folds, 12 fits, on a made click log; all ways in turn, after one search each that warms
the processes up. Prints the median seconds of each way, the median of the ratios to ``n_jobs=2`` in
the same round, and the largest difference of a fold's score. "encoder kept" is the same search with
``Pipeline(memory=...)``, a new folder each time, which fits the encoder once per fold.
"""

import argparse
import statistics
import tempfile
import time

import joblib
import numpy as np
from dask.distributed import Client, LocalCluster
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history
from sklearn_din.datasets import make_click_log

GRID = {"din__embedding_dim": [4, 8], "din__embedding_l2": [50.0, 250.0]}
N_WORKERS, N_FOLDS = 2, 3
BASE = "n_jobs=2"


def search(*, memory=None, n_jobs=None):
    """Return the search, not fitted."""
    encoder = HistorySequenceEncoder(user="user", time="time")
    classifier = DINClassifier(max_epochs=5, random_state=0)
    model = Pipeline([("encode", encoder), ("din", classifier)], memory=memory)
    return GridSearchCV(model, GRID, cv=N_FOLDS, scoring="roc_auc", refit=False, n_jobs=n_jobs)


def ways_of(X, y, folder):
    """Functions that fit the search, by what is printed of them."""

    def here(**how):
        return search(n_jobs=N_WORKERS, **how).fit(X, y)

    def on_dask(**how):
        with joblib.parallel_config("dask"):  # which sends X once
            return search(**how).fit(X, y)

    def kept():
        return tempfile.mkdtemp(dir=folder)

    return {
        BASE: here,
        "Dask": on_dask,
        f"{BASE}, encoder kept": lambda: here(memory=kept()),
        "Dask, encoder kept": lambda: on_dask(memory=kept()),
    }


def scores_of(found):
    """Scores of all candidates in all folds."""
    return np.stack([found.cv_results_[f"split{fold}_test_score"] for fold in range(N_FOLDS)])


def measured(ways, n_rounds):
    """Seconds of each round and the scores, by way."""
    seconds, scores = {name: [] for name in ways}, {}
    for way in ways.values():
        way()
    for _ in range(n_rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            found = way()
            seconds[name].append(time.perf_counter() - began)
            scores[name] = scores_of(found)
    return seconds, scores


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--users", type=int, default=1_000)
    options = parser.parse_args()
    log = make_click_log(n_users=options.users, random_state=0)
    X = attach_history(
        log.impressions, log.events, user="user", time="time", columns=["item", "category"]
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(n_workers=N_WORKERS, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        seconds, scores = measured(ways_of(X, log.y, folder), options.rounds)
    print(f"{len(X):,} rows, 12 fits, {options.rounds} rounds\n")
    print(f"| | seconds | times {BASE} | a score differs by |\n|---|---|---|---|")
    for name, taken in seconds.items():
        ratio = statistics.median(np.divide(taken, seconds[BASE]))
        difference = np.abs(scores[name] - scores[BASE]).max()
        print(f"| {name} | {statistics.median(taken):.1f} | {ratio:.2f} | {difference:.1e} |")


if __name__ == "__main__":
    main()
