"""The events of one behaviour: aligned histories, and only what some row sees of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sklearn_din.encoding.cells import Codes, HistoryCells


@dataclass(frozen=True)
class Events:
    """The histories of one behaviour over only those events that some row sees.

    Parameters
    ----------
    starts, lengths : ndarray of shape (n_rows,)
        The windows, int64 and int32.
    counts : ndarray of shape (n_events,), int32
        How many rows see each event.
    codes : dict of str to (codes, values)
        For each history of ids.
    numbers : dict of str to ndarray of shape (n_events,), float64
        For each history of numbers.
    anchors : dict of str to ndarray of shape (n_rows,), float64
        For those numbers that are times, to be read as time elapsed until the anchor.
    """

    starts: np.ndarray
    lengths: np.ndarray
    counts: np.ndarray
    codes: dict[str, Codes] = field(default_factory=dict)
    numbers: dict[str, np.ndarray] = field(default_factory=dict)
    anchors: dict[str, np.ndarray] = field(default_factory=dict)


def read_events(
    cells: Sequence[HistoryCells], *, max_length: int, numbers: Collection[str] = ()
) -> Events:
    """Join the histories of one behaviour and keep only what their windows cover.

    Parameters
    ----------
    cells : sequence of HistoryCells
        At least one; event by event they describe the same things.
    max_length : int
        Newest events a row keeps.
    numbers : collection of str, default=()
        Which of them are numbers; the rest are ids.

    Raises
    ------
    ValueError
        If their lengths differ in some row.
    """
    _check_aligned(cells)
    first = cells[0]
    if not all(_same_layout(first, other) for other in cells[1:]):
        cells = [one.expanded() for one in cells]
    cells = [one.newest(max_length) for one in cells]
    starts, counts, kept = _covered(cells[0].starts, cells[0].lengths)
    events = Events(starts, cells[0].lengths.astype(np.int32), counts)
    for one in cells:
        if one.name in numbers:
            events.numbers[one.name] = one.numbers(kept)
            if one.anchors is not None:
                events.anchors[one.name] = one.anchors
        else:
            events.codes[one.name] = one.codes(kept)
    return events


def _check_aligned(cells: Sequence[HistoryCells]) -> None:
    first = cells[0]
    for other in cells[1:]:
        differs = np.flatnonzero(first.lengths != other.lengths)
        if len(differs):
            row = differs[0]
            raise ValueError(
                f"{first.name} and {other.name} describe the same events and must have one "
                f"length in each row, got {first.lengths[row]} and {other.lengths[row]} in row "
                f"{row} ({len(differs)} rows differ). Where they are different events, give "
                "each a key of its own in histories."
            )


def _same_layout(first: HistoryCells, other: HistoryCells) -> bool:
    return len(first.values) == len(other.values) and np.array_equal(first.starts, other.starts)


def _covered(starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
    """Where each window starts once only covered events are kept, how often each is, and which."""
    filled = lengths > 0
    if not filled.any():
        return np.zeros_like(starts), np.empty(0, dtype=np.int32), slice(0, 0)
    low = starts[filled].min()
    begins = np.where(filled, starts - low, 0)
    ends = begins + lengths
    counts = np.zeros(ends.max() + 1, dtype=np.int32)
    np.add.at(counts, begins, 1)
    np.add.at(counts, ends, -1)
    counts = np.cumsum(counts[:-1], out=counts[:-1])
    is_kept = counts > 0
    if is_kept.all():
        return begins, counts, slice(low, low + len(counts))
    moved = np.cumsum(is_kept)[begins] - 1
    return np.where(filled, moved, 0), counts[is_kept], np.flatnonzero(is_kept) + low
