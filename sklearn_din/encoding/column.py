"""What a column of any kind answers: how some rows are read, counted, encoded and described."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from sklearn_din.encoding.cells import Codes
from sklearn_din.encoding.profile import SAMPLED_ROWS, ColumnProfile
from sklearn_din.encoding.table import ColumnReader
from sklearn_din.encoding.vocabulary import Vocabularies
from sklearn_din.features.schema import Field
from sklearn_din.utils.spans import Rows, Spans
from sklearn_din.utils.typed_fields import FORMS, from_dict_of, to_dict

if TYPE_CHECKING:
    from sklearn_din.encoding.table_columns import TableColumns, TableStatistics

KINDS: list[type[Column]] = []
LATE = 0.1  # of the rows, the last ones


@dataclass(frozen=True)
class Part:
    """What a column holds in some rows, as flat arrays, before anything is looked up.

    Ids are codes and distinct values, numbers float64, NaN where missing. Of histories there is one
    for each event that some row holds: ``spans`` are the events of each row, and ``counts`` say how
    many rows hold each event, None where each has one row. Numbers with ``row_times`` are times, to
    be read as time elapsed until the time of their row.
    ``n_older`` (n_rows,) events lie right before each window, which item neighbours alone count.
    """

    codes: dict[str, Codes] = field(default_factory=dict)
    numbers: dict[str, np.ndarray] = field(default_factory=dict)
    spans: Spans | None = None
    counts: np.ndarray | None = None
    row_times: dict[str, np.ndarray] = field(default_factory=dict)
    n_older: np.ndarray | None = None

    @property
    def totals(self) -> Counter[str]:
        """Events ``held`` (one of two rows counts twice) and ``empty`` rows."""
        if self.spans is None:
            return Counter()
        lengths = self.spans.lengths
        held, empty = lengths.sum(dtype=np.int64), np.count_nonzero(lengths == 0)
        return Counter(held=int(held), empty=int(empty))

    @property
    def longest(self) -> int:
        """Events of the longest history, with the older ones that item neighbours count."""
        if self.spans is None:
            return 0
        lengths = self.spans.lengths if self.n_older is None else self.spans.lengths + self.n_older
        return int(lengths.max(initial=0))

    def single_numbers(self, name: str, rows: Rows = slice(None)) -> np.ndarray:
        """Return one number for each of some rows: of those with events, the newest event's."""
        numbers = self.numbers[name]
        if self.spans is None:
            return numbers[rows]
        spans = self.spans.take(rows)
        is_filled = spans.lengths > 0
        numbers = numbers[(spans.starts + spans.lengths - 1)[is_filled]]
        if name in self.row_times:
            return (self.row_times[name][rows][is_filled] - numbers).astype(np.float64)
        return numbers


@dataclass(frozen=True)
class Chunk:
    """``n_rows`` training rows from ``start``, of ``n_all``; ``times``, if known, order them."""

    start: int
    n_rows: int
    n_all: int
    times: np.ndarray | None = None

    def sample(self, n_rows: int = SAMPLED_ROWS) -> slice:
        """Return every so many rows, about ``n_rows`` of the table, wherever chunks begin."""
        step = max(1, self.n_all // n_rows)
        return slice(-self.start % step, None, step)

    @cached_property
    def is_late(self) -> np.ndarray | None:
        """Whether each row is among the last ones, by time if known; None where none is."""
        n_late, is_end = int(LATE * self.n_all), self.start + self.n_rows == self.n_all
        if not is_end and self.start < self.n_all - n_late:
            return None
        is_whole = self.start == 0 and is_end
        if is_whole and self.times is not None:
            return self.times > np.partition(self.times, -n_late - 1)[-n_late - 1]
        return np.arange(self.n_rows) >= (self.n_rows - n_late if is_whole else 0)


class Column(ABC):
    """A column of a table as its kind encodes it, or the histories of one behaviour.

    It never changes: what :meth:`finish` returns after all training rows can encode.
    """

    def __init_subclass__(cls) -> None:
        KINDS.append(cls)

    @property
    @abstractmethod
    def leaves(self) -> tuple[Any, ...]:
        """Columns of ids or of numbers, by row or by event: each has statistics of its own."""

    @property
    def sources(self) -> tuple[str, ...]:
        """The columns of the table that it reads; of a column made of another one, that one."""
        return tuple(leaf.name for leaf in self.leaves)

    @abstractmethod
    def read(self, columns: ColumnReader) -> Part:
        """Read some rows."""

    @abstractmethod
    def finish(self, table: TableStatistics) -> Any:
        """Return the column with what the statistics of its leaves have found in all rows."""

    @abstractmethod
    def encode(self, part: Part, vocabularies: Vocabularies) -> dict[Any, Any]:
        """Encode some rows: by the name of the field, or the histories of the behaviour."""


FORMS[Column] = to_dict, lambda value, what: from_dict_of(KINDS, value, what)


class Leaf(Column):
    """A column of ids or of numbers: one for each row, or of a history one for each event."""

    name: str
    profile: ColumnProfile
    is_history: bool = False

    @property
    def leaves(self) -> tuple[Any, ...]:
        return (self,)

    def finish(self, table: TableStatistics) -> Any:
        return table.statistics[self.name].finish(table)

    @abstractmethod
    def statistics(self) -> Any:
        """Return empty statistics, for ``update(part, chunk)`` and ``finish(table)`` at fit."""

    @abstractmethod
    def profile_of(self, part: Part, vocabularies: Vocabularies) -> ColumnProfile:
        """Return what some rows look like, in the bins of the rows of fit."""

    def note_far(self, part: Part, rows: Rows) -> str | None:
        """Return what to say of some rows whose numbers are far from those of fit."""
        return None

    @abstractmethod
    def fields(self, columns: TableColumns) -> list[Field]:
        """Return what the encoded column means, and what stands beside it: one field or more."""
