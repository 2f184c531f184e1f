"""A search on a Dask cluster of two worker processes beside the same search with n_jobs=2.

``python -m benchmarks.dask_search [--rounds 3]``: GridSearchCV of four candidates and three folds,
12 fits, on a made click log; both ways in turn, after one search that warms the workers up. Prints
the seconds of both, their ratio, and the largest difference of a score. "encoder kept" is the same
search with ``Pipeline(memory=...)``, which fits the encoder once per fold.
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
N_WORKERS = 2


def search(*, memory=None, n_jobs=None):
    """Return the search, not fitted."""
    encoder = HistorySequenceEncoder(user="user", time="time")
    classifier = DINClassifier(max_epochs=5, random_state=0)
    model = Pipeline([("encode", encoder), ("din", classifier)], memory=memory)
    return GridSearchCV(model, GRID, cv=3, scoring="roc_auc", refit=False, n_jobs=n_jobs)


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
    folder = tempfile.TemporaryDirectory()

    def on_dask(**how):
        with joblib.parallel_config("dask", scatter=[X, log.y]):
            return search(**how).fit(X, log.y)

    ways = {
        "n_jobs=2": lambda: search(n_jobs=N_WORKERS).fit(X, log.y),
        "Dask": on_dask,
        "Dask, encoder kept": lambda: on_dask(memory=tempfile.mkdtemp(dir=folder.name)),
    }
    taken, scores = {name: [] for name in ways}, {}
    with (
        folder,
        LocalCluster(n_workers=N_WORKERS, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        # joblib scatters anew for each search, under a name made of the content. Without a
        # reference of ours, the first search's release of that name takes the second one's data.
        kept = client.scatter([X, log.y], broadcast=True)
        for way in ways.values():
            way()
        for _ in range(options.rounds):
            for name, way in ways.items():
                began = time.perf_counter()
                scores[name] = way().cv_results_["mean_test_score"]
                taken[name].append(time.perf_counter() - began)
        del kept
    first = scores["n_jobs=2"]
    print(
        f"{len(X):,} rows, 12 fits\n\n| | seconds | ratio | scores differ by |\n|---|---|---|---|"
    )
    for name, seconds in taken.items():
        ratio = statistics.median(np.divide(seconds, taken["n_jobs=2"]))
        difference = np.abs(scores[name] - first).max()
        print(f"| {name} | {statistics.median(seconds):.1f} | {ratio:.2f} | {difference:.1e} |")


if __name__ == "__main__":
    main()
