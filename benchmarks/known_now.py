"""What it gives to know what came of earlier rows: levels as of now, and as of the end of training.

``python -m benchmarks.known_now [--seeds 3] [--only WORD] [--method WORD] [--costs] [--outcomes]``
fits, on real verdicts and made logs with true labels, the default way without levels; with those of
user, item, category and pairs, asked of a memory that is told each row at once ("live") or that
ends with training ("frozen"); the same without pairs, with boosted trees; LightGBM on the live
columns beside its usual ones (``verdicts.py``). It prints AUC, GAUC, log loss, "gauc at once" (as
``verdicts.py``) and CPU seconds, means over seeds, and differences of log loss with their standard
errors of pairs. Two logs are made here: "new each week" has items of a week, of differing quality;
in "rates that drift" all rates move from week to week. ``--costs`` prints instead the seconds of
``remember`` of 1,000 rows on a million, and the bytes of a memory; ``--outcomes``, of three logs,
the log loss of histories with what came of each event: attached by hand, and by a HistoryBuilder
with ``outcomes``, live, frozen and told after each hundredth of the log's time, beside builders
without.
"""

import argparse
import time
from functools import partial

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline

from benchmarks.answer_log import make_answer_log
from benchmarks.default_fit import frames_of
from benchmarks.tables import print_frame
from benchmarks.verdicts import at_once, lightgbm, scores_of
from sklearn_din import (
    DINClassifier,
    HistoryBuilder,
    HistorySequenceEncoder,
    attach_aggregates,
    attach_history,
    live_predictions,
    remember,
)
from tests.real_data import real_data_folder

REAL = ["movies", "videos", "MovieLens by time", "market, 2 %", "answers"]
MADE = {"new each week": 0.0, "rates that drift": 0.5}
OUTCOMES = ["answers", "film verdicts", "flights"]
WEEK = 7 * 86_400


def make_log(drift, seed, *, n_users=2000, n_per_week=40, n_weeks=12, n_rows=60_000):
    """Impressions of items that are shown for two weeks, and what came of them."""
    rng = np.random.RandomState(seed)
    now = np.sort(rng.randint(n_weeks * WEEK, size=n_rows))
    week, user = now // WEEK, rng.randint(n_users, size=n_rows)
    item = np.maximum(week - rng.randint(2, size=n_rows), 0) * n_per_week
    item += rng.randint(n_per_week, size=n_rows)
    category = rng.randint(12, size=n_weeks * n_per_week)
    quality = rng.normal(size=n_weeks * n_per_week)
    taste = rng.normal(scale=0.8, size=(n_users, 12))
    moved = np.cumsum(rng.normal(scale=drift, size=n_weeks))
    odds = quality[item] + taste[user, category[item]] + rng.normal(size=n_users)[user] - 1
    y = (rng.random_sample(n_rows) < 1 / (1 + np.exp(-odds - moved[week]))).astype(int)
    X = pd.DataFrame({"user": user, "item": item, "category": category[item], "time": now})
    X = attach_history(X, X[y == 1], user="user", time="time", columns=["item", "category"])
    is_test = now >= 0.8 * n_weeks * WEEK
    parts = X[~is_test], y[~is_test], X[is_test], y[is_test], user[is_test]
    return (*parts, {"user": "user", "time": "time"})


def attach_levels(shown, log, user, ids, *, pairs=True):
    """Return rows with levels as of their moments by a log."""
    keys = [user, *ids, *((user, name) for name in ids if pairs)]
    log = log[[*dict.fromkeys([user, *ids, "time", "label"])]]
    options = {"time": "time", "label": "label", "aggregates": "levels"}
    return attach_aggregates(shown, log, levels=keys, **options)


def predict(X, y, tests, *, seed, parameters, **options):
    """Click probabilities of several frames by the default way."""
    encoder = HistorySequenceEncoder(**parameters)
    classifier = DINClassifier(random_state=seed, **options).fit(encoder.fit_transform(X), y)
    return [classifier.predict_proba(encoder.transform(rows))[:, 1] for rows in tests]


def rate_of_item(X, y, tests, **_):
    """The same by the item's rate alone, shrunk to the average one."""
    return [rows["item_rate"].fillna(y.mean()).to_numpy() for rows in tests]


