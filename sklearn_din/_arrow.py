"""Python objects as Arrow arrays, where they are of one kind."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

# Values of one of these types need no inference, which Arrow would make in a pass of its own.
_ARROW_TYPES: Mapping[type, pa.DataType] = {
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    bool: pa.bool_(),
}
_NUMPY_TIMES = {np.datetime64, np.timedelta64}
_NUMBERS = (int, np.integer, np.floating)
_NOT_FOR_ARROW = (TypeError, ValueError, OverflowError, NotImplementedError)  # and its own kinds


class MixedKindsError(ValueError):
    """Values that have no Arrow type in common."""


def arrow_of_lists(cells: np.ndarray) -> pa.Array:
    """Return lists, tuples and arrays of values of one kind as Arrow lists; missing cells are null.

    Raises
    ------
    MixedKindsError
        Where the values are of several kinds, or of one that Arrow does not have.

    Examples
    --------
    >>> arrow_of_lists(np.array([[1, 2], None, [3]], dtype=object)).type
    ListType(list<item: int64>)
    """
    present = [cell for cell in cells if isinstance(cell, list | tuple | np.ndarray)]
    arrays = [cell for cell in present if isinstance(cell, np.ndarray)]
    dtypes = {array.dtype for array in arrays}
    types = {dtype.type for dtype in dtypes if dtype.kind != "O"}
    if np.dtype(object) in dtypes or not arrays:
        types |= set(map(type, chain.from_iterable(present)))
    elif len(arrays) < len(present):
        lists = (cell for cell in present if not isinstance(cell, np.ndarray))
        types |= set(map(type, chain.from_iterable(lists)))
    plain = types - {type(None)}
    if len(present) < len(cells):  # a number of numpy's in the place of a list
        types |= {type(cell) for cell in cells if isinstance(cell, np.generic)}
    kind = _ARROW_TYPES.get(*plain) if len(plain) == 1 and not arrays else None
    return _convert(cells, types, None if kind is None else pa.list_(kind))


def arrow_of_values(values: np.ndarray) -> pa.Array:
    """Return values of one kind as an Arrow array; missing ones are null.

    Raises
    ------
    MixedKindsError
        Where they are of several kinds, or of one that Arrow does not have.

    Examples
    --------
    >>> arrow_of_values(np.array(["hat", None], dtype=object)).null_count
    1
    """
    types = set(map(type, values)) if values.dtype == object else set()
    return _convert(values, types, None)


def _convert(values: Any, types: set[type], kind: pa.DataType | None) -> pa.Array:
    # Arrow (pyarrow 26) crashes, it does not raise, on numpy's times followed by numpy's numbers.
    if types & _NUMPY_TIMES and len(types - {type(None)}) > 1:
        raise MixedKindsError("numpy's times beside other values")
    # It makes ones of numpy's booleans beside numbers: a cell alone would hold another value.
    if np.bool_ in types and any(issubclass(kind, _NUMBERS) for kind in types - {bool}):
        raise MixedKindsError("booleans beside numbers")
    try:
        return pa.array(values, type=kind, from_pandas=True)
    except _NOT_FOR_ARROW as error:
        raise MixedKindsError(str(error)) from error
