"""The histories of one behaviour, each row a window over shared event columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


class Ragged:
    """The histories of one behaviour: windows over shared event columns.

    Row ``i`` holds the events ``starts[i] : starts[i] + lengths[i]`` of every column. Rows may
    overlap or be the same window; taking rows copies no events.

    Parameters
    ----------
    columns : dict of str to ndarray of shape (n_events,)
        int32 ids, or numbers. Oldest to newest inside each window.
    starts : ndarray of shape (n_rows,), int64
        First event of each row.
    lengths : ndarray of shape (n_rows,), int32
        Number of events of each row.
    anchors : dict of str to ndarray of shape (n_rows,), default=None
        For numeric columns that hold times: the row's own time. They read as
        ``log1p(anchor - time)``.

    Examples
    --------
    >>> import numpy as np
    >>> clicks = Ragged({"item": np.array([5, 6, 7], "int32")}, np.array([0, 1]), np.array([1, 2]))
    >>> clicks.padded("item")
    array([[5, 0],
           [6, 7]], dtype=int32)
    """

    def __init__(
        self,
        columns: Mapping[str, np.ndarray],
        starts: np.ndarray,
        lengths: np.ndarray,
        anchors: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.columns = dict(columns)
        self.starts = starts
        self.lengths = lengths
        self.anchors = dict(anchors or {})

    @classmethod
    def from_lengths(cls, columns: Mapping[str, np.ndarray], lengths: np.ndarray) -> Ragged:
        """Rows that follow each other: row ``i`` takes the next ``lengths[i]`` events."""
        ends = np.cumsum(lengths, dtype=np.int64)
        return cls(columns, ends - lengths, lengths.astype(np.int32, copy=False))

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, rows: Any) -> Ragged:
        """Rows by slice, index array or boolean mask. The events stay shared."""
        anchors = {name: anchor[rows] for name, anchor in self.anchors.items()}
        return Ragged(self.columns, self.starts[rows], self.lengths[rows], anchors)

    def event_index(self) -> np.ndarray:
        """Positions of all events in row order, shape (sum(lengths),)."""
        lengths = self.lengths
        ends = np.cumsum(lengths, dtype=np.int64)
        n_events = int(ends[-1]) if len(ends) else 0
        index = np.repeat(self.starts - ends + lengths, lengths)
        index += np.arange(n_events)
        return index

    def flat(self, name: str, index: np.ndarray | None = None) -> np.ndarray:
        """Values of one column for all events in row order, shape (sum(lengths),)."""
        values = self.columns[name].take(self.event_index() if index is None else index)
        if name in self.anchors:
            elapsed = np.repeat(self.anchors[name], self.lengths) - values
            return np.log1p(np.maximum(elapsed, 0.0)).astype(np.float32)
        return values

    def mask(self, width: int | None = None) -> np.ndarray:
        """Bool (n_rows, width), True on real events; width is the longest row by default."""
        width = int(self.lengths.max(initial=0)) if width is None else width
        return np.arange(width) < self.lengths[:, None]

    def padded(self, name: str, width: int | None = None) -> np.ndarray:
        """Values as (n_rows, width), padded with 0 on the right."""
        mask = self.mask(width)
        values = self.flat(name)
        padded = np.zeros(mask.shape, dtype=values.dtype)
        padded[mask] = values
        return padded

    def compact(self) -> Ragged:
        """Return the same rows over a copy of only those events that some row holds."""
        covered = np.zeros(len(next(iter(self.columns.values()))) + 1, dtype=np.int64)
        np.add.at(covered, self.starts, 1)
        np.add.at(covered, self.starts + self.lengths, -1)
        kept = np.cumsum(covered[:-1]) > 0
        position = np.concatenate([[0], np.cumsum(kept)])
        columns = {name: values[kept] for name, values in self.columns.items()}
        return Ragged(columns, position[self.starts], self.lengths, self.anchors)

    @property
    def nbytes(self) -> int:
        """Bytes held, shared events counted once."""
        arrays = [*self.columns.values(), *self.anchors.values(), self.starts, self.lengths]
        return sum(array.nbytes for array in arrays)

    def __reduce__(self) -> tuple[Any, ...]:
        compact = self.compact()
        return Ragged, (compact.columns, compact.starts, compact.lengths, compact.anchors)
