"""A report says how far rows are from those of fit, whatever they come as; units are warned of."""

import pickle
import re
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline

from benchmarks.answer_log import make_answer_log
from benchmarks.market_log import make_market_log
from sklearn_din import (
    DINClassifier,
    HistorySequenceEncoder,
    attach_aggregates,
    attach_history,
    load,
    save,
)
from sklearn_din.datasets import make_click_log
from sklearn_din.encoding.profile import ColumnProfile
from tests.click_frames import attach, encoder, every_kind
from tests.tables import as_scan, said

pytestmark = pytest.mark.slow

FITTED = pd.DataFrame({
    "item": ["hat", "hat", "tie", "sock"],
    "price": [1.0, 2.0, np.nan, 4.0],
    "hist_item": [["tie"], [], ["hat", "tie", "sock"], ["rare"]],
})  # fmt: skip
LATER = pd.DataFrame({
    "item": ["hat", "bag", None, "sock", "tie"],
    "price": [np.nan, np.nan, 2.0, 4.0, 400.0],
    "hist_item": [["bag", "tie", None, "tie"], [], [], ["hat"], None],
})  # fmt: skip


def test_a_report_by_hand():
    report = HistorySequenceEncoder(min_frequency=2).fit(FITTED).report(LATER)
    assert report.index.tolist() == ["item", "price", "hist_item"]
    assert report["kind"].tolist() == ["categorical", "numeric", "history"]
    expected = {
        "unknown": [1 / 5, np.nan, 1 / 5],
        "unknown_at_fit": [0, np.nan, 1 / 5],  # "rare" came once
        "missing": [1 / 5, 2 / 5, 1 / 5],
        "missing_at_fit": [0, 1 / 4, 0],
        "empty": [np.nan, np.nan, 3 / 5],
        "empty_at_fit": [np.nan, np.nan, 1 / 4],
        "length": [np.nan, np.nan, 5 / 5],
        "length_at_fit": [np.nan, np.nan, 5 / 4],
        "beyond": [np.nan, 1 / 5, np.nan],  # 400 for 1 to 4
        "beyond_at_fit": [np.nan, 0, np.nan],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(report[name], values, err_msg=name)


def slow_shift(before, now):
    """Population stability by a loop over the values of a column with few of them."""
    values = before.value_counts().index
    total = 0.0
    for value in [*values, None]:
        p, q = (
            ((column == value).sum() + 0.5) / (len(column) + (len(values) + 1) / 2)
            for column in (before, now)
        )
        total += (p - q) * np.log(p / q)
    return total


def test_the_shift_of_ids_is_the_population_stability_index_and_rare_ones_share_a_bin():
    before, now = (
        pd.DataFrame({"device": np.random.default_rng(seed).choice(["a", "b", "c"], 200, p=p)})
        for seed, p in ((0, [0.6, 0.3, 0.1]), (1, [0.2, 0.3, 0.5]))
    )
    (shift,) = HistorySequenceEncoder().fit(before).report(now)["shift"]
    assert shift == pytest.approx(slow_shift(before["device"], now["device"]))
    (same,) = HistorySequenceEncoder().fit(before).report(before)["shift"]
    assert same == 0
    before = pd.DataFrame({"item": np.repeat(np.arange(40), np.arange(40, 0, -1))})
    rare = pd.DataFrame({"item": np.tile(np.arange(30, 40), 100)})
    fitted = HistorySequenceEncoder(categorical=["item"]).fit(before)
    assert fitted.report(rare)["shift"].item() > 1
    same = before.assign(item=before["item"].where(before["item"] < 19, 39))
    assert fitted.report(same)["shift"].item() == 0
    zeros = pd.DataFrame({"spent": [0.0] * 90 + [5.0] * 10})
    fitted = HistorySequenceEncoder().fit(zeros)
    assert fitted.report(zeros)["shift"].item() == 0
    assert fitted.report(zeros.assign(spent=1e-9))["shift"].item() > 1


@pytest.mark.parametrize("memory", ["1GB", "100KB"])
def test_a_scan_is_reported_as_a_frame_is_also_after_saving_and_pickling(tmp_path, memory):
    frame = every_kind()[0].drop(columns="click")
    frame["country"] = frame["country"].where(frame["user"] != "u5")
    other = frame[frame["user"] != "u3"].assign(price=frame["price"] * 3)
    scan = as_scan(frame, tmp_path, group=20, memory=memory)
    fitted, scans = (encoder().fit(table) for table in (frame, scan))
    expected = fitted.report(other)
    assert expected["shift"].notna().any()
    save(fitted, tmp_path / "encoder")
    for again in (scans, load(tmp_path / "encoder"), pickle.loads(pickle.dumps(fitted))):
        pd.testing.assert_frame_equal(again.report(other), expected)
    pd.testing.assert_frame_equal(fitted.report(as_scan(other, tmp_path, group=20)), expected)


def test_growth_makes_values_known_and_leaves_what_was_at_fit():
    grown = HistorySequenceEncoder().fit(FITTED)
    before = grown.report(LATER)
    after = grown.partial_fit(LATER).report(LATER)
    assert before.loc["item", "unknown"] == 1 / 5
    assert after.loc["item", "unknown"] == 0
    at_fit = [name for name in before if name.endswith("_at_fit")]
    pd.testing.assert_frame_equal(after[at_fit], before[at_fit])


@pytest.mark.parametrize("factor", [365.0, 1 / 365])
@pytest.mark.parametrize("column", ["age", "hist_age"])
def test_a_changed_unit_is_reported_and_warned_of_once(factor, column):
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"item": rng.integers(9, size=400), "age": rng.gamma(2.0, 20.0, 400)})
    X["hist_item"] = [rng.integers(9, size=n % 3).tolist() for n in range(400)]
    X["hist_age"] = [rng.gamma(2.0, 20.0, n % 3).tolist() for n in range(400)]
    model = make_pipeline(HistorySequenceEncoder(), DINClassifier(max_epochs=1))
    model.fit(X, rng.integers(2, size=400))
    other = X.assign(**{column: [np.multiply(cell, factor) for cell in X[column]]})
    with pytest.warns(UserWarning, match="some 400 times (larger|smaller)") as caught:
        model.predict_proba(other)
    model.predict_proba(other)
    (warning,) = caught
    assert str(warning.message).startswith(f"{column} is throughout")
    assert warning.filename == __file__
    assert model[0].report(other).loc[column, "shift"] > 1
    assert model[0].report(X).loc[column, "shift"] == 0
    if factor < 1 or column != "age":
        model.predict_proba(other[:50])


