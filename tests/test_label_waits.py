"""Labels that are known sooner than others: no split trains on rows known for their label."""

import logging
import re

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.metrics import log_loss
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from sklearn_din import (
    DINClassifier,
    HistoryBuilder,
    HistorySequenceEncoder,
    TimeSplit,
    attach_aggregates,
    live_predictions,
    live_scoring,
    remember,
    update,
)
from sklearn_din.__main__ import main
from sklearn_din.utils.label_waits import ERRORS, LEAST, RATIO, compare_waits

NAMES = {"user": "user", "time": "time", "columns": ["offer"], "events": "all", "known": "known"}
SOON, LATE = 0.5, 7.0


def make_log(seed=0, n=6000, *, late=0.0):
    """Offers of which some are bought: known at once, others when their week is over."""
    chance = np.random.RandomState(seed)
    when = np.sort(chance.uniform(90, size=n))
    offer = 18 + when.astype(int) - chance.randint(18, size=n)
    quality = chance.normal(scale=1.5, size=108)
    X = pd.DataFrame({"user": chance.randint(300, size=n), "offer": offer, "time": when})
    y = (chance.uniform(size=n) < 1 / (1 + np.exp(1 - quality[offer]))).astype(int)
    is_late = chance.uniform(size=n) < late
    waits = np.where(is_late, chance.uniform(LATE, 40, size=n), np.where(y == 1, SOON, LATE))
    return X.assign(known=X["time"] + waits), y


