"""Any value as text and numeric arrays, and back: what pickles, model files and stores hold.

skops turns the keys of a dict into strings (``{False: 1, True: 5}`` comes back as ``{True: 5}``)
and does not support frames and many single values; reading text and arrays builds values of the
types below and nothing else.
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
ARRAY = "array"
PLAIN_KINDS = "biufcmMU"  # numpy's kinds of dtypes that are kept as they are


def write_value(value: Any, *, keeps_objects: bool = False) -> tuple[str, dict[str, Any]]:
    """Write a value as JSON text and the arrays that the text refers to, by name.

    It is built of None, booleans, numbers, text, bytes, dates, durations, lists, tuples, dicts,
    sets, numpy's and pandas' values, else it is a TypeError; with ``keeps_objects`` others stand
    among the arrays.
    """
    arrays: dict[str, Any] = {}
    text = json.dumps(_take_apart(value, arrays))
    for part in () if keeps_objects else arrays.values():
        if not isinstance(part, np.ndarray):
            raise TypeError(f"an object of type {type(part).__name__} cannot be kept as text.")
    return text, arrays


def read_value(text: str | bytes, arrays: Mapping[str, Any]) -> Any:
    """Read what :func:`write_value` wrote; errors are of kinds that ``json`` and numpy raise."""
    return _put_together(json.loads(text), dict(check_type(arrays, dict)))


def to_json(value: Any) -> str:
    """Write a value as JSON text alone: its arrays stand in the text, as base64."""
    text, arrays = write_value(value)
    written = {
        name: [array.dtype.str, array.shape, base64.b64encode(array.tobytes()).decode()]
        for name, array in arrays.items()
    }
    return json.dumps([text, written])


def from_json(text: str) -> Any:
    """Read what :func:`to_json` wrote: a value, whose arrays have the size of their bytes."""
    value, written = json.loads(text)
    return read_value(value, {name: _read_array(*parts) for name, parts in written.items()})


def _read_array(dtype: str, shape: list[int], octets: str) -> np.ndarray:
    content = bytearray(base64.b64decode(check_type(octets, str), validate=True))
    return np.frombuffer(content, np.dtype(dtype)).reshape(check_type(shape, list))


def check_type(value: Any, *types: type) -> Any:
    """Return a value whose type is exactly one of these, else raise ValueError."""
    if type(value) not in types:
        names = " or ".join(kind.__name__ for kind in types)
        raise ValueError(f"{names} was needed, got {value!r:.60}.")
    return value


def _take_apart(value: Any, arrays: dict[str, Any]) -> Any:
    """Return a value as JSON; what JSON cannot hold is added to the arrays."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [_take_apart(item, arrays) for item in value]
    if kind is dict and KIND not in value and all(type(key) is str for key in value):
        return {key: _take_apart(item, arrays) for key, item in value.items()}
    if isinstance(value, np.generic) and value.dtype.kind in PLAIN_KINDS:
        kind = np.generic
    if kind in _KINDS:
        name, take_apart, _ = _KINDS[kind]
        parts = take_apart(value)
        if parts is not value:  # an array of numbers, or a frame that cannot be read back
            return {KIND: name, "of": _take_apart(parts, arrays)}
    name = str(len(arrays))
    arrays[name] = value
    return {KIND: ARRAY, "of": name}


def _put_together(value: Any, arrays: dict[str, Any]) -> Any:
    """Return a value from JSON; each array belongs to one place."""
    if type(value) is list:
        return [_put_together(item, arrays) for item in value]
    if type(value) is not dict:
        return value
    if KIND not in value:
        return {name: _put_together(item, arrays) for name, item in value.items()}
    kind, content = value[KIND], value["of"]
    if kind == ARRAY:
        return _check_array(arrays.pop(content))
    if kind not in _READERS:
        raise ValueError(f"{kind!r:.60} is no kind of value. A newer version may have saved it.")
    return _READERS[kind](_put_together(content, arrays))


# Arrays and dicts


def _take_array_apart(array: np.ndarray) -> Any:
    if array.dtype != object:
        return array  # structured arrays, bytes of one width: pickle keeps them
    text, parts = write_value(array.ravel().tolist(), keeps_objects=True)
    return [list(array.shape), np.frombuffer(text.encode(), np.uint8), parts]


def _read_objects(parts: Any) -> np.ndarray:
    shape, text, arrays = parts
    values = check_type(read_value(text.tobytes(), arrays), list)
    return np.fromiter(values, dtype=object, count=len(values)).reshape(check_type(shape, list))


def _check_array(array: Any) -> Any:
    """Return what stands among the arrays, where it is one checked and as a plain one."""
    if not isinstance(array, np.ndarray):
        return array
    if array.dtype.kind not in PLAIN_KINDS:
        raise ValueError(f"an array cannot be of dtype {array.dtype}.")
    array = array.view(np.ndarray)  # from the memmap of joblib.load(mmap_mode="r")
    if array.dtype.kind == "U" and array.dtype.itemsize:
        codes = np.ascontiguousarray(array).reshape(-1).view(array.dtype.byteorder + "u4")
        if codes.max(initial=0) > sys.maxunicode:
            raise ValueError("text must hold code points.")
    return array


def _read_dict(parts: Any) -> dict[Any, Any]:
    keys, values = parts
    pairs = dict(zip(keys, values, strict=True))
    if len(pairs) < len(keys):
        raise ValueError("a key stands twice in a dict.")
    return pairs


