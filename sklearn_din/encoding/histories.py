"""The histories of one behaviour: columns of ids and of numbers of the same events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from sklearn_din.encoding.cells import HistoryCells
from sklearn_din.encoding.column import Column, Part
from sklearn_din.encoding.ids import IdColumn
from sklearn_din.encoding.number import NumberColumn
from sklearn_din.encoding.table import ColumnReader
from sklearn_din.encoding.vocabulary import Vocabularies
from sklearn_din.features.ragged import MOST_EVENTS, Ragged
from sklearn_din.features.schema import Behaviour
from sklearn_din.utils.spans import Covered, Spans

if TYPE_CHECKING:
    from sklearn_din.encoding.table_columns import TableStatistics

FEWER = 3  # times fewer events per history than at fit: they are empty, or cut
LEAST_EVENTS = 100  # with fewer, nothing is said of it
SHUFFLED = (  # what else such lengths may come from: one column in another order
    " If permutation_importance shuffled one of them, use history_importance instead."
)


@dataclass(frozen=True, eq=False)
class Histories(Column):
    """Histories of the same events: each attribute of the events is a leaf."""

    behaviour: Behaviour
    columns: tuple[IdColumn | NumberColumn, ...]

    @property
    def leaves(self) -> tuple[Any, ...]:
        return self.columns

    def read(self, columns: ColumnReader) -> Part:
        """Read the events that some row holds, once; of times, one for each event and row."""
        cells = [columns.history(leaf.name) for leaf in self.columns]
        numbers = {leaf.name: leaf for leaf in self.columns if isinstance(leaf, NumberColumn)}
        plain = [name for name, number in numbers.items() if not number.scale.is_elapsed]
        plain = [h.name for h in cells if h.name in plain and h.row_times is not None]
        given = [history.expand() if history.name in plain else history for history in cells]
        return columns.once((self.behaviour, *plain), lambda: self._read_events(given))

    def _read_events(self, cells: Sequence[HistoryCells]) -> Part:
        """Join histories over the same events. An error where lengths differ in some row."""
        _check_aligned(cells)
        n_events, spans = len(cells[0].values), cells[0].spans
        if not all(len(h.values) == n_events and h.spans.same(spans) for h in cells[1:]):
            cells = [history.expand() for history in cells]
        given = cells[0].spans
        newest, n_older = keep_newest(given, self.behaviour)
        covered = (newest if n_older is None else given.newest(newest.lengths + n_older)).cover()
        spans = covered.spans.newest(newest.lengths)
        counts = Covered(spans, covered.run_starts, covered.run_lengths).counts()
        part, events = Part({}, {}, spans, counts, {}, n_older), covered.kept
        for leaf, history in zip(self.columns, cells, strict=True):
            leaf.read_events(part, history, events)
        return part

    def finish(self, table: TableStatistics) -> Histories:
        return replace(self, columns=tuple(leaf.finish(table) for leaf in self.columns))

    def encode(self, part: Part, vocabularies: Vocabularies) -> dict[tuple[str, ...], Ragged]:
        values, row_times = dict[str, Any](), dict[str, np.ndarray]()
        for leaf in self.columns:
            values |= leaf.encode(part, vocabularies)
            if isinstance(leaf, NumberColumn) and leaf.name in part.row_times:
                row_times[leaf.name] = part.row_times[leaf.name] / leaf.scale.scale
        spans = cast(Spans, part.spans)
        return {self.behaviour.histories: Ragged(values, spans, row_times, part.n_older)}

    def has_fewer_events(self, n_events: int, n_rows: int) -> bool:
        """Return whether so many rows should have far more events than they do, by those at fit."""
        ids = [leaf for leaf in self.columns if isinstance(leaf, IdColumn)]
        single = [leaf for leaf in ids if not leaf.holds_lists]
        at_fit = single[0].profile.fraction("length") if single else 0.0
        return max(FEWER * n_events, LEAST_EVENTS) < at_fit * n_rows


def keep_newest(spans: Spans, behaviour: Behaviour) -> tuple[Spans, np.ndarray | None]:
    """Keep each row's newest events; return how many older ones neighbours count (bags: None)."""
    newest = spans.newest(behaviour.max_length)
    if behaviour.is_bag:
        return newest, None
    n_older = np.minimum(spans.lengths, max(behaviour.max_length, MOST_EVENTS)) - newest.lengths
    return newest, n_older.astype(np.int16) if n_older.any() else None


def _check_aligned(cells: Sequence[HistoryCells]) -> None:
    """Raise ValueError where histories of the same events differ in length."""
    first = cells[0]
    for other in cells[1:]:
        mine, theirs = first.spans.lengths, other.spans.lengths
        differs = np.flatnonzero(mine != theirs)
        if len(differs):
            row = differs[0]
            are_shuffled = np.array_equal(np.sort(mine), np.sort(theirs))
            raise ValueError(
                f"{first.name} and {other.name} describe the same events and must have one length "
                f"in each row, got {mine[row]} and {theirs[row]} in row {row} ({len(differs)} rows "
                "differ). Give different events a key each in histories."
                + (SHUFFLED if are_shuffled else "")
            )


def count_events(behaviours: Mapping[tuple[str, ...], Ragged]) -> dict[tuple[str, ...], int]:
    """Return the number of events of each behaviour; what two rows share counts twice."""
    return {names: int(ragged.spans.lengths.sum()) for names, ragged in behaviours.items()}
