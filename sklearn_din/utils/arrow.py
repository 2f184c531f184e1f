"""Python objects as Arrow arrays, if they are of one type; which types are lists."""

import numpy as np
import pandas as pd
import pyarrow as pa

_NUMPY_TIMES = {np.datetime64, np.timedelta64}
_NUMBERS = (int, np.integer, np.floating)
_NOT_FOR_ARROW = (TypeError, ValueError, OverflowError, NotImplementedError)  # and its own kinds


class MixedKindsError(ValueError):
    """Values that have no Arrow type in common."""


def arrow_of_values(values: np.ndarray) -> pa.Array:
    """Return values as an Arrow array, missing ones null; MixedKindsError of several kinds."""
    types = set(map(type, values)) if values.dtype == object else set()
    # Arrow (pyarrow 26) crashes, it does not raise, on numpy's times followed by numpy's numbers.
    if types & _NUMPY_TIMES and len(types - {type(None)}) > 1:
        raise MixedKindsError("numpy's times beside other values")
    # It makes ones of numpy's booleans beside numbers: a value alone would be another one.
    if np.bool_ in types and any(issubclass(kind, _NUMBERS) for kind in types - {bool}):
        raise MixedKindsError("booleans beside numbers")
    try:
        return pa.array(values, from_pandas=True)
    except _NOT_FOR_ARROW as error:
        raise MixedKindsError(str(error)) from error


def arrow_of_events(values: np.ndarray, column: object) -> pa.Array:
    """Return events as an Arrow array; an error names their column."""
    try:
        return arrow_of_values(values)
    except MixedKindsError as error:
        raise ValueError(
            f"{column!r} holds events of several kinds, which Arrow and Parquet cannot hold "
            f"({error}). Make them one kind before attach_history, with astype(str) for example."
        ) from error


def is_list(kind: pa.DataType) -> bool:
    """Return whether a type is that of lists."""
    return (
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)  # never cast: pyarrow 26 loses events of list views
        or pa.types.is_large_list_view(kind)
    )


def arrow_of_column(column: pd.Series) -> pa.Array:
    """Return a column as one Arrow array of plain values: no dictionary, 64-bit offsets of text."""
    values = column.array if isinstance(column.dtype, pd.ArrowDtype) else column
    array = pa.array(values, from_pandas=True)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    kind = plain_type(array.type)
    kind = pa.large_string() if pa.types.is_string(kind) else kind
    return array if array.type == kind else array.cast(kind)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of values, also of a dictionary; numbers of 16 bits get 32, to be sorted."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(pa.field("element", plain_type(kind.value_type)))
    return kind
