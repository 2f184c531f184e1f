"""The events of one behaviour: aligned histories, and only those that some row holds."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sklearn_din.encoding.cells import Codes, HistoryCells
from sklearn_din.features.ragged import MOST_EVENTS, Ragged
from sklearn_din.features.schema import Behaviour
from sklearn_din.utils.spans import Covered, Spans


@dataclass(frozen=True)
class Events:
    """The histories of one behaviour over only those events that some row holds.

    ``counts`` says how many rows hold each event, None where each has one row. Histories of ids are
    codes and distinct values; numbers with ``row_times`` are times, to be read as time elapsed
    until the time of their row.
    ``n_left_out`` events are left out, since their rows keep newer ones: of those, ``n_older``
    (n_rows,) lie right before each window, and nothing but item neighbours counts them.
    """

    spans: Spans
    counts: np.ndarray | None
    codes: dict[str, Codes] = field(default_factory=dict)
    numbers: dict[str, np.ndarray] = field(default_factory=dict)
    row_times: dict[str, np.ndarray] = field(default_factory=dict)
    n_left_out: int = 0
    n_older: np.ndarray | None = None

    @property
    def totals(self) -> Counter[str]:
        """Events ``held`` (one of two rows counts twice) and ``left_out``, and ``empty`` rows."""
        lengths = self.spans.lengths
        held, empty = lengths.sum(dtype=np.int64), np.count_nonzero(lengths == 0)
        return Counter(held=int(held), left_out=self.n_left_out, empty=int(empty))

    @property
    def longest(self) -> int:
        """Events of the longest history, with the older ones that item neighbours count."""
        lengths = self.spans.lengths if self.n_older is None else self.spans.lengths + self.n_older
        return int(lengths.max(initial=0))

    def newest_numbers(self, name: str, rows: slice) -> np.ndarray:
        """Return the newest event's number, or its time elapsed, of some rows that have events."""
        spans = self.spans.take(rows)
        is_filled = spans.lengths > 0
        numbers = self.numbers[name][(spans.starts + spans.lengths - 1)[is_filled]]
        if name in self.row_times:
            return (self.row_times[name][rows][is_filled] - numbers).astype(np.float64)
        return numbers


def keep_newest(spans: Spans, behaviour: Behaviour) -> tuple[Spans, np.ndarray | None]:
    """Keep the newest events of each row; return how many before them item neighbours count.

    Of a bag, which has no candidate, those are None.
    """
    newest = spans.newest(behaviour.max_length)
    if behaviour.is_bag:
        return newest, None
    n_older = np.minimum(spans.lengths, max(behaviour.max_length, MOST_EVENTS)) - newest.lengths
    return newest, n_older.astype(np.int16) if n_older.any() else None


def read_events(
    cells: Sequence[HistoryCells], behaviour: Behaviour, *, lists: Collection[str] = ()
) -> Events:
    """Join the histories of one behaviour and keep only what their windows cover.

    Its ``numbers`` are numbers, those named in ``lists`` lists of ids, the rest ids. Histories
    whose lengths differ in some row are an error.
    """
    _check_aligned(cells)
    n_events, spans = len(cells[0].values), cells[0].spans
    if not all(len(h.values) == n_events and h.spans.same(spans) for h in cells[1:]):
        cells = [history.expand() for history in cells]
    given = cells[0].spans
    newest, n_older = keep_newest(given, behaviour)
    n_left_out = int((given.lengths - newest.lengths).sum(dtype=np.int64))
    covered = (newest if n_older is None else given.newest(newest.lengths + n_older)).cover()
    spans = covered.spans.newest(newest.lengths)
    covered = Covered(spans, covered.run_starts, covered.run_lengths)
    events = Events(spans, covered.counts(), n_left_out=n_left_out, n_older=n_older)
    selection = covered.kept
    for history in cells:
        if history.name in behaviour.numbers:
            events.numbers[history.name] = history.numbers(selection)
            if history.row_times is not None:
                events.row_times[history.name] = history.row_times
        elif history.name in lists:
            events.codes[history.name] = history.list_codes(selection)
        else:
            events.codes[history.name] = history.codes(selection)
    return events


def _check_aligned(cells: Sequence[HistoryCells]) -> None:
    """Raise ValueError where histories of the same events differ in length."""
    first = cells[0]
    for other in cells[1:]:
        mine, theirs = first.spans.lengths, other.spans.lengths
        differs = np.flatnonzero(mine != theirs)
        if len(differs):
            row = differs[0]
            raise ValueError(
                f"{first.name} and {other.name} describe the same events and must have one length "
                f"in each row, got {mine[row]} and {theirs[row]} in row {row} ({len(differs)} rows "
                "differ). Give different events a key each in histories; in place of "
                "permutation_importance use history_importance."
            )


def count_events(behaviours: Mapping[tuple[str, ...], Ragged]) -> dict[tuple[str, ...], int]:
    """Return the number of events of each behaviour; what two rows share counts twice."""
    return {names: int(ragged.spans.lengths.sum()) for names, ragged in behaviours.items()}
