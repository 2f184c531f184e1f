"""Any value as numbers, text, lists, dicts with text keys and numeric arrays, and back.

What a fitted estimator hands to pickle and to skops is in this form. skops turns the keys of a dict
into text (``{False: 1, True: 5}`` comes back as ``{True: 5}``) and cannot keep frames and many
single values; reading this form builds values of the types below and nothing else.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import re
import sys
import uuid
import zoneinfo
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

KIND = "__kind__"  # a dict with this key stands for a value of the kind that it names
PLAIN_KINDS = "biufcmMU"  # numpy's kinds of dtypes that are kept as they are
OTHER = "other"
NULLABLE = "boolean|U?Int(8|16|32|64)|Float(32|64)"
MOST_WORDS = 10  # of the text of an Arrow type
N_KEYS = 624  # of the Mersenne twister


def to_plain(value: Any) -> Any:
    """Write a value as numbers, text, lists, dicts with text keys and numeric arrays.

    It may be built of None, booleans, numbers, text, bytes, dates, durations, lists, tuples, dicts,
    sets, numpy's scalars, arrays and RandomState, pandas' frames, indices and intervals. Objects of
    other types stand in the result as they are: pickle may be able to keep them.

    Examples
    --------
    >>> to_plain({"units": (64, 16), "lr": 0.5})
    {'units': {'__kind__': 'tuple', 'items': [64, 16]}, 'lr': 0.5}
    >>> from_plain(to_plain({False: 1, True: np.float32(5)}))
    {False: 1, True: np.float32(5.0)}
    """
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind in _WRITERS:
        return _WRITERS[kind](value)
    if isinstance(value, np.generic) and value.dtype.kind in PLAIN_KINDS:
        return {KIND: "numpy", "value": np.asarray(value)}
    text = _scalar_text(value)
    return value if text is None else {KIND: text[0], "text": text[1]}


def from_plain(value: Any) -> Any:
    """Read what :func:`to_plain` wrote.

    Raises
    ------
    ValueError, TypeError, LookupError, ArithmeticError
        If it is nothing that :func:`to_plain` writes.
    """
    if isinstance(value, np.ndarray):
        return _check_array(value)
    if type(value) is list:
        return [from_plain(item) for item in value]
    if type(value) is not dict:
        return value
    if KIND not in value:
        return {check_type(name, str): from_plain(item) for name, item in value.items()}
    kind = value[KIND]
    if kind in _READERS:
        return _READERS[kind](value)
    if kind in _SCALARS_BY_NAME:
        return _SCALARS_BY_NAME[kind](check_type(value["text"], str))
    raise ValueError(f"{kind!r:.60} is no kind of value. A newer version may have saved it.")


def split_arrays(value: Any) -> tuple[str, dict[str, np.ndarray]]:
    """Write a plain value as JSON text and the arrays that the text refers to, by name.

    An object that :func:`to_plain` left as it was raises TypeError.

    Examples
    --------
    >>> split_arrays({"name": "item", "counts": np.array([2, 1])})
    ('{"name": "item", "counts": {"__kind__": "array", "name": "0"}}', {'0': array([2, 1])})
    """
    arrays: dict[str, np.ndarray] = {}

    def keep(array: Any) -> dict[str, str]:
        if not isinstance(array, np.ndarray):
            raise TypeError(f"an object of type {type(array).__name__} cannot be kept as text.")
        name = str(len(arrays))
        arrays[name] = array
        return {KIND: "array", "name": name}

    return json.dumps(value, default=keep), arrays


def join_arrays(text: str | bytes, arrays: Mapping[str, np.ndarray]) -> Any:
    """Read what :func:`split_arrays` wrote: a plain value."""

    def place(item: dict[str, Any]) -> Any:
        return arrays[item["name"]] if item.get(KIND) == "array" else item

    return json.loads(text, object_hook=place)


def check_type(value: Any, *types: type) -> Any:
    """Return a value whose type is exactly one of these, else raise ValueError."""
    if type(value) not in types:
        names = " or ".join(kind.__name__ for kind in types)
        raise ValueError(f"{names} was needed, got {value!r:.60}.")
    return value


# Single values as text: name of the kind, text -> value; and by type: name, value -> text.


def _zone_text(zone: dt.tzinfo | None) -> str:
    """Name of a time zone, or its fixed offset in microseconds."""
    if zone is None:
        return ""
    name = getattr(zone, "key", None) or getattr(zone, "zone", None)  # zoneinfo's, pytz'
    if type(name) is str and name in _zone_names():
        return name
    if type(zone) is dt.timezone:
        return str(zone.utcoffset(None) // dt.timedelta(microseconds=1))
    raise TypeError(f"a time zone of type {type(zone).__name__} has no name.")


def _zone(text: str) -> dt.tzinfo | None:
    if not text:
        return None
    if re.fullmatch(r"-?[0-9]+", text):
        return dt.timezone(dt.timedelta(microseconds=int(text)))
    if text not in _zone_names():
        raise ValueError(f"this machine has no time zone {text!r:.60}. Install tzdata.")
    return zoneinfo.ZoneInfo(text)


def _pandas_zone(text: str) -> dt.tzinfo | str | None:
    """Return the name of a zone, of which pandas 2 makes pytz's and pandas 3 zoneinfo's."""
    zone = _zone(text)
    return zone.key if isinstance(zone, zoneinfo.ZoneInfo) else zone


@functools.cache
def _zone_names() -> set[str]:
    """Names that may be looked up: any other could name a file or a module."""
    return zoneinfo.available_timezones()


def _datetime_text(value: dt.datetime) -> str:
    return f"{value.replace(tzinfo=None).isoformat()};{_zone_text(value.tzinfo)};{value.fold}"


def _datetime(text: str) -> dt.datetime:
    moment, zone, fold = text.split(";")
    return dt.datetime.fromisoformat(moment).replace(tzinfo=_zone(zone), fold=int(fold))


def _timestamp_text(value: pd.Timestamp) -> str:
    return f"{value.asm8.astype('int64')};{value.unit};{_zone_text(value.tzinfo)}"


def _timestamp(text: str) -> pd.Timestamp:
    ticks, unit, zone = text.split(";")
    stamp = pd.Timestamp(np.datetime64(int(ticks), _unit(unit)))
    return stamp.tz_localize("UTC").tz_convert(_pandas_zone(zone)) if zone else stamp


def _duration(text: str) -> pd.Timedelta:
    ticks, unit = text.split(";")
    return pd.Timedelta(np.timedelta64(int(ticks), _unit(unit)))


def _unit(text: str) -> Any:
    if text not in ("s", "ms", "us", "ns"):
        raise ValueError(f"{text!r:.60} is no unit of time.")
    return text


def _time_text(value: dt.time) -> str:
    if value.tzinfo is not None:
        raise TypeError("a time of day with a zone cannot be written.")
    return value.isoformat()


_SCALARS: dict[type, tuple[str, Callable[[Any], str], Callable[[str], Any]]] = {
    type(None): ("None", lambda _: "", lambda _: None),
    bool: ("bool", str, {"True": True, "False": False}.__getitem__),
    int: ("int", str, int),
    float: ("float", repr, float),
    str: ("str", str, str),
    bytes: ("bytes", bytes.hex, bytes.fromhex),
    Decimal: ("Decimal", str, Decimal),
    uuid.UUID: ("UUID", str, uuid.UUID),
    dt.date: ("date", dt.date.isoformat, dt.date.fromisoformat),
    dt.time: ("time", _time_text, dt.time.fromisoformat),
    dt.datetime: ("datetime", _datetime_text, _datetime),
    dt.timedelta: (
        "timedelta",
        lambda value: str(value // dt.timedelta(microseconds=1)),
        lambda text: dt.timedelta(microseconds=int(text)),
    ),
    pd.Timestamp: ("Timestamp", _timestamp_text, _timestamp),
    pd.Timedelta: (
        "Timedelta",
        lambda value: f"{value.asm8.astype('int64')};{value.unit}",
        _duration,
    ),
    type(pd.NaT): ("NaT", lambda _: "", lambda _: pd.NaT),
    type(pd.NA): ("NA", lambda _: "", lambda _: pd.NA),
}
_SCALARS_BY_NAME = {name: read for name, _, read in _SCALARS.values()}


def _scalar_text(value: Any) -> tuple[str, str] | None:
    """Kind of a single value and its text; None where it has none."""
    if type(value) not in _SCALARS:
        return None
    name, write, _ = _SCALARS[type(value)]
    try:
        return name, write(value)
    except TypeError:  # a zone without a name
        return None


# Arrays and containers


def _array_to_plain(array: np.ndarray) -> Any:
    if array.dtype.kind in PLAIN_KINDS:
        return array
    if array.dtype != object:
        return array  # structured arrays, bytes of one width: pickle keeps them
    return {
        KIND: "objects",
        "shape": list(array.shape),
        **_objects_to_plain(array.ravel().tolist()),
    }


def _check_array(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in PLAIN_KINDS:
        raise ValueError(f"an array cannot be of dtype {array.dtype}.")
    array = array.view(np.ndarray)  # from the memmap of joblib.load(mmap_mode="r")
    if array.dtype.kind == "U" and array.dtype.itemsize:
        codes = np.ascontiguousarray(array).reshape(-1).view(array.dtype.byteorder + "u4")
        if codes.max(initial=0) > sys.maxunicode:
            raise ValueError("text must hold code points.")
    return array


def _objects_to_plain(values: list[Any]) -> dict[str, Any]:
    """Values as the octets of their texts, with the kind of each; of text alone it is fast."""
    if all(type(value) is str for value in values):
        return {"kinds": ["str"], **_texts_to_plain(values)}
    pairs = [_scalar_text(value) or (OTHER, "") for value in values]
    kinds = sorted({kind for kind, _ in pairs})
    state: dict[str, Any] = {"kinds": kinds, **_texts_to_plain([text for _, text in pairs])}
    if len(kinds) > 1:
        code_of = {kind: code for code, kind in enumerate(kinds)}
        state["codes"] = np.array([code_of[kind] for kind, _ in pairs], dtype=np.uint8)
    others = zip(values, pairs, strict=True)
    state["others"] = [to_plain(value) for value, (kind, _) in others if kind == OTHER]
    return state


def _objects_from_plain(state: dict[str, Any]) -> np.ndarray:
    texts, kinds = _texts_from_plain(state), check_type(state["kinds"], list)
    codes = state.get("codes", np.zeros(len(texts), dtype=np.uint8))
    if codes.dtype != np.uint8 or codes.shape != (len(texts),):
        raise ValueError("each value of an array must have a kind.")
    values: Iterable[Any] = texts
    if kinds != ["str"]:
        others = [from_plain(other) for other in state["others"]]
        names = [kinds[code] for code in codes.tolist()]
        if names.count(OTHER) != len(others):
            raise ValueError("an array must have all its values.")
        rest = iter(others)
        values = (
            next(rest) if name == OTHER else _SCALARS_BY_NAME[name](text)
            for name, text in zip(names, texts, strict=True)
        )
    array = np.fromiter(values, dtype=object, count=len(texts))
    return array.reshape(check_type(state["shape"], list))


def _texts_to_plain(texts: list[str]) -> dict[str, np.ndarray]:
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    return {"octets": np.frombuffer(b"".join(encoded), dtype=np.uint8), "offsets": offsets}


def _texts_from_plain(state: dict[str, Any]) -> list[str]:
    octets, offsets = state["octets"], state["offsets"]
    if (
        octets.dtype != np.uint8
        or offsets.dtype != np.int64
        or not offsets.ndim == octets.ndim == 1
    ):
        raise ValueError("text must have octets and offsets.")
    if offsets[0] or offsets[-1] != len(octets) or (offsets[1:] < offsets[:-1]).any():
        raise ValueError("the offsets of text must rise from 0 to its length.")
    joined = octets.tobytes()
    bounds = pairwise(offsets.tolist())
    return [joined[start:end].decode("utf-8", "surrogatepass") for start, end in bounds]


def _dict_to_plain(values: dict[Any, Any]) -> dict[str, Any]:
    if KIND not in values and all(type(key) is str for key in values):
        return {key: to_plain(value) for key, value in values.items()}
    return {KIND: "dict", "keys": to_plain(list(values)), "values": to_plain(list(values.values()))}


def _dict_from_plain(state: dict[str, Any]) -> dict[Any, Any]:
    keys, values = from_plain(state["keys"]), from_plain(state["values"])
    pairs = dict(zip(keys, values, strict=True))
    if len(pairs) < len(keys):
        raise ValueError("a key stands twice in a dict.")
    return pairs


def _interval_from_plain(state: dict[str, Any]) -> pd.Interval:
    left, right = from_plain(state["ends"])
    return pd.Interval(left, right, state["closed"])


def _random_state_to_plain(random_state: np.random.RandomState) -> Any:
    name, keys, position, has_gauss, gauss = random_state.get_state(legacy=True)
    if name != "MT19937":
        return random_state
    numbers = {"position": position, "has_gauss": has_gauss, "gauss": gauss}
    return {KIND: "RandomState", "keys": keys, **numbers}


def _random_state_from_plain(state: dict[str, Any]) -> np.random.RandomState:
    keys, position = state["keys"], check_type(state["position"], int)
    has_gauss, gauss = check_type(state["has_gauss"], int), check_type(state["gauss"], float)
    is_whole = keys.dtype == np.uint32 and keys.shape == (N_KEYS,) and 0 <= position <= N_KEYS
    if not is_whole or has_gauss not in (0, 1):  # numpy asks less
        raise ValueError("a random state must have 624 numbers and a position among them.")
    random_state = np.random.RandomState(0)
    random_state.set_state(("MT19937", keys, position, has_gauss, gauss))
    return random_state


# Frames: column by column, each with its dtype


def _frame_to_plain(frame: pd.DataFrame) -> Any:
    if not frame.columns.is_unique or not frame.index.equals(pd.RangeIndex(len(frame))):
        return frame  # no frame of ours has an index of its own
    try:
        columns = [_column_to_plain(frame[name]) for name in frame.columns]
    except TypeError:
        return frame
    names = to_plain(list(frame.columns))
    return {KIND: "frame", "n_rows": len(frame), "names": names, "columns": columns}


def _frame_from_plain(state: dict[str, Any]) -> pd.DataFrame:
    names, columns = from_plain(state["names"]), from_plain(state["columns"])
    if len(set(names)) < len(names) or len(names) != len(columns):
        raise ValueError("each column of a frame must have a name of its own.")
    if any(len(column) != state["n_rows"] for column in columns):
        raise ValueError("the columns of a frame must have its length.")
    objects = [type(column) is np.ndarray and column.dtype == object for column in columns]
    series = [
        pd.Series(column, dtype=object) if is_object else column  # never pandas 3's text
        for column, is_object in zip(columns, objects, strict=True)
    ]
    frame = pd.DataFrame(dict(enumerate(series)), copy=False)
    if names:
        frame.columns = pd.Index(names)
    return frame


def _column_to_plain(column: pd.Series) -> Any:
    dtype: Any = column.dtype
    if isinstance(dtype, np.dtype):
        return _array_to_plain(column.to_numpy())
    if isinstance(dtype, pd.CategoricalDtype):
        values = _column_to_plain(pd.Series(dtype.categories, copy=False))
        codes, is_ordered = column.cat.codes.to_numpy(), bool(dtype.ordered)
        return {KIND: "categories", "values": values, "codes": codes, "is_ordered": is_ordered}
    if isinstance(dtype, pd.DatetimeTZDtype):
        ticks = pd.DatetimeIndex(column).asi8
        return {KIND: "zoned", "unit": dtype.unit, "zone": _zone_text(dtype.tz), "ticks": ticks}
    name, values = _dtype_text(dtype), column.to_numpy(dtype=object)
    if name.startswith(("arrow list", "arrow large_list")):  # an array each, whose list is short
        values[:] = pa.array(column.array).to_pylist()
    return {KIND: "column", "dtype": name, "values": _array_to_plain(values)}


def _dtype_text(dtype: Any) -> str:
    """Name of a dtype of pandas: "Int64", "text pyarrow NA", "arrow timestamp[ns]"."""
    if isinstance(dtype, pd.StringDtype):
        return f"text {dtype.storage} {'NA' if dtype.na_value is pd.NA else 'nan'}"
    is_arrow = isinstance(dtype, pd.ArrowDtype)
    name = f"arrow {_arrow_text(dtype.pyarrow_dtype)}" if is_arrow else str(dtype)
    try:
        is_readable = _dtype(name) == dtype
    except (KeyError, ValueError):
        is_readable = False
    if not is_readable:
        raise TypeError(f"a column of dtype {dtype} cannot be written.")
    return name


def _arrow_text(kind: pa.DataType) -> str:
    """Name of an Arrow type: "string", "list int64", "timestamp us UTC", "decimal128 6 2"."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        name = "list" if pa.types.is_list(kind) else "large_list"
        return f"{name} {_arrow_text(kind.value_type)}"
    if pa.types.is_dictionary(kind):
        words = f"dictionary {kind.index_type} {int(kind.ordered)}"
        return f"{words} {_arrow_text(kind.value_type)}"
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return f"timestamp {kind.unit} {kind.tz}"
    is_decimal = pa.types.is_decimal128(kind)
    return f"decimal128 {kind.precision} {kind.scale}" if is_decimal else str(kind)


