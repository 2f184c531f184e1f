"""History columns cut out of a sorted log: what attach_history and HistoryBuilder share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from sklearn_din._validation import Age, check_count, check_frame, plain_values
from sklearn_din.logs.eventlog import EventLog
from sklearn_din.logs.timeline import Past, Timeline
from sklearn_din.logs.windows import WindowArray

Reason = Literal["users", "times"]
MANY_ROWS = 10  # where fewer have no past, it may be by chance


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

    @property
    def sources(self) -> dict[str, Any]:
        """History column to event column, without that of elapsed times."""
        return {f"{self.prefix}{column}": column for column in self.columns}

    @property
    def new_names(self) -> list[str]:
        """Names of the new columns, checked."""
        if not isinstance(self.prefix, str):
            raise TypeError(f"prefix must be text, got {self.prefix!r}.")
        if self.elapsed is not None and not isinstance(self.elapsed, str):
            raise TypeError(f"elapsed must be text or None, got {self.elapsed!r}.")
        if not self.columns:
            raise ValueError("columns must name at least one event column, got none.")
        names = [f"{self.prefix}{column}" for column in self.columns]
        names += [] if self.elapsed is None else [self.elapsed]
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


def sort_log(
    events: pd.DataFrame, user: str, time: str, columns: Sequence[str]
) -> tuple[Timeline, EventLog]:
    """Sort a log once: where each user's events lie, and what the columns hold in that order.

    Examples
    --------
    >>> clicks = pd.DataFrame({"user": [2, 1, 1], "time": [1, 2, 1], "item": ["hat", "tie", "cap"]})
    >>> timeline, log = sort_log(clicks, "user", "time", ["item"])
    >>> timeline.groups, log.columns["item"]
    (array([0, 1, 1]), array(['hat', 'cap', 'tie'], dtype=object))
    """
    timeline = Timeline(events, keys=[user], time=time)
    values = {column: plain_values(events[column])[timeline.order] for column in columns}
    return timeline, EventLog(values)


def history_columns(
    impressions: pd.DataFrame,
    timeline: Timeline,
    log: EventLog,
    past: Past,
    request: HistoryRequest,
) -> dict[str, WindowArray]:
    """One window column per column of the log, and one of elapsed times where it has a name."""
    starts, lengths = request.cut(past.begin, past.end)
    new = {name: WindowArray(log, c, starts, lengths) for name, c in request.sources.items()}
    elapsed = request.elapsed
    if elapsed is not None:
        clock, row_times = timeline.relative_times(impressions)
        clock_log = EventLog({elapsed: clock}, token=log.token, part=log.part)
        new[elapsed] = WindowArray(clock_log, elapsed, starts, lengths, row_times)
    return new


def why_all_empty(
    impressions: pd.DataFrame, timeline: Timeline, past: Past, user: str
) -> Reason | None:
    """Return why no impression in memory has a past; None where one has (:func:`why_no_past`)."""
    if (past.end > past.begin).any() or len(timeline.times) == 0:
        return None
    return why_no_past(
        len(impressions),
        impressions[user].nunique(),
        users_meet=bool(timeline.has_events(impressions).any()),
        times_meet=bool(timeline.is_after_some_event(impressions).any()),
    )


def why_no_past(n_rows: int, n_users: int, *, users_meet: bool, times_meet: bool) -> Reason | None:
    """Return why no impression has a past, where they are too many for that to be chance.

    None where they are fewer than ten or of one user, as a server's may well be.
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


def same_rows(impressions: pd.DataFrame, events: pd.DataFrame, columns: Sequence[str]) -> bool:
    """Return whether two frames agree row by row in these columns."""
    if impressions is events:
        return True
    if len(impressions) != len(events):
        return False
    pairs = [(impressions[column].array, events[column].array) for column in columns]
    return all(ours.dtype == theirs.dtype and ours.equals(theirs) for ours, theirs in pairs)
