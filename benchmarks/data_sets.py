"""The data sets of the comparison: real logs, click logs and other made logs, by name.

``data_set(name, seed)`` returns a workload (``workloads.py``). The test part of a made log holds
its truth.
"""

from functools import partial

import numpy as np
import pandas as pd

from benchmarks import made_logs, workloads
from benchmarks.market_log import make_market_log
from sklearn_din import attach_aggregates, attach_history
from sklearn_din.datasets import make_click_log

OPTIONS = ("n_items", "n_categories", "mean_length", "interest_strength", "recency")
MARKET_ROWS = 55_000
CLICK_LOGS = {
    "few items, long, strong": (500, 20, 40, 2.0, None),
    "few items, short, weak": (500, 20, 10, 0.5, None),
    "many items, short, strong": (20_000, 500, 10, 2.0, None),
    "many items, long, weak": (20_000, 500, 40, 0.5, None),
    "recent interest": (1000, 50, 30, 2.0, 2.0),
}


def _market(*, seed, **options):
    """Return a market log as a workload: of twelve days the last tenth is to stop by, two test."""
    log = make_market_log(random_state=seed, n_impressions=MARKET_ROWS, **options)
    columns = ["item", "category", "action"]
    events = log.events.assign(action=log.events["action"].factorize(sort=True)[0])
    X = attach_history(log.impressions, events, user="user", time="time", columns=columns)
    rows = workloads.rows_of(X, log.y, log.probability, columns)
    rows["time"] = rows["time"] // 10**9
    n_train = (~log.is_test).sum()
    part = np.searchsorted([0.9 * n_train, n_train], np.arange(len(X)), side="right")
    return workloads._workload(
        "market", rows, part, columns[:2], 50, False, split="time", alone=columns[2:]
    )


REAL = {
    "e-shop by session, uniform": workloads.eshop,
    "e-shop by session, whole catalogue": partial(workloads.eshop, negatives="catalogue"),
    "e-shop by session, popularity": partial(workloads.eshop, negatives="popularity"),
    "e-shop by time, uniform": partial(workloads.eshop, split="time"),
    "e-shop by time, popularity": partial(workloads.eshop, split="time", negatives="popularity"),
    "MovieLens by time": workloads.movielens,
    "MovieLens by user": partial(workloads.movielens, split="user"),
    "MovieLens by time, means": workloads.movielens,
    "MovieLens by user, means": partial(workloads.movielens, split="user"),
}
MADE = {
    "repetition tires": workloads.tiring,
    "turning catalogue, 5 %": partial(made_logs.turning, new_share=0.05),
    "turning catalogue, 20 %": partial(made_logs.turning, new_share=0.2),
    "turning catalogue, 60 %": partial(made_logs.turning, new_share=0.6),
    "turning catalogue, 60 %, related": partial(made_logs.turning, new_share=0.6, n_related=3),
    "long baskets": made_logs.long_baskets,
    "long baskets, last events": partial(made_logs.long_baskets, split="last"),
    "sparse catalogue": made_logs.sparse_catalogue,
    "offers": made_logs.offers,
    "offers, 100 of them": partial(made_logs.offers, n_offers=100),
    "answers": made_logs.answers,
    "matches": made_logs.matches,
    "matches, differences": partial(made_logs.matches, by="differences"),
}
OF_DEFAULT_FIT = {
    "market, 2 %": partial(_market, base_rate=0.02),
    "MovieLens by time, all attached": partial(workloads.movielens, cap=1_000),
    "answers, all attached": partial(made_logs.answers, n_users=800, mean_length=300, cap=1_000),
}
DATA_SETS = [*REAL, *(f"click log: {name}" for name in CLICK_LOGS), *MADE]


def data_set(name, seed):
    """Return a workload (``workloads.py``); a click log also holds its truth in the test part."""
    if name.startswith("click log: "):
        return _click_log(name.removeprefix("click log: "), seed)
    make = (REAL | MADE | OF_DEFAULT_FIT)[name]
    workload = make(seed=seed)
    if name.endswith(", means"):
        _add_means(workload, make(seed=seed, hide_unseen=False))
    return workload


def _add_means(workload, unhidden):
    """Add each user's and movie's mean label and number of ratings so far, strictly before."""
    keys = ["group", "item", "time", "label"]
    frames = {p: pd.DataFrame({k: unhidden[p][k] for k in keys}) for p in workloads.PARTS}
    log = pd.concat(frames.values())
    aggregates = {
        "user_mean": ("group", "label", "mean"),
        "user_count": ("group", None, "count"),
        "item_mean": ("item", "label", "mean"),
        "item_count": ("item", None, "count"),
    }
    center = scale = None
    for part, frame in frames.items():
        numbers = attach_aggregates(frame, log, time="time", aggregates=aggregates)
        numbers = numbers[list(aggregates)]
        numbers[["user_count", "item_count"]] = np.log1p(numbers[["user_count", "item_count"]])
        if part == "train":
            center, scale = numbers.mean(), numbers.std()
        numbers = ((numbers - center) / scale).fillna(0.0).astype(np.float32)
        workload[part].update({name: numbers[name].to_numpy() for name in aggregates})
    workload["numeric"] = list(aggregates)


def _click_log(regime, seed):
    """The log as a workload: rows in the order of time, 80/10/10."""
    options = dict(zip(OPTIONS, CLICK_LOGS[regime], strict=True))
    log = make_click_log(n_users=2500, random_state=seed, **options)
    columns = ["item", "category"]
    X = attach_history(log.impressions, log.events, user="user", time="time", columns=columns)
    numbers = {
        "price": ((np.log(X["price"]) - 3.0) / 0.6).to_numpy(np.float32),
        "desktop": (X["device"] == "desktop").to_numpy(np.float32),
        "tablet": (X["device"] == "tablet").to_numpy(np.float32),
    }
    rows = workloads.rows_of(X, log.y, log.probability, columns) | numbers
    part = np.searchsorted([0.8, 0.9], np.arange(len(log.y)) / len(log.y), side="right")
    name = f"click log: {regime}"
    workload = workloads._workload(name, rows, part, columns, 50, True, split="time")
    workload["numeric"] = list(numbers)
    # The events' relevance lies flat like the histories: cut where the parts' rows end.
    workload["test"]["relevance"] = log.relevance[log.offsets[(part < 2).sum()] :]
    return workload
