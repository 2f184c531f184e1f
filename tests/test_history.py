"""Histories hold exactly what came strictly before; loops that nobody could misread say what."""

import datetime as dt
import itertools
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_din import HistoryBuilder, attach_history
from sklearn_din.logs.attach import sort_log
from sklearn_din.logs.timeline import stable_order
from tests.tables import as_scan, lists

CLICKS = pd.DataFrame({
    "user": ["ann", "bob", "ann", "ann"],
    "item": ["shoe", "tie", "sock", "hat"],
    "time": [10, 10, 40, 30],
})  # fmt: skip


def attach(impressions, events, **options):
    options = {"user": "user", "time": "time", "columns": ["item"]} | options
    return attach_history(impressions, events, **options)


def slow_history(impressions, events, *, max_length, max_age):
    """Plain-loop twin: per impression the (item, time) pairs of its past."""
    histories = []
    for user, now in zip(impressions["user"], impressions["time"], strict=True):
        past = [
            (item, then)
            for who, then, item in zip(events["user"], events["time"], events["item"], strict=True)
            if not pd.isna(who) and who == user and then < now
            if max_age is None or then >= now - max_age
        ]
        past.sort(key=lambda event: event[1])  # stable: equal times keep the log's order
        histories.append(past[-max_length:])
    return histories


def slow_items(*frames, **options):
    return [[item for item, _ in past] for past in slow_history(*frames, **options)]


@pytest.mark.parametrize("now", ["int64", "float64"])
@pytest.mark.parametrize("then", ["int64", "float64"])
@pytest.mark.parametrize("max_age", [0.5, 1, 1.5, 2.7])
def test_a_fraction_of_max_age_counts_whatever_the_times_are(now, then, max_age, tmp_path):
    far = [8.45, 1e300, -1e300]
    times = [7, 7.3, 8, 8.4, 8.5, 8.6, 9, 9.5, *far[: 3 * (then == "float64")]]
    events = pd.DataFrame({"user": "ann", "time": pd.Series(times).astype(then)})
    events["item"] = range(len(events))
    times = pd.Series([8, 9, 10, *far[: 3 * (now == "float64")]], dtype=now)
    impressions = pd.DataFrame({"user": "ann", "time": times})
    expected = slow_items(impressions, events, max_length=9, max_age=max_age)
    for log in (events, as_scan(events, tmp_path)):
        attached = attach(impressions, log, max_age=max_age)
        assert lists(attached["hist_item"]) == expected


TIMES = {  # of whole numbers from -5 to 5
    "integers": lambda times: pd.Series(times, dtype="int64"),
    "small integers": lambda times: pd.Series(times, dtype="int8"),
    "nullable": lambda times: pd.Series(times, dtype="Int32"),
    "floats": lambda times: pd.Series([FLOATS[time] for time in times], dtype="float64"),
    "before 1970": lambda times: pd.to_datetime(pd.Series(times, dtype="int64"), unit="D"),
    "zone": lambda times: TIMES["before 1970"](times).dt.as_unit("s").dt.tz_localize("Asia/Tokyo"),
    "arrow": lambda times: TIMES["before 1970"](times).astype("timestamp[us][pyarrow]"),
}
FLOATS = [-2.5, -1.0, -0.0, 0.0, 0.5, 1e300] * 2
DATETIMES = ("before 1970", "zone", "arrow")


@pytest.mark.filterwarnings("ignore:every history is empty")  # drawn frames need share nothing
@pytest.mark.parametrize("kind", TIMES)
@settings(max_examples=20, deadline=None)
@given(choices=st.data())
def test_histories_equal_those_of_a_plain_loop(kind, choices):
    rows = st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(-5, 5))
    rows, as_times = st.lists(rows, max_size=12), TIMES[kind]
    frames = []
    for _ in range(2):
        users, times = list(zip(*choices.draw(rows), strict=True)) or [(), ()]
        frame = pd.DataFrame({"user": pd.Series(users, dtype=object)})
        frame["time"] = as_times(list(times))
        frame.index = pd.Index([3] * len(frame))
        frames.append(frame)
    impressions, events = frames
    events["item"] = np.arange(len(events))
    max_length = choices.draw(st.integers(1, 4))
    max_age = choices.draw(st.none() | st.integers(1, 6))
    if max_age is not None and kind in DATETIMES:
        max_age = pd.Timedelta(days=max_age)
    for rows in (impressions, events):
        attached = attach(rows, events, max_length=max_length, max_age=max_age, elapsed="ago")
        expected = slow_history(rows, events, max_length=max_length, max_age=max_age)
        assert lists(attached["hist_item"]) == [[item for item, _ in past] for past in expected]
        assert attached.index.tolist() == [3] * len(rows)
        unit = pd.Timedelta(seconds=1) if kind in DATETIMES else 1
        pairs = zip(rows["time"], expected, strict=True)
        ages = [[(now - then) / unit for _, then in past] for now, past in pairs]
        for ours, theirs in zip(attached["ago"], ages, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-9)
        assert attached["hist_item"].array.fingerprint == attached["ago"].array.fingerprint


