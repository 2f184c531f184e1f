"""Later events behind earlier ones: the same moments and the same ids, whatever their dtypes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd

from sklearn_din._validation import check_exact, check_times, datetime_index, plain_values
from sklearn_din.logs.timeline import time_kind

EXACT = 2**53  # up to here float64 holds every integer


def append_events(
    old: pd.DataFrame, new: pd.DataFrame, *, user: Hashable, time: Hashable
) -> pd.DataFrame:
    """Append the rows of a log. Times of two zones become UTC, and large integers stay apart.

    Where pandas makes floats of integers beyond 2**53, because the other log has missing or
    unsigned values, the column becomes "Int64", or Python integers where those are too large.
    Raises TypeError for times of two kinds, and ValueError for users that are floats so large that
    neighbouring ones are the same float.

    Examples
    --------
    >>> old = pd.DataFrame({"user": [2**60, 2**60 + 1], "time": [1, 2]})
    >>> new = pd.DataFrame({"user": [3.0, None], "time": [3, 4]})
    >>> append_events(old, new, user="user", time="time")["user"].tolist()
    [1152921504606846976, 1152921504606846977, 3, <NA>]
    """
    columns = {}
    for name in old.columns:
        parts = [old[name], new[name]]
        if name == time:
            parts = _times_alike(parts, time)
        elif _may_merge(parts):
            parts = _keep_apart(parts, is_key=name == user)
        columns[name] = pd.concat(parts, ignore_index=True)
    return pd.DataFrame(columns)


def _times_alike(parts: Sequence[pd.Series], time: Hashable) -> list[pd.Series]:
    """Return times of one kind; those of two zones in UTC."""
    checked = [check_times(part.iloc[:1], name=f"X[{time!r}]") for part in parts]
    fitted, came = (time_kind(unit, zoned) for _, unit, zoned in checked)
    if fitted != came and all(map(len, parts)):
        raise TypeError(
            f"X[{time!r}] must hold {fitted}, as at fit, got {came}. Use pd.to_datetime, "
            "or tz_localize / tz_convert."
        )
    if parts[0].dtype != parts[1].dtype and all(zoned for _, _, zoned in checked):
        return [pd.Series(datetime_index(part).tz_convert("UTC")) for part in parts]
    return list(parts)


def _keep_apart(parts: Sequence[pd.Series], *, is_key: bool) -> list[pd.Series]:
    """The column of both logs in a dtype that tells its integers apart."""
    floats = [part for part in parts if pd.api.types.is_float_dtype(part)]
    for part in floats if is_key else []:
        check_exact(plain_values(part), name=repr(part.name))
    if all(_fits_int64(part) for part in parts):
        return [_missing_for_nan(part).astype("Int64") for part in parts]
    if is_key or not floats:
        return [_missing_for_nan(part).astype(object) for part in parts]
    return [part.astype("float64") for part in parts]  # floats with fractions are quantities


def _may_merge(parts: Sequence[pd.Series]) -> bool:
    """Return whether numbers of two dtypes hold integers that float64 would not tell apart."""
    if parts[0].dtype == parts[1].dtype:
        return False
    is_integer = [pd.api.types.is_integer_dtype(part) for part in parts]
    is_float = [pd.api.types.is_float_dtype(part) for part in parts]
    integers = [part for part, so in zip(parts, is_integer, strict=True) if so]
    return sum(is_integer + is_float) == 2 and any(not _below(part, EXACT) for part in integers)


def _below(integers: pd.Series, limit: int) -> bool:
    there = integers.dropna()
    return len(there) == 0 or (int(there.max()) <= limit and int(there.min()) >= -limit)


def _fits_int64(numbers: pd.Series) -> bool:
    """Return whether the numbers are integers that fit; rounded floats do not."""
    if pd.api.types.is_integer_dtype(numbers):
        return _below(numbers, np.iinfo(np.int64).max)
    values = plain_values(numbers)
    values = values[~np.isnan(values)]
    return bool(((np.floor(values) == values) & (np.abs(values) < EXACT)).all())


def _missing_for_nan(numbers: pd.Series) -> pd.Series:
    """Floats of polars and Arrow as numpy's, whose NaN is missing; others as they are."""
    is_float = pd.api.types.is_float_dtype(numbers)
    return pd.Series(plain_values(numbers), index=numbers.index) if is_float else numbers