def _arrow_type(text: str) -> pa.DataType:
    words = text.split(" ")
    if len(words) > MOST_WORDS:
        raise ValueError(f"an Arrow type has {MOST_WORDS} words at most, got {len(words)}.")
    if words[0] in ("list", "large_list"):
        values = _arrow_type(" ".join(words[1:]))
        return pa.list_(values) if words[0] == "list" else pa.large_list(values)
    if words[0] == "dictionary":
        index, values = pa.type_for_alias(words[1]), _arrow_type(" ".join(words[3:]))
        return pa.dictionary(index, values, ordered=words[2] == "1")
    if words[0] == "timestamp":
        unit, zone = words[1:]
        _pandas_zone(zone)  # raises where it is none
        return pa.timestamp(unit, tz=zone)
    if words[0] == "decimal128":
        precision, scale = words[1:]
        return pa.decimal128(int(precision), int(scale))
    return pa.type_for_alias(text)


def _dtype(text: str) -> Any:
    kind, _, name = text.partition(" ")
    if kind == "text":
        storage, missing = name.split(" ")
        return pd.StringDtype(storage, na_value={"NA": pd.NA, "nan": np.nan}[missing])  # type: ignore[call-overload]
    if kind == "arrow":
        return pd.ArrowDtype(_arrow_type(name))
    if not re.fullmatch(NULLABLE, text):
        raise ValueError(f"{text!r:.60} is no dtype of a column.")
    return pd.api.types.pandas_dtype(text)


