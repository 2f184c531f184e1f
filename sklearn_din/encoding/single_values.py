"""Columns of one value per cell as flat arrays: ids as codes, numbers as floats."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from sklearn_din._validation import plain_values

LARGEST = float(np.finfo(np.float32).max)
Values: TypeAlias = "np.ndarray | pa.ChunkedArray"
Codes = tuple[np.ndarray, np.ndarray]


def factorize(values: Values | pd.Series, *, name: str) -> Codes:
    """Each value's code (int32, -1 where missing) and the distinct values, as numpy arrays.

    Examples
    --------
    >>> factorize(pd.Series(["hat", None, "sock", "hat"]), name="item")
    (array([ 0, -1,  1,  0], dtype=int32), array(['hat', 'sock'], dtype=object))
    """
    try:
        if isinstance(values, pa.ChunkedArray):
            return _without_nan(*_factorize_arrow(values))
        if isinstance(values, pd.Series) and values.dtype == np.float16:  # no index of these
            values = values.astype(np.float32)
        if isinstance(values, pd.Series):  # not as a Series: pandas would infer another dtype
            is_numpy = isinstance(values.dtype, np.dtype)
            values = values.to_numpy() if is_numpy else values.array
        codes, distinct = pd.factorize(values)  # type: ignore[arg-type]
    except (TypeError, pa.ArrowNotImplementedError) as error:  # lists, dicts: not hashable
        raise ValueError(
            f"{name} must hold ids (integers, text, categories), got values that cannot be "
            f"compared: {first_present(values)!r}. {_advice(values)}"
        ) from error
    if not isinstance(distinct, np.ndarray):
        distinct = plain_values(pd.Series(distinct))
    return _without_nan(codes.astype(np.int32), distinct)


def as_numbers(column: pd.Series, *, name: str) -> np.ndarray:
    """Return the column as float64, NaN where missing; raise where that cannot be."""
    kind = getattr(column.dtype, "kind", "O")
    if kind in "mM":
        raise ValueError(
            f"{name} must hold numbers, got dates ({column.dtype}). Give it the dtype that it had "
            "at fit."
        )
    if kind == "c":
        raise ValueError(
            f"{name} must hold numbers, got complex numbers ({column.dtype}). Make real columns "
            "of them."
        )
    try:
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must hold numbers, got dtype {column.dtype} with values such as "
            f"{first_present(column)!r}. Convert it with pd.to_numeric, or name it as ids in "
            "categorical."
        ) from error
    except OverflowError as error:  # Python integers may be larger than any float
        raise _too_large(name, "an integer beyond float64") from error
    if np.isinf(numbers).any():
        raise ValueError(
            f"Input X contains infinity in {name}. Replace it by a finite number, or by NaN, "
            "which is given the mean."
        )
    largest = np.abs(numbers).max(initial=0.0, where=~np.isnan(numbers))
    if largest > LARGEST:
        raise _too_large(name, f"{largest:g}")
    return numbers


def _too_large(name: str, what: str) -> ValueError:
    return ValueError(
        f"Input X contains a value too large for float32 in {name}, {what}. Replace it by a "
        "smaller number, or by NaN, which is given the mean."
    )


def are_whole(numbers: np.ndarray) -> bool:
    """Return whether there are numbers and none has a fraction; missing ones do not count."""
    present = numbers[~np.isnan(numbers)]
    return bool(len(present)) and bool((present == np.floor(present)).all())


def is_missing(cell: object) -> bool:
    """Return whether an object stands for nothing: None, NaN, NaT or NA."""
    return (
        cell is None
        or cell is pd.NA
        or cell is pd.NaT
        or (isinstance(cell, float | np.floating) and bool(np.isnan(cell)))
    )


def first_present(values: Iterable | pa.ChunkedArray) -> object:
    """Return the first value that is not missing, None where there is none."""
    if isinstance(values, pa.ChunkedArray):
        values = values.to_pylist()
    return next((value for value in values if not is_missing(value)), None)


def _advice(values: Values | pd.Series) -> str:
    """Suggest a way to encode values that are no ids. A map's cells read as lists of pairs."""
    kind = getattr(values, "type", getattr(getattr(values, "dtype", None), "pyarrow_dtype", None))
    is_map = isinstance(kind, pa.DataType) and pa.types.is_map(kind)
    if isinstance(first_present(values), list | tuple | np.ndarray) and not is_map:
        return "A column of lists belongs in histories."
    return "Give each part of such a value a column of its own."


def _factorize_arrow(values: pa.ChunkedArray) -> Codes:
    chunks = values.dictionary_encode().chunks
    if not chunks:
        return np.empty(0, dtype=np.int32), np.empty(0, dtype=object)
    codes = np.concatenate([pc.fill_null(chunk.indices, -1).to_numpy() for chunk in chunks])
    return codes.astype(np.int32, copy=False), chunks[-1].dictionary.to_numpy(zero_copy_only=False)


def _without_nan(codes: np.ndarray, distinct: np.ndarray) -> Codes:
    """NaN as missing: to polars and Arrow it is a value like others."""
    if distinct.dtype.kind != "f" or not np.isnan(distinct).any():
        return codes, distinct
    is_nan = np.isnan(distinct)
    positions = np.where(is_nan, -1, np.cumsum(~is_nan) - 1)
    return np.append(positions, -1)[codes].astype(np.int32), distinct[~is_nan]
