"""Labels that say themselves by when they are known, rows of one page, rates that were thinned."""

import re
from functools import partial
from itertools import pairwise

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
    attach_history,
    check,
    live_scoring,
    remember,
)
from sklearn_din.__main__ import main
from sklearn_din.utils.label_waits import ERRORS, LEAST, PARTS, RATIO, compare_waits
from sklearn_din.utils.page_rows import note_pages
from tests.tables import as_scan, said

NAMES = {"user": "user", "time": "time", "columns": ["item"], "events": "all", "levels": "auto"}
WEEK = 7.0


def make_log(seed=0, n=6000, *, late=0.0):
    """Offers of which some are bought: known at once, others when their week is over."""
    rng = np.random.RandomState(seed)
    time = np.sort(rng.uniform(90, size=n))
    item = 18 + time.astype(int) - rng.randint(18, size=n)
    X = pd.DataFrame({"user": rng.randint(300, size=n), "item": item, "time": time})
    odds = np.exp(rng.normal(scale=1.5, size=108) - 1)[item]
    y = (rng.uniform(size=n) < odds / (1 + odds)).astype(int)
    is_late = rng.uniform(size=n) < late
    waits = np.where(is_late, rng.uniform(WEEK, 40, size=n), np.where(y == 1, 0.5, WEEK))
    return X.assign(known=X["time"] + waits), y