def measure(name, seed, word):
    """Yield measures by method on one set."""
    made = make_log(MADE[name], seed) if name in MADE else frames_of(name, seed)
    X, y, rows, labels, users, parameters = made
    X, rows = X.reset_index(drop=True), rows.reset_index(drop=True)
    user, ids = parameters["user"], [column for column in X if f"hist_{column}" in X]
    train = X.assign(label=y)
    log = pd.concat([train, rows.assign(label=labels)], ignore_index=True)
    once = at_once(rows, user)
    methods = {
        "default": lambda: predict(X, y, [rows, once], seed=seed, parameters=parameters),
        "live": lambda: with_levels(log),
        "live, no pairs": lambda: with_levels(log, pairs=False),
        "frozen": lambda: with_levels(train),
        "live, trees": lambda: with_levels(log, way=partial(predict, trees=True)),
        "frozen, trees": lambda: with_levels(train, way=partial(predict, trees=True)),
        "LightGBM live": lambda: with_levels(log, way=trees),
        "item's rate live": lambda: with_levels(log, way=rate_of_item),
    }

    def with_levels(known, way=predict, **options):
        frames = [attach_levels(X, train, user, ids, **options)]
        frames += [attach_levels(frame, known, user, ids, **options) for frame in (rows, once)]
        return way(frames[0], y, frames[1:], seed=seed, parameters=parameters)

    def trees(X, y, tests, *, seed, parameters):
        options = {"user": user, "seed": seed, "parameters": parameters, "labels": labels}
        return lightgbm(X, y, *tests, **options)

    for method in (method for method in methods if word in method):
        began = time.process_time()
        p, q = methods[method]()
        seconds = time.process_time() - began
        yield {
            "set": name,
            "seed": seed,
            "method": method,
            **scores_of(labels, users, p, q),
            "cpu_seconds": seconds,
        }


def log_with_outcome(name, seed):
    """Rows in the order of time, labels, columns of events, and names of outcome and moment."""
    rng = np.random.RandomState(seed)
    if name == "answers":
        X = make_answer_log(random_state=seed).events
        right = (X.pop("answer") == "right").astype(int)
        return X, right.to_numpy(), ["item", "skill"], right, "time"
    if name == "film verdicts":  # a rating is read in the histories of the user's later rows
        X = pd.read_parquet(real_data_folder() / "movies.parquet").sort_values(
            "time", kind="stable"
        )
        events = X[["user", "hist_item", "hist_rating"]].explode(["hist_item", "hist_rating"])
        events = events.dropna().drop_duplicates(["user", "hist_item"])
        rating = events.set_index(["user", "hist_item"])["hist_rating"].astype(float)
        rating = rating.reindex(pd.MultiIndex.from_frame(X[["user", "item"]])).to_numpy()
        X = X[["user", "item", "category", "year", "time", "label"]].reset_index(drop=True)
        return X, X.pop("label").to_numpy(), ["item", "category"], rating, "time"
    n_rows, n_planes = 40_000, 300  # flights: a plane's delay is left over from its last flight
    X = pd.DataFrame({"user": rng.randint(n_planes, size=n_rows), "time": np.arange(n_rows) * 60})
    X["item"] = rng.randint(40, size=n_rows)
    left, late = np.zeros(n_planes), np.zeros(n_rows)
    for row, (plane, place) in enumerate(zip(X["user"], X["item"], strict=True)):
        late[row] = left[plane] = 0.8 * left[plane] + rng.normal(scale=10) + place % 5 - 2
    X["known"] = X["time"] + 60 * rng.randint(30, 400, size=n_rows)
    return X, (late > 5).astype(int), ["item"], late, "known"


def measure_outcomes(name, seed):
    """Yield log losses by method on one log with outcomes."""
    X, y, columns, outcome, known = log_with_outcome(name, seed)
    rows = X.assign(outcome=outcome)
    train = np.arange(len(X)) < 0.8 * len(X)
    train &= (X[known] <= X["time"][train].max()).to_numpy()
    test = np.arange(len(X)) >= 0.8 * len(X)
    names, asked = {"user": "user", "time": "time"}, [n for n in X if n != known or n == "time"]
    log = rows.assign(time=rows[known]).sort_values("time", kind="stable")
    attached = attach_history(
        X[asked], log, **names, columns=[*columns, "outcome"], elapsed="hist_outcome_age"
    )
    p = predict(attached[train], y[train], [attached[test]], seed=seed, parameters=names)
    yield {"log": name, "seed": seed, "method": "attached", "log_loss": log_loss(y[test], p[0])}
    told = {"outcomes": "outcome", "known": known, "events": "all"}
    for method, options in (
        ("clicks", {}),
        ("all shown", {"events": "all"}),
        ("outcomes", told),
        ("outcomes and levels", {**told, "levels": "auto"}),
    ):
        memory = HistoryBuilder(**names, columns=columns, **options)
        encoder, classifier = HistorySequenceEncoder(**names), DINClassifier(random_state=seed)
        model = make_pipeline(memory, encoder, classifier).fit(
            (rows if "known" in options else X[asked])[train], y[train]
        )
        span = np.ptp(rows["time"])
        for when, every in (("live", 0), ("told each evening", span / 100), ("frozen", 2 * span)):
            p = live_predictions(model, rows[~train], y[~train], every=every)[test[~train]]
            loss = log_loss(y[test], p)
            yield {"log": name, "seed": seed, "method": f"{method}, {when}", "log_loss": loss}