def make_honest(kind, seed, n):
    """A log of users who differ, whose labels have nothing to do with when they are known."""
    chance = np.random.RandomState(seed)
    time = np.sort(chance.uniform(90, size=n))
    taste = chance.normal(size=n // 20 + 2)[chance.randint(n // 20 + 2, size=n)]
    age, logit = time / 90, taste - 1
    if kind in ("random", "constant"):
        waits = [
            np.full(n, LATE),
            chance.exponential(3, n),
            chance.lognormal(0, 2, n),
            chance.poisson(2, n).astype(float),
        ][0 if kind == "constant" else 1 + seed % 3]
    elif kind == "batches":  # each night, and the rate moves by the hour
        waits, logit = 1 - time % 1, -1.5 + time % 1
    else:  # rates drift, and so do waits, up or down, or from one day to the next
        logit = logit + (3 if seed % 2 else -3) * (age - 0.5)
        waits = {"up": 1 + 9 * age, "down": 10 - 9 * age, "step": np.where(age < 0.5, 2, 9)}[kind]
    y = (chance.uniform(size=n) < 1 / (1 + np.exp(-logit))).astype(int)
    return pd.DataFrame({"user": 1, "offer": 1, "time": time, "known": time + waits}), y


def split(X, y=None, **parameters):
    options = {"n_splits": 1, "test_size": 0.1, "time": "time", "known": "known"} | parameters
    return next(TimeSplit(**options).split(X, y))


def limit_of(X, y):
    waits = compare_waits(X["time"].to_numpy(), X["known"].to_numpy(), y, None)
    return 0.0 if waits is None else waits.age


@pytest.mark.parametrize("late", [0, 0.001, 0.01, 0.05])
@pytest.mark.parametrize("n", [100, 6000])
def test_the_age_is_that_of_the_later_label_whatever_the_stragglers(late, n):
    for seed in range(10):
        X, y = make_log(seed, n, late=late)
        assert limit_of(X, y) == pytest.approx(LATE)
        assert limit_of(X, 1 - y) == pytest.approx(LATE)
        assert limit_of(X.iloc[::-1], y[::-1]) == pytest.approx(LATE)


@pytest.mark.parametrize("kind", ["random", "constant", "up", "down", "step", "batches"])
def test_waits_that_do_not_depend_on_the_label_keep_all_rows(kind, caplog):
    for seed in range(30):
        for n in (200, 2000):
            X, y = make_honest(kind, seed, n)
            for with_labels, without in zip(split(X, y), split(X), strict=True):
                np.testing.assert_array_equal(with_labels, without)
    assert not caplog.messages


@pytest.mark.parametrize("is_sorted", [False, True])
def test_each_rows_own_window_is_no_honest_moment(is_sorted):
    for seed in range(5):
        chance = np.random.RandomState(seed)
        days = np.repeat(np.tile([3.0, 5.0, 7.0, 10.0], 13), 150)  # a wave of offers each week
        if not is_sorted:
            chance.shuffle(days)
        X = pd.DataFrame({"time": np.repeat(np.arange(0, 91, 7.0), 600)})
        y = (chance.uniform(size=len(X)) < (days - 3) / 10).astype(int)
        X["known"] = X["time"] + days
        assert limit_of(X, y) == 10


def compare_slowly(times, known, y):
    """The largest age, by a loop over ages and over rows of nearly the same time."""
    waits = known - times
    span, order = waits.mean() / 50, np.argsort(times, kind="stable")
    begin = times[order[0]]
    groups = {}
    for number, row in enumerate(order):
        first = times[order[number - number % 2]]
        groups.setdefault((first - begin) // span, []).append(row)
    sums, total = {}, 0.0
    for rows in groups.values():
        ones = [row for row in rows if y[row] == 1]
        zeros = [row for row in rows if y[row] == 0]
        total += len(ones) * len(zeros) / len(rows)
        for row in rows:
            sums[row] = (len(zeros) if y[row] == 1 else len(ones)) / len(rows)
    ages = sorted({*waits.tolist()})
    largest = None
    for age, following in zip(ages, ages[1:], strict=False):
        shares = [
            sum(sums[row] for row in sums if y[row] == label and waits[row] <= age) / total
            for label in (0, 1)
        ]
        low, high = sorted(shares)
        mean = (low + high) / 2
        error = (mean * (1 - mean) / total) ** 0.5
        if high > LEAST and high > RATIO * low and high - low > ERRORS * error:
            largest = following
    return largest


def test_the_comparison_is_that_of_a_loop():
    n_found = 0
    for seed in range(60):
        chance = np.random.RandomState(seed)
        times, y = chance.randint(60, size=150), (chance.uniform(size=150) < 0.4).astype(int)
        waits = chance.randint(12, size=150) + y * chance.randint(8) * chance.randint(2, size=150)
        expected = compare_slowly(times, times + waits, y)
        waits = compare_waits(times, times + waits, y, None)
        assert (None if waits is None else waits.age) == expected
        n_found += expected is not None
    assert 10 < n_found < 50


@pytest.mark.parametrize("unit", [None, "s", "ms"])
def test_rows_are_left_out_to_the_moment_and_one_line_says_so(unit, caplog):
    X, y = make_log()
    X = (X[["time", "known"]] * 86_400).astype(int)  # whole seconds
    numbers = X.copy()
    if unit is not None:
        X = X.astype("datetime64[s]").astype({"known": f"datetime64[{unit}]"})
    week = int(LATE * 86_400)
    for rows in (X, pl.from_pandas(X)):
        caplog.clear()
        for train, test in TimeSplit(3, time="time", known="known").split(rows, y):
            first = numbers["time"].iloc[test].min()
            is_old = (numbers["time"] < first - week) & (numbers["known"] < first)
            n_more = (numbers["time"].iloc[train].max() - first) / -week
            assert 1 <= n_more < 1.01
            assert set(train) <= set(np.flatnonzero(is_old)) | {*train}
    waits = "43200, 0 after 604800" if unit is None else "12 hours, 0 after 7 days"
    assert compare_text(X, y).startswith(f"1 is known after {waits}: of rows of the newest ")


def compare_text(X, y):
    caught = []
    handler = logging.Handler()
    handler.emit = lambda record: caught.append(record.getMessage())
    logging.getLogger("sklearn_din").addHandler(handler)
    try:
        from sklearn_din.utils.warnings import log_once

        log_once.cache_clear()
        split(X, y)
        split(X, y)
    finally:
        logging.getLogger("sklearn_din").removeHandler(handler)
    (text,) = caught
    return text
