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

from sklearn_din.utils.plain_values import from_json, read_value, to_json, write_value

ZONE = dt.timezone(dt.timedelta(hours=2))
VALUES = [
    *(None, True, 3, 10**40, 0.5, float("inf"), -0.0, "", "kaffee ☕", "\udc80", b"", b"\0\1"),
    *((), (1, (2, None)), [1, [2]], {1, 2}, frozenset({"a"}), {}, {1: {2}}, {(1, None): [()]}),
    *({False: 1, True: 5}, {("a", "b"): ("x", None)}, {None: 1, "": 2}, {"__kind__": "tuple"}),
    *(np.float16(0.1), np.bool_(True), np.str_("a"), np.int64(2), np.float32("nan")),
    *(np.datetime64("2024-01-01", "D"), np.timedelta64(3, "W"), np.array(5), np.array("ab")),
    *(np.array([["a", "bcd"]]), np.zeros((0, 3)), np.array([], dtype="U3"), np.array([True])),
    *(np.array(its, dtype=object) for its in ([1, "a", None], ["\udc80", ""], ["ab", "cd"], [])),
    np.array([["a", "b"], ["c", "d"]], dtype=object),
    *(np.arange(6).reshape(2, 3).T, np.arange(4, dtype=">i4")),
    *(np.array(["2024-01-01", "NaT"], dtype="M8[s]"), pd.Index(["a", "b"], name="n")),
    *(pd.Timestamp("2024-01-01 12:00:00.000000001"), pd.Timedelta("3D")),
    pd.Timestamp("2024-06-01", tz="UTC+02:00").as_unit("s"),
    *(pd.NaT, pd.NA, pd.Interval(0, 3, "both"), pd.Interval(pd.Timestamp(0), pd.Timestamp(1))),
    *(dt.date(2024, 1, 2), dt.time(3, 4), dt.timedelta(days=-1, microseconds=1)),
    *(dt.datetime(2024, 1, 2, tzinfo=zone) for zone in (ZONE, dt.UTC)),
    *(decimal.Decimal("1.10"), uuid.UUID(int=5)),
]


def by_skops(text, arrays):
    return read_value(*skops.io.loads(skops.io.dumps([text, arrays]), trusted=[]))


def by_json(text, arrays):
    return from_json(to_json(read_value(text, arrays)))


@pytest.mark.parametrize("read", [read_value, by_skops, by_json])
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_every_value_comes_back_with_its_type(value, read):
    again = read(*write_value(value))
    assert type(again) is type(value)
    assert repr(again) == repr(value)
    if isinstance(value, np.ndarray):
        assert again.dtype == value.dtype
        assert again.shape == value.shape


BERLIN = "Europe/Berlin"
CODES = pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string(), ordered=True))
MOMENTS = pd.ArrowDtype(pa.timestamp("us", tz=BERLIN))
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
    "arrow categories": pd.Series(["b", None, "a"], dtype=CODES),
    "zoned arrow times": pd.Series([pd.Timestamp("2024-01-01", tz=BERLIN), None], dtype=MOMENTS),
    "halves": pd.Series([1.5, 2.5], dtype="float16"),
    "none": pd.Series([], dtype="int64"),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_columns_of_every_dtype_come_back(kind):
    frame = pd.DataFrame({"column": COLUMNS[kind], 7: np.arange(len(COLUMNS[kind]))})
    again = by_skops(*write_value(frame))
    pd.testing.assert_frame_equal(again, frame)
    assert again.columns.tolist() == frame.columns.tolist()


def kind_of(name, content):
    return {"__kind__": name, "of": content}


ARRAY = kind_of("array", "0")


@pytest.mark.parametrize(
    ("value", "array"),
    [
        (kind_of("eval", "1"), None),
        (kind_of("datetime", "2024-01-01;dateutil//x;0"), None),
        (kind_of("Timestamp", "5;h;"), None),
        (kind_of("Timestamp", 5), None),
        (kind_of("timedelta", "9" * 5_000), None),
        (kind_of("dict", [[1, 1], [1, 2]]), None),
        (kind_of("dict", [[[]], [1]]), None),
        (kind_of("set", [[]]), None),
        (kind_of(["tuple"], []), None),
        ({"__kind__": "tuple"}, None),
        (kind_of("objects", [2]), None),
        (kind_of("objects", [[2], ARRAY, {}]), np.frombuffer(b"[1]", "u1")),
        (kind_of("objects", [[1], ARRAY, {}]), np.frombuffer(b"[1", "u1")),
        (kind_of("frame", [["a"], [[ARRAY, kind_of("bytes", "00"), True]]]), np.ones(2)),
        (kind_of("frame", [["a"], [[ARRAY, [[1, 2]], 1]]]), np.zeros(2, "i1")),
        (kind_of("frame", [["a", "b"], [[ARRAY]]]), np.ones(2)),
        (ARRAY, None),
        ([ARRAY, ARRAY], np.ones(2)),
        (ARRAY, np.array([None])),
        (ARRAY, np.zeros(2, dtype=[("a", "i4")])),
        (ARRAY, np.full(2, 2**31, dtype=np.uint32).view("U1")),
    ],
    ids=lambda given: str(given.dtype) if isinstance(given, np.ndarray) else repr(given),
)
def test_what_no_writer_wrote_is_refused(value, array):
    with pytest.raises((ValueError, TypeError, LookupError)):
        read_value(json.dumps(value), {} if array is None else {"0": array})


def test_a_column_of_numbers_that_its_dtype_cannot_hold_is_refused():
    text, arrays = write_value(pd.DataFrame({"a": [1, 2]}, dtype="Int8"))
    assert read_value(text, arrays)["a"].dtype == "Int8"
    objects, _ = write_value([900, 900])
    (name,) = arrays
    with pytest.raises((ValueError, ArithmeticError)):
        read_value(text, {name: np.frombuffer(objects.encode(), "u1")})


def test_other_objects_are_refused_or_kept_beside_the_arrays():
    state = np.random.RandomState(0)
    with pytest.raises(TypeError, match="an object of type RandomState cannot be kept as text"):
        write_value({"order": state})
    text, arrays = write_value({"order": state}, keeps_objects=True)
    assert read_value(text, arrays)["order"] is state