def print_outcomes(n_seeds, word):
    """Print log losses of histories with outcomes, attached and by a builder."""
    results = []
    for name in (name for name in OUTCOMES if word in name):
        for seed in range(n_seeds):
            for measured in measure_outcomes(name, seed):
                results.append(measured)
                print(*measured.values(), flush=True)
    table = pd.DataFrame(results).pivot_table("log_loss", "method", "log", sort=False)
    print_frame(table.map("{:.4f}".format).reset_index(), "Log loss, means over seeds")


def rows_of(n_rows, *, n_users, n_items):
    """Rows in the order of time, and labels by chance."""
    rng = np.random.RandomState(0)
    item = rng.randint(n_items, size=n_rows)
    columns = {"user": rng.randint(n_users, size=n_rows), "item": item, "category": item % 40}
    columns["time"] = np.arange(n_rows) * 60
    return pd.DataFrame(columns), (rng.random_sample(n_rows) < 0.2).astype(int)


def cpu_seconds(function, *given, rounds=1):
    """Median CPU seconds of calls, and what the last one returned."""
    seconds = []
    for _ in range(rounds):
        began = time.process_time()
        result = function(*given)
        seconds.append(time.process_time() - began)
    return np.median(seconds), result


def print_costs():
    """Print what it costs to remember a thousand rows beside a million, and all of these."""
    names = {"user": "user", "time": "time", "columns": ["item", "category"]}
    X, y = rows_of(1_000_000, n_users=100_000, n_items=20_000)
    memory = HistoryBuilder(**names, levels="auto").fit(X, y)
    memory.transform(X[:1])
    some, labels = X.sample(1000, random_state=0), y[X.sample(1000, random_state=0).index]
    new = some.assign(time=X["time"].max() + 60 * np.arange(1, 1001))
    for what, later, values in (
        ("new", new, labels),
        ("with other labels", some, 1 - labels),
        ("given twice", some, labels),
    ):
        told, newer = cpu_seconds(remember, memory, later, values, rounds=5)
        asked, _ = cpu_seconds(newer.transform, new[:1], rounds=5)
        print(
            f"remember 1,000 rows {what} on 1,000,000: {told:.3f} s; the next row "
            f"{1000 * asked:.1f} ms",
            flush=True,
        )
    rows, index = memory.memory_, memory.memory_._index
    of_rows = [rows.hashes, rows.times, rows.known, rows.values, rows.replaces]
    n_bytes = sum(array.nbytes for array in [*of_rows, index.ticks, index.sums])
    print(f"1,000,000 rows: {n_bytes / 1e6:.0f} MB, and by key:")
    for key, own in index.rows.items():
        n_bytes = sum(getattr(own, name).nbytes for name in vars(own))
        print(f"  {'_'.join(key)}: {len(own.hashes):,} values, {n_bytes / 1e6:.0f} MB")


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.known_now")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="part of a set's name")
    parser.add_argument("--method", default="", help="part of a method's name")
    parser.add_argument("--costs", action="store_true", help="seconds and bytes instead")
    parser.add_argument("--outcomes", action="store_true", help="histories with what came instead")
    options, results = parser.parse_args(), []
    if options.costs:
        print_costs()
        return
    if options.outcomes:
        print_outcomes(options.seeds, options.only)
        return
    for name in (name for name in [*REAL, *MADE] if options.only in name):
        for seed in range(options.seeds):
            for measured in measure(name, seed, options.method):
                results.append(measured)
                print(*measured.values(), flush=True)
    table = pd.DataFrame(results)
    means = table.drop(columns="seed").groupby(["set", "method"], sort=False).mean()
    print_frame(means.map("{:.4f}".format).reset_index(), "Means over seeds")
    losses = table.pivot(index=["set", "seed"], columns="method", values="log_loss")
    for other in losses.columns.intersection(["default", "LightGBM live"]):
        gained = losses.sub(losses[other], axis=0).groupby("set")
        text = gained.mean().map("{:+.4f}".format) + gained.sem().map(" ± {:.4f}".format)
        print_frame(text.reset_index(), f"Log loss above that of {other}, and standard error")


if __name__ == "__main__":
    main()