def _categories_from_plain(state: dict[str, Any]) -> pd.Categorical:
    codes, is_ordered = from_plain(state["codes"]), check_type(state["is_ordered"], bool)
    categories = pd.Index(from_plain(state["values"]))
    return pd.Categorical.from_codes(codes, categories, ordered=is_ordered)


def _times_from_plain(state: dict[str, Any]) -> pd.DatetimeIndex:
    ticks = from_plain(state["ticks"])
    if ticks.dtype != np.int64:
        raise ValueError("times must be int64.")
    moments = pd.DatetimeIndex(ticks.view(f"M8[{_unit(state['unit'])}]"))
    return moments.tz_localize("UTC").tz_convert(_pandas_zone(state["zone"]))


def _items_of(kind: type) -> Callable[[Any], dict[str, Any]]:
    return lambda values: {KIND: kind.__name__, "items": [to_plain(item) for item in values]}


_WRITERS: dict[type, Callable[[Any], Any]] = {
    list: lambda values: [to_plain(item) for item in values],
    dict: _dict_to_plain,
    tuple: _items_of(tuple),
    set: _items_of(set),
    frozenset: _items_of(frozenset),
    np.ndarray: _array_to_plain,
    np.random.RandomState: _random_state_to_plain,
    pd.DataFrame: _frame_to_plain,
    pd.Index: lambda index: {
        KIND: "index",
        "values": to_plain(index.to_numpy()),
        "name": to_plain(index.name),
    },
    pd.Interval: lambda interval: {
        KIND: "Interval",
        "ends": [to_plain(interval.left), to_plain(interval.right)],
        "closed": interval.closed,
    },
}
_READERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "dict": _dict_from_plain,
    "tuple": lambda state: tuple(from_plain(state["items"])),
    "set": lambda state: set(from_plain(state["items"])),
    "frozenset": lambda state: frozenset(from_plain(state["items"])),
    "objects": _objects_from_plain,
    "numpy": lambda state: from_plain(state["value"])[()],
    "RandomState": _random_state_from_plain,
    "frame": _frame_from_plain,
    "index": lambda state: pd.Index(from_plain(state["values"]), name=from_plain(state["name"])),
    "Interval": _interval_from_plain,
    "categories": _categories_from_plain,
    "zoned": _times_from_plain,
    "column": lambda state: pd.array(from_plain(state["values"]), dtype=_dtype(state["dtype"])),
}