@pytest.mark.parametrize("dtype", ["int64", "Int64", "object"])
@pytest.mark.parametrize("floats", [["events"], ["impressions"], ["events", "impressions"]])
def test_users_who_may_have_merged_as_floats_are_refused(floats, dtype):
    users = pd.Series([2**53 + 1, 2**53, 3])
    whole = pd.DataFrame({"user": users.astype(dtype), "time": 1, "item": "a"})
    merged = whole.assign(user=users.astype("float64"))
    message = rf"{floats[0]}\['user'\] holds ids as float64 from 9007199254740992 on.*dtype 'Int64"
    with pytest.raises(ValueError, match=message):
        attach(*(merged if name in floats else whole for name in ("impressions", "events")))


def test_odd_keys_and_times_mean_what_python_says():
    events = pd.DataFrame({"user": [0, 1], "time": [1, 2], "item": ["a", "b"]})
    impressions = pd.DataFrame({"user": [0.0, 1.5, np.nan, np.inf, 1.0], "time": 9})
    histories = lists(attach(impressions, events)["hist_item"])
    assert histories == [["a"], [], [], [], ["b"]]  # a broken number is nobody's whole number
    for pair in ((np.True_, np.timedelta64(1, "D")), (np.float16(2.0), 2**70)):
        keyed = CLICKS.assign(user=pd.Series([*pair, *pair], dtype=object))
        by_name = CLICKS.assign(user=["a", "b", "a", "b"])
        attached, expected = attach(keyed, keyed), attach(by_name, by_name)
        assert lists(attached["hist_item"]) == lists(expected["hist_item"])
    days = pa.array([dt.date(1, 1, 1), dt.date(2024, 1, 1), dt.date(9999, 12, 31)])
    log = pd.DataFrame({"user": [1, 1, 1], "item": ["hat", "sock", "tie"]})
    log["time"] = pd.arrays.ArrowExtensionArray(days)
    assert lists(attach(log, log)["hist_item"]) == [[], ["hat"], ["hat", "sock"]]


def test_extreme_integer_times_do_not_wrap_around_and_empty_tables_are_fine():
    empty = pd.DataFrame(columns=["user", "time", "item"])
    assert lists(attach(CLICKS, empty, elapsed="ago")["hist_item"]) == [[]] * 4
    assert len(attach(CLICKS.iloc[:0], CLICKS)) == 0
    assert len(attach(empty, empty)) == 0
    low, high = -(2**63) + 1, 2**63 - 1
    events = pd.DataFrame({"user": 1, "time": [low, high - 1], "item": ["old", "new"]})
    impressions = pd.DataFrame({"user": 1, "time": [high, low + 5]})
    attached = attach(impressions, events, max_age=100, elapsed="ago")
    assert lists(attached["hist_item"]) == [["new"], ["old"]]
    assert lists(attach(impressions, events, elapsed="ago")["ago"])[1] == [5.0]


def many(n_rows, *, first_user=0, first_time=0):
    """A log of three users, or of one where there are few rows."""
    rows = np.arange(n_rows)
    return pd.DataFrame({"user": first_user + rows % 3, "time": first_time + rows, "item": rows})


@pytest.mark.parametrize(("shown", "message"), [
    (many(10, first_user=50, first_time=99), "no user of the impressions has an event. Are "
     r"the two frames swapped, or the 'user' columns of another kind\?$"),
    (many(10, first_time=-9), "no event is earlier than any impression. Are .* the 'time' col"),
])  # fmt: skip
def test_histories_that_are_all_empty_are_said_once(shown, message, tmp_path):
    tables = [shown, many(5)]
    for pair in (tables, [as_scan(table, tmp_path) for table in tables]):
        with pytest.warns(UserWarning, match=f"^every history is empty: {message}") as caught:
            attached = attach(*pair)
        assert [warning.filename for warning in caught] == [__file__]
        assert lists(attached["hist_item"]) == [[]] * 10


@pytest.mark.parametrize(("impressions", "events"), [
    (many(10), many(0)),
    (many(0), many(10)),
    (many(20).assign(time=5), many(20).assign(time=5)),  # the impressions are the events
    (many(9, first_user=50), many(20)),  # a few new users in a server's batch
    (many(30).assign(user=50), many(20)),  # one new user and many candidates
    (many(30, first_time=99), many(3)),
    (many(10, first_time=-8), many(5)),  # one impression has a past
])  # fmt: skip
def test_empty_histories_that_are_no_accident_are_not_said(impressions, events):
    attach(impressions, events)


# HistoryBuilder -----------------------------------------------------------------------------

