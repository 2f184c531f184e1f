"""Point-in-time numbers beside an impression: means, sums and counts of what came before it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from narwhals.typing import IntoDataFrame, IntoDataFrameT

from sklearn_din._frames import CallerFrame
from sklearn_din._validation import check_frame, check_name, plain_values
from sklearn_din.logs.timeline import Past, Timeline

Aggregate = tuple[str | tuple[str, ...], str | None, str]

STATISTICS = ("mean", "sum", "count")


def attach_aggregates(
    impressions: IntoDataFrameT,
    events: IntoDataFrame,
    *,
    time: str,
    aggregates: Mapping[str, Aggregate],
) -> IntoDataFrameT:
    """Attach to each impression numbers about the events strictly before it.

    A user's mean rating so far, an item's popularity so far: an event counts for an impression
    when it has the same key and a strictly smaller time. Events at the impression's own time do
    not count, so a frame may be its own log without leaking its labels.

    Parameters
    ----------
    impressions : pandas, polars or Arrow frame of shape (n_impressions, ...)
        Rows to describe, in any order. It is not changed. The result is of this kind.
    events : pandas, polars or Arrow frame of shape (n_events, ...)
        What happened, in any order; often the impressions themselves with their label. It need
        not be of the impressions' kind.
    time : str
        Time column of both frames: integers, floats or datetimes, without missing values.
    aggregates : mapping of str to (key, column, statistic)
        New column's name to what it holds. ``key`` is a column of both frames or a tuple of
        columns; ``column`` is a numeric or boolean column of the events, of which missing
        values are left out; ``statistic`` is "mean", "sum" or "count". With "count", ``column``
        may be None: then events are counted.

    Returns
    -------
    DataFrame or Table
        The impressions, in their order and with their index, plus one float64 column per
        aggregate. Without earlier events a mean is missing (NaN in pandas, null in polars and
        Arrow), a sum and a count are 0.

    Examples
    --------
    >>> ratings = pd.DataFrame(
    ...     {"user": ["ann", "ann", "bob", "ann"], "rating": [4, 2, 5, 3], "time": [1, 2, 3, 3]}
    ... )
    >>> attach_aggregates(
    ...     ratings,
    ...     ratings,
    ...     time="time",
    ...     aggregates={"user_mean": ("user", "rating", "mean"), "n": ("user", None, "count")},
    ... )
      user  rating  time  user_mean    n
    0  ann       4     1        NaN  0.0
    1  ann       2     2        4.0  1.0
    2  bob       5     3        NaN  0.0
    3  ann       3     3        3.0  2.0
    """
    check_name(time, name="time")
    shown = CallerFrame(impressions, name="impressions")
    log = shown.pandas if events is impressions else CallerFrame(events, name="events").pandas
    check_frame(shown.pandas, [time], name="impressions")
    check_frame(log, [time], name="events")
    by_key: dict[tuple[str, ...], dict[str, tuple[str | None, str]]] = {}
    for name, specification in aggregates.items():
        keys, column, statistic = _checked(name, specification, shown.pandas, log)
        by_key.setdefault(keys, {})[name] = column, statistic
    attached: dict[str, np.ndarray] = {}
    for keys, wanted in by_key.items():
        timeline = Timeline(log, keys=keys, time=time)
        past = timeline.past(shown.pandas)
        attached |= {name: _so_far(log, timeline, past, *what) for name, what in wanted.items()}
    return shown.with_columns({name: attached[name] for name in aggregates})


def _checked(
    name: str, specification: Aggregate, impressions: pd.DataFrame, events: pd.DataFrame
) -> tuple[tuple[str, ...], str | None, str]:
    if not isinstance(specification, tuple | list) or len(specification) != 3:
        raise ValueError(
            f"aggregates[{name!r}] must be (key, column, statistic), such as "
            f"('user', 'label', 'mean'), got {specification!r}."
        )
    key, column, statistic = specification
    keys = tuple(key) if isinstance(key, tuple | list) else (key,)
    if not keys:
        raise ValueError(f"aggregates[{name!r}] must name at least one key column, got {key!r}.")
    if name in impressions.columns:
        raise ValueError(
            f"impressions already has a column {name!r}. Drop it, or name the aggregate otherwise."
        )
    if statistic not in STATISTICS:
        raise ValueError(
            f"the statistic of aggregates[{name!r}] must be one of {', '.join(STATISTICS)}, "
            f"got {statistic!r}."
        )
    check_frame(impressions, keys, name="impressions")
    check_frame(events, keys, name="events")
    _check_column(name, column, statistic, events)
    return keys, column, statistic


def _check_column(name: str, column: str | None, statistic: str, events: pd.DataFrame) -> None:
    if column is None:
        if statistic != "count":
            raise ValueError(
                f"aggregates[{name!r}] must name the column whose {statistic} is wanted, got None. "
                "Only 'count' works without."
            )
        return
    check_frame(events, [column], name="events")
    is_number = pd.api.types.is_numeric_dtype(events[column])
    is_complex = pd.api.types.is_complex_dtype(events[column])
    if statistic != "count" and (is_complex or not is_number):
        raise TypeError(
            f"aggregates[{name!r}] needs numbers for a {statistic}, but events[{column!r}] has "
            f"dtype {events[column].dtype}. Convert it, or use 'count'."
        )


def _so_far(
    events: pd.DataFrame, timeline: Timeline, past: Past, column: str | None, statistic: str
) -> np.ndarray:
    if column is None:
        return (past.end - past.begin).astype(np.float64)
    is_there = events[column].notna().to_numpy()[timeline.order]
    count = _sum_before(is_there.astype(np.float64), timeline, past)
    if statistic == "count":
        return count
    numbers = plain_values(events[column].astype("Float64"))[timeline.order]
    total = _sum_before(np.where(is_there, numbers, 0.0), timeline, past)
    if statistic == "sum":
        return total
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)


def _sum_before(numbers: np.ndarray, timeline: Timeline, past: Past) -> np.ndarray:
    # pandas sums each group from zero with compensation: one group's large numbers never
    # swallow another's small ones.
    running = pd.Series(numbers).groupby(timeline.groups).cumsum().to_numpy()
    has_past = past.end > past.begin
    sums = np.zeros(len(past.end))
    sums[has_past] = running[past.end[has_past] - 1]
    return sums
