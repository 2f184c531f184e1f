"""History columns: the events of each impression's user strictly before it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, Literal

import numpy as np
import pandas as pd
from narwhals.typing import IntoDataFrame, IntoDataFrameT

from sklearn_din.features.level_columns import AGE
from sklearn_din.logs.clocks import note_clocks, same_rows
from sklearn_din.logs.distinct import note_labels, note_spelling
from sklearn_din.logs.timeline import Past, Timeline
from sklearn_din.logs.windows import EventLog, WindowArray
from sklearn_din.utils.frames import CallerFrame, list_types
from sklearn_din.utils.page_rows import note_pages
from sklearn_din.utils.scan import Scan
from sklearn_din.utils.validation import (
    Age,
    check_count,
    check_frame,
    check_name,
    check_names,
    plain_values,
)
from sklearn_din.utils.warnings import log_once, warn_of

Reason = Literal["users", "times"]
MANY_ROWS = 10  # where fewer have no past, it may be by chance
LABEL = "<label>"  # among outcomes: what y says, in the history "hist_label"


@dataclass(frozen=True)
class HistoryRequest:
    """The parameters of ``attach_history``."""

    user: Any
    time: Any
    columns: list[Any]
    max_length: int
    max_age: Age
    prefix: str
    elapsed: str | None
    has_outcomes: bool = False

    @property
    def times_elapsed(self) -> list[str]:
        """Columns of times from each event to the row: that of the user, and that of outcomes."""
        own = [] if self.elapsed is None else [self.elapsed]
        return [*own, *[f"{self.prefix}{AGE}"] * self.has_outcomes]

    @property
    def sources(self) -> dict[str, Any]:
        """History column to event column, without that of elapsed times."""
        return dict(zip(self.new_names, self.columns, strict=False))

    @property
    def new_names(self) -> list[str]:
        """Names of the new columns, checked: those of ``columns``, then those of elapsed times."""
        if not isinstance(self.prefix, str):
            raise TypeError(f"prefix must be text, got {self.prefix!r}.")
        if self.elapsed is not None and not isinstance(self.elapsed, str):
            raise TypeError(f"elapsed must be text or None, got {self.elapsed!r}.")
        if not self.columns:
            raise ValueError("columns must name at least one event column, got none.")
        names = [f"{self.prefix}{'label' if n == LABEL else n}" for n in self.columns]
        names += self.times_elapsed
        if len(set(names)) < len(names):
            raise ValueError(f"the new columns must have distinct names, got {names}.")
        return names

    def cut(self, begins: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return start and length of each window, the newest events; an empty one starts at 0."""
        starts = np.maximum(begins, ends - self.max_length)
        lengths = (ends - starts).astype(np.int32)
        return np.where(lengths > 0, starts, 0), lengths

    def check(self, impressions: pd.DataFrame, events: pd.DataFrame) -> None:
        """Raise unless both frames have the columns needed, and none is named like a new one."""
        check_count(self.max_length, name="max_length")
        check_frame(events, [self.user, self.time, *self.columns], name="events")
        self.check_impressions(impressions, name="impressions")

    def check_impressions(self, impressions: pd.DataFrame, *, name: str) -> None:
        """Raise unless the frame has user and time, and no column named like a new one."""
        new_names = self.new_names
        check_frame(impressions, [self.user, self.time], name=name)
        taken = [column for column in new_names if column in impressions.columns]
        if taken:
            raise ValueError(
                f"{name} already has columns {taken}. Drop them, or choose another prefix or name."
            )


def attach_history(
    impressions: IntoDataFrameT,
    events: IntoDataFrame,
    *,
    user: str,
    time: str,
    columns: str | Sequence[str],
    max_length: int = 50,
    max_age: Age = None,
    prefix: str = "hist_",
    elapsed: str | None = None,
) -> IntoDataFrameT:
    """Attach to each impression its user's events from strictly before it, oldest to newest.

    Events at the same time as the impression are excluded, so a log of clicks may be its own. Of
    rows with and without a click, pass those with one: each event counts as a click. In pandas the
    new columns share one sorted copy of the log: a cell is a window of it and reads as an ndarray,
    and slicing, merging or copying the frame copies no events. A polars or Arrow frame gets plain
    lists, with a copy of each row's events.

    Parameters
    ----------
    impressions : pandas, polars or Arrow frame, or scan, of shape (n_impressions, ...)
        Rows to describe, in any order. The frame is not changed, and the result is of the same
        kind.
    events : pandas, polars or Arrow frame, or scan, of shape (n_events, ...)
        The log, in any order; it may be of another kind than the impressions. Events with equal
        user and time keep their order. If either is a scan (:func:`scan_parquet`), DuckDB sorts
        them (``pip install 'sklearn-din[large]'``), and events and windows are stored in files in
        the scan's ``cache_dir``, or in a temporary folder.
    user : str
        User column of both frames. A missing user gets an empty history.
    time : str
        Time column of both frames: integers, floats, or datetimes that either all have a time
        zone or all have none. Missing times are an error.
    columns : str or list of str
        Columns of the events that become histories.
    max_length : int, default=50
        Maximum number of events per history; the newest are kept. Attention reads all of them, up
        to 1,000, unless the encoder's ``max_length`` says less; item neighbours read up to 1,000.
        In pandas, longer windows take no memory.
    max_age : number, str, timedelta or None, default=None
        Maximum age of events at the time of the impression: a number in the unit of the time
        column, or a duration such as "30D" for datetimes. An event of exactly this age is kept.
        None means no limit.
    prefix : str, default="hist_"
        Prefix of the history columns, before the name of the event column.
    elapsed : str or None, default=None
        Name of an additional history column of floats: the time from each event to the
        impression, in seconds for datetimes and in the unit of the time column for numbers. None
        adds no such column.

    Returns
    -------
    DataFrame, Table or AttachedScan
        The impressions, in their order and with their index, plus the history columns.

    Warns
    -----
    UserWarning
        If at least ten impressions, of several users, have no past because no user has an event
        or no event is earlier (the frames may be swapped); if the units of the times differ (ms,
        s), or events have whole days, hours or minutes and impressions finer times, which would
        put an impression's own click into its history.

    See Also
    --------
    HistoryBuilder : The same as a transformer, for splits by time and for serving.
    sklearn_din.logs.aggregates.attach_aggregates : Means and counts of what came before.

    Examples
    --------
    >>> clicks = pd.DataFrame(
    ...     {"user": ["ann", "bob", "ann", "ann"], "item": [7, 8, 9, 7], "time": [1, 1, 2, 2]}
    ... )
    >>> now = pd.DataFrame({"user": ["ann", "ann", "eve"], "item": [8, 9, 9], "time": [2, 3, 3]})
    >>> attach_history(now, clicks, user="user", time="time", columns="item", elapsed="ago")
      user  item  time  hist_item        ago
    0  ann     8     2        [7]        [1]
    1  ann     9     3  [7, 9, 7]  [2, 1, 1]
    2  eve     9     3         []         []
    """
    check_name(user, name="user")
    check_name(time, name="time")
    names = check_names(columns, name="columns")
    request = HistoryRequest(user, time, names, max_length, max_age, prefix, elapsed)
    table: Any = events if isinstance(events, Scan) else impressions
    return attach_past.dispatch(type(table))(impressions, events, request)