SHOWN = pd.DataFrame({
    "user": ["ann", "ann", "bob", "ann", "ann"],
    "item": ["shoe", "tie", "tie", "sock", "hat"],
    "time": [1, 2, 2, 3, 3],
}, index=[5, 6, 7, 8, 9])  # fmt: skip
LABELS = np.array(["no", "yes", "yes", "yes", "no"])


@pytest.fixture
def builder():
    return HistoryBuilder(user="user", time="time", columns=["item"])


@pytest.mark.parametrize("options", [{}, {"max_age": 1, "elapsed": "ago", "max_length": 1}])
def test_training_rows_see_clicks_before_them_and_never_themselves(builder, options):
    found = builder.set_params(**options).fit_transform(SHOWN, LABELS)
    assert lists(found["hist_item"]) == [[], [], [], ["tie"], ["tie"]]
    assert builder.positive_class_ == "yes"
    assert builder.events_["item"].tolist() == ["tie", "tie", "sock"]
    attached = attach(SHOWN, SHOWN[LABELS == "yes"], **options)
    assert list(found) == list(attached)
    for name in found.columns[3:]:
        assert lists(found[name]) == lists(attached[name])


@pytest.mark.parametrize("of_kind", [pd.DataFrame.to_numpy, pa.Table.from_pandas, pd.DataFrame])
def test_of_several_labels_the_first_one_says_what_is_an_event(builder, of_kind):
    labels = pd.DataFrame({"click": LABELS, "purchase": [0, 1, 0, 1, 0]}, dtype=object)
    found = builder.fit_transform(SHOWN, of_kind(labels))
    assert lists(found["hist_item"]) == [[], [], [], ["tie"], ["tie"]]
    labels.loc[2:, "click"] = None
    builder.partial_fit(SHOWN.assign(time=9), of_kind(labels))
    assert builder.events_["time"].tolist() == [2, 2, 3, 9]


BIG = 2**60


@pytest.mark.parametrize("later", [
    pd.Series([3.0, np.nan]),
    pd.Series([3, BIG + 2], dtype="uint64"),
    pd.Series([3, 2**63 + 1], dtype="uint64"),
    pd.Series([3, -1], dtype="int64"),
    pd.Series([3, None], dtype="double[pyarrow]"),
    pd.Series(pd.arrays.ArrowExtensionArray(pa.array([3, float("nan")]))),
])  # fmt: skip
@pytest.mark.parametrize("dtype", ["int64", "uint64", "Int64", "int64[pyarrow]"])
def test_large_ids_stay_apart_whatever_a_later_batch_makes_of_the_column(later, dtype):
    first = pd.DataFrame({"user": pd.Series([BIG, BIG + 1], dtype=dtype), "time": [1, 2]})
    batches = [first, pd.DataFrame({"user": later, "time": [3, 4]})]
    builder = HistoryBuilder(user="user", time="time", columns="item", events="all")
    for batch in batches:
        builder.partial_fit(batch.assign(item=batch["user"]))
    for users in ([BIG, BIG + 1, 3], [BIG + 1, BIG, 3]):
        rows = builder.transform(pd.DataFrame({"user": users, "time": 9, "item": 0}))
        assert lists(rows["hist_item"]) == [[user] for user in users]


def test_large_users_stay_apart_beside_floats_that_a_missing_one_made():
    builder = HistoryBuilder(user="user", time="time", columns="item", events="all")
    builder.fit(pd.DataFrame({"user": [1.0, np.nan], "time": [1, 2], "item": [1, 2]}))
    builder.partial_fit(pd.DataFrame({"user": [BIG, BIG + 1], "time": [3, 4], "item": [1, 2]}))
    assert builder.events_["user"].tolist()[2:] == [BIG, BIG + 1]


def test_quantities_stay_floats_beside_integers_and_users_as_floats_are_refused():
    builder = HistoryBuilder(user="user", time="time", columns="price", events="all")
    builder.fit(pd.DataFrame({"user": [BIG, BIG + 1], "time": [1, 2], "price": [0.5, np.nan]}))
    builder.partial_fit(pd.DataFrame({"user": 1, "time": [3, 4], "price": [BIG, 2]}))
    assert builder.events_["price"].dtype == "float64"
    before = builder.events_
    with pytest.raises(ValueError, match=r"^'user' holds ids as float64 from 9007199254740992 on"):
        builder.partial_fit(pd.DataFrame({"user": [float(BIG), None], "time": 2, "price": 7}))
    assert builder.events_ is before


