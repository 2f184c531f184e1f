"""Sums and counts of what came before: what attach_aggregates computes, and its checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from sklearn_din._validation import check_frame, plain_values
from sklearn_din.logs.timeline import Past, Timeline

Aggregate = tuple[str | tuple[str, ...], str | None, str]
AggregatesByKey = dict[tuple[str, ...], dict[str, tuple[str | None, str]]]

STATISTICS = ("mean", "sum", "count")


def check_aggregates(
    aggregates: Mapping[str, Aggregate], impressions: pd.DataFrame, events: pd.DataFrame
) -> AggregatesByKey:
    """Check columns and dtypes, not values, and return the requested aggregates by key."""
    if not isinstance(aggregates, Mapping):
        raise TypeError(
            "aggregates must be a dict of new columns, such as {'user_mean': ('user', 'label', "
            f"'mean')}}, got {type(aggregates).__name__}."
        )
    by_key: AggregatesByKey = {}
    for name, specification in aggregates.items():
        keys, column, statistic = _check_aggregate(name, specification, impressions, events)
        by_key.setdefault(keys, {})[name] = column, statistic
    return by_key


def present_numbers(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Return a mask of the present values, and them as float64 (0 where they are no numbers)."""
    if not holds_numbers(column.dtype):
        return column.notna().to_numpy(dtype=bool), np.zeros(len(column))
    numbers = plain_values(column.astype("Float64"))
    is_there = ~np.isnan(numbers)  # polars, Arrow and Float64 hold NaN that notna takes for there
    return is_there, np.where(is_there, numbers, 0.0)


def holds_numbers(dtype: Any) -> bool:
    """Return whether values of a dtype are real numbers or booleans."""
    is_number = pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_bool_dtype(dtype)  # Arrow's
    return is_number and not pd.api.types.is_complex_dtype(dtype)


def sum_by_group(numbers: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Running sums of numbers, from zero in each group: equal groups follow each other.

    Examples
    --------
    >>> sum_by_group(np.array([1.0, 2.0, -np.inf, 4.0]), np.array([0, 0, 1, 1]))
    array([  1.,   3., -inf, -inf])
    """
    # pandas sums with compensation: large numbers of one group do not round away small ones of
    # another. What follows an infinite number is NaN to it.
    sums = pd.Series(numbers).groupby(groups).cumsum().to_numpy(copy=True)
    for group in np.unique(groups[~np.isfinite(numbers)]):
        sums[groups == group] = np.cumsum(numbers[groups == group])
    return sums


def so_far(
    events: pd.DataFrame, timeline: Timeline, past: Past, column: str | None, statistic: str
) -> np.ndarray:
    """A statistic of a column in each impression's past; without a column, events are counted."""
    if column is None:
        return (past.end - past.begin).astype(np.float64)
    is_there, numbers = present_numbers(events[column])
    count = _sum_before(is_there[timeline.order].astype(np.float64), timeline, past)
    if statistic == "count":
        return count
    return statistic_of(statistic, count, _sum_before(numbers[timeline.order], timeline, past))


def statistic_of(statistic: str, count: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return one of the statistics, of how many values came before and of their sum."""
    if statistic == "mean":
        return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    return count if statistic == "count" else total


def _check_aggregate(
    name: str, specification: Aggregate, impressions: pd.DataFrame, events: pd.DataFrame
) -> tuple[tuple[str, ...], str | None, str]:
    is_triple = isinstance(specification, tuple | list) and len(specification) == 3
    key, column, statistic = specification if is_triple else ((), None, "")
    keys = tuple(key) if isinstance(key, tuple | list) else (key,)
    if not keys or statistic not in STATISTICS or (column is None and statistic != "count"):
        raise ValueError(
            f"aggregates[{name!r}] must be (key, column, statistic), such as ('user', 'label', "
            f"'mean'), with one of {', '.join(STATISTICS)}; 'count' alone takes None as column, "
            f"got {specification!r}."
        )
    if name in impressions.columns:
        raise ValueError(
            f"impressions already has a column {name!r}. Drop it, or name the aggregate otherwise."
        )
    check_frame(impressions, keys, name="impressions")
    check_frame(events, keys, name="events")
    if column is None:
        return keys, column, statistic
    check_frame(events, [column], name="events")
    if statistic != "count" and not holds_numbers(events[column].dtype):
        raise TypeError(
            f"aggregates[{name!r}] needs numbers for a {statistic}, but events[{column!r}] has "
            f"dtype {events[column].dtype}. Convert it, or use 'count'."
        )
    return keys, column, statistic


def _sum_before(numbers: np.ndarray, timeline: Timeline, past: Past) -> np.ndarray:
    running = sum_by_group(numbers, timeline.groups)
    has_past = past.end > past.begin
    sums = np.zeros(len(past.end))
    sums[has_past] = running[past.end[has_past] - 1]
    return sums
