"""Any value as numbers, strings, lists, dicts with string keys and numeric arrays, and back.

Fitted estimators are passed to pickle and skops in this form. skops turns the keys of a dict into
strings (``{False: 1, True: 5}`` comes back as ``{True: 5}``) and does not support frames and many
single values; reading this form builds values of the types below and nothing else.
"""

import base64
import datetime as dt
import json
import sys
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from sklearn_din.utils.arrow import is_list

KIND = "__kind__"  # a dict with this key stands for a value of the kind that it names
PLAIN_KINDS = "biufcmMU"  # numpy's kinds of dtypes that are kept as they are


def to_plain(value: Any) -> Any:
    """Write a value as numbers, text, lists, dicts with text keys and numeric arrays.

    It may be built of None, booleans, numbers, text, bytes, dates, durations, lists, tuples, dicts,
    sets, numpy's scalars and arrays, pandas' frames, indices and intervals. Objects of other types
    stand in the result as they are: pickle may be able to keep them, skops keeps random states.

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
    if kind not in _SCALARS:
        return value
    name, write, _ = _SCALARS[kind]
    return {KIND: name, "text": write(value)}


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


def to_json(value: Any) -> str:
    """Write a plain value as JSON text alone: its arrays stand in the text, as base64.

    An object that :func:`to_plain` left as it was raises TypeError.

    >>> text = to_json({"counts": np.array([2, 1])})
    >>> from_json(text)
    {'counts': array([2, 1])}
    """
    text, arrays = split_arrays(value)
    written = {}
    for name, array in arrays.items():
        content = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
        written[name] = {"dtype": array.dtype.str, "shape": array.shape, "bytes": content}
    return json.dumps({"value": text, "arrays": written})


def from_json(text: str) -> Any:
    """Read what :func:`to_json` wrote: a plain value, whose arrays have the size of their bytes."""
    parts = check_type(json.loads(text), dict)
    arrays = {}
    for name, written in check_type(parts["arrays"], dict).items():
        content = base64.b64decode(check_type(written["bytes"], str), validate=True)
        dtype = np.dtype(check_type(written["dtype"], str))
        if dtype.kind not in PLAIN_KINDS or not dtype.itemsize:
            raise ValueError(f"an array cannot be of dtype {dtype}.")
        shape = check_type(written["shape"], list)
        arrays[name] = np.frombuffer(bytearray(content), dtype).reshape(shape)
    return join_arrays(check_type(parts["value"], str), arrays)


def check_type(value: Any, *types: type) -> Any:
    """Return a value whose type is exactly one of these, else raise ValueError."""
    if type(value) not in types:
        names = " or ".join(kind.__name__ for kind in types)
        raise ValueError(f"{names} was needed, got {value!r:.60}.")
    return value


# Single values as text, by type: name of the kind, value -> text, text -> value. Of a time zone,
# the offset is kept.
_SCALARS: dict[type, tuple[str, Callable[[Any], str], Callable[[str], Any]]] = {
    bytes: ("bytes", bytes.hex, bytes.fromhex),
    Decimal: ("Decimal", str, Decimal),
    uuid.UUID: ("UUID", str, uuid.UUID),
    dt.date: ("date", dt.date.isoformat, dt.date.fromisoformat),
    dt.time: ("time", dt.time.isoformat, dt.time.fromisoformat),
    dt.datetime: ("datetime", dt.datetime.isoformat, dt.datetime.fromisoformat),
    dt.timedelta: (
        "timedelta",
        lambda value: str(value // dt.timedelta(microseconds=1)),
        lambda text: dt.timedelta(microseconds=int(text)),
    ),
    pd.Timestamp: ("Timestamp", pd.Timestamp.isoformat, pd.Timestamp),
    pd.Timedelta: ("Timedelta", pd.Timedelta.isoformat, pd.Timedelta),
    type(pd.NaT): ("NaT", lambda _: "", lambda _: pd.NaT),
    type(pd.NA): ("NA", lambda _: "", lambda _: pd.NA),
}
_SCALARS_BY_NAME = {name: read for name, _, read in _SCALARS.values()}


# Arrays and containers


def _array_to_plain(array: np.ndarray) -> Any:
    if array.dtype != object:
        return array  # structured arrays, bytes of one width: pickle keeps them
    items = [to_plain(value) for value in array.ravel().tolist()]
    state: dict[str, Any] = {KIND: "objects", "shape": list(array.shape)}
    try:
        text, arrays = split_arrays(items)
    except TypeError:  # an object that pickle alone may keep
        return state | {"items": items}
    return state | {"text": np.frombuffer(text.encode(), dtype=np.uint8), "arrays": arrays}


def _check_array(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in PLAIN_KINDS:
        raise ValueError(f"an array cannot be of dtype {array.dtype}.")
    array = array.view(np.ndarray)  # from the memmap of joblib.load(mmap_mode="r")
    if array.dtype.kind == "U" and array.dtype.itemsize:
        codes = np.ascontiguousarray(array).reshape(-1).view(array.dtype.byteorder + "u4")
        if codes.max(initial=0) > sys.maxunicode:
            raise ValueError("text must hold code points.")
    return array


def _objects_from_plain(state: dict[str, Any]) -> np.ndarray:
    items = state.get("items")
    if items is None:
        items = join_arrays(_check_array(state["text"]).tobytes(), state["arrays"])
    values = from_plain(check_type(items, list))
    array = np.fromiter(values, dtype=object, count=len(values))
    return array.reshape(check_type(state["shape"], list))


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


# Frames: column by column, each with its dtype


def _frame_to_plain(frame: pd.DataFrame) -> Any:
    if not frame.columns.is_unique or not frame.index.equals(pd.RangeIndex(len(frame))):
        return frame  # no frame of ours has an index of its own
    try:
        columns = [_column_to_plain(frame[name]) for name in frame.columns]
    except TypeError:
        return frame
    return {KIND: "frame", "names": to_plain(list(frame.columns)), "columns": columns}


def _frame_from_plain(state: dict[str, Any]) -> pd.DataFrame:
    names, columns = from_plain(state["names"]), from_plain(state["columns"])
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
    """Write a column of a frame; TypeError for a dtype that cannot be read back."""
    dtype: Any = column.dtype
    if isinstance(dtype, np.dtype):
        return _array_to_plain(column.to_numpy())
    if isinstance(dtype, pd.CategoricalDtype):
        values = _column_to_plain(pd.Series(dtype.categories, copy=False))
        codes, is_ordered = column.cat.codes.to_numpy(), bool(dtype.ordered)
        return {KIND: "categories", "values": values, "codes": codes, "is_ordered": is_ordered}
    values = column.to_numpy(dtype=object)
    if isinstance(dtype, pd.DatetimeTZDtype):
        values = pd.DatetimeIndex(column).tz_convert(None).to_numpy()
    elif isinstance(dtype, pd.ArrowDtype) and is_list(dtype.pyarrow_dtype):  # an array each
        values[:] = pa.array(column.array).to_pylist()
    written = pa.Schema.from_pandas(column.iloc[:0].to_frame("column"), preserve_index=False)
    schema = np.frombuffer(written.serialize(), dtype=np.uint8)
    state = {KIND: "column", "schema": schema, "is_arrow": isinstance(dtype, pd.ArrowDtype)}
    if _dtype(state) != dtype and not isinstance(dtype, pd.StringDtype):  # of either storage
        raise TypeError(f"a column of dtype {dtype} cannot be written.")
    return state | {"values": _array_to_plain(values)}


def _column_from_plain(state: dict[str, Any]) -> Any:
    values, dtype = from_plain(state["values"]), _dtype(state)
    if isinstance(dtype, pd.DatetimeTZDtype):
        return pd.DatetimeIndex(values, tz="UTC").tz_convert(dtype.tz)
    return pd.array(values, dtype=dtype)


def _dtype(state: dict[str, Any]) -> Any:
    """Return the dtype of a column by the Arrow schema that was written of it."""
    schema = pa.ipc.read_schema(pa.py_buffer(_check_array(state["schema"])))
    if check_type(state["is_arrow"], bool):
        return pd.ArrowDtype(schema.field(0).type)
    return schema.empty_table().to_pandas().iloc[:, 0].dtype


def _categories_from_plain(state: dict[str, Any]) -> pd.Categorical:
    codes, is_ordered = from_plain(state["codes"]), check_type(state["is_ordered"], bool)
    categories = pd.Index(from_plain(state["values"]))
    return pd.Categorical.from_codes(codes, categories, ordered=is_ordered)


def _items_of(kind: type) -> Callable[[Any], dict[str, Any]]:
    return lambda values: {KIND: kind.__name__, "items": [to_plain(item) for item in values]}


_WRITERS: dict[type, Callable[[Any], Any]] = {
    list: lambda values: [to_plain(item) for item in values],
    dict: _dict_to_plain,
    **{kind: _items_of(kind) for kind in (tuple, set, frozenset)},
    np.ndarray: _array_to_plain,
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
    "frame": _frame_from_plain,
    "index": lambda state: pd.Index(from_plain(state["values"]), name=from_plain(state["name"])),
    "Interval": lambda state: pd.Interval(
        *from_plain(state["ends"]),
        state["closed"],  # type: ignore[call-arg]
    ),
    "categories": _categories_from_plain,
    "column": _column_from_plain,
}
