"""Point-in-time statistics of an impression: means, counts and rates of earlier events."""

from collections.abc import Collection, Mapping, Sequence
from functools import singledispatch
from typing import Any, Literal

import numpy as np
import pandas as pd
from narwhals.typing import IntoDataFrame, IntoDataFrameT
from pandas.api.types import is_bool_dtype, is_integer_dtype, is_numeric_dtype, is_string_dtype

from sklearn_din.features.level_columns import RECENT, statistics_of
from sklearn_din.features.schema import LEVELS
from sklearn_din.logs.clocks import note_clocks, note_early, same_rows
from sklearn_din.logs.row_memory import RowMemory, check_level_names, name_of
from sklearn_din.utils.frames import CallerFrame
from sklearn_din.utils.label_waits import check_known
from sklearn_din.utils.page_rows import note_pages
from sklearn_din.utils.scan import Scan
from sklearn_din.utils.validation import (
    as_tuple,
    check_columns,
    check_frame,
    check_name,
    check_names,
    check_time_kind,
    check_times,
    is_auto,
    plain_values,
    unit_ratio,
)
from sklearn_din.utils.warnings import warn_of

Aggregate = tuple[str | tuple[str, ...], str | None, str]
Statistic = tuple[str | None, str]  # of a column, or of the events themselves
AggregatesByKey = dict[tuple[str, ...], dict[str, Statistic]]

WITHOUT_COLUMN = ("count", "elapsed")
# By what a label is: zeros and ones, or numbers
SHORT = {"levels": statistics_of("rate"), "means": statistics_of("mean")}
OF_LEVELS = [level.statistic for level in LEVELS.values()]
STATISTICS = dict.fromkeys(("mean", "sum", "count", *OF_LEVELS, "recent_mean", *SHORT))


