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


def tell_events(
    old: pd.DataFrame,
    rows: pd.DataFrame,
    is_event: np.ndarray,
    was_event: np.ndarray | None,
    *,
    user: Hashable,
    time: Hashable,
) -> pd.DataFrame:
    """Return a log with those rows that are events now and were none, without those that were.

    is_event : (n_rows,), 1, 0, or NaN: as it was
    was_event : (n_rows,); None: the k-th of equal rows is the k-th of the log, events first

    >>> old, rows = (pd.DataFrame({"user": [1] * n, "time": [1] * n}) for n in (2, 3))
    >>> len(tell_events(old, rows, np.array([0, 1, 0]), None, user="user", time="time"))
    1
    """
    if was_event is None:
        events_first = np.argsort(is_event == 0, kind="stable")
        was_event = np.zeros(len(rows), dtype=bool)
        was_event[events_first] = _find(old, rows.take(events_first), user, time) >= 0
    is_event = np.where(np.isnan(is_event), was_event, is_event == 1)
    if (was_event & ~is_event).any():
        gone = _find(old, rows[was_event & ~is_event], user, time)
        old = old.drop(index=old.index[gone[gone >= 0]])
    events = append_events(old, rows[is_event & ~was_event], user=user, times=[time])
    check_times(events[time], name=f"{time!r} of the old and new events together")
    return events


def tell_outcomes(
    old: pd.DataFrame,
    rows: pd.DataFrame,
    outcomes: Sequence[Hashable],
    *,
    user: Hashable,
    time: Hashable,
    known: Hashable,
) -> pd.DataFrame:
    """Return a log of further rows, too; of one that it has, outcomes that are told replace those.

    The k-th of rows that are equal but in ``outcomes`` and ``known`` is the k-th of the log. Where
    one of its outcomes changes, it is known at the later one of the two moments.
    """
    own = [name for name in old if name not in outcomes and name not in {known} - {time}]
    place, times = _find(old[own], rows[own], user, time), [time, known]
    told, again, first = old, np.flatnonzero(place >= 0), place[place >= 0]
    if len(again) < len(rows):
        told = append_events(old, rows[place < 0], user=user, times=times)
    before, after = old.take(first), rows.take(again)
    both, columns = append_events(before, after, user=user, times=times), {**told}
    codes = {name: value_codes(both[name]).reshape(2, -1) for name in outcomes}
    replaced = {name: (own > 0) & (own != was) for name, (was, own) in codes.items()}
    if known != time:
        moments, _, _ = check_times(both[known], name=f"{known!r} of the old and new events")
        is_later = moments[len(again) :] > moments[: len(again)]
        replaced[known] = is_later & np.any([*replaced.values()], axis=0)
    for name, rows_of in replaced.items():
        if rows_of.any():
            later, source = after.loc[rows_of, [name]], np.arange(len(told))
            source[first[rows_of]] = len(told) + np.arange(len(later))
            joined = append_events(told[[name]], later, user=user, times=times)[name]
            columns[name] = joined.take(source).reset_index(drop=True)
    return pd.DataFrame(columns)


def _find(old: pd.DataFrame, rows: pd.DataFrame, user: Hashable, time: Hashable) -> np.ndarray:
    """Return the place in a log of each row, of the k-th of equal rows the k-th; -1: none."""
    joined = append_events(old, rows, user=user, times=[time])
    times, _, _ = check_times(joined[time], name=f"{time!r} of the old and new events together")
    new = times[len(old) :]
    if not len(new):
        return np.empty(0, dtype=np.int64)
    is_near = (times >= new.min()) & (times <= new.max())
    near = np.flatnonzero(is_near[: len(old)])
    codes = row_codes(joined.take(np.append(near, np.arange(len(old), len(joined)))), [*joined])
    return np.append(near, -1)[find_told(codes, len(near))]


def append_events(
    old: pd.DataFrame, new: pd.DataFrame, *, user: Hashable, times: Collection[Hashable]
) -> pd.DataFrame:
    """Append the rows of a log. Times of two zones become UTC; large integers stay exact.

    Where pandas makes floats of integers beyond 2**53, because the other log has missing or
    unsigned values, the column becomes "Int64", or Python integers where those are too large.
    Raises TypeError for times of two kinds, and ValueError for users that are floats so large that
    neighbouring ones are the same float.

    >>> old = pd.DataFrame({"user": [2**60, 2**60 + 1], "time": [1, 2]})
    >>> new = pd.DataFrame({"user": [3.0, None], "time": [3, 4]})
    >>> append_events(old, new, user="user", times=["time"])["user"].tolist()
    [1152921504606846976, 1152921504606846977, 3, <NA>]
    """
    columns = {}
    for name in old.columns:
        parts = [old[name], new[name]]
        if name in times:
            parts = _times_alike(parts, name)
        elif parts[0].dtype != parts[1].dtype and all(map(_are_numbers, parts)):
            parts = _keep_apart(parts, is_key=name == user)
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


def _are_numbers(part: pd.Series) -> bool:
    return pd.api.types.is_integer_dtype(part) or pd.api.types.is_float_dtype(part)


def _keep_apart(parts: list[pd.Series], *, is_key: bool) -> list[pd.Series]:
    """Return the column of both logs in a dtype that represents its integers exactly."""
    is_float = pd.api.types.is_float_dtype
    largest = max((_largest(part) for part in parts if not is_float(part)), default=0)
    if largest <= EXACT:
        return parts
    # NaN of polars' and Arrow's floats becomes numpy's, which is missing
    numbers = [pd.Series(plain_values(part)) if is_float(part) else part for part in parts]
    fractions = [part for part in numbers if is_float(part)]
    for part in fractions if is_key else ():
        check_exact(part.to_numpy(), name=repr(parts[0].name))
    are_whole = all(
        bool((part.dropna() % 1 == 0).all()) and not part.abs().max() >= EXACT for part in fractions
    )
    kind: Any = "Int64" if are_whole and largest <= np.iinfo(np.int64).max else object
    if fractions and not are_whole and not is_key:
        kind = "float64"  # quantities
    return [part.astype(kind) for part in numbers]


def _largest(integers: pd.Series) -> int:
    there = integers.dropna()
    return max(int(there.max()), -int(there.min())) if len(there) else 0
