"""Windows over flat arrays: where each row's events start, and how many there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

Rows = slice | np.ndarray  # what picks rows: a slice, positions, or a mask
MOST_APART = 2  # on average: counting places that lie further apart takes memory


def row_dtype(n_rows: int) -> type[np.int32] | type[np.int64]:
    """Return the smaller type that holds the numbers of so many rows."""
    return np.int32 if n_rows <= np.iinfo(np.int32).max else np.int64


def select_rows(key: Any) -> Rows:
    """Turn what scikit-learn and people index rows with into a slice, positions or a mask."""
    if isinstance(key, tuple) and len(key) == 2 and key[1] is Ellipsis:  # as scikit-learn asks
        key = key[0]
    if isinstance(key, slice):
        return key
    rows = np.empty(()) if isinstance(key, tuple) else np.asarray(key)
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iub"):
        raise TypeError(
            "rows are chosen by a slice, a 1-D index array or a 1-D bool mask, and columns by "
            f"name, got {key!r:.80}. One row is X[i : i + 1], one value X['item'][3]."
        )
    return rows.astype(np.int64) if rows.dtype != bool or not rows.size else rows


def pad_rows(values: np.ndarray, lengths: np.ndarray, width: int | None = None) -> np.ndarray:
    """Return values of rows one after the other as (n_rows, width or longest, ...), then zeros."""
    mask = np.arange(lengths.max(initial=0) if width is None else width) < lengths[:, None]
    padded = np.zeros((*mask.shape, *values.shape[1:]), dtype=values.dtype)
    padded[mask] = values
    return padded


def pairs_in_turn(owners: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of one owner (-1: nobody) that follow each other in time: earlier, later."""
    order = np.lexsort((times, owners))
    earlier, later = order[:-1], order[1:]
    is_pair = (owners[earlier] == owners[later]) & (owners[later] >= 0)
    is_pair &= times[earlier] < times[later]
    return earlier[is_pair], later[is_pair]


def row_of_nearest_change(times: np.ndarray, row: int) -> int:
    """Return the row, nearest to a given row, at which another of the sorted times begins.

    >>> times = np.array([1, 2, 2, 2, 3])
    >>> row_of_nearest_change(times, 2), row_of_nearest_change(times, 3)
    (1, 4)
    """
    time = times[min(max(row, 0), len(times) - 1)]
    ends = np.searchsorted(times, time, side="left"), np.searchsorted(times, time, side="right")
    changes = [int(end) for end in ends if 0 < end < len(times)]
    return min(changes, key=lambda change: abs(change - row))


@dataclass(frozen=True, eq=False)
class Spans:
    """One window per row: row ``i`` holds the events ``starts[i] : starts[i] + lengths[i]``."""

    starts: np.ndarray  # (n_rows,), int64; of no meaning where the row is empty
    lengths: np.ndarray  # (n_rows,), int32

    @classmethod
    def from_lengths(cls, lengths: np.ndarray) -> Spans:
        """Rows that follow each other: row ``i`` takes the next ``lengths[i]`` events."""
        ends = np.cumsum(lengths, dtype=np.int64)
        return cls(ends - lengths, lengths.astype(np.int32, copy=False))

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, rows: Rows) -> Spans:
        """Rows by slice, index array or boolean mask."""
        return Spans(self.starts[rows], self.lengths[rows])

    def newest(self, max_length: int | np.ndarray) -> Spans:
        """Keep the last ``max_length`` events of each row: a number, or one for each row."""
        surplus = np.maximum(self.lengths - max_length, 0)
        return Spans(self.starts + surplus, self.lengths - surplus)

    def index(self) -> np.ndarray:
        """Position of every event, row after row: shape (sum(lengths),), int64."""
        ends = np.cumsum(self.lengths, dtype=np.int64)
        index = np.repeat(self.starts - ends + self.lengths, self.lengths)
        index += np.arange(len(index))
        return index

    def time_since(
        self, times: np.ndarray, row_times: np.ndarray, index: np.ndarray | None = None
    ) -> np.ndarray:
        """Time from every event to its row, row after row (``index`` saves :meth:`index`)."""
        return np.repeat(row_times, self.lengths) - times[self.index() if index is None else index]

    def same(self, other: Spans) -> bool:
        """Return whether both have the same windows, row by row."""
        return np.array_equal(self.lengths, other.lengths) and np.array_equal(
            self.starts, other.starts
        )

    def cover(self) -> Covered:
        """Find the events that some row holds, by merging windows, and the windows over them."""
        filled = np.flatnonzero(self.lengths)
        starts, lengths = self.starts[filled], self.lengths[filled]
        order: Rows = slice(None)
        if (starts[1:] < starts[:-1]).any():
            order = _sort_order(starts)
        begins = starts[order]
        reach = np.maximum.accumulate(begins + lengths[order])
        opens = np.append(True, begins[1:] > reach[:-1])[: len(begins)]
        closes = np.append(opens[1:], True)[: len(begins)]
        run_starts = begins[opens]
        run_lengths = reach[closes] - run_starts
        shift = np.cumsum(run_lengths) - run_lengths - run_starts
        moved = np.zeros(len(self), dtype=np.int64)
        moved[filled[order]] = begins + shift[np.cumsum(opens) - 1]
        return Covered(Spans(moved, self.lengths), run_starts, run_lengths)


@dataclass(frozen=True, eq=False)
class Covered:
    """The events that some row holds."""

    spans: Spans  # the same rows over only those events
    run_starts: np.ndarray  # (n_runs,), where each run of them begins in the original array
    run_lengths: np.ndarray

    @property
    def n_events(self) -> int:
        """Number of events that some row holds."""
        return int(self.run_lengths.sum())

    @property
    def kept(self) -> Rows:
        """Rows of the original array that pick those events: a slice where they are one run."""
        if len(self.run_starts) > 1:
            return Spans(self.run_starts, self.run_lengths).index()
        begin = int(self.run_starts.sum())
        return slice(begin, begin + self.n_events)

    def counts(self) -> np.ndarray | None:
        """Count the rows that hold each event: (n_events,), int32; None where each has one row."""
        if self.n_events == self.spans.lengths.sum(dtype=np.int64):
            return None
        starts, n = self.spans.starts, self.n_events + 1
        begun = np.bincount(starts, minlength=n)
        ended = np.bincount(starts + self.spans.lengths, minlength=n)
        return np.cumsum((begun - ended)[:-1], dtype=np.int32)


def _sort_order(places: np.ndarray) -> np.ndarray:
    """Return an order of places in a log; where they lie close, by counts: ten times as fast."""
    n, first, last = len(places), int(places.min()), int(places.max())
    if last - first > MOST_APART * n:
        return np.argsort(places)
    rows = np.arange(n, dtype=row_dtype(n)), places - first, np.array([0, n])
    return csr_array(rows, (1, last - first + 1)).tocsc().data


def log_elapsed(elapsed: np.ndarray) -> np.ndarray:
    """``log1p`` of times elapsed, float32; a time before its event counts as none elapsed.

    >>> log_elapsed(np.array([0.0, -5.0, np.expm1(2.0)]))
    array([0., 0., 2.], dtype=float32)
    """
    return np.log1p(np.maximum(elapsed, 0.0)).astype(np.float32)