CENTS = r"most numbers of price are far beyond those of fit \(less than .* or more than [0-9.]+\)"


@pytest.mark.parametrize(
    ("cents", "is_said"),
    [(range(40), True), (range(15), False), (range(0), False), ([7] * 40, False)],
)
def test_prices_that_are_mostly_in_cents_are_said_once_and_counted(cents, is_said):
    """A few rows in cents are errors, many rows of one price one user's: neither is said."""
    price = np.random.default_rng(0).uniform(5, 20, 400).round(2)
    X = pd.DataFrame({"item": np.arange(400) % 9, "price": price})
    fitted = HistorySequenceEncoder().fit(X)
    later = X[:60].copy()
    later.loc[: len(cents) - 1, "price"] = 100 * price[list(cents)]
    messages, _ = said(lambda: [fitted.transform(later) for _ in range(2)])
    assert [bool(re.match(CENTS, text)) for text in messages] == [True] * is_said
    report = fitted.report(later).loc["price"]
    assert report["beyond"] == pytest.approx(len(cents) / 60)
    assert report["beyond_at_fit"] == 0
    assert np.isnan(fitted.report(later).loc["item", "beyond"])


@pytest.mark.parametrize(("numbers", "factor"), [
    (np.arange(1.0, 201), None),
    (np.arange(1.0, 201) * 1000, 1000),
    (np.arange(1.0, 201) / 60, 1 / 60),
    (np.arange(1.0, 201) * 19, None),  # users grow richer
    (np.full(200, 1e6), None),  # one user
    (np.arange(1.0, 201) ** 3, None),  # not the same multiple throughout
    (np.arange(1.0, 201) + 1e5, None),
    (-np.arange(1.0, 201) * 1000, None),
    (np.arange(1.0, 99) * 1000, None),  # too few
    (np.zeros(200), None),
    (np.full(200, np.nan), None),
])  # fmt: skip
def test_a_unit_has_changed_where_all_deciles_are_the_same_multiple(numbers, factor):
    at_fit = ColumnProfile.of_sample(np.arange(1.0, 201))
    found = at_fit.find_factor(numbers)
    assert found == (None if factor is None else pytest.approx(factor, rel=0.05))