def test_events_learnt_while_another_thread_sorts_the_log_are_seen(builder, monkeypatch):
    builder.set_params(events="all").fit(CLICKS)

    def sort_while_events_arrive(events, *names):
        in_order = sort_log(events, *names)
        monkeypatch.undo()
        builder.partial_fit(CLICKS.assign(time=[50, 50, 50, 50]))
        return in_order

    monkeypatch.setattr("sklearn_din.logs.history_builder.sort_log", sort_while_events_arrive)
    later = CLICKS.assign(time=99)
    builder.transform(later)
    expected = lists(attach(later, builder.events_)["hist_item"])
    assert lists(builder.transform(later)["hist_item"]) == expected


DATES = pd.to_datetime(SHOWN["time"], unit="D")
SHOWN_TIMES = {
    "numbers": SHOWN["time"],
    "datetimes without a zone": DATES,
    "datetimes with a zone": DATES.dt.tz_localize("UTC"),
}


@pytest.mark.parametrize(("fitted", "came"), list(itertools.permutations(SHOWN_TIMES, 2)))
def test_partial_fit_refuses_times_of_another_kind_and_stays_as_it_was(builder, fitted, came):
    first, later = SHOWN.assign(time=SHOWN_TIMES[fitted]), SHOWN.assign(time=SHOWN_TIMES[came])
    builder.fit(first, LABELS)
    message = rf"^X\['time'\] must hold {fitted}, as at fit, got {came}. Use pd.to_dat"
    with pytest.raises(TypeError, match=message):
        builder.partial_fit(later, LABELS)
    assert len(builder.events_) == 3
    assert len(builder.transform(first)) == 5


def test_rows_of_unknown_users_alone_are_said():
    builder = HistoryBuilder(user="user", time="time", columns="item", events="all").fit(many(30))
    strangers = many(10, first_user=50, first_time=20)
    message = "^every history is empty: no 'user' of these 10 rows was .* HistoryBuilder is for spl"
    with pytest.warns(UserWarning, match=message) as caught:
        assert lists(builder.transform(strangers)["hist_item"]) == [[]] * 10
    assert caught[0].filename.endswith("test_history.py")
    builder.transform(strangers.iloc[:9])
    builder.transform(strangers.assign(user=50))
    builder.transform(many(10, first_time=-99))  # known users, before all their events
    builder.transform(pd.concat([strangers, many(1)]))
    builder.transform(strangers.assign(time=30))  # sessions by time: the encoder says it, once
    builder.fit(many(30).assign(user=["ann", "bob", "cem"] * 10))
    with pytest.warns(UserWarning, match="^users of impressions such as 'ANN' have no events, and"):
        builder.transform(
            many(10, first_time=99).assign(user=["ANN", "BOB", "CEM", "ANN", "ANN"] * 2)
        )


def test_labels_that_fit_never_saw(builder):
    builder.fit(CLICKS, [0, 1, 0, 1])
    with pytest.raises(ValueError, match=r"^y has labels \[2\] that were not seen at fit: \[0"):
        builder.partial_fit(CLICKS, [2] * 4)
    assert len(builder.events_) == 2
    later = CLICKS.assign(time=CLICKS["time"] + 9)
    builder.partial_fit(later, [0] * 4)  # nothing was clicked today: not an error
    assert builder.partial_fit(later, [True] * 4).classes_.tolist() == [0, 1]
    assert len(builder.events_) == 6


USERS, ITEMS = st.sampled_from([1, 2, None]), st.sampled_from(["hat", "tie", None])
CELLS = st.tuples(USERS, st.integers(0, 3), ITEMS)


@settings(max_examples=40, deadline=None)
@given(old=st.lists(CELLS, max_size=8), new=st.lists(CELLS, max_size=8))
def test_what_is_remembered_is_what_a_counting_loop_says(old, new):
    def frame(rows):
        users, times, items = list(zip(*rows, strict=True)) or ([], [], [])
        return pd.DataFrame({
            "user": pd.Series(users, dtype="Int64"),
            "time": pd.Series(times, dtype="int64"),
            "item": pd.Series(items, dtype=object),
        })  # fmt: skip

    builder = HistoryBuilder(user="user", time="time", columns="item", events="all")
    builder.fit(frame(old)).partial_fit(frame(new))
    expected = Counter(old) | Counter(new)  # the larger of the two counts
    events = builder.events_.astype(object).where(builder.events_.notna(), None)
    assert sorted(events.apply(tuple, axis=1), key=repr) == sorted(expected.elements(), key=repr)


@pytest.mark.parametrize("span", [1, 7, 1 << 40, 1 << 53, (1 << 63) - 1])
@pytest.mark.parametrize("n", [0, 1, 1_000, 70_000])
def test_whole_numbers_are_ordered_as_by_a_stable_argsort(n, span):
    rng = np.random.default_rng(n)
    values = rng.integers(-span, span, n)[rng.integers(0, max(n // 2, 1), n)]  # many are equal
    for own in (values, values.astype(np.float64), np.full(n, span)):
        np.testing.assert_array_equal(stable_order(own), np.argsort(own, kind="stable"))
