"""Numbers beyond training's: a memory that grows, and trends that go on, by where numbers end.

``python -m benchmarks.growth [--seeds 3] [--only WORD] [--rule WORD]`` fits each log by each rule:
numbers "never" end, "all" end where a thousandth of the training rows reach, or "counts" do, others
one range beyond (the default). Growth: a stationary made log that is told for 14 times training's
length, live at each doubling beside the truth and the memory that ended with training ("frozen"),
and, as the set "anew", beside a fit of all rows so far (log loss); real logs fitted on the first
fifth and told the rest, the last fifth live. Trends, by thirds of as many rows as were trained on:
a live memory of numbers whose mean rises, ``year`` as a number (RMSE, 1 by noise alone), and a live
memory of clicks whose rate rises (log loss).
"""

import argparse
from functools import partial
from itertools import product
from unittest.mock import patch

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.metrics import log_loss, root_mean_squared_error
from sklearn.pipeline import make_pipeline

from benchmarks.tables import print_frame
from sklearn_din import (
    DINClassifier,
    DINRegressor,
    HistoryBuilder,
    HistorySequenceEncoder,
    live_predictions,
    remember,
)
from sklearn_din.features import number_ends
from tests.real_data import real_data_folder

N_ROWS, LENGTHS = 3_000, (1, 2, 4, 8, 14)
RULES = {"never": lambda ranges: {}, "all": dict, "counts": number_ends.find_ends}


def memory_model(kind, seed, columns=("item",)):
    """Return the default way with a memory of levels."""
    events = "all" if kind is DINRegressor else "positive"
    names = {"user": "user", "time": "time", "columns": [*columns]}
    memory = HistoryBuilder(**names, events=events, levels="auto")
    return make_pipeline(
        memory, HistorySequenceEncoder(user="user", time="time"), kind(random_state=seed)
    )


def made_log(n_rows, seed, *, pairs=1.0):
    """Return impressions of 300 users and 60 items, what users think of items, and the noise."""
    rng = np.random.RandomState(seed)
    user, item = rng.randint(300, size=n_rows), rng.randint(60, size=n_rows)
    X = pd.DataFrame({"user": user, "item": item, "time": np.arange(n_rows)})
    liked = rng.normal(size=300)[user] + rng.normal(size=60)[item]
    return X, liked + pairs * rng.normal(size=(300, 60))[user, item], rng


def growth(seed, with_anew=False):
    """Yield log losses by how long the log is, in lengths of training."""
    X, liked, rng = made_log((max(LENGTHS) + 1) * N_ROWS, seed)
    p = 1 / (1 + np.exp(1 - liked))
    y = (rng.random_sample(len(p)) < p).astype(int)
    model = told = memory_model(DINClassifier, seed).fit(X[:N_ROWS], y[:N_ROWS])
    known = N_ROWS
    for length in LENGTHS:
        start = length * N_ROWS
        told = remember(told, X[known:start], y[known:start]) if start > known else told
        known, now = start, slice(start, start + N_ROWS // 3)
        live = live_predictions(told, X[now], y[now], every=100)
        ways = {"truth": p[now], "live": live, "frozen": model.predict_proba(X[now])[:, 1]}
        if with_anew:
            anew = clone(model).fit(X[:start], y[:start])
            ways["anew"] = live_predictions(anew, X[now], y[now], every=100)
        for way, own in ways.items():
            yield way, f"x {length}", log_loss(y[now], own)


def real(X, y, columns, seed):
    """Yield the log loss of the last fifth, live, of a model of the first fifth told the rest."""
    order = np.argsort(X["time"].to_numpy(), kind="stable")
    X, y, fifth = X.iloc[order].reset_index(drop=True), np.asarray(y)[order], len(X) // 5
    model = memory_model(DINClassifier, seed, columns).fit(X[:fifth], y[:fifth])
    told = remember(model, X[fifth : 4 * fifth], y[fifth : 4 * fifth])
    every = np.ptp(X["time"][4 * fifth :]) / 30
    p = live_predictions(told, X[4 * fifth :], y[4 * fifth :], every=every)
    yield "live", "last fifth", log_loss(y[4 * fifth :], p)


def movielens(seed):
    log = pd.read_csv(real_data_folder() / "ml-latest-small" / "ratings.csv.gz")
    log = log.rename(columns={"userId": "user", "movieId": "item", "timestamp": "time"})
    return real(log[["user", "item", "time"]], log["rating"] >= 4, ["item"], seed)


def movies(seed):
    log = pd.read_parquet(real_data_folder() / "movies.parquet")
    columns = ["user", "item", "time", "category", "year"]
    return real(log[columns], log["label"], ["item", "category"], seed)


def trend(seed, kind, by="live"):
    """Yield errors by thirds of as many rows as were trained on."""
    X, liked, rng = made_log(2 * N_ROWS, seed, pairs=0.0)
    moved = 2 * X["time"].to_numpy() / N_ROWS
    model, y = memory_model(kind, seed), liked + moved + rng.normal(size=len(X))
    if kind is DINClassifier:
        y = (rng.random_sample(len(X)) < 1 / (1 + np.exp(2 - liked - moved))).astype(int)
    if by == "year":
        X = X.drop(columns="time").assign(year=2000 + np.floor(10 * moved))
        model = make_pipeline(HistorySequenceEncoder(), kind(random_state=seed))
    model.fit(X[:N_ROWS], y[:N_ROWS])
    X, y = X[N_ROWS:], y[N_ROWS:]
    p = model.predict(X) if by == "year" else live_predictions(model, X, y, every=100)
    score = log_loss if kind is DINClassifier else root_mean_squared_error
    for third, rows in enumerate(np.split(np.arange(N_ROWS), 3), start=1):
        yield by, f"third {third}", score(y[rows], p[rows])


SETS = {
    "growth": growth,
    "anew": partial(growth, with_anew=True),
    "MovieLens": movielens,
    "movies": movies,
    "rising mean": partial(trend, kind=DINRegressor),
    "rising rate": partial(trend, kind=DINClassifier),
    "year": partial(trend, kind=DINRegressor, by="year"),
}


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="part of a set's name")
    parser.add_argument("--rule", default="", help="part of a rule's name")
    options, rows = parser.parse_args(), []
    names = [name for name in SETS if options.only in name]
    for name, rule in product(names, (rule for rule in RULES if options.rule in rule)):
        with patch("sklearn_din.network.number_bins.find_ends", RULES[rule]):
            for seed in range(options.seeds):
                rows += [(name, *measured, rule) for measured in SETS[name](seed)]
                print(*rows[-1], flush=True)
    table = pd.DataFrame(rows, columns=["set", "way", "when", "loss", "rule"])
    means = table.groupby(["set", "way", "when", "rule"], sort=False)["loss"].mean().unstack()
    print_frame(means.map("{:.4f}".format).reset_index(), "Means over seeds, by where numbers end")


if __name__ == "__main__":
    main()
