"""A memory that grows, and trends that go on, beyond what training had.

``python -m benchmarks.growth [--seeds 3] [--only WORD] [--rule WORD]`` fits by each rule: "as it
is", or times "elapsed" of a memory are read whatever the number of training rows. Growth: a
stationary made log that is told for 14 times training's length, live at each doubling beside the
truth, the memory that ended with training ("frozen") and a fit of all rows so far ("anew"). Small:
24 stationary logs of 1,000 rows to learn, by items or by tastes too, and 24 windows of real ones,
told for eight times as many and then live, or frozen, less none: a builder without levels, live;
their mean, and the worst. Real logs are fitted on the first fifth, told the rest, the last fifth
live. Trends, by thirds of as many rows as trained on: a live memory of numbers whose mean rises,
``year`` (RMSE, 1 by noise alone), a live memory whose rate rises (log loss).
"""

import argparse
from functools import partial
from itertools import product
from unittest.mock import patch

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.metrics import log_loss
from sklearn.metrics import root_mean_squared_error as rmse
from sklearn.pipeline import make_pipeline

import sklearn_din as din
from benchmarks.tables import print_frame
from sklearn_din.network import number_bins
from tests.real_data import real_data_folder

N_ROWS, LENGTHS = 3_000, (1, 2, 4, 8, 14)
RULES = {"elapsed": 0, "as it is": number_bins.ROWS_OF_ELAPSED}
REAL_WINDOWS = {"small, movies": "movies", "small, MovieLens": "ml-latest-small"}


def memory_model(seed, columns=("item",), kind=din.DINClassifier):
    options = {"levels": "auto", "events": "all" if kind is din.DINRegressor else "positive"}
    memory = din.HistoryBuilder(user="user", time="time", columns=[*columns], **options)
    encoder = din.HistorySequenceEncoder(user="user", time="time")
    return make_pipeline(memory, encoder, kind(random_state=seed))


def made_log(n_rows, seed, *, pairs):
    rng = np.random.RandomState(seed)
    user, item = rng.randint(300, size=n_rows), rng.randint(60, size=n_rows)
    X = pd.DataFrame({"user": user, "item": item, "time": np.arange(n_rows)})
    liked = rng.normal(size=300)[user] + rng.normal(size=60)[item]
    return X, liked + pairs * rng.normal(size=(300, 60))[user, item], rng


