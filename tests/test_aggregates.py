"""Point-in-time numbers know strictly earlier events only."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_din import attach_aggregates, scan_parquet
from tests.test_neighbours import plain_prior

RATINGS = pd.DataFrame(
    {
        "user": ["ann", "ann", "bob", "ann"],
        "item": ["x", "y", "x", "x"],
        "rating": [4.0, 2.0, np.nan, 3.0],
        "time": [1, 2, 3, 3],
    }
)
AGGREGATES = {
    "user_mean": ("user", "rating", "mean"),
    "item_sum": ("item", "rating", "sum"),
    "item_count": ("item", None, "count"),
    "rated": ("item", "rating", "count"),
    "pair_mean": (("user", "item"), "rating", "mean"),
    "since": ("user", None, "elapsed"),
}


def as_scan(table, folder):
    path = folder / f"{len(list(folder.iterdir()))}.parquet"
    table.to_parquet(path, row_group_size=600)
    return scan_parquet(path)


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


def test_tables_made_by_hand():
    attached = attach_aggregates(RATINGS, RATINGS, time="time", aggregates=AGGREGATES)
    expected = pd.DataFrame(
        {
            "user_mean": [np.nan, 4.0, np.nan, 3.0],
            "item_sum": [0.0, 0.0, 4.0, 4.0],
            "item_count": [0.0, 0.0, 1.0, 1.0],
            "rated": [0.0, 0.0, 1.0, 1.0],
            "pair_mean": [np.nan, np.nan, np.nan, 4.0],
            "since": [np.nan, 1.0, np.nan, 1.0],
        }
    )
    pd.testing.assert_frame_equal(attached[expected.columns], expected)
    log = pd.DataFrame({"user": [0, 1, 1], "time": [1, 1, 2], "spent": [1e17, 0.25, 0.5]})
    now, total = pd.DataFrame({"user": [1], "time": [9]}), {"total": ("user", "spent", "sum")}
    attached = attach_aggregates(now, log, time="time", aggregates=total)
    assert attached["total"].tolist() == [0.75]  # another user's huge number swallows nothing


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", None]),
        st.integers(0, 2),
        st.integers(0, 6),
        st.none() | st.floats(-100, 100),
    ),
    max_size=15,
)


def as_frame(rows):
    dtypes = {"user": object, "item": "int64", "time": "int64", "rating": "float64"}
    return pd.DataFrame(rows, columns=[*dtypes], dtype=object).astype(dtypes)


@settings(max_examples=40, deadline=None)
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


@pytest.mark.parametrize("make", ["frame", "scan"])
def test_levels_are_a_rate_a_count_and_the_time_since(make, tmp_path):
    table = RATINGS.assign(
        liked=RATINGS["rating"] >= 3, time=pd.to_datetime([1, 2, 5, 5], unit="h")
    )
    shown = as_scan(table, tmp_path) if make == "scan" else table
    levels = {"u": ("user", "liked", "levels"), "ui": (("user", "item"), "liked", "levels")}
    attached = attach_aggregates(shown, shown, time="time", aggregates=levels)
    by_hand = {
        "u_rate": ("user", "liked", "shrunk_rate"),
        "u_count": ("user", "liked", "count"),
        "u_elapsed": ("user", None, "elapsed"),
        "ui_rate": (("user", "item"), "liked", "shrunk_rate"),
    }
    twin = attach_aggregates(table, table, time="time", aggregates=by_hand)
    for name in by_hand:
        np.testing.assert_array_equal(attached[name], twin[name])
    np.testing.assert_array_equal(attached["u_elapsed"], [np.nan, 3600, np.nan, 3 * 3600])
    np.testing.assert_array_equal(attached["ui_count"], [0, 0, 0, 1])


@pytest.mark.parametrize("make", ["frame", "scan"])
def test_a_key_of_many_columns_finds_every_event_again(make, tmp_path):
    """The product of the columns' distinct values, 2000 ** 6, is larger than 2 ** 63."""
    rng = np.random.default_rng(0)
    keys = tuple("abcdef")
    shown = pd.DataFrame({key: rng.permutation(2000) for key in keys}).assign(time=2)
    events = shown.sample(1500, random_state=0).assign(time=1)
    tables = [as_scan(table, tmp_path) for table in (shown, events)] if make == "scan" else None
    attached = attach_aggregates(
        *(tables or (shown, events)), time="time", aggregates={"n": (keys, None, "count")}
    )
    known = set(events[list(keys)].itertuples(index=False, name=None))
    rows = shown[list(keys)].itertuples(index=False, name=None)
    assert attached["n"].tolist() == [float(row in known) for row in rows]


@pytest.mark.parametrize("make", [
    lambda log, folder: log,
    lambda log, folder: log.astype({"clicked": "Float64"}),
    lambda log, folder: log.astype({"clicked": "Int64"}),
    lambda log, folder: log.convert_dtypes(dtype_backend="pyarrow"),
    lambda log, folder: pl.from_pandas(log),
    lambda log, folder: pa.Table.from_pandas(log),
    as_scan,
])  # fmt: skip
def test_booleans_are_numbers_whatever_holds_them(make, tmp_path):
    log = pd.DataFrame({"user": 1, "time": range(4)})
    log["clicked"] = pd.array([True, False, None, True], dtype="boolean")
    of_clicks = {name: ("user", "clicked", name) for name in ("mean", "sum", "count")}
    rows = make(log, tmp_path)
    attached = attach_aggregates(rows, rows, time="time", aggregates=of_clicks)
    found = np.stack([np.asarray(attached[name])[1:] for name in of_clicks])
    assert found.tolist() == [[1, 0.5, 0.5], [1, 1, 1], [1, 2, 2]]


NAN = [4.0, np.nan, 2.0, np.nan, 5.0]


@pytest.mark.parametrize("ratings", [
    pd.arrays.FloatingArray(np.array(NAN), np.array([False, False, False, True, False])),
    pd.arrays.ArrowExtensionArray(pa.array([4.0, float("nan"), 2.0, None, 5.0])),
    pd.arrays.ArrowExtensionArray(pa.array([4.0, float("nan"), 2.0, None, 5.0], pa.float32())),
])  # fmt: skip
@pytest.mark.parametrize("make", ["frame", "scan"])
def test_nan_is_no_value_whatever_the_dtype(ratings, make, tmp_path):
    log = pd.DataFrame({"user": 1, "time": range(5), "rating": NAN})
    of_rating = {name: ("user", "rating", name) for name in ("mean", "sum", "count")}
    expected = attach_aggregates(log, log, time="time", aggregates=of_rating)[list(of_rating)]
    odd = log.assign(rating=ratings)
    if make == "scan":
        odd = as_scan(odd, tmp_path)
    attached = attach_aggregates(odd, odd, time="time", aggregates=of_rating)
    found = pd.DataFrame({name: attached[name] for name in of_rating})
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert expected["count"].tolist() == [0, 1, 1, 2, 2]