@singledispatch
def attach_past(impressions: Any, events: Any, request: HistoryRequest) -> Any:
    """Attach histories to frames; scans register a function of their own."""
    user, time, names, max_age = request.user, request.time, request.columns, request.max_age
    shown = CallerFrame(impressions, name="impressions")
    log = shown.pandas if events is impressions else CallerFrame(events, name="events").pandas
    request.check(shown.pandas, log)
    timeline, values = sort_log(log, user, time, names)
    is_own_log = same_rows(shown.pandas, log, [user, time])
    if max_age is None and is_own_log:
        past = timeline.own_past()
    else:
        past = timeline.past(shown.pandas, max_age=max_age)
    clocks = None if is_own_log else note_clocks(shown.pandas[time], log[time])
    spelling = None if is_own_log else note_spelling(shown.pandas[user], timeline.owners)
    reason = why_all_empty(shown.pandas, timeline, past, user) if not is_own_log else None
    empty = note_all_empty(reason, user, time) if spelling is None else None
    no_clicks = is_own_log or not len(log)
    pages = None if no_clicks else note_pages(shown.pandas, user, time, timeline.holds)
    warn_of([clocks, spelling, empty, pages])
    if labels := note_labels(log, [user, time, *names, *shown.pandas]):
        log_once(labels)
    new = history_columns(shown.pandas, timeline, values, past, request)
    return shown.with_columns(new, types=list_types(log, request.sources))


def sort_log(
    events: pd.DataFrame, user: str, time: str, columns: Sequence[str]
) -> tuple[Timeline, EventLog]:
    """Sort a log once: where each user's events lie, and what the columns hold in that order.

    >>> clicks = pd.DataFrame({"user": [2, 1, 1], "time": [1, 2, 1], "item": ["hat", "tie", "cap"]})
    >>> timeline, log = sort_log(clicks, "user", "time", ["item"])
    >>> timeline.groups, log.columns["item"]
    (array([0, 1, 1]), array(['hat', 'cap', 'tie'], dtype=object))
    """
    timeline = Timeline(events, key=user, time=time)
    values = {column: plain_values(events[column])[timeline.order] for column in columns}
    return timeline, EventLog(values)


def history_columns(
    impressions: pd.DataFrame,
    timeline: Timeline,
    log: EventLog,
    past: Past,
    request: HistoryRequest,
) -> dict[str, WindowArray]:
    """One window column per column of the log, and one per name of elapsed times."""
    starts, lengths = request.cut(past.begin, past.end)
    new = {name: WindowArray(log, c, starts, lengths) for name, c in request.sources.items()}
    if names := request.times_elapsed:
        clock, row_times = timeline.relative_times(impressions)
        clock_log = EventLog(dict.fromkeys(names, clock), token=log.token, part=log.part)
        new |= {name: WindowArray(clock_log, name, starts, lengths, row_times) for name in names}
    return new


def why_all_empty(
    impressions: pd.DataFrame, timeline: Timeline, past: Past, user: str
) -> Reason | None:
    """Return why no impression in memory has a past; None where one has (:func:`why_no_past`)."""
    if (past.end > past.begin).any() or len(timeline.times) == 0:
        return None
    n_users = impressions[user].nunique()
    return why_no_past(len(impressions), n_users, *timeline.meets(impressions))


def why_no_past(n_rows: int, n_users: int, users_meet: bool, times_meet: bool) -> Reason | None:
    """Return why no impression has a past, where they are too many for that to be chance.

    None where they are fewer than ten or of one user, as a server's may well be. ``users_meet``
    says whether some user has an event, ``times_meet`` whether some event is earlier.
    """
    if n_rows < MANY_ROWS or n_users < 2 or (users_meet and times_meet):
        return None
    return "times" if users_meet else "users"


def note_all_empty(reason: Reason | None, user: str, time: str) -> str | None:
    """Return what to say where every history is empty."""
    if reason is None:
        return None
    problem, column = "no event is earlier than any impression", time
    if reason == "users":
        problem, column = "no user of the impressions has an event", user
    return (
        f"every history is empty: {problem}. Are the two frames swapped, or the {column!r} columns "
        "of another kind?"
    )