def growth(seed, _):
    X, liked, rng = made_log((max(LENGTHS) + 1) * N_ROWS, seed, pairs=1.0)
    p = 1 / (1 + np.exp(1 - liked))
    y = (rng.random_sample(len(p)) < p).astype(int)
    model = told = memory_model(seed).fit(X[:N_ROWS], y[:N_ROWS])
    for known, length in zip((1, *LENGTHS), LENGTHS, strict=False):
        start, since = length * N_ROWS, slice(known * N_ROWS, length * N_ROWS)
        told = din.remember(told, X[since], y[since]) if known < length else told
        now = slice(start, start + N_ROWS // 3)
        live = partial(din.live_predictions, X=X[now], y=y[now], every=100)
        ways = {"truth": p[now], "live": live(told), "frozen": model.predict_proba(X[now])[:, 1]}
        ways["anew"] = live(clone(model).fit(X[:start], y[:start]))
        for way, own in ways.items():
            yield way, f"x {length}", log_loss(y[now], own)


def small_log(name, seed, n):
    """Ten times n rows, stationary by items or by tastes too, or a window of a real log."""
    rng = np.random.RandomState(seed)
    if name in REAL_WINDOWS:
        X, y, columns = real_log(REAL_WINDOWS[name])
        window = slice(start := rng.randint(len(X) - 10 * n), start + 10 * n)
        return X[window].reset_index(drop=True), y[window], columns
    user, item = rng.randint(80, size=10 * n), rng.randint(30, size=10 * n)
    kind, tastes = rng.randint(6, size=30)[item], rng.normal(size=(80, 6))
    X = pd.DataFrame({"user": user, "item": item, "category": kind, "time": np.arange(10 * n)})
    z = rng.normal(size=80)[user] + rng.normal(size=30)[item] - 0.5
    z += (name == "small, tastes") * tastes[user, kind]
    y = (rng.random_sample(10 * n) < 1 / (1 + np.exp(-z))).astype(int)
    return X, y, ["item", "category"]


def small(seed, name):
    n, gaps = 1_000, {"live": [], "frozen": []}
    for own in range(4 * seed, 4 * seed + 4):  # of each of the kinds, with three seeds twelve
        X, y, columns = small_log(name, own, n)
        now, loss = slice(9 * n, 10 * n), dict[str, float]()
        for way, levels in (("none", None), ("live", "auto")):
            model = memory_model(own, columns)
            model.set_params(historybuilder__events="all", historybuilder__levels=levels)
            told = din.remember(model.fit(X[:n], y[:n]), X[n : 9 * n], y[n : 9 * n])
            every = np.ptp(X["time"][now]) / 10
            loss[way] = log_loss(y[now], din.live_predictions(told, X[now], y[now], every=every))
        loss["frozen"] = log_loss(y[now], model.predict_proba(X[now])[:, 1])
        yield "none", "", loss["none"]
        for way, own_gaps in gaps.items():
            own_gaps.append(loss[way] - loss["none"])
            yield way, "less none", own_gaps[-1]
    for way, own_gaps in gaps.items():
        yield way, "worst of four", max(own_gaps)


def real_log(name):
    """Rows of a real log in the order of time, their labels and the columns of its events."""
    if name == "movies":
        log, columns = pd.read_parquet(real_data_folder() / "movies.parquet"), ["item", "category"]
        X = log[["user", "time", "year", *columns]]
    else:
        log, columns = pd.read_csv(real_data_folder() / name / "ratings.csv.gz"), ["item"]
        X = log.drop(columns="rating").set_axis(["user", "item", "time"], axis=1)
        log["label"] = (log["rating"] >= 4).astype(int)
    order = np.argsort(X["time"].to_numpy(), kind="stable")
    return X.iloc[order], log["label"].to_numpy()[order], columns


def real(seed, name):
    X, y, columns = real_log(name)
    fifth = len(X) // 5
    model = memory_model(seed, columns).fit(X[:fifth], y[:fifth])
    told = din.remember(model, X[fifth : 4 * fifth], y[fifth : 4 * fifth])
    X, y = X[4 * fifth :], y[4 * fifth :]
    yield "live", "", log_loss(y, din.live_predictions(told, X, y, every=np.ptp(X["time"]) / 30))


def trend(seed, name):
    X, liked, rng = made_log(2 * N_ROWS, seed, pairs=0.0)
    moved = 2 * X["time"].to_numpy() / N_ROWS
    y, kind, score = liked + moved + rng.normal(size=len(X)), din.DINRegressor, rmse
    if name == "rising rate":
        y = (rng.random_sample(len(X)) < 1 / (1 + np.exp(2 - liked - moved))).astype(int)
        kind, score = din.DINClassifier, log_loss
    model = memory_model(seed, kind=kind)
    if name == "year":
        X = X.drop(columns="time").assign(year=2000 + np.floor(10 * moved))
        model = make_pipeline(din.HistorySequenceEncoder(), kind(random_state=seed))
    model.fit(X[:N_ROWS], y[:N_ROWS])
    X, y = X[N_ROWS:], y[N_ROWS:]
    p = model.predict(X) if name == "year" else din.live_predictions(model, X, y, every=100)
    for rows in np.split(np.arange(N_ROWS), 3):
        yield "live", f"from {rows[0]}", score(y[rows], p[rows])


SETS = {"growth": growth, "ml-latest-small": real, "movies": real}
SETS |= dict.fromkeys(["small", "small, tastes", *REAL_WINDOWS], small)
SETS |= dict.fromkeys(["rising mean", "rising rate", "year"], trend)


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth")
    parser.add_argument("--seeds", type=int, default=3)
    for option in ("--only", "--rule"):
        parser.add_argument(option, default="", help="part of the name")
    options, rows = parser.parse_args(), []
    names = [name for name in SETS if options.only in name]
    for name, rule in product(names, (rule for rule in RULES if options.rule in rule)):
        with patch.object(number_bins, "ROWS_OF_ELAPSED", RULES[rule]):
            for seed in range(options.seeds):
                rows += [(name, *measured, rule) for measured in SETS[name](seed, name)]
    table = pd.DataFrame(rows, columns=["set", "way", "when", "loss", "rule"])
    means = table.groupby([*table.columns.drop("loss")], sort=False)["loss"].mean().unstack()
    print_frame(means.map("{:.4f}".format).reset_index(), "Means over seeds")


if __name__ == "__main__":
    main()
