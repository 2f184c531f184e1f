"""Values in the plain form of pickles and model files: each comes back with its type."""

import datetime as dt
import decimal
import json
import uuid

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import skops.io

from sklearn_din.utils.plain_values import from_plain, join_arrays, split_arrays, to_plain

ZONE = dt.timezone(dt.timedelta(hours=2))
VALUES = [
    *(None, True, 3, 10**40, 0.5, float("inf"), -0.0, "", "kaffee ☕", "\udc80", b"", b"\0\1"),
    *((), (1, (2, None)), [1, [2]], {1, 2}, frozenset({"a"}), {}, {1: {2}}, {(1, None): [()]}),
    *({False: 1, True: 5}, {("a", "b"): ("x", None)}, {None: 1, "": 2}, {"__kind__": "tuple"}),
    *(np.float16(0.1), np.bool_(True), np.str_("a"), np.int64(2), np.float32("nan")),
    *(np.datetime64("2024-01-01", "D"), np.timedelta64(3, "W"), np.array(5), np.array("ab")),
    *(np.array([["a", "bcd"]]), np.zeros((0, 3)), np.array([], dtype="U3"), np.array([True])),
    np.array([1, "a", None], dtype=object),
    np.array(["\udc80", ""], dtype=object),
    np.array([["a", "b"], ["c", "d"]], dtype=object),
    np.array([], dtype=object),
    np.arange(6).reshape(2, 3).T,
    np.arange(4, dtype=">i4"),
    np.array(["2024-01-01", "NaT"], dtype="M8[s]"),
    pd.Index(["a", "b"], name="n"),
    pd.Timestamp("2024-01-01 12:00:00.000000001"),
    pd.Timestamp("2024-06-01", tz="UTC+02:00").as_unit("s"),
    pd.Timedelta("3D"),
    *(pd.NaT, pd.NA, pd.Interval(0, 3, "both"), pd.Interval(pd.Timestamp(0), pd.Timestamp(1))),
    *(dt.date(2024, 1, 2), dt.time(3, 4), dt.timedelta(days=-1, microseconds=1)),
    dt.datetime(2024, 1, 2, tzinfo=ZONE),
    dt.datetime(2024, 1, 2, tzinfo=dt.UTC),
    *(decimal.Decimal("1.10"), uuid.UUID(int=5)),
]


def by_skops(value):
    return skops.io.loads(skops.io.dumps(value), trusted=[])


def by_text(value):
    text, arrays = split_arrays(value)
    assert json.loads(text) is not ...
    return join_arrays(text, arrays)


@pytest.mark.parametrize("carry", [lambda plain: plain, by_skops, by_text])
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_every_value_comes_back_with_its_type(value, carry):
    again = from_plain(carry(to_plain(value)))
    assert type(again) is type(value)
    assert repr(again) == repr(value)
    if isinstance(value, np.ndarray):
        assert again.dtype == value.dtype
        assert again.shape == value.shape


COLUMNS = {
    "text": pd.Series(["a", None, "b"]),
    "nullable text": pd.Series(["a", None, "b"], dtype="string"),
    "objects": pd.Series(["a", None, 3, np.nan, pd.NaT], dtype=object),
    "nullable": pd.Series([1, None, 3], dtype="Int64"),
    "nullable booleans": pd.Series([True, None], dtype="boolean"),
    "categories": pd.Series(["x", None, "y"], dtype=pd.CategoricalDtype(["y", "x"], ordered=True)),
    "zoned": pd.Series(pd.to_datetime(["2024-01-01", None])).dt.tz_localize("Europe/Berlin"),
    "coarse times": pd.Series(np.array(["2024-01-01", "NaT"], dtype="M8[s]")),
    "durations": pd.Series(pd.to_timedelta([1, None], unit="h")),
    "arrow": pd.Series([1, None], dtype="int64[pyarrow]"),
    "arrow lists": pd.Series([["a", None], [], None], dtype=pd.ArrowDtype(pa.list_(pa.string()))),
    "arrow categories": pd.Series(
        ["b", None, "a"], dtype=pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string(), ordered=True))
    ),
    "zoned arrow times": pd.Series(
        [pd.Timestamp("2024-01-01", tz="Europe/Berlin"), None],
        dtype=pd.ArrowDtype(pa.timestamp("us", tz="Europe/Berlin")),
    ),
    "halves": pd.Series([1.5, 2.5], dtype="float16"),
    "none": pd.Series([], dtype="int64"),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_columns_of_every_dtype_come_back(kind):
    frame = pd.DataFrame({"column": COLUMNS[kind], 7: np.arange(len(COLUMNS[kind]))})
    again = from_plain(by_skops(to_plain(frame)))
    pd.testing.assert_frame_equal(again, frame)
    assert again.columns.tolist() == frame.columns.tolist()


@pytest.mark.parametrize(
    "state",
    [
        {"__kind__": "eval", "text": "1"},
        {"__kind__": "datetime", "text": "2024-01-01;dateutil//x;0"},
        {"__kind__": "Timestamp", "text": "5;h;"},
        {"__kind__": "bool", "text": "yes"},
        {"__kind__": "int", "text": "9" * 5_000},
        {"__kind__": "int", "text": 3},
        {"__kind__": "dict", "keys": [1, 1], "values": [1, 2]},
        {"__kind__": "dict", "keys": [[]], "values": [1]},
        {"__kind__": "dict", "keys": [1], "values": []},
        {"__kind__": "set", "items": [[]]},
        {"__kind__": ["tuple"], "items": []},
        {"__kind__": "objects", "shape": [2], "kinds": ["str"]},
        {"__kind__": "objects", "shape": [2], "text": np.frombuffer(b"[1]", "u1"), "arrays": {}},
        {"__kind__": "objects", "shape": [1], "text": np.frombuffer(b"[1", "u1"), "arrays": {}},
        {"__kind__": "column", "schema": np.zeros(9, "u1"), "is_arrow": True, "values": np.ones(2)},
        to_plain(pd.DataFrame({"a": [1, 2]}, dtype="Int8"))["columns"][0] | {"is_arrow": 1},
        to_plain(pd.DataFrame({"a": [1, 2]}, dtype="Int8"))["columns"][0]
        | {"values": np.full(2, 900)},
        {1: 2},
        np.array([None]),
        np.zeros(2, dtype=[("a", "i4")]),
        np.full(2, 2**31, dtype=np.uint32).view("U1"),
    ],
    ids=lambda state: str(state.dtype) if isinstance(state, np.ndarray) else repr(state),
)
def test_what_no_writer_wrote_is_refused(state):
    with pytest.raises((ValueError, TypeError, KeyError, LookupError)):
        from_plain(state)