@pytest.mark.parametrize("make", [make_click_log, make_market_log, make_answer_log])
def test_later_rows_of_a_clean_log_are_never_warned_of(make):
    log = make(random_state=0)
    columns = [name for name in log.events if name not in ("user", "time")]
    ways = {"user": "user", "time": "time", "columns": columns, "elapsed": "ago"}
    X = attach_history(log.impressions, log.events, **ways)
    so_far = {f"{key}_events": (key, None, "count") for key in ("item", "user")}
    X = attach_aggregates(X, log.events, time="time", aggregates=so_far)
    early = X["time"] < X["time"].quantile(0.3)
    fitted = HistorySequenceEncoder(user="user", time="time").fit(X[early])
    messages, _ = said(lambda: fitted.transform(X[~early]))
    assert all("user_events are far beyond those of fit" in text for text in messages)
    assert (fitted.report(X[~early])["missing"].fillna(0) == 0).all()


SIZES = {"n_users": 60, "n_items": 40, "n_categories": 5, "mean_length": 12}
LOG = make_click_log(**SIZES, random_state=0)
X = attach(LOG.impressions, LOG.events)
SHORT = (
    "histories of hist_item.hist_category hold (less than a third|none) of the events .* at fit:"
)


@pytest.mark.parametrize(("way", "n_users", "max_length", "is_said"), [
    ("frame", 0, 50, True), ("frame", 60, 6, False), ("lists", 4, 50, True),
    ("lists", 40, 50, False), ("scan", 60, 2, True), ("scan", 40, 50, False),
    ("attached scan", 0, 50, True), ("attached scan", 60, 2, True), ("attached scan", 60, 6, False),
])  # fmt: skip
def test_histories_that_are_cut_are_said_once(tmp_path, way, n_users, max_length, is_said):
    user = "user" if way in ("lists", "attached scan") else None
    model = HistorySequenceEncoder(user=user, drop=["user", "time"] if user is None else ["time"])
    assert len(model.fit_transform(X)) == len(X)  # of the rows of fit, nothing is said
    rows, events = LOG.impressions, LOG.events[LOG.events["user"] < n_users]
    if way == "attached scan":
        rows = as_scan(rows, tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "every history is empty")
        later = attach(rows, events, max_length=max_length)
    if way == "lists":
        later = later.assign(**{n: [list(c) for c in later[n]] for n in later if "hist_" in n})
    if way == "scan":
        later = as_scan(later, tmp_path)
    messages, _ = said(lambda: [model.transform(later) for _ in range(2)])
    assert [bool(re.match(SHORT, text)) for text in messages] == [True] * is_said


@pytest.mark.parametrize("user", [None, "user"])
def test_new_users_of_a_request_or_a_few_are_no_mistake(user):
    model = HistorySequenceEncoder(user=user, drop=["user", "time"] if user is None else ["time"])
    model.fit(X)
    empty = X.assign(**{n: [[] for _ in range(len(X))] for n in ("hist_item", "hist_category")})
    model.transform(empty[:30])
    candidates = empty.drop_duplicates("item")
    few = pd.concat([candidates.assign(user=number) for number in range(15)])
    model.transform(few)
    with pytest.warns(UserWarning, match=SHORT):
        model.transform(pd.concat([few, few.assign(user=few["user"] + 15)]))


def test_histories_that_are_all_empty_are_reported_also_of_rows_as_old_as_those_of_fit():
    model = HistorySequenceEncoder(user="user", time="time").fit(X)
    empty = X.assign(**{n: [[] for _ in range(len(X))] for n in ("hist_item", "hist_category")})
    with pytest.warns(UserWarning, match="hist_item.hist_category hold none of the events"):
        model.transform(empty)
    assert said(lambda: model.transform(empty[empty["user"] < 9])) == ([], [])  # a few new users
