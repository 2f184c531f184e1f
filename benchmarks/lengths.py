"""What attention over longer histories gives, and takes: the default fit by ``max_length``.

``python -m benchmarks.lengths [--seeds 1] [--only WORD] [--lengths 50 100 200 500 1000 auto]``
attaches the newest 1,000 events, of which attention sees so many, and prints by set and length: log
loss and GAUC of the test rows, CPU seconds of one thread for a fit (encoder and classifier), and
CPU ms of a request: 200 candidates for the user with the longest history, the median of 20.

Sets whose histories are longer than 50: films rated (MovieLens, verdicts), chains of baskets,
students' answers, clicks that follow from the whole past, or from the newest of it, a category that
tires; and the sessions of a shop, which are short.
"""

import argparse
import os
import time
from functools import partial

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss
from sklearn.pipeline import Pipeline

from benchmarks import made_logs, quality, workloads
from benchmarks.request import as_dict
from benchmarks.tables import print_frame
from sklearn_din import DINClassifier, Ranker, attach_history
from sklearn_din.datasets import make_click_log
from sklearn_din.metrics import group_roc_auc_score
from tests.real_data import real_data_folder

LONGEST, N_CANDIDATES, N_CALLS = 1_000, 200, 20
AT = {"user": "user", "time": "time", "max_length": LONGEST}


def chain(*, cap, seed):
    """Return long baskets: 1,000 items, 100 to 500 events of a user."""
    rng = np.random.RandomState(seed)
    made = made_logs._Chain(n_items=1000, n_categories=30, n_partners=4, steepness=20, rng=rng)
    options = {"n_last": 10, "shares": (0.3, 0.4, 0.3), "cap": cap}
    rows = made.rows(n_users=800, lengths=(100, 500), **options)
    return made_logs._by_user("chain", rows, ["item", "category"], cap, seed)


def clicks(*, recency=None, cap, seed):
    """Return a click log of some 300 events of a user, by time."""
    options = {"n_users": 1000, "n_items": 2000, "n_categories": 100, "mean_length": 300}
    log = make_click_log(**options, recency=recency, max_length=cap, random_state=seed)
    columns = ["item", "category"]
    X = attach_history(log.impressions, log.events, columns=columns, **AT)
    return _by_time(workloads.rows_of(X, log.y, log.probability, columns), columns)


def verdicts(*, cap, seed):
    """Return verdicts on films, whose histories are the films liked, by time."""
    X = pd.read_parquet(real_data_folder() / "movies.parquet").sort_values("time", kind="stable")
    ids = {name: pd.factorize(X[name], sort=True)[0] for name in ("user", "item", "category")}
    X = X[["time", "label"]].assign(**ids)
    y, columns = X.pop("label").to_numpy(), ["item", "category"]
    X = attach_history(X, X[y == 1], columns=columns, **AT)
    return _by_time(workloads.rows_of(X, y, None, columns), columns)


def _by_time(rows, columns):
    if rows["probability"] is None:
        del rows["probability"]
    part = np.searchsorted(np.quantile(rows["time"], [0.7, 0.8]), rows["time"], side="left")
    return workloads._workload("by time", rows, part, columns, LONGEST, True, split="time")


SETS = {
    "MovieLens by time": workloads.movielens,
    "MovieLens by user": partial(workloads.movielens, split="user"),
    "verdicts on films": verdicts,
    "chain of baskets": chain,
    "answers": partial(made_logs.answers, n_users=800, mean_length=300),
    "clicks": clicks,
    "clicks, newer events count more": partial(clicks, recency=100.0),
    "recent interest": partial(clicks, recency=2.0),
    "repetition tires": partial(workloads.tiring, n_users=200, n_events=370, n_shown=180),
    "e-shop by session": partial(workloads.eshop, negatives="popularity", n_negatives=2),
}


def seconds_of(call):
    """Return the CPU seconds of a call."""
    began = time.process_time()
    call()
    return time.process_time() - began


def measure(workload, max_length, seed):
    """Fit the defaults; return what was measured."""
    X, y = quality.frame_of(workload, "train", "valid")
    rows, labels = quality.frame_of(workload, "test")
    encoder = quality.encoder_of(workload).set_params(max_length=max_length)
    model = Pipeline([("encode", encoder), ("din", DINClassifier(random_state=seed))])
    seconds = seconds_of(lambda: model.fit(X, y))
    p = model.predict_proba(rows)[:, 1]
    of_item = list(workload["attributes"])
    candidates = rows.drop_duplicates("item")[of_item][:N_CANDIDATES]
    longest = np.argmax(np.diff(workload["test"]["hist_offsets"]))
    user = as_dict(rows.drop(columns=of_item)[longest : longest + 1])
    ranker = Ranker(model, candidates)
    request = 1e3 * np.median([seconds_of(lambda: ranker.rank(user)) for _ in range(N_CALLS)])
    gauc = group_roc_auc_score(labels, p, groups=rows["group"])
    return {"loss": log_loss(labels, p), "gauc": gauc, "fit, s": seconds, "request, ms": request}


def main():
    """Print a line per fit, and a table per set."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lengths")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", default="", help="sets whose name has this word")
    parser.add_argument("--lengths", nargs="*", default=["50", "100", "200", "500", "1000", "auto"])
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}")
    for name in [name for name in SETS if options.only in name]:
        measured = []
        for seed in range(options.seeds):
            workload = SETS[name](cap=LONGEST, seed=seed)
            for text in options.lengths:
                max_length = text if text == "auto" else int(text)
                measured.append({"max_length": text} | measure(workload, max_length, seed))
                print(name, seed, measured[-1], flush=True)
        table = pd.DataFrame(measured).groupby("max_length", sort=False).mean().map("{:.4f}".format)
        lengths = np.diff(workload["train"]["hist_offsets"])
        parts = np.quantile(lengths[lengths > 0], [0.5, 0.9, 0.95, 0.99, 1]).astype(int).tolist()
        print_frame(table, f"{name}: 50, 90, 95, 99, 100 % of the rows have up to {parts} events")


if __name__ == "__main__":
    main()
