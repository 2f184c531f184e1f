"""Point-in-time numbers know strictly earlier events only."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_din import AttachedScan, ParquetScan, attach_aggregates
from tests.click_frames import make_table
from tests.plain_memory import KEYS, PlainMemory, make_asked, make_memory, make_tellings
from tests.test_neighbours import plain_prior

pytestmark = pytest.mark.slow

FRAME_AND_SCAN = pytest.mark.parametrize("as_form", ["frame", "scan"], indirect=True)

RATINGS = pd.DataFrame({
    "user": ["ann", "ann", "bob", "ann"],
    "item": ["x", "y", "x", "x"],
    "rating": [4.0, 2.0, np.nan, 3.0],
    "time": [1, 2, 3, 3],
})  # fmt: skip
AGGREGATES = {
    "user_mean": ("user", "rating", "mean"),
    "item_sum": ("item", "rating", "sum"),
    "item_count": ("item", None, "count"),
    "rated": ("item", "rating", "count"),
    "pair_mean": (("user", "item"), "rating", "mean"),
    "since": ("user", None, "elapsed"),
}


def slow_aggregate(impressions, events, key, column, statistic):
    """Plain-loop twin: one number per impression."""
    keys = list(key) if isinstance(key, tuple) else [key]
    events = events.dropna(subset=keys if column is None else [*keys, column])
    numbers = []
    for impression in impressions.to_dict("records"):
        earlier = events[events["time"] < impression["time"]]
        own = [(earlier[name] == impression[name]).to_numpy() for name in keys]
        past = earlier[np.logical_and.reduce(own)][column or "time"]
        number = {"sum": past.sum(), "count": len(past), "mean": past.mean()}.get(statistic)
        if statistic == "elapsed":
            number = impression["time"] - past.max()
        if statistic == "shrunk_rate":
            y = earlier[column].to_numpy()
            prior = plain_prior(earlier.groupby(keys).ngroup().to_numpy(), y)
            number = (past.sum() + prior * earlier[column].mean()) / (len(past) + prior)
        numbers.append(float(number))
    return numbers


@pytest.mark.parametrize(("shown", "events", "said"), [
    ({}, {"time": [1.0, None, 3.0, 3.0]}, r"^events\['time'\] must not have missing times, got 1"),
    ({"time": [1.0, None, 3.0, 3.0]}, {}, r"^impressions\['time'\] must not have missing ti"),
    ({"time": pd.to_datetime(RATINGS["time"])}, {},
     r"^impressions\['time'\] must hold numbers, as the rows .* got datetimes without a zone\. U"),
    ({"user": [1, "1", 2, 3]}, {"user": [1, 2, 3, 4]}, r"^impressions\['user'\] holds 1 and '1'"),
    ({}, {"user": [[1], [2], [3], [4]]}, r"^events\['user'\] must hold one key per row"),
    ({"user": [1, 2, 3, 4]}, {}, "^'user' must hold values of one kind in impressions and events"),
])  # fmt: skip
def test_what_cannot_be_compared_is_refused_by_the_name_of_its_table(shown, events, said):
    mean = {"mean": ("user", "rating", "mean")}
    with pytest.raises((TypeError, ValueError), match=said):
        attach_aggregates(
            RATINGS.assign(**shown), RATINGS.assign(**events), time="time", aggregates=mean
        )


def test_a_huge_number_of_another_user_swallows_nothing():
    log = pd.DataFrame({"user": [0, 1, 1], "time": [1, 1, 2], "spent": [1e17, 0.25, 0.5]})
    now, total = pd.DataFrame({"user": [1], "time": [9]}), {"total": ("user", "spent", "sum")}
    attached = attach_aggregates(now, log, time="time", aggregates=total)
    assert attached["total"].tolist() == [0.75]


ROWS = st.lists(st.tuples(
    st.sampled_from(["a", "b", None]),
    st.integers(0, 2),
    st.integers(0, 6),
    st.none() | st.floats(-100, 100),
), max_size=15)  # fmt: skip


def as_frame(rows):
    dtypes = {"user": object, "item": "int64", "time": "int64", "rating": "float64"}
    return pd.DataFrame(rows, columns=[*dtypes], dtype=object).astype(dtypes)


@settings(max_examples=15, deadline=None)
@given(impressions=ROWS, events=ROWS)
def test_aggregates_equal_those_of_a_plain_loop(impressions, events):
    impressions, events = as_frame(impressions), as_frame(events)
    impressions.index = pd.Index([0] * len(impressions))
    events["liked"] = (events["rating"] > 0).where(events["rating"].notna()).astype(float)
    keys = "user", "item", ("user", "item")
    rates = {f"rate of {key}": (key, "liked", "shrunk_rate") for key in keys}
    attached = attach_aggregates(impressions, events, time="time", aggregates=AGGREGATES | rates)
    pd.testing.assert_frame_equal(attached[impressions.columns], impressions)
    for name, specification in (AGGREGATES | rates).items():
        expected = slow_aggregate(impressions, events, *specification)
        np.testing.assert_allclose(attached[name], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_attached_or_remembered_is_that_of_plain_loops(seed):
    """Labels are known late, and rows are told again."""
    loop, memory, (first, *later) = PlainMemory(), make_memory(), make_tellings(seed)
    loop.tell(*first, "known")
    asked, log = make_asked(first[0]), first[0].assign(clicked=first[1])
    options = {"time": "time", "aggregates": "levels", "label": "clicked", "levels": KEYS}
    attached, expected = attach_aggregates(asked, log, known="known", **options), loop.show(asked)
    levels = attached.columns[3:]
    np.testing.assert_allclose(attached[levels], expected[levels], rtol=1e-9)
    memory.fit(*first)
    histories = [name for name in expected if name.startswith("hist_")]
    for rows, y in later:
        memory.partial_fit(rows, y)
        loop.tell(rows, y, "known")
        shown, expected = memory.transform(asked), loop.show(asked)
        np.testing.assert_allclose(shown[levels], expected[levels], rtol=1e-9)
        own, expected = (table[histories].map(list) for table in (shown, expected))
        pd.testing.assert_frame_equal(own, expected)


def test_every_form_of_the_tables_gives_the_same_aggregates(as_form):
    shown = make_table(160, random_state=0, users="text", times="dates")
    events = make_table(200, random_state=1, users="text", times="dates")
    events["price"] = events["price"].where(events["item"] % 5 > 0)
    events["cheap"] = (events["price"] < 0.4).astype("boolean").where(events["price"].notna())
    events.loc[::90, "price"] = -np.inf
    aggregates = {
        "mean": ("user", "price", "mean"),
        "n": (("user", "category"), None, "count"),
        "sum": ("item", "price", "sum"),
        "named": ("user", "category", "count"),
        "rate": ("user", "cheap", "shrunk_rate"),
        "since": ("user", None, "elapsed"),
        "since both": (("user", "category"), None, "elapsed"),
        "rate of two": (("item", "category"), "cheap", "shrunk_rate"),
    }
    twin = attach_aggregates(shown, events, time="time", aggregates=aggregates)
    for first, second in ((as_form(shown), as_form(events)), (shown, as_form(events))):
        ours = attach_aggregates(first, second, time="time", aggregates=aggregates)
        assert isinstance(ours, AttachedScan if isinstance(first, ParquetScan) else type(first))
        for name in aggregates:
            np.testing.assert_allclose(ours[name], twin[name], rtol=1e-13, err_msg=name)


@FRAME_AND_SCAN
def test_levels_of_all_ids_and_of_pairs_with_the_user(as_form):
    shown = RATINGS.drop(columns="rating").assign(kind=["a", "b", "a", "b"], price=0.5)
    log = shown.assign(liked=RATINGS["rating"] >= 3)
    keys = {name: name for name in ("user", "item", "kind")}
    keys |= {f"user_{name}": ("user", name) for name in ("item", "kind")}
    by_name = {name: (key, "liked", "levels") for name, key in keys.items()}
    by_name["recent_rate"] = (), "liked", "recent_mean"
    expected = attach_aggregates(shown, log, time="time", aggregates=by_name)
    tables = as_form(shown), as_form(log)
    found = attach_aggregates(*tables, time="time", aggregates="levels", user="user")
    assert found.shape == expected.shape == (4, 5 + 3 * 5 + 1)
    for name in expected.columns[5:]:
        np.testing.assert_array_equal(found[name], expected[name])
    assert attach_aggregates(*tables, time="time", aggregates="levels").shape == (4, 5 + 3 * 3 + 1)
    tables = as_form(shown), as_form(log.assign(told=log["time"]))  # numbers, and no label
    at_once = attach_aggregates(
        *tables, time="time", aggregates="levels", user="user", known="told"
    )
    pd.testing.assert_frame_equal(pd.DataFrame(at_once), pd.DataFrame(found))
    with pytest.raises(ValueError, match="takes as label the one column of numbers that events"):
        attach_aggregates(*tables[1:], tables[1], time="time", aggregates="levels")


@FRAME_AND_SCAN
def test_a_key_of_many_columns_finds_every_event_again(as_form):
    """The product of the columns' distinct values, 2000 ** 6, is larger than 2 ** 63."""
    rng = np.random.default_rng(0)
    keys = tuple("abcdef")
    shown = pd.DataFrame({key: rng.permutation(2000) for key in keys}).assign(time=2)
    events = shown.sample(1500, random_state=0).assign(time=1)
    tables, counts = (as_form(shown), as_form(events)), {"n": (keys, None, "count")}
    attached = attach_aggregates(*tables, time="time", aggregates=counts)
    known = set(events[list(keys)].itertuples(index=False, name=None))
    rows = shown[list(keys)].itertuples(index=False, name=None)
    assert attached["n"].tolist() == [float(row in known) for row in rows]
