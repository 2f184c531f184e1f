"""Each impression's position in the event log of its key: only this file decides "before"."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sklearn_din.utils.keys import Keys
from sklearn_din.utils.validation import (
    UNITS_PER_SECOND,
    Age,
    check_max_age,
    check_time_kind,
    check_times,
    unit_ratio,
)

_INT64 = np.iinfo(np.int64)


@dataclass(frozen=True)
class Past:
    """Windows ``[begin, end)`` of the sorted log: events strictly before each impression."""

    begin: np.ndarray
    end: np.ndarray


class Timeline:
    """An event log sorted once by key and time, asked for the past of impressions.

    Events of equal key and time keep the log's order; events without a key are left out. An
    event is an impression's past when it has the same key and a strictly smaller time.

    Parameters
    ----------
    events : DataFrame of shape (n_events, ...)
        The log, in any order.
    key : str
        Column that must be equal, such as the user.
    time : str
        Integers, floats or datetimes.

    Attributes
    ----------
    order : ndarray of int64, shape (n_sorted,)
        Row of the log of each sorted event.
    groups : ndarray of int64, shape (n_sorted,)
        Code of each sorted event's key.
    """

    def __init__(self, events: pd.DataFrame, *, key: str, time: str):
        self.time = time
        self.key, self._keys = key, Keys.read(events[key], name=f"events[{key!r}]")
        label = f"events[{time!r}]"
        self.times, self.unit, self.zoned = check_times(events[time], name=label)
        by_time = stable_order(self.times)
        ordered = self.times[by_time]
        is_new = np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]
        self._ticks = ordered[is_new]
        self._stride = len(self._ticks) + 1
        codes = self._keys.codes[by_time]
        by_key = stable_order(codes)
        sort_keys = (codes * self._stride + (np.cumsum(is_new) - 1))[by_key]
        n_without_key = np.searchsorted(sort_keys, 0)  # code -1 sorts first
        self._sorted_keys = sort_keys[n_without_key:]
        self.order = by_time[by_key[n_without_key:]]
        self.groups = self._sorted_keys // self._stride
        self._first = np.searchsorted(self.groups, np.arange(len(self._keys.values) + 1))

    @property
    def owners(self) -> pd.Index:
        """The distinct values of the key."""
        return self._keys.index

    def past(self, impressions: pd.DataFrame, *, max_age: Age = None) -> Past:
        """Each impression's window of the sorted log."""
        codes = self._codes_of(impressions)
        times, unit = self.impression_times(impressions)
        age = check_max_age(max_age, unit=unit)
        edges, oldest = window_edges(times, unit, age, self._ticks.dtype, self.unit)
        end = self._search(codes, search_in_order(self._ticks, edges))
        if oldest is None:
            return Past(np.where(codes < 0, 0, self._first[codes]), end)
        return Past(self._search(codes, search_in_order(self._ticks, oldest)), end)

    def holds(self, impressions: pd.DataFrame) -> np.ndarray:
        """Return whether the log has an event of each impression's key and time."""
        clock, now = self.relative_times(impressions)
        at = np.minimum(self.past(impressions).end, len(clock) - 1)
        return (self.groups[at] == self._codes_of(impressions)) & (clock[at] == now)

    def own_past(self) -> Past:
        """Past of the log's own rows, as :meth:`past` gives it, without a search."""
        n_sorted = len(self.order)
        positions = np.arange(n_sorted)
        is_new = np.append(True, self._sorted_keys[1:] != self._sorted_keys[:-1])[:n_sorted]
        begin, end = np.zeros((2, len(self.times)), dtype=np.int64)
        end[self.order] = np.maximum.accumulate(np.where(is_new, positions, 0))
        begin[self.order] = self._first[self.groups]
        return Past(begin, end)

    def precedes(self, impressions: pd.DataFrame) -> bool:
        """Return whether all events come strictly before all impressions."""
        times, unit = self.impression_times(impressions)
        edges = strict_edges(times, unit, self._ticks.dtype, self.unit)
        return not len(self._ticks) or bool((edges > self._ticks[-1]).all())

    def meets(self, impressions: pd.DataFrame) -> tuple[bool, bool]:
        """Return whether some impression has a key of the log, and some one an earlier event."""
        times, unit = self.impression_times(impressions)
        is_later = strict_edges(times, unit, self._ticks.dtype, self.unit) > self._ticks[0]
        return bool((self._codes_of(impressions) >= 0).any()), bool(is_later.any())

    def impression_times(self, impressions: pd.DataFrame) -> tuple[np.ndarray, str | None]:
        """Impression times in the finer of their own unit and the log's, and that unit."""
        times, unit, zoned = check_times(
            impressions[self.time], name=f"impressions[{self.time!r}]", unit=self.unit
        )
        if len(times) == 0 or len(self.times) == 0:
            return times, unit
        kinds = (unit, zoned), (self.unit, self.zoned)
        check_time_kind(f"impressions[{self.time!r}]", *kinds, like="events")
        return times, unit

    def relative_times(self, impressions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Sorted event times and impression times as floats from the log's first time.

        In seconds for datetimes. Impressions before the first event read 0: they have no past.
        """
        times, unit = self.impression_times(impressions)
        if len(self.times) == 0:
            return np.zeros(0), np.zeros(len(times))
        origin = self.times.min().item()
        clock = since(self.times, origin, self.unit)[self.order]
        return clock, since(times, origin * unit_ratio(unit, self.unit), unit)

    def _codes_of(self, impressions: pd.DataFrame) -> np.ndarray:
        """Return the code of each impression's key, -1 where no event has it."""
        keys = Keys.read(impressions[self.key], name=f"impressions[{self.key!r}]")
        return keys.find_in(self._keys, name=self.key)

    def _search(self, codes: np.ndarray, ticks: np.ndarray) -> np.ndarray:
        return search_in_order(self._sorted_keys, codes * self._stride + ticks)


def window_edges(
    times: np.ndarray, unit: str | None, age: float | None, dtype: np.dtype, log_unit: str | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the range of moments of the log in each impression's past.

    In the log's dtype and unit: past events are smaller than the first edge, and not smaller than
    the second (None without an age). Times of impressions, and ``age``, may be of a finer unit.
    """
    edges = strict_edges(times, unit, dtype, log_unit)
    if age is None:
        return edges, None
    if dtype.kind == "f" and age % 1:
        times = times.astype(np.float64)
    # An event exactly max_age old still counts: none strictly before that moment does.
    return edges, strict_edges(_earlier(times, age), unit, dtype, log_unit)


def strict_edges(
    times: np.ndarray, unit: str | None, dtype: np.dtype, log_unit: str | None
) -> np.ndarray:
    """Return moments of the log's dtype and unit: ``e < t`` exactly where ``e < edge``.

    >>> strict_edges(np.array([1500, 2000]), "ms", np.dtype(np.int64), "s")  # 1 s is before 1.5 s
    array([2, 2])
    """
    if dtype.kind == "f":
        return times.astype(np.float64)
    if times.dtype.kind == "f":  # for whole numbers, e < t means e < ceil(t)
        whole = np.ceil(times)
        inside = np.abs(whole) < 2.0**63
        outside = np.where(whole > 0, _INT64.max, _INT64.min)
        return np.where(inside, np.where(inside, whole, 0).astype(np.int64), outside)
    factor = unit_ratio(unit, log_unit)
    return times // factor + (times % factor != 0)


def _earlier(times: np.ndarray, age: float) -> np.ndarray:
    """``times - age`` that stops at the smallest integer instead of wrapping around."""
    if times.dtype.kind == "f":
        return times - age
    age = min(int(age), _INT64.max)
    return np.where(times < _INT64.min + age, _INT64.min, times - age)


def since(times: np.ndarray, origin: float, unit: str | None) -> np.ndarray:
    """Return times as floats from ``origin``, in seconds where they have a unit; earlier ones 0."""
    if times.dtype.kind == "f" or isinstance(origin, float):
        return np.maximum(times - origin, 0).astype(np.float64)
    later = np.maximum(times, origin)
    # Unsigned: the span of two int64 always fits.
    span = later.astype(np.uint64) - np.asarray(origin, dtype=np.int64).astype(np.uint64)
    return span.astype(np.float64) / (1 if unit is None else UNITS_PER_SECOND[unit])


def stable_order(values: np.ndarray) -> np.ndarray:
    """``np.argsort(values, kind="stable")``, of whole numbers in a fifth of the time."""
    if values.dtype != np.int64 or not len(values):
        return np.argsort(values, kind="stable")
    above = values.view(np.uint64) - values.min().view(np.uint64)  # wraps around as it should
    order = places = np.arange(len(values))
    n_bits = len(values).bit_length()
    for shift in range(0, int(above.max()).bit_length(), 63 - n_bits):
        bits = (above[order] >> np.uint64(shift)) << np.uint64(n_bits + 1) >> np.uint64(1)
        numbers = bits.view(np.int64) + places
        numbers.sort()
        order = order[numbers & ((1 << n_bits) - 1)]
    return order


def search_in_order(haystack: np.ndarray, needles: np.ndarray) -> np.ndarray:
    """``np.searchsorted`` that asks in order: six times faster than random on ten millions."""
    order = np.argsort(needles)
    positions = np.empty(len(needles), dtype=np.int64)
    positions[order] = np.searchsorted(haystack, needles[order])
    return positions
