"""A pandas frame as JSON and arrays, and back: each column by its dtype, from a closed list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa

from sklearn_din.state.plain_scalars import (
    PANDAS_UNITS,
    Json,
    NotPlainError,
    check_in,
    check_type,
    fields,
    objects_of,
    read_zone,
    write_zone,
)

MASKED_ARRAYS: dict[str, Callable[[np.ndarray, np.ndarray], Any]] = {
    "boolean": pd.arrays.BooleanArray,
    **{f"{sign}Int{n}": pd.arrays.IntegerArray for sign in ("", "U") for n in (8, 16, 32, 64)},
    **{f"Float{n}": pd.arrays.FloatingArray for n in (32, 64)},
}
ARROW_TYPES: dict[str, pa.DataType] = {
    str(its_type): its_type
    for its_type in (
        *(pa.bool_(), pa.string(), pa.large_string(), pa.binary(), pa.date32(), pa.date64()),
        *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64()),
        *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
        *(pa.timestamp(unit) for unit in PANDAS_UNITS),
        *(pa.duration(unit) for unit in PANDAS_UNITS),
    )
}
NA_VALUES = {"NA": pd.NA, "nan": np.nan}


class Writer(Protocol):
    """What is asked of :class:`sklearn_din.state.plain_state.PlainWriter`."""

    def write(self, value: object, path: str) -> Json: ...

    def store(self, array: np.ndarray, path: str) -> str: ...

    def write_array(self, array: np.ndarray, path: str) -> dict[str, Json]: ...


class Reader(Protocol):
    """What is asked of :class:`sklearn_din.state.plain_state.PlainReader`."""

    def read(self, node: Json) -> Any: ...

    def take(self, name: Json, *, kinds: str = ..., ndim: int | None = ...) -> np.ndarray: ...


def write_frame(writer: Writer, frame: pd.DataFrame, path: str) -> Json:
    """Write a frame whose rows are numbered from 0.

    Raises
    ------
    NotPlainError
        For another index, repeated names, or a dtype that is not in the list.
    """
    if not frame.columns.is_unique or not frame.index.equals(pd.RangeIndex(len(frame))):
        raise NotPlainError("a frame with an index of its own")
    for dtype in frame.dtypes:
        _check_dtype(dtype)
    names = [writer.write(name, path) for name in frame.columns]
    columns = [_write_column(writer, frame[name], f"{path}.{name}") for name in frame.columns]
    return [len(frame), names, columns]


def read_frame(reader: Reader, node: Json) -> pd.DataFrame:
    """Read a frame and check that all columns have its length."""
    n_rows, names, columns = fields(node, 3)
    names = [reader.read(name) for name in check_type(names, list, what="column names")]
    nodes = check_type(columns, list, what="columns")
    values = [_read_column(reader, column) for column in nodes]
    if len(names) != len(values) or len(set(names)) < len(names):
        raise ValueError("each column of a frame must have a name of its own.")
    if any(len(column) != n_rows for column in values) or (not values and n_rows):
        raise ValueError("the columns of a frame must have its length.")
    frame = pd.DataFrame(dict(enumerate(values)), copy=False)
    frame.columns = pd.Index(names) if names else frame.columns
    return frame


def _check_dtype(dtype: Any) -> None:
    if isinstance(dtype, np.dtype):
        if dtype.kind in "biufmMO":
            return None
    elif isinstance(dtype, pd.CategoricalDtype):
        return _check_dtype(dtype.categories.dtype)
    elif isinstance(dtype, pd.ArrowDtype):
        if str(dtype.pyarrow_dtype) in ARROW_TYPES:
            return None
    elif isinstance(dtype, pd.DatetimeTZDtype):
        write_zone(dtype.tz)
        return None
    elif isinstance(dtype, pd.StringDtype) or dtype.name in MASKED_ARRAYS:
        return None
    raise NotPlainError(f"a column of dtype {dtype}")


def _write_column(writer: Writer, column: pd.Series, path: str) -> Json:
    dtype: Any = column.dtype
    if isinstance(dtype, np.dtype):
        return writer.write_array(column.to_numpy(), path)
    if isinstance(dtype, pd.CategoricalDtype):
        categories = pd.Series(dtype.categories, copy=False)
        kinds = _write_column(writer, categories, f"{path}.categories")
        codes = writer.store(column.cat.codes.to_numpy(), path)
        return {"category": [kinds, bool(dtype.ordered), codes]}
    if isinstance(dtype, pd.DatetimeTZDtype):
        ticks = pd.DatetimeIndex(column).asi8
        return {"zoned": [dtype.unit, write_zone(dtype.tz), writer.store(ticks, path)]}
    if isinstance(dtype, pd.ArrowDtype):
        values = objects_of(pa.array(column.array).to_pylist())
        return {"arrow": [str(dtype.pyarrow_dtype), writer.write_array(values, path)]}
    missing = column.isna().to_numpy()
    mask = writer.store(missing, f"{path}.mask")
    if isinstance(dtype, pd.StringDtype):
        text = objects_of(column.fillna("").tolist())
        na_value = "NA" if dtype.na_value is pd.NA else "nan"
        return {"string": [dtype.storage, na_value, writer.write_array(text, path), mask]}
    filled = column.fillna(dtype.type(0)).to_numpy(dtype=dtype.numpy_dtype)
    return {"nullable": [dtype.name, writer.store(filled, path), mask]}


def _read_column(reader: Reader, node: Json) -> Any:
    if type(node) is not dict or len(node) != 1:
        raise ValueError(f"a column must have one type, got {node!r:.60}.")
    [(tag, content)] = node.items()
    if tag in COLUMNS:
        return COLUMNS[tag](reader, content)
    values = reader.read(node)
    if type(values) is not np.ndarray or values.ndim != 1:
        raise ValueError(f"a column must hold values, got {tag!r:.60}.")
    is_object = values.dtype == object
    return pd.Series(values, dtype=object) if is_object else values  # never pandas 3's text


def _read_category(reader: Reader, node: Json) -> pd.Categorical:
    categories, ordered, codes = fields(node, 3)
    values = pd.Index(_read_column(reader, categories))
    its_codes = reader.take(codes, kinds="i", ndim=1)
    is_ordered = check_type(ordered, bool, what="ordered")
    return pd.Categorical.from_codes(its_codes, values, ordered=is_ordered)


def _read_zoned(reader: Reader, node: Json) -> pd.DatetimeIndex:
    unit, zone, ticks = fields(node, 3)
    check_in(unit, PANDAS_UNITS, what="a unit of time")
    values = reader.take(ticks, kinds="i", ndim=1)
    if values.dtype != np.int64:
        raise ValueError("times must be int64.")
    utc = pd.DatetimeIndex(values.view(f"M8[{unit}]")).tz_localize("UTC")
    return utc.tz_convert(read_zone(zone))


def _read_string(reader: Reader, node: Json) -> Any:
    storage, na_value, text, mask = fields(node, 4)
    check_in(storage, ("python", "pyarrow"), what="where text is stored")
    missing = NA_VALUES[check_in(na_value, NA_VALUES, what="a missing value")]
    values, is_missing = reader.read(text), reader.take(mask, kinds="b", ndim=1)
    if type(values) is not np.ndarray or values.shape != is_missing.shape:
        raise ValueError("a column of text must hold text.")
    values = values.copy()
    values[is_missing] = missing
    return pd.array(values, dtype=pd.StringDtype(storage, na_value=missing))  # type: ignore[call-overload]


def _read_nullable(reader: Reader, node: Json) -> Any:
    name, values, mask = fields(node, 3)
    make = MASKED_ARRAYS[check_in(name, MASKED_ARRAYS, what="a dtype")]
    array = make(reader.take(values, ndim=1), reader.take(mask, kinds="b", ndim=1))
    if array.dtype.name != name:
        raise ValueError(f"{name} was needed, got {array.dtype.name}.")
    return array


def _read_arrow(reader: Reader, node: Json) -> Any:
    name, values = fields(node, 2)
    its_type = ARROW_TYPES[check_in(name, ARROW_TYPES, what="an Arrow type")]
    return pd.arrays.ArrowExtensionArray(pa.array(list(reader.read(values)), its_type))


COLUMNS: dict[str, Callable[[Reader, Json], Any]] = {
    "category": _read_category,
    "zoned": _read_zoned,
    "string": _read_string,
    "nullable": _read_nullable,
    "arrow": _read_arrow,
}