def make_honest(kind, seed, n):
    """Rates differ by user, and drift as waits do, but no label is known for being one."""
    rng = np.random.RandomState(seed)
    time, user = np.sort(rng.uniform(90, size=n)), rng.randint(n // 20 + 2, size=n)
    draws = rng.exponential(3, n), rng.lognormal(0, 2, n), rng.poisson(2, n).astype(float)
    waits, moves = {
        "random": (draws[seed % 3], 0),
        "constant": (np.full(n, WEEK), 0),
        "nightly": (1 - time % 1, time % 1),
        "up": (1 + time / 10, time / 30),
        "down": (10 - time / 10, time / 30),
        "step": (np.where(time < 45, 2, 9), time / 30),
    }[kind]
    odds = np.exp(rng.normal(size=n // 20 + 2)[user] - 1 + moves * (-1) ** seed)
    y = (rng.uniform(size=n) < odds / (1 + odds)).astype(int)
    return pd.DataFrame({"user": user, "item": 1, "time": time, "known": time + waits}), y


def split(X, y=None, **parameters):
    return next(TimeSplit(1, test_size=0.1, time="time", **parameters).split(X, y))


def hear(call, *rows):
    """The warnings of a call."""
    return said(partial(call, *rows))[0]


def limit_of(X, y):
    waits = compare_waits(X["time"].to_numpy(), X["known"].to_numpy(), y, None)
    return None if waits is None else waits.age


@pytest.mark.parametrize("late", [0, 0.001, 0.01, 0.05])
@pytest.mark.parametrize("n", [100, 6000])
def test_the_age_is_that_of_the_later_label_whatever_the_stragglers(late, n):
    for seed in range(5):
        X, y = make_log(seed, n, late=late)
        two = np.column_stack([np.arange(n) % 2, np.where(np.arange(n) % 9, y, np.nan)])
        for labels in (y, 1 - y, np.where(y, "sold", "not"), two):
            assert limit_of(X, labels) == pytest.approx(WEEK)


@pytest.mark.parametrize("kind", ["random", "constant", "up", "down", "step", "nightly"])
def test_waits_that_do_not_depend_on_the_label_keep_all_rows(kind, caplog):
    for seed in range(20):
        for n in (200, 2000):
            X, y = make_honest(kind, seed, n)
            pairs = zip(split(X, y, known="known"), split(X, known="known"), strict=True)
            assert all(np.array_equal(*pair) for pair in pairs)
    assert not caplog.messages


@pytest.mark.parametrize("is_sorted", [False, True])
def test_the_own_window_of_each_row_is_no_honest_moment(is_sorted):
    for seed in range(5):
        rng = np.random.RandomState(seed)
        days = np.repeat(np.tile([3.0, 5.0, 7.0, 10.0], 13), 150)  # a wave of offers each week
        days = days if is_sorted else rng.permutation(days)
        X = pd.DataFrame({"time": np.repeat(np.arange(13) * WEEK, 600)})
        y = (rng.uniform(size=len(X)) < (days - 3) / 10).astype(int)
        assert limit_of(X.assign(known=X["time"] + days), y) == 10


def compare_slowly(times, waits, y):
    """The largest age, by a loop over ages and over rows of nearly the same time."""
    order, groups = np.argsort(times, kind="stable"), {}
    for number, row in enumerate(order):
        first = times[order[number - number % 2]] - times.min()
        groups.setdefault(first // (waits.mean() / PARTS), []).append(row)
    weights = {}
    for rows in groups.values():
        for row in rows:
            weights[row] = sum(y[other] != y[row] for other in rows) / len(rows)
    total, largest = sum(weights[row] for row in weights if y[row]), None
    for age, following in pairwise(sorted({*waits.tolist()})):
        shares = [0.0, 0.0]
        for row, weight in weights.items():
            shares[y[row]] += weight / total * (waits[row] <= age)
        (low, high), mean = sorted(shares), sum(shares) / 2
        error = (mean * (1 - mean) / total) ** 0.5
        if high > LEAST and high > RATIO * low and high - low > ERRORS * error:
            largest = following
    return largest


def test_the_comparison_is_that_of_a_loop():
    n_found = 0
    for seed in range(40):
        rng = np.random.RandomState(seed)
        times, y = rng.randint(60, size=150), (rng.uniform(size=150) < 0.4).astype(int)
        waits = rng.randint(1, 12, size=150) + y * rng.randint(8)
        expected = compare_slowly(times, waits, y)
        assert limit_of(pd.DataFrame({"time": times, "known": times + waits}), y) == expected
        n_found += expected is not None
    assert 10 < n_found < 40


@pytest.mark.parametrize("unit", [None, "s", "ms"])
def test_rows_are_left_out_to_the_moment_and_one_line_says_so(unit, caplog):
    numbers, y = make_log()
    numbers["time"] = (numbers["time"] * 86_400).astype(int)
    numbers["known"], X = numbers["time"] + np.where(y == 1, 43_200, 604_800), numbers
    if unit is not None:
        X = X.astype({"time": "datetime64[s]"}).astype({"known": "datetime64[s]"})
        X = X.astype({"known": f"datetime64[{unit}]"})
    for rows in (X, pl.from_pandas(X)):
        for train, test in TimeSplit(3, time="time", known="known").split(rows, y):
            limit = numbers["time"].iloc[test].min() - 604_800
            assert set(train) == set(np.flatnonzero(numbers["time"] < limit))
    waits = "43200, 0 after 604800" if unit is None else "0 days 12:00:00, 0 after 7 days"
    (line,) = caplog.messages
    assert line.startswith(f"1 is known after {waits}: of rows of the newest ")


def test_a_fit_for_service_says_that_its_newest_rows_are_of_one_label():
    X, y = make_log()
    start = pd.Timestamp(2024, 1, 1)
    dates = {name: start + pd.to_timedelta(X[name], "D") for name in ("time", "known")}
    for log in (X, X.assign(**dates)):
        builder, is_known = HistoryBuilder(**NAMES, known="known"), log["known"] < log["time"].max()
        (message,) = hear(builder.fit, log[is_known], y[is_known])
        assert "mostly those with 1 are known, which here are 121 of 5644: " in message
        (rows,) = eval(re.search(r"by X(\[.*\]), and", message).group(1), {"X": log[is_known]})
        rows = rows.reindex(log.index, fill_value=False)
        assert hear(builder.fit, log[rows], y[rows]) == []
        assert hear(remember, builder, log[~rows], y[~rows]) == []
        assert hear(remember, builder, log[is_known & ~rows], y[is_known & ~rows]) == []  # clicks
        is_new = is_known & (X["time"] > 45)
        assert "mostly those with 1" in hear(builder.partial_fit, log[is_new], y[is_new])[0]
        train, _ = split(log, y, known="known")
        assert hear(builder.fit, log.iloc[train], y[train]) == []
        assert hear(builder.fit, log, y) == []  # of the newest rows, too, both are there


def begin():
    encoder = HistorySequenceEncoder(user="user", time="time")
    builder = HistoryBuilder(**NAMES, known="known")
    return make_pipeline(builder, encoder, DINClassifier(random_state=0, max_epochs=2))


def loss_by(X, y, train, test):
    model, rest = begin().fit(X.iloc[train], y[train]), np.setdiff1d(np.arange(len(y)), train)
    told = remember(model, X.iloc[rest], y[rest])
    return log_loss(y[test], told.predict_proba(X.iloc[test])[:, 1])


@pytest.mark.slow
def test_the_guides_lines_live_scores_and_the_command_line_are_honest(tmp_path, capsys):
    X, y = make_log(n=4000)
    honest = loss_by(X, y, *split(X, gap=WEEK))
    assert loss_by(X, y, *split(X, y, known="known")) == pytest.approx(honest, abs=0.01)
    with pytest.warns(UserWarning, match="a model learns their rate as that of now"):
        assert loss_by(X, y, *split(X, known="known")) > honest + 0.1
    scoring, losses = live_scoring("neg_log_loss", every=1), []
    for option in ({"gap": WEEK}, {"known": "known"}):
        cv = TimeSplit(1, test_size=0.1, time="time", **option)
        losses.append(-cross_val_score(begin(), X, y, cv=cv, scoring=scoring).item())
    assert losses[1] == pytest.approx(losses[0], abs=0.01)
    X.assign(bought=y).to_csv(tmp_path / "log.csv", index=False)
    roles = "--user user --item item --time time --label bought --known known --split time"
    main([str(tmp_path / "log.csv"), *roles.split(), "--epochs", "2"])
    row = re.search(r"DIN with memory, live +(.*)", capsys.readouterr().out).group(1).split()
    train, test = next(TimeSplit(1, test_size=0.2, time="time", gap=WEEK).split(X))
    assert float(row[2]) == pytest.approx(loss_by(X, y, train, test), abs=0.01)


def test_a_moment_that_is_missing_is_to_be_given_where_it_says_the_label(tmp_path, capsys):
    X, y = make_log(n=400)
    roles = "--user user --item item --time time --label bought --known known"
    for known, said_then in (
        (X["known"].where(y == 1), "are missing. 100% of these have the label 0: give the moment"),
        (X["known"].where(X.index % 7 > 0), "are missing. Leave those rows out"),
        (X["time"] - 1, "400 rows whose label was known before they were"),
    ):
        rows = X.assign(known=known)
        with pytest.raises(ValueError, match=said_then):
            HistoryBuilder(**NAMES, known="known").fit(rows, y)
        if known.hasnans:
            with pytest.raises(ValueError, match=said_then):
                split(rows, y, known="known")
        rows.assign(bought=y).to_csv(tmp_path / "log.csv", index=False)
        with pytest.raises(SystemExit):
            main([str(tmp_path / "log.csv"), *roles.split()])
        assert said_then in capsys.readouterr().err


def make_pages(kind, seed=0, n=1500, size=5):
    """Pages of several rows, one of which is clicked, and logs that look like them."""
    rng = np.random.RandomState(seed)
    begin, place = rng.uniform(9e6, size=(n, 1)), np.tile(np.arange(size), (n, 1))
    is_own = rng.uniform(size=(n, size)) < 0.2
    is_clicked = (place == rng.randint(size, size=(n, 1))) & (rng.uniform(size=(n, 1)) < 0.8)
    is_mood = rng.uniform(size=(n, size)) < np.where(rng.uniform(size=(n, 1)) < 0.3, 0.6, 0.05)
    steps, y = {
        "1 ms": (place * 0.001, is_clicked),
        "2 s": (place * 2, is_clicked),
        "jitter": (np.cumsum(rng.exponential(0.3, size=(n, size)), axis=1), is_clicked),
        "whole seconds": (np.floor(begin + place * 0.8) - begin, is_clicked),
        "one time": (0 * place, is_clicked),
        "looks of 40 s": (np.cumsum(rng.exponential(40, size=(n, size)), axis=1), is_own),
        "looks of .3 s": (place * 0.3, is_own),
        "moods": (place * 20, is_mood),
        "a click ends the session": (place * 20, is_own),
    }[kind]
    user = np.tile(rng.randint(200, size=(n, 1)), size).ravel()
    X = pd.DataFrame({"user": user, "item": rng.randint(50, size=n * size)})
    X["time"] = (begin + steps).ravel()
    is_over = (np.cumsum(y, axis=1) > y) & ("ends" in kind)
    rows = rng.permutation(np.flatnonzero(~is_over.ravel()))
    return X.iloc[rows].reset_index(drop=True), y.ravel()[rows].astype(int)


PAGES = ["1 ms", "2 s", "jitter", "whole seconds"]
OTHERS = ["one time", "looks of 40 s", "looks of .3 s", "moods", "a click ends the session"]


@pytest.mark.parametrize("kind", PAGES + OTHERS)
def test_rows_of_one_page_are_asked_about_and_the_line_gives_them_one_time(kind):
    for seed in range(3):
        for unit in (None, "ms"):
            X, y = make_pages(kind, seed)
            X = X if unit is None else X.assign(time=pd.to_datetime(X["time"], unit="s"))
            message = note_pages(X, "user", "time", y)
            assert (message is None) == (kind in OTHERS)
            if message is not None:
                exec(re.search(r"of the first: (.*)\.$", message).group(1), {"X": X})
                assert note_pages(X, "user", "time", y) is None


@pytest.mark.parametrize(("kind", "n"), [("1 ms", 1), ("looks of .3 s", 0)])
def test_pages_are_said_wherever_labels_become_columns(kind, n, tmp_path):
    X, y = make_pages(kind, n=700)
    log, names = X.assign(clicked=y), {"user": "user", "time": "time"}
    messages = [
        hear(HistoryBuilder(**NAMES).fit, X, y),
        hear(lambda: attach_aggregates(X, log, **names, aggregates="levels", levels=["item"])),
        hear(lambda: attach_history(X, X[y == 1], **names, columns=["item"])),
    ]
    assert [sum("rows of one page?" in text for text in each) for each in messages] == [n] * 3
    for rows in (X, as_scan(X, tmp_path)):
        table = check(rows, y, **names).set_index("name")
        assert (table.loc["rows of one page", "verdict"] != "nothing found") == n


def test_zeros_that_were_thinned_for_training_are_asked_about_once():
    X, y = make_log(n=8000)
    early, later = X.index < 4000, X.index >= 4000
    is_some = early & ((y == 1) | (X.index % 5 == 0))
    thinned, whole = (HistoryBuilder(**NAMES).fit(X[own], y[own]) for own in (is_some, early))
    assert hear(remember, whole, X[later], y[later]) == []
    assert hear(remember, thinned, X[later][:400], y[later][:400]) == []
    with pytest.warns(UserWarning, match="were rows of one kind left out for training"):
        newer = remember(thinned, X[later][:2000], y[later][:2000])
    remember(newer, X[later][2000:], y[later][2000:])
