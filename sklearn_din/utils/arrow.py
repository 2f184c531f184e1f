"""Python objects as Arrow arrays, if they are of one type; which types are lists."""

import numpy as np
import pyarrow as pa

_NUMPY_TIMES = {np.datetime64, np.timedelta64}
_NUMBERS = (int, np.integer, np.floating)
_NOT_FOR_ARROW = (TypeError, ValueError, OverflowError, NotImplementedError)  # and its own kinds


class MixedKindsError(ValueError):
    """Values that have no Arrow type in common."""


def arrow_of_values(values: np.ndarray) -> pa.Array:
    """Return values of one kind as an Arrow array; missing ones are null.

    Raises
    ------
    MixedKindsError
        Where they are of several kinds, or of one that Arrow does not have.

    >>> arrow_of_values(np.array(["hat", None], dtype=object)).null_count
    1
    """
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
