"""Times of a log as JSON brings them, the moment that is now, and what lies too far away."""

import re
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Literal

import numpy as np
import pandas as pd

from sklearn_din.utils.validation import check_times

ISO = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:?\d\d)?)?", re.ASCII
)
SECOND = 1_000_000_000  # nanoseconds
DAY = 86_400 * SECOND
DAYS_BEFORE, N_SPANS_BEFORE = 3_653, 10  # ten years before the log, or ten times its length


class Clock:
    """The times of a log: integers since 1970 in nanoseconds, or the log's own numbers.

    Now is the clock's where the newest event lies no longer ago than the log is long: it is being
    written. Of an old log, now is just after its newest event, and for a user who has done
    something since, just after that: nobody moves the now of others.
    """

    def __init__(self, times: pd.Series, *, now: Literal["clock", "newest"] | None = None) -> None:
        self.name, self._zone = times.name, getattr(times.dtype, "tz", None)
        self.values, unit, self.has_zone = check_times(times, name=str(times.name), unit="ns")
        self.are_dates = unit is not None
        self.newest, oldest = self.values.max().item(), self.values.min().item()
        self._span = self.newest - oldest
        self._kinds = (int,) if self.values.dtype.kind == "i" else (int, float)
        if now == "clock" and not self.are_dates:
            raise ValueError(
                f"--now clock needs dates, and {self.name} holds numbers, whose unit nobody knows."
            )
        is_written = self.are_dates and self.newest <= time.time_ns() <= self.newest + self._span
        self.is_live = is_written if now is None else now == "clock"

    def now(self, newest: float | None = None) -> Any:
        """Return the moment that is now for a user, whose newest event is given."""
        if self.is_live:
            return time.time_ns()
        last = self.newest if newest is None else max(self.newest, newest)
        return last + (SECOND if self.are_dates else 1)

    def column(self, moments: Iterable[Any]) -> pd.Series:
        """Return moments as values of the time column."""
        if not self.are_dates:
            return pd.Series([*moments], dtype=self.values.dtype)
        dates = pd.Series(np.array([*moments], dtype="datetime64[ns]"))
        return dates.dt.tz_localize("UTC") if self.has_zone else dates

    def read(self, value: Any) -> Any:
        """Return a time of a request as a number; ValueError where it is none, or far away."""
        moment = self._read_date(value) if self.are_dates else value
        if not self.are_dates and (type(value) not in self._kinds or not np.isfinite(value)):
            what = "an integer" if self._kinds == (int,) else "a number"
            raise ValueError(f"{self.name} must be {what}, as in the log, got {value!r:.40}.")
        latest, before = self.newest + max(self._span, 1), N_SPANS_BEFORE * self._span
        if self.are_dates:
            latest = max(self.newest, time.time_ns()) + DAY
            before = max(self._span, DAYS_BEFORE * DAY)
        earliest = self.newest - self._span - max(before, 1)
        for bound, is_beyond, at in (
            (latest, moment > latest, "the latest"),
            (earliest, moment < earliest, "the earliest"),
        ):
            if is_beyond:
                raise ValueError(
                    f"{self.name} must be {self.show(bound)} at {at}, got {value!r:.40}. Is it in "
                    "another unit?"
                )
        return moment

    def write(self, value: Any, moment: Any) -> Any:
        """Return a time that was read as a store has it: a date without a zone gets UTC's."""
        is_local = self.are_dates and pd.Timestamp(value).tz is None
        return pd.Timestamp(moment, tz="UTC").isoformat() if is_local else value

    def read_stored(self, values: list[Any]) -> list[Any]:
        """Return times of a store as numbers; None where one is not of this log's kind."""
        if not self.are_dates:
            return [value if type(value) in self._kinds else None for value in values]
        if len(values) == 1:  # a post: pandas takes a millisecond for any number
            with suppress(ValueError):
                return [self._read_date(values[0])]
        texts = pd.Series([v if isinstance(v, str) else None for v in values], dtype=object)
        dates = pd.to_datetime(texts, utc=True, format="ISO8601", errors="coerce")
        moments = dates.astype("datetime64[ns, UTC]").astype("int64").tolist()
        return [None if pd.isna(d) else m for d, m in zip(dates, moments, strict=True)]

    def show(self, moment: Any) -> Any:
        """Return a moment as :meth:`read` takes it: a number, or a date of ISO 8601."""
        if not self.are_dates:
            return moment
        stamp = pd.Timestamp(moment, tz="UTC")
        if self.has_zone:
            return stamp.tz_convert(self._zone).isoformat()
        return stamp.tz_localize(None).isoformat()

    def _read_date(self, value: Any) -> int:
        """Read ISO 8601: without a zone it is in that of the log; a log without one is in UTC."""
        try:
            if not isinstance(value, str) or not ISO.fullmatch(value):
                raise ValueError
            stamp = pd.Timestamp(value)
            if stamp.tz is None:
                stamp = stamp.tz_localize(self._zone if self.has_zone else "UTC")
            return stamp.as_unit("ns").value
        except (ValueError, OverflowError) as error:  # no such day, hour, or year
            raise ValueError(
                f"{self.name} must be a date as text in the form of ISO 8601, such as "
                f"{self.show(self.now())!r}, got {value!r:.60}."
            ) from error