def attach_aggregates(
    impressions: IntoDataFrameT,
    events: IntoDataFrame,
    *,
    time: str,
    aggregates: Mapping[str, Aggregate] | Literal["levels"],
    user: str | None = None,
    label: str | Sequence[str] | None = None,
    levels: Literal["auto"] | Sequence[str | tuple[str, ...]] = "auto",
    known: str | None = None,
) -> IntoDataFrameT:
    """Attach to each impression statistics of the events strictly before it.

    Examples are a user's mean rating so far and an item's popularity so far. An event counts for
    an impression if it has the same key and a strictly smaller time. Events at the same time are
    excluded, so a frame may be its own log without leaking its labels.

    Parameters
    ----------
    impressions : pandas, polars or Arrow frame, or scan, of shape (n_impressions, ...)
        Rows to describe, in any order. The frame is not changed, and the result is of the same
        kind.
    events : pandas, polars or Arrow frame, or scan, of shape (n_events, ...)
        The log, in any order; often the impressions themselves with their label. It may be of
        another kind than the impressions. If either is a scan (:func:`scan_parquet`), DuckDB
        sorts them (``pip install 'sklearn-din[large]'``). The results for a scan are stored in
        files in its ``cache_dir``, or in a temporary folder.
    time : str
        Time column of both frames: integers, floats or datetimes, without missing values.
    aggregates : mapping of str to (key, column, statistic), or "levels"
        A dict from the name of each new column to its definition. ``key`` is a column of both
        frames or a tuple of columns; ``column`` is a numeric or boolean column of the events,
        whose missing values are ignored; ``statistic`` is "mean", "sum", "count",
        "shrunk_rate", "elapsed", "recent_mean", "levels" or "means". With "count", ``column`` may
        be None: then events are counted. "elapsed" is the time since the latest event, in seconds
        for datetimes; its ``column`` is None. "recent_mean", whose key is ``()``, is the mean of
        the latest 1,000 values of all events, or of more where several are of one moment.
        "shrunk_rate" is the mean of zeros and ones after adding 1 to 1,000 events at the average
        rate of all keys: the number is larger the less keys with many events differ from each
        other before the time of the impression (empirical Bayes). Use it if many keys have few
        events, together with a "count" that shows how much is known. "levels" is short for the
        three columns ``NAME_rate`` (the shrunk rate), ``NAME_count`` and ``NAME_elapsed``; "means",
        for labels that are numbers, for ``NAME_mean`` and the same two.
        In place of a dict, "levels" attaches those of each column of ids that both frames have,
        and of each pair of the user and another one, where the model is asked soon after each
        event, and ``recent_rate`` (``recent_mean`` of numbers).
        :class:`HistoryBuilder` makes the same numbers as a step of a Pipeline, for serving.
    user : str, default=None
        Column of the user, of whose pairs ``aggregates="levels"`` attaches levels.
    label : str or list of str, default=None
        Columns of the events that ``aggregates="levels"`` attaches levels of; of several,
        ``NAME_LABEL_rate`` and so on. None: the one column of numbers that events have and
        impressions have not.
    levels : "auto", or list of str and tuple of str, default="auto"
        Keys of ``aggregates="levels"``: columns, and tuples of several. "auto": each column of ids
        that both frames have, and each pair of the user and another one.
    known : str, default=None
        Column of the events with the moment at which what came of each was known, such as three
        days after an offer was shown: an event counts for impressions strictly after it. Events
        where it is missing are an error: leave them out. None: it is known at once.

    Returns
    -------
    DataFrame, Table or AttachedScan
        The impressions, in their order and with their index, plus one float64 column per
        aggregate, of "levels" three. Without earlier events a mean and the time elapsed are missing
        (NaN in pandas, null in polars and Arrow), a sum and a count are 0; a shrunk rate is the
        average rate so far, and missing where no key has events.

    Examples
    --------
    >>> import pandas as pd
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
    label_of_levels = None
    if isinstance(aggregates, str) and aggregates == "levels":
        aggregates = _name_levels(impressions, events, {time, known}, user, label, levels)
        *_, (_, label_of_levels, _) = aggregates.values()
    aggregates = _expand_levels(aggregates)
    table: Any = events if isinstance(events, Scan) else impressions
    attached = attach_so_far.dispatch(type(table))(impressions, events, time, aggregates, known)
    if label_of_levels and user is not None and known is None and not isinstance(events, Scan):
        log = CallerFrame(events, name="events").pandas
        is_click = log[label_of_levels].eq(1).fillna(False).to_numpy()
        warn_of([note_pages(log, user, time, is_click)])
    return attached


@singledispatch
def attach_so_far(
    impressions: Any,
    events: Any,
    time: str,
    aggregates: Mapping[str, Aggregate],
    known: str | None,
) -> Any:
    """Attach aggregates to frames; scans register a function of their own."""
    shown = CallerFrame(impressions, name="impressions")
    log = shown.pandas if events is impressions else CallerFrame(events, name="events").pandas
    by_key = check_aggregates(aggregates, time, shown.pandas, log)
    check_times(shown.pandas[time], name=f"impressions[{time!r}]")
    told, attached = with_known_times(log, time, known, name="events"), dict[str, np.ndarray]()
    for keys, statistics in by_key.items():
        attached |= so_far(shown.pandas, told, time, keys, statistics)
    columns = [*dict.fromkeys(name for keys in by_key for name in keys)]
    if not same_rows(shown.pandas, log, [*columns, time]):
        note = note_clocks(shown.pandas[time], log[time])
        if note is None and known is None and columns:
            note = note_early(shown.pandas, log, columns, time, time)
        warn_of([note])
    return shown.with_columns({name: attached[name] for name in aggregates})


def _name_levels(
    impressions: Any,
    events: Any,
    moments: Collection[str | None],
    user: str | None,
    label: str | Sequence[str] | None,
    levels: Literal["auto"] | Sequence[str | tuple[str, ...]],
) -> Mapping[str, Aggregate]:
    """Return the levels of keys, of all columns of ids and pairs with the user where "auto"."""
    shown, log = (
        table.all_dtypes if isinstance(table, Scan) else dict(CallerFrame(table, name=name).pandas)
        for table, name in ((impressions, "impressions"), (events, "events"))
    )
    dtypes = {n: getattr(column, "dtype", column) for n, column in log.items() if n not in moments}
    labels = [name for name in dtypes if name not in shown and holds_numbers(dtypes[name])]
    if label is not None:
        labels = check_names(label, name="label")
        check_columns(log, labels, name="events")
    elif len(labels) != 1:
        raise ValueError(
            "aggregates='levels' takes as label the one column of numbers that events have and "
            f"impressions have not, got {labels}. Drop the label from impressions, or name it: "
            "label='clicked'."
        )
    keys = [n for n in shown if n in dtypes.keys() - {*labels} and _holds_ids(shown[n])]
    pairs = [] if user is None else [(user, name) for name in keys if name != user]
    named = [*((name,) for name in keys), *pairs] if is_auto(levels) else [*map(as_tuple, levels)]
    of_clicks = all(_holds_clicks(events, name) for name in labels)
    several = labels if len(labels) > 1 else [""]
    of_labels = dict(zip(several, labels, strict=True))
    check_level_names(named, several)
    what, mean = ("levels", "rate") if of_clicks else ("means", "mean")
    return {
        **{
            name_of(key, n): (key, column, what) for key in named for n, column in of_labels.items()
        },
        **{f"{name_of((RECENT,), n)}_{mean}": ((), c, "recent_mean") for n, c in of_labels.items()},
    }


def _holds_clicks(events: Any, label: str) -> bool:
    """Return whether a column holds nothing but zeros and ones, and missing values."""
    is_scan = isinstance(events, Scan)
    parts = events.parts([label]) if is_scan else [(0, CallerFrame(events, name="events").pandas)]
    return all(np.isin(present_numbers(part[label])[1], (0, 1)).all() for _, part in parts)


def _holds_ids(column: Any) -> bool:
    """Return whether a column, or one of a dtype, holds integers, texts or categories."""
    dtype = getattr(column, "dtype", column)
    if isinstance(dtype, pd.CategoricalDtype):
        return True
    return is_integer_dtype(column) or is_string_dtype(column)


def with_known_times(
    events: pd.DataFrame, time: str, known: str | None, *, name: str, y: Any = None
) -> pd.DataFrame:
    """Return events at the moments at which what came of them was known; checked.

    y : what came of them, which says what to do where such a moment is missing
    """
    if known is None:
        return events
    check_frame(events, [known], name=name)
    label = f"{name}[{known!r}]"
    check_known(events[known], y, name=label)
    when, unit, zoned = check_times(events[known], name=label)
    times, own, own_zoned = check_times(events[time], name=f"{name}[{time!r}]", unit=unit)
    check_time_kind(label, (unit, zoned), (own, own_zoned), like=repr(time))
    n_early = int((when * unit_ratio(own, unit) < times).sum())
    if n_early:
        raise ValueError(
            f"{label} must not be earlier than {time!r}, got {n_early} rows whose label was known "
            "before they were. Are the two columns swapped?"
        )
    return events.assign(**{time: events[known]})


def _expand_levels(aggregates: Mapping[str, Aggregate]) -> Mapping[str, Aggregate]:
    """Return aggregates with three in place of each "levels" and "means"."""
    if not isinstance(aggregates, Mapping):
        return aggregates  # refused later, by name
    expanded: dict[str, Aggregate] = {}
    for name, what in aggregates.items():
        is_short = isinstance(what, tuple | list) and len(what) == 3 and what[2] in SHORT
        if not is_short:
            expanded[name] = what
            continue
        for suffix, statistic in SHORT[what[2]].items():
            column = None if statistic == "elapsed" else what[1]
            expanded[f"{name}_{suffix}"] = what[0], column, statistic
    return expanded


def check_aggregates(
    aggregates: Mapping[str, Aggregate], time: str, impressions: pd.DataFrame, events: pd.DataFrame
) -> AggregatesByKey:
    """Check columns and dtypes, not values, and return the requested aggregates by key."""
    if not isinstance(aggregates, Mapping):
        raise TypeError(
            "aggregates must be a dict of new columns, such as {'user_mean': ('user', 'label', "
            f"'mean')}}, got {type(aggregates).__name__}."
        )
    check_frame(impressions, [time], name="impressions")
    check_frame(events, [time], name="events")
    by_key: AggregatesByKey = {}
    for name, specification in aggregates.items():
        is_triple = isinstance(specification, tuple | list) and len(specification) == 3
        key, column, statistic = specification if is_triple else ((), None, "")
        keys = tuple(key) if isinstance(key, tuple | list) else (key,)
        is_alone = column is None
        if (
            bool(keys) == (statistic == "recent_mean")
            or statistic not in STATISTICS
            or (is_alone and statistic not in WITHOUT_COLUMN)
            or (statistic == "elapsed" and not is_alone)
        ):
            raise ValueError(
                f"aggregates[{name!r}] must be (key, column, statistic), such as ('user', "
                f"'label', 'mean'), with one of {', '.join(STATISTICS)}; 'count' alone takes None "
                "as column, 'elapsed' nothing else, and 'recent_mean' has no key, (), got "
                f"{specification!r}."
            )
        if name in impressions.columns:
            raise ValueError(
                f"impressions already has a column {name!r}. Drop it, or name the aggregate "
                "otherwise."
            )
        check_frame(impressions, keys, name="impressions")
        check_frame(events, keys if column is None else [*keys, column], name="events")
        if statistic not in WITHOUT_COLUMN and not holds_numbers(events[column].dtype):
            raise TypeError(
                f"aggregates[{name!r}] needs numbers for a {statistic}, but events[{column!r}] "
                f"has dtype {events[column].dtype}. Convert it, or use 'count'."
            )
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
    is_number = is_numeric_dtype(dtype) or is_bool_dtype(dtype)  # Arrow's
    return is_number and not pd.api.types.is_complex_dtype(dtype)


def so_far(
    shown: pd.DataFrame,
    events: pd.DataFrame,
    time: str,
    keys: tuple[str, ...],
    statistics: Mapping[str, Statistic],
) -> dict[str, np.ndarray]:
    """Return statistics of a key's values, by name; without a column, events are counted."""
    rated = {column for column, what in statistics.values() if what == "shrunk_rate"}
    rated |= {None} if rated else set()
    attached = dict[str, np.ndarray]()
    for of_clicks in {column in rated for column, _ in statistics.values()}:
        own = {name: of for name, of in statistics.items() if (of[0] in rated) == of_clicks}
        columns = [*dict.fromkeys(c for c, what in own.values() if what != "elapsed")] or [None]
        values = np.ones((len(events), len(columns)))
        for number, column in enumerate(columns):
            if column is not None:
                is_there, numbers = present_numbers(events[column])
                values[:, number] = np.where(is_there, numbers, np.nan)
            if of_clicks:
                check_zeros_and_ones(values[:, number], column)
        number_of = {column: number for number, column in enumerate(columns)}
        asked = [(number_of.get(column, 0), what) for column, what in own.values()]
        labels = [str(number) for number in range(len(columns))]
        memory = RowMemory.empty(keys, [keys] if keys else [], labels, of_clicks=of_clicks)
        memory, _ = memory.append(events, time, values, source="events")
        hashes = [memory.hash_column(name, shown[name], "impressions") for name in keys]
        moments = memory.moments(shown[time], source="impressions")
        found = memory.statistics(keys, hashes, moments, asked)
        attached |= zip(own, found, strict=True)
    return attached


def check_zeros_and_ones(numbers: np.ndarray, column: Any) -> None:
    """Raise ValueError if a rate is requested for numbers other than 0 and 1."""
    others = numbers[(numbers != 0) & (numbers != 1) & ~np.isnan(numbers)]
    if len(others):
        raise ValueError(
            f"a shrunk_rate needs zeros and ones, got {others[0]} in events[{column!r}]. Convert "
            "them, such as events[column] >= 4, or use 'mean'."
        )
