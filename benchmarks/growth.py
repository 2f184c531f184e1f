"""Numbers beyond training's: a memory that grows, and trends that go on, by where numbers end.

``python -m benchmarks.growth [--seeds 3] [--only WORD] [--rule WORD]`` fits by each rule: numbers
"never" end, "all" end where a thousandth of the training rows reach, or "counts" and times elapsed
of a memory do, others one range beyond (the default). Growth: a stationary made log that is told
for 14 times training's length, live at each doubling beside the truth, the memory that ended with
training ("frozen") and a fit of all rows so far ("anew"). Small: 24 stationary logs of 1,000 rows
to learn, by items or by tastes too, told for eight times as many and then live, or frozen, less
none: a builder without levels, live; their mean, and the worst. Real logs are fitted on the first
fifth, told the rest, the last fifth live. Trends, by thirds of as many rows as trained on: a live
memory of numbers whose mean rises, ``year`` (RMSE, 1 by noise alone), a live memory whose rate
rises (log loss).
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
from sklearn_din import module
from sklearn_din.features.number_ends import find_ends
from tests.real_data import real_data_folder

N_ROWS, LENGTHS = 3_000, (1, 2, 4, 8, 14)
RULES = {"never": lambda *_: {}, "all": lambda ranges, _: dict(ranges), "counts": find_ends}


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
        if module.find_ends is find_ends:
            ways["anew"] = live(clone(model).fit(X[:start], y[:start]))
        for way, own in ways.items():
            yield way, f"x {length}", log_loss(y[now], own)


def small(seed, name):
    n, gaps = 1_000, {"live": [], "frozen": []}
    for own in range(4 * seed, 4 * seed + 4):  # of each of the two kinds, with three seeds twelve
        rng = np.random.RandomState(own)
        user, item = rng.randint(80, size=10 * n), rng.randint(30, size=10 * n)
        kind, tastes = (
            rng.randint(6, size=30)[item],
            (name == "small, tastes") * rng.normal(size=(80, 6)),
        )
        X = pd.DataFrame({"user": user, "item": item, "category": kind, "time": np.arange(10 * n)})
        z = rng.normal(size=80)[user] + rng.normal(size=30)[item] + tastes[user, kind] - 0.5
        y, now = (
            (rng.random_sample(10 * n) < 1 / (1 + np.exp(-z))).astype(int),
            slice(9 * n, 10 * n),
        )
        loss = dict[str, float]()
        for way, levels in (("none", None), ("live", "auto")):
            model = memory_model(own, ["item", "category"])
            model.set_params(historybuilder__events="all", historybuilder__levels=levels)
            told = din.remember(model.fit(X[:n], y[:n]), X[n : 9 * n], y[n : 9 * n])
            loss[way] = log_loss(y[now], din.live_predictions(told, X[now], y[now], every=100))
        loss["frozen"] = log_loss(y[now], model.predict_proba(X[now])[:, 1])
        yield "none", "", loss["none"]
        for way, own_gaps in gaps.items():
            own_gaps.append(loss[way] - loss["none"])
            yield way, "less none", own_gaps[-1]
    for way, own_gaps in gaps.items():
        yield way, "worst of four", max(own_gaps)


def real(seed, name):
    if name == "movies":
        log, columns = pd.read_parquet(real_data_folder() / "movies.parquet"), ["item", "category"]
        X = log[["user", "time", "year", *columns]]
    else:
        log, columns = pd.read_csv(real_data_folder() / name / "ratings.csv.gz"), ["item"]
        X = log.drop(columns="rating").set_axis(["user", "item", "time"], axis=1)
        log["label"] = (log["rating"] >= 4).astype(int)
    order, fifth = np.argsort(X["time"].to_numpy(), kind="stable"), len(X) // 5
    X, y = X.iloc[order], log["label"].to_numpy()[order]
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
SETS |= dict.fromkeys(["small", "small, tastes"], small)
SETS |= dict.fromkeys(["rising mean", "rising rate", "year"], trend)


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth")
    parser.add_argument("--seeds", type=int, default=3)
    for option in ("--only", "--rule"):
        parser.add_argument(option, default="", help="part of the name")
    options, rows = parser.parse_args(), []
    names = [name for name in SETS if options.only in name]
    for name, rule in product(names, (rule for rule in RULES if options.rule in rule)):
        with patch.object(module, "find_ends", RULES[rule]):
            for seed in range(options.seeds):
                rows += [(name, *measured, rule) for measured in SETS[name](seed, name)]
    table = pd.DataFrame(rows, columns=["set", "way", "when", "loss", "rule"])
    means = table.groupby([*table.columns.drop("loss")], sort=False)["loss"].mean().unstack()
    print_frame(means.map("{:.4f}".format).reset_index(), "Means over seeds, by where numbers end")


if __name__ == "__main__":
    main()
