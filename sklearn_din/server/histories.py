"""Histories of users: a log, and the clicks that arrived since."""

import threading
import warnings
from typing import Any

import numpy as np
import pandas as pd

from sklearn_din.logs.appended_events import append_events
from sklearn_din.logs.history import HistoryBuilder
from sklearn_din.server.json_values import Values, check_keys, check_spelling, plain
from sklearn_din.utils.validation import check_frame

RECENT = 2_000  # clicks after which they join the log: until then a post costs the same
TIMES = "time of each event"  # a history beside those of the model


class Histories:
    """Each user's newest events, by two HistoryBuilders: of the log, and of what came since.

    A click joins the small one, so that it costs the same however long the log is. Now is just
    after the newest event. Threads may share it.

    Parameters
    ----------
    builder : HistoryBuilder
        The columns, and which events a history keeps; it need not be fitted.
    log : DataFrame of shape (n_events, ...), default=None
        Events beside those that a fitted builder remembers. Its other columns are what was last
        known of each user.
    """

    def __init__(self, builder: HistoryBuilder, log: pd.DataFrame | None = None) -> None:
        names = [builder.columns] if isinstance(builder.columns, str) else [*builder.columns]
        self.user, self.time, self.columns = builder.user, builder.time, names
        self.sources = {f"{builder.prefix}{name}": name for name in names}
        self._times = f"{builder.prefix}{TIMES}"
        if builder.elapsed is not None:
            self.sources[builder.elapsed] = builder.elapsed
        self._settings = builder.get_params() | {"columns": [*names, TIMES], "events": "all"}
        parts = [self._with_times(builder.events_)] if hasattr(builder, "events_") else []
        if log is not None:
            check_frame(log, [self.user, self.time, *names], name="the history")
            log = log.sort_values(self.time, kind="stable")
            parts.append(self._with_times(log))
        if not sum(map(len, parts)):
            raise ValueError("the history must have at least one event, got none.")
        remembered = self._fit(parts[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of events that are in both
            for part in parts[1:]:
                remembered.partial_fit(part)
        events = remembered.events_
        self._example = events.head(1)
        self._builders = remembered, self._fit(events[:0])
        self._n_by_user = events[self.user].value_counts()
        last = self._example if log is None else log.drop_duplicates(self.user, keep="last")
        self._last_known = last.set_index(self.user)
        self._writing = threading.Lock()

    @property
    def n_events(self) -> int:
        """Number of events that are remembered."""
        return sum(len(builder.events_) for builder in self._builders)

    def now(self) -> Any:
        """Return the moment just after the newest event."""
        newest = max(b.events_[self.time].max() for b in self._builders if len(b.events_))
        return newest + (pd.Timedelta(1, unit="s") if isinstance(newest, pd.Timestamp) else 1)

    def of(self, user: Any) -> tuple[dict[str, list[Any]], list[Any]]:
        """Return the histories of one user, and the time of each event, oldest first.

        Of an unknown user they are empty.
        """
        check_spelling([user], self._n_by_user.index[:1].tolist(), name=self.user)
        parts = [self._ask(builder, user) for builder in self._builders]
        times = np.concatenate([part[self._times] for part in parts])
        newest = np.argsort(times, kind="stable")[-self._builders[0].max_length :]
        histories = {
            name: [cell for part in parts for cell in part[name].tolist()] for name in self.sources
        }
        ordered = {name: [cells[n] for n in newest] for name, cells in histories.items()}
        return ordered, [plain(time) for time in pd.Series(times[newest]).tolist()]

    def read_id(self, text: str | int) -> Any:
        """Return the id of a user that was typed: an integer where ids are integers."""
        known = self._n_by_user.index[0]
        return int(text) if isinstance(plain(known), int) and str(text).isdecimal() else text

    def last_known(self, user: Any, name: str) -> Any:
        """Return what the log last had of a user in a column; None where it had nothing."""
        known = self._last_known
        if name not in known or user not in known.index:
            return None
        return plain(known.at[user, name])

    def rows(self, n: int) -> pd.DataFrame:
        """Return the newest events of the log as rows with the histories that they had."""
        return self._builders[0].transform(self._builders[0].events_.nlargest(n, self.time))

    def add(self, events: list[Values]) -> int:
        """Remember events and return how many there were that were not remembered already."""
        needed = [self.user, self.time, *self.columns]
        check_keys(events, needed, what="an event")
        for name in (self.user, self.time):
            if any(event[name] is None for event in events):
                raise ValueError(f"an event must have a value for {name}, got null.")
        frame = pd.DataFrame()
        for name in needed:
            cells, known = [event[name] for event in events], self._example[name].tolist()
            if name != self.time:
                check_spelling(cells, known, name=name)
                _check_numbers(cells, self._example[name])
            is_integer = None in cells and type(known[0]) is int  # else they would be floats
            frame[name] = pd.Series(cells, dtype="Int64" if is_integer else None)
        frame[self.time] = self._read_times(frame[self.time])
        with self._writing:
            log, recent = self._builders
            users = frame[self.user]
            known = [b.events_[b.events_[self.user].isin(users)] for b in (log, recent)]
            memory = self._fit(self._join(*known))
            n_known = len(memory.events_)
            new = memory.partial_fit(self._with_times(frame)).events_[n_known:]
            recent = self._fit(self._join(recent.events_, new))
            if len(recent.events_) > RECENT:
                log = self._fit(self._join(log.events_, recent.events_))
                self._n_by_user = log.events_[self.user].value_counts()
                recent = self._fit(log.events_[:0])
            self._builders = log, recent
        return len(new)

    def example(self) -> Values:
        """Return an event as :meth:`add` takes it."""
        event = self._example.drop(columns=TIMES).iloc[0].to_dict()
        return {str(name): plain(value) for name, value in event.items()}

    def search(self, text: str, n: int) -> list[Values]:
        """Return users whose id contains a text, those with the most events first."""
        recent = self._builders[1].events_[self.user].value_counts()
        counts = self._n_by_user.add(recent, fill_value=0).sort_values(ascending=False)
        if text:
            counts = counts[counts.index.astype(str).str.contains(text, case=False, regex=False)]
        return [{"user": plain(user), "events": int(k)} for user, k in counts.head(n).items()]

    def _fit(self, events: pd.DataFrame) -> HistoryBuilder:
        return HistoryBuilder(**self._settings).fit(events)

    def _join(self, old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
        return append_events(old, new, user=self.user, time=self.time)

    def _with_times(self, log: pd.DataFrame) -> pd.DataFrame:
        return log[[self.user, self.time, *self.columns]].assign(**{TIMES: log[self.time]})

    def _ask(self, builder: HistoryBuilder, user: Any) -> pd.Series:
        """Return what a builder attaches to one row of the user now."""
        row = self._example.assign(**{self.user: [user], self.time: self.now()})
        return builder.transform(row).iloc[0]

    def _read_times(self, times: pd.Series) -> pd.Series:
        """Return times that came as JSON as the log has them."""
        kind = self._example[self.time].dtype
        if not pd.api.types.is_datetime64_any_dtype(kind):
            if not pd.api.types.is_numeric_dtype(times.dtype):
                raise ValueError(f"{self.time} must be a number, as in the log, got {times[0]!r}.")
            return times
        has_zone = getattr(kind, "tz", None) is not None
        read = pd.to_datetime(times, errors="coerce", utc=has_zone)
        is_wrong = read.isna().any() or (read.dt.tz is not None) != has_zone
        if pd.api.types.is_numeric_dtype(times.dtype) or is_wrong:
            raise ValueError(
                f"{self.time} must be a date as text, such as {str(self.now())!r}, got "
                f"{times[read.isna()].tolist() or times.tolist()!r:.60}."
            )
        return read.astype(kind)


def _check_numbers(cells: list[Any], known: pd.Series) -> None:
    """Raise where a column of numbers gets something else."""
    if pd.api.types.is_numeric_dtype(known.dtype):
        wrong = [cell for cell in cells if not isinstance(cell, int | float | None)]
        if wrong:
            raise ValueError(f"{known.name} must be a number, as in the log, got {wrong[0]!r:.40}.")
