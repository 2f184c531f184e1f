"""Telling later events to earlier ones: equal times and equal ids, whatever the dtypes."""

from collections.abc import Collection, Hashable, Sequence
from math import isfinite
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from sklearn_din.logs.distinct import SEEN_VALUES, find_told, holds_lists, row_codes, value_codes
from sklearn_din.utils.labels import label_name
from sklearn_din.utils.validation import (
    check_exact,
    check_time_kind,
    check_times,
    datetime_index,
    plain_values,
    spells_integer,
)

EXACT = 2**53  # up to here float64 holds every integer
WHOLE, NUMBERS, BOOLEANS, TEXT = "whole numbers", "finite numbers", "true and false", "text"
LISTS, TIMES, MIXED = "lists", "times", "values of several kinds"
KINDS = {  # by pandas' name
    **{"integer": WHOLE, "boolean": BOOLEANS, "string": TEXT, "empty": None, LISTS: LISTS},
    **dict.fromkeys(("floating", "mixed-integer-float", "decimal"), NUMBERS),
    **dict.fromkeys(("datetime64", "datetime", "date"), TIMES),
}
DTYPES: dict[str, Any] = {WHOLE: "Int64", BOOLEANS: "boolean", NUMBERS: "float64"}
PLAIN: dict[str, Any] = {WHOLE: "int64", BOOLEANS: "bool"}  # where no value is missing


def as_at_fit(told: pd.Series, known: pd.Series) -> pd.Series:
    """Return values of the kind that a log's column holds; raise where they are of another one.

    Whole numbers stay whole beside missing ones, for they are ids.

    >>> as_at_fit(pd.Series([3.0, None]), pd.Series([1, 2])).tolist()
    [3, <NA>]
    """
    needed, given = _kind_of(known[:SEEN_VALUES]) or _kind_of(known), _kind_of(told)
    is_alike = given == needed or (needed, given) == (NUMBERS, WHOLE)
    if is_alike and needed == NUMBERS:
        is_alike = not np.isinf(told.to_numpy(float, na_value=np.nan)).any()
    if is_alike or needed in (None, MIXED):
        return told
    values, is_there = plain_values(told), pd.notna(plain_values(told))
    if needed == WHOLE and values.dtype.kind == "f":
        check_exact(values, name=repr(told.name))
    own = zip(values.tolist(), is_there, strict=True)
    read = [_read(value, needed) if there else None for value, there in own]
    both = zip(values.tolist(), read, is_there, strict=True)
    if wrong := [value for value, own, there in both if there and own is None]:
        raise ValueError(
            f"X[{told.name!r}] must hold {needed}, as at fit, got {wrong[0]!r:.40}. Leave such "
            "values missing, or fit again on rows that have them."
        )
    as_fitted = pd.Series(read, told.index, DTYPES.get(needed, object), told.name)
    return as_fitted.astype(PLAIN[needed]) if needed in PLAIN and is_there.all() else as_fitted


def _kind_of(column: pd.Series) -> str | None:
    """Return what a column holds, None where it holds nothing."""
    values = plain_values(column.dropna())
    kind = LISTS if holds_lists(column) else pd.api.types.infer_dtype(values)
    return NUMBERS if column.dtype.kind == "f" else KINDS.get(kind, MIXED)


def _read(value: Any, kind: str) -> Any:
    """Return a value as one of a kind, None where it is none."""
    name = label_name(value)
    if kind == WHOLE:
        return int(name) if spells_integer(name) else None
    if kind == TEXT:
        is_id = spells_integer(name) and not isinstance(value, bool | np.bool_)
        return value if isinstance(value, str) else name if is_id else None
    if kind == NUMBERS:
        return float(value) if isinstance(value, Real) and isfinite(value) else None
    return {"0": False, "1": True}.get(name) if kind == BOOLEANS else None


