"""The histories of one behaviour, each row a window over shared event columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sklearn_din.features.identities import ids_to_look_up
from sklearn_din.features.lists import Column, IdLists
from sklearn_din.utils.spans import Rows, Spans, log_elapsed, pad_rows

MOST_EVENTS = 1_000  # of a history, the newest ones, that item neighbours are told of


@dataclass(eq=False, repr=False)
class Ragged:
    """The histories of one behaviour: windows over shared event columns.

    Rows may overlap or be the same window; taking rows copies no events.

    columns : (n_events,) each, int32 ids, negative ones of unknown values among them, lists of such
        ids, or numbers. Oldest to newest inside each window
    spans : the events that each row holds
    row_times : (n_rows,) each, of numeric columns that hold times, in the encoder's unit: the row's
        own time. They read as ``log1p(row_time - time)``
    n_older : (n_rows,), int16, how many events right before each window belong to the row too: item
        neighbours count them, nothing else reads them. None: no row has any
    """

    columns: Mapping[str, Column]
    spans: Spans
    row_times: Mapping[str, np.ndarray] = field(default_factory=dict)
    n_older: np.ndarray | None = None

    @classmethod
    def from_lengths(cls, columns: Mapping[str, Column], lengths: np.ndarray) -> Ragged:
        """Rows that follow each other: row ``i`` takes the next ``lengths[i]`` events."""
        return cls(columns, Spans.from_lengths(lengths))

    def __len__(self) -> int:
        return len(self.spans)

    def take(self, rows: Rows) -> Ragged:
        """Rows by slice, index array or boolean mask. The events stay shared."""
        row_times = {name: times[rows] for name, times in self.row_times.items()}
        n_older = None if self.n_older is None else self.n_older[rows]
        return Ragged(self.columns, self.spans.take(rows), row_times, n_older)

    @property
    def whole(self) -> Spans:
        """Windows with the older events, too."""
        if self.n_older is None:
            return self.spans
        return Spans(self.spans.starts - self.n_older, self.spans.lengths + self.n_older)

    def over(
        self, columns: Mapping[str, Column], spans: Spans, n_older: np.ndarray | None = None
    ) -> Ragged:
        """Return the same rows over other events."""
        return Ragged(columns, spans, self.row_times, n_older)

    def drop_older(self) -> Ragged:
        """Return the same rows without their older events; the arrays are shared."""
        return self.over(self.columns, self.spans)

    def changes(self) -> np.ndarray:
        """Return whether rows hold other events, or times, than the row before: (n_rows - 1,)."""
        parts = np.stack([self.spans.starts, self.spans.lengths, *self.row_times.values()])
        return (parts[:, 1:] != parts[:, :-1]).any(axis=0)

    def flat(self, name: str, index: np.ndarray | None = None) -> np.ndarray:
        """Values of one column for all events in row order; ``index`` is ``spans.index()``."""
        values = self.columns[name]
        if name in self.row_times:
            return log_elapsed(self.spans.time_since(values, self.row_times[name], index))
        return values.take(self.spans.index() if index is None else index)

    def mask(self) -> np.ndarray:
        """Bool (n_rows, longest row), True on real events."""
        lengths = self.spans.lengths
        return pad_rows(np.ones(lengths.sum(), dtype=bool), lengths)

    def pad(self, name: str, width: int | None = None) -> np.ndarray:
        """Values as (n_rows, width, ...), padded with 0 on the right; unknown ids are 1."""
        values = self.flat(name)
        if isinstance(values, IdLists):
            values = values.pad()
        values = ids_to_look_up(values) if values.dtype == np.int32 else values
        return pad_rows(values, self.spans.lengths, width)

    def compact(self) -> Ragged:
        """Return the same rows over a copy of only those events that some row holds."""
        covered = self.whole.cover()
        selection, spans = covered.kept, covered.spans.newest(self.spans.lengths)
        columns = {name: values[selection].copy() for name, values in self.columns.items()}
        return self.over(columns, spans, self.n_older)

    def __reduce__(self) -> tuple[Any, ...]:
        compact = self.compact()
        return Ragged, (compact.columns, compact.spans, compact.row_times, compact.n_older)