# Frames: column by column, each with its dtype


def _take_frame_apart(frame: pd.DataFrame) -> Any:
    if not frame.columns.is_unique or not frame.index.equals(pd.RangeIndex(len(frame))):
        return frame  # no frame of ours has an index of its own
    try:
        columns = [_take_column_apart(frame[name]) for name in frame.columns]
    except TypeError:
        return frame
    return [list(frame.columns), columns]


def _read_frame(parts: Any) -> pd.DataFrame:
    names, columns = parts[0], [_read_column(*column) for column in parts[1]]
    objects = [type(column) is np.ndarray and column.dtype == object for column in columns]
    series = [
        pd.Series(column, dtype=object) if is_object else column  # never pandas 3's text
        for column, is_object in zip(columns, objects, strict=True)
    ]
    frame = pd.DataFrame(dict(enumerate(series)), copy=False)
    if names:
        frame.columns = pd.Index(names)
    return frame


def _take_column_apart(column: pd.Series) -> list[Any]:
    """Return a column's values and what they are; TypeError where it could not be read back."""
    dtype: Any = column.dtype
    if isinstance(dtype, np.dtype):
        return [column.to_numpy()]
    if isinstance(dtype, pd.CategoricalDtype):
        categories = _take_column_apart(pd.Series(dtype.categories, copy=False))
        return [column.cat.codes.to_numpy(), categories, bool(dtype.ordered)]
    values = column.to_numpy(dtype=object)
    if isinstance(dtype, pd.DatetimeTZDtype):
        values = pd.DatetimeIndex(column).tz_convert(None).to_numpy()
    elif isinstance(dtype, pd.ArrowDtype) and is_list(dtype.pyarrow_dtype):  # an array each
        values[:] = pa.array(column.array).to_pylist()
    written = pa.Schema.from_pandas(column.iloc[:0].to_frame("column"), preserve_index=False)
    schema, is_arrow = written.serialize().to_pybytes(), isinstance(dtype, pd.ArrowDtype)
    if _dtype(schema, is_arrow) != dtype and not isinstance(dtype, pd.StringDtype):
        raise TypeError(f"a column of dtype {dtype} cannot be written.")  # text: of either storage
    return [values, schema, is_arrow]


def _read_column(values: Any, kind: Any = None, flag: Any = False) -> Any:
    if kind is None:
        return values
    if type(kind) is list:
        categories = pd.Index(_read_column(*kind))
        return pd.Categorical.from_codes(values, categories, ordered=check_type(flag, bool))
    dtype = _dtype(check_type(kind, bytes), check_type(flag, bool))
    if isinstance(dtype, pd.DatetimeTZDtype):
        return pd.DatetimeIndex(values, tz="UTC").tz_convert(dtype.tz)
    return pd.array(values, dtype=dtype)


def _dtype(schema: bytes, is_arrow: bool) -> Any:
    """Return the dtype of a column by the Arrow schema that was written of it."""
    read = pa.ipc.read_schema(pa.py_buffer(schema))
    return (
        pd.ArrowDtype(read.field(0).type)
        if is_arrow
        else read.empty_table().to_pandas().iloc[:, 0].dtype
    )


def _of_text(read: Callable[[str], Any]) -> Callable[[Any], Any]:
    return lambda text: read(check_type(text, str))


# By type: name of the kind, value -> what it is made of, and back. Of a time zone, the offset is
# kept.
_KINDS: dict[type, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = {
    bytes: ("bytes", bytes.hex, _of_text(bytes.fromhex)),
    Decimal: ("Decimal", str, _of_text(Decimal)),
    uuid.UUID: ("UUID", str, _of_text(uuid.UUID)),
    dt.date: ("date", dt.date.isoformat, _of_text(dt.date.fromisoformat)),
    dt.time: ("time", dt.time.isoformat, _of_text(dt.time.fromisoformat)),
    dt.datetime: ("datetime", dt.datetime.isoformat, _of_text(dt.datetime.fromisoformat)),
    dt.timedelta: (
        "timedelta",
        lambda value: str(value // dt.timedelta(microseconds=1)),
        lambda text: dt.timedelta(microseconds=int(check_type(text, str))),
    ),
    pd.Timestamp: ("Timestamp", pd.Timestamp.isoformat, _of_text(pd.Timestamp)),
    pd.Timedelta: ("Timedelta", pd.Timedelta.isoformat, _of_text(pd.Timedelta)),
    type(pd.NaT): ("NaT", lambda _: "", lambda _: pd.NaT),
    type(pd.NA): ("NA", lambda _: "", lambda _: pd.NA),
    pd.Interval: ("Interval", lambda i: [i.left, i.right, i.closed], lambda p: pd.Interval(*p)),
    **{kind: (kind.__name__, list, kind) for kind in (tuple, set, frozenset)},
    dict: ("dict", lambda values: [list(values), list(values.values())], _read_dict),
    np.generic: ("numpy", np.asarray, lambda array: array[()]),
    np.ndarray: ("objects", _take_array_apart, _read_objects),
    pd.Index: ("index", lambda i: [i.to_numpy(), i.name], lambda p: pd.Index(p[0], name=p[1])),
    pd.DataFrame: ("frame", _take_frame_apart, _read_frame),
}
_READERS = {name: read for name, _, read in _KINDS.values()}