def tell(
    old: pd.DataFrame,
    rows: pd.DataFrame,
    outcomes: Sequence[Hashable],
    is_new: np.ndarray,
    *,
    time: Hashable,
    known: Hashable,
) -> pd.DataFrame:
    """Return a log of further rows, too; of one that it has, outcomes that are told replace those.

    The k-th of rows that are equal but in ``outcomes`` and ``known`` is the k-th of the log; those
    that are new are none of it. Where an outcome changes, it is known at the later of both moments.
    """
    n_old, joined = len(old), append_events(old, rows, times=[time, known])
    times, _, _ = check_times(joined[time], name=f"{time!r} of the old and new events together")
    place, asked = np.full(len(rows), -1), n_old + np.flatnonzero(~is_new)
    if len(asked):
        new = times[asked]
        own: list[Any] = [n for n in old if n == time or n not in (*outcomes, known)]
        near = np.flatnonzero((times[:n_old] >= new.min()) & (times[:n_old] <= new.max()))
        codes = row_codes(joined.take(np.append(near, asked)), own)
        place[~is_new] = np.append(near, -1)[find_told(codes, len(near))]
    again, first = np.flatnonzero(place >= 0), place[place >= 0]
    both, replaced = joined.take(np.append(first, n_old + again)), dict[Any, np.ndarray]()
    for name in outcomes:
        was, is_now = value_codes(both[name]).reshape(2, -1)
        replaced[name] = (is_now > 0) & (is_now != was)
    if known != time:
        moments, _, _ = check_times(both[known], name=f"{known!r} of the old and new events")
        was, is_now = moments.reshape(2, -1)
        replaced[known] = (is_now > was) & np.any([*replaced.values()], axis=0)
    held, events = np.append(np.arange(n_old), n_old + np.flatnonzero(place < 0)), {}
    for name in joined:
        source, is_other = held.copy(), replaced.get(name, np.zeros(len(again), dtype=bool))
        source[first[is_other]] = n_old + again[is_other]
        is_as_before = source.max(initial=-1) < n_old
        events[name] = (old[name] if is_as_before else joined[name].take(source)).array
    return pd.DataFrame(events)


def append_events(
    old: pd.DataFrame, new: pd.DataFrame, *, times: Collection[Hashable]
) -> pd.DataFrame:
    """Append the rows of a log. Times of two zones become UTC; large integers stay exact.

    Where pandas makes floats of integers beyond 2**53, because the other log has missing or
    unsigned values, the column becomes "Int64", or Python integers where those are too large.
    Raises TypeError for times of two kinds.

    >>> old = pd.DataFrame({"user": [2**60, 2**60 + 1], "time": [1, 2]})
    >>> new = pd.DataFrame({"user": [3.0, None], "time": [3, 4]})
    >>> append_events(old, new, times=["time"])["user"].tolist()
    [1152921504606846976, 1152921504606846977, 3, <NA>]
    """
    columns = {}
    for name in old.columns:
        parts = [old[name], new[name]]
        if name in times:
            parts = _times_alike(parts, name)
        elif parts[0].dtype != parts[1].dtype and all(p.dtype.kind in "iuf" for p in parts):
            parts = _keep_apart(parts)
        columns[name] = pd.concat(parts, ignore_index=True)
    return pd.DataFrame(columns)


def _times_alike(parts: Sequence[pd.Series], time: Hashable) -> list[pd.Series]:
    """Return times of one kind; those of two zones in UTC."""
    checked = [check_times(part.iloc[:1], name=f"X[{time!r}]") for part in parts]
    if all(map(len, parts)):
        fitted, came = (kind for _, *kind in checked)
        check_time_kind(f"X[{time!r}]", came, fitted, like="at fit")
    if parts[0].dtype != parts[1].dtype and all(zoned for _, _, zoned in checked):
        return [pd.Series(datetime_index(part).tz_convert("UTC")) for part in parts]
    return list(parts)


def _keep_apart(parts: list[pd.Series]) -> list[pd.Series]:
    """Return the column of both logs in a dtype that represents its integers exactly."""
    # NaN of polars' and Arrow's floats becomes numpy's, which is missing
    parts = [pd.Series(plain_values(p)) if p.dtype.kind == "f" else p for p in parts]
    floats = [part for part in parts if part.dtype.kind == "f"]
    largest = max((_largest(part) for part in parts if part.dtype.kind != "f"), default=0)
    if largest <= EXACT:
        return parts
    kind: Any = "Int64" if largest <= np.iinfo(np.int64).max else object
    if any((part.dropna() % 1 != 0).any() or part.abs().max() >= EXACT for part in floats):
        kind = "float64"  # quantities
    return [part.astype(kind) for part in parts]


def _largest(integers: pd.Series) -> int:
    there = integers.dropna()
    return max(int(there.max()), -int(there.min())) if len(there) else 0
