"""A column of numbers, of rows or of the events of a history: its scale, its missing ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from sklearn_din.encoding.cells import HistoryCells
from sklearn_din.encoding.column import Chunk, Leaf, Part
from sklearn_din.encoding.profile import ColumnProfile, note_far_numbers
from sklearn_din.encoding.scaling import EventScale, MeanAndSpread
from sklearn_din.encoding.table import PREFIX, ColumnReader
from sklearn_din.encoding.vocabulary import Vocabularies
from sklearn_din.features.number_ends import find_ends, find_range
from sklearn_din.features.request_columns import NEUTRAL
from sklearn_din.features.schema import LEVELS, Field, indicator
from sklearn_din.utils.spans import Rows, Spans

if TYPE_CHECKING:
    from sklearn_din.encoding.table_columns import TableColumns, TableStatistics

NOT_LEARNT = EventScale(0.0, 1.0, is_elapsed=True)  # times of a log stay times until they are
EMPTY = ColumnProfile(np.empty(0), np.zeros(1))
ELAPSED_ROWS = 50_000  # that are sampled for the scale of times elapsed
ROWS_AT_A_TIME = 16_384
SHRINKING_STEPS = 20  # times elapsed only shrink: so many steps are no chance
N_EXPONENTS = 2048  # of float64
EXPONENT_OF_ONE = 1023


@dataclass(frozen=True, eq=False)
class NumberColumn(Leaf):
    """One number per row, with an indicator where some were missing at fit, or one per event.

    ``is_elapsed`` is what the user says of events: are they times elapsed? None: look at them.
    Events have the scale of the numbers of their ``candidate``, the column that they are compared
    with, learnt from both; a missing one stays NaN, for it has no difference.
    """

    name: str
    is_history: bool = False
    is_elapsed: bool | None = None
    candidate: str = ""
    scale: EventScale = NOT_LEARNT
    has_indicator: bool = False
    profile: ColumnProfile = EMPTY

    @property
    def owner(self) -> str:
        """The column whose scale it has."""
        return self.candidate or self.name

    def read(self, columns: ColumnReader) -> Part:
        return Part(numbers={self.name: columns.numbers(self.name)})

    def read_events(self, part: Part, cells: HistoryCells, events: Rows) -> None:
        part.numbers[self.name] = cells.numbers(events)
        if cells.row_times is not None:
            part.row_times[self.name] = cells.row_times

    def statistics(self) -> NumberStatistics:
        return EventNumberStatistics(self) if self.is_history else NumberStatistics(self)

    def encode(self, part: Part, vocabularies: Vocabularies) -> dict[str, np.ndarray]:
        numbers = part.numbers[self.name]
        if self.scale.is_log_odds:
            check_probabilities(self.name, numbers)
        if self.name in part.row_times:  # Ragged takes log1p of the difference
            return {self.name: numbers / self.scale.scale}
        missing = np.nan if self.candidate else 0.0
        encoded = {self.name: self.scale.encode(numbers, missing=missing)}
        if self.has_indicator:
            encoded[indicator(self.name)] = np.isnan(numbers).astype(np.float32)
        return encoded

    def profile_of(self, part: Part, vocabularies: Vocabularies) -> ColumnProfile:
        return self.profile.of_numbers(part.single_numbers(self.name))

    def note_far(self, part: Part, rows: Rows) -> str | None:
        return note_far_numbers(self.name, self.profile, part.single_numbers(self.name, rows))

    def fields(self, columns: TableColumns) -> list[Field]:
        elapsed = self.scale.scale if self.scale.is_elapsed else 0.0
        what, of = columns.meanings.get(self.name, ("", ()))
        if self.is_history:
            of, elapsed = (self.name.removeprefix(PREFIX),), elapsed if what == "age" else 0.0
            options: dict[str, Any] = {"what": what, "of": of, "elapsed_scale": elapsed}
            return [Field(self.name, "numeric_history", candidate=self.candidate, **options)]
        alone = np.array([NEUTRAL.get(what, np.nan)])
        neutral = float(self.scale.encode(alone)[0])
        missing = Field(indicator(self.name), "numeric", what="missing", of=(self.name,))
        number = Field(
            self.name, "numeric", what=what, of=of, elapsed_scale=elapsed, neutral=neutral
        )
        return [number, missing][: 1 + self.has_indicator]


def check_probabilities(name: str, numbers: np.ndarray) -> None:
    """Raise ValueError unless all numbers that are there are probabilities."""
    outside = numbers[(numbers < 0) | (numbers > 1)]
    if len(outside):
        raise ValueError(
            f"X[{name!r}] is beside running rates, so it is read as the probability of an online "
            f"model, from 0 to 1, got {outside[0]:g}. If it is another number, rename the column; "
            f"HistoryBuilder(online_model=True) makes {name!r}."
        )


class NumberStatistics:
    """Mean, spread and a sample of the numbers of a column."""

    is_guess = False

    def __init__(self, column: NumberColumn) -> None:
        self.column, self._spread, self._samples = column, MeanAndSpread(), [np.empty(0)]

    def update(self, part: Part, chunk: Chunk) -> None:
        """Take in further rows."""
        name = self.column.name
        self._samples.append(np.array(part.single_numbers(name, chunk.sample())))
        self._add(part.numbers[name], part, chunk)

    def _add(self, numbers: np.ndarray, part: Part, chunk: Chunk) -> None:
        self._spread.update(numbers)

    @property
    def sample(self) -> np.ndarray:
        """Some of the numbers, NaN where missing."""
        return np.concatenate(self._samples)

    def find_scale(self, compared: Sequence[NumberStatistics] = ()) -> EventScale:
        """Return the scale of all numbers, those that they are compared with among them."""
        first, *others = compared or (self,)
        whole = replace(first._spread)
        for statistics in others:
            whole.add(statistics._spread)
        return EventScale.of(whole)

    def finish(self, table: TableStatistics) -> NumberColumn:
        """Return the column; no indicator may be named like a column of the table."""
        column, sample = self.column, self.sample
        owner, of_numbers = column.owner, table.columns.numbers.items()
        compared = [table.statistics[n] for n, number in of_numbers if number.owner == owner]
        of_all = np.concatenate([statistics.sample for statistics in compared])
        scale = self.find_scale(compared).resist_outliers(of_all)
        level = LEVELS.get(table.columns.meanings.get(owner, ("",))[0])
        if level and level.form == "elapsed":
            scale = EventScale.of_elapsed(of_all)
        if table.columns.meanings.get(column.name, ("",))[0] == "offset":
            check_probabilities(column.name, sample)
            scale = EventScale.of_probabilities(sample)
        has_indicator = not column.is_history and self._spread.weight < table.n_rows
        has_indicator &= indicator(column.name) not in table.columns.names
        finite = sample[np.isfinite(sample)]
        ends: tuple[float, ...] = ()
        if len(finite) and not (column.is_history or scale.is_elapsed):  # log1p of what elapsed
            growing = [column.name] if level and level.grows else []
            ends = find_ends({column.name: find_range(finite)}, growing)[column.name]
        profile = table.complete(ColumnProfile.of_sample(sample, ends), column.name)
        return replace(column, scale=scale, has_indicator=has_indicator, profile=profile)


class EventNumberStatistics(NumberStatistics):
    """Statistics of the numbers of a history's events.

    They are times elapsed where the cells say so, or where from the oldest event to the newest
    they never grow and are never negative, in every row: a file has parted such times from those
    of their rows, and quantities such as prices do not keep to that.

    >>> prices = EventNumberStatistics(NumberColumn("paid"))
    >>> part = Part({}, {"paid": np.array([1.0, 3.0])}, Spans.from_lengths(np.array([2])))
    >>> prices.update(part, Chunk(0, 1, 1))
    >>> prices.find_scale()
    EventScale(shift=2.0, scale=1.0, is_elapsed=False, has_outliers=False, is_log_odds=False)
    """

    def __init__(self, column: NumberColumn) -> None:
        super().__init__(column)
        self._elapsed = np.zeros(N_EXPONENTS, dtype=np.int64)  # by the nearest power of two
        self._has_row_times, self._n_shrinking = False, 0
        self._may_be_elapsed = column.is_elapsed is not False

    def _add(self, numbers: np.ndarray, part: Part, chunk: Chunk) -> None:
        name, spans, rows = self.column.name, cast(Spans, part.spans), chunk.sample(ELAPSED_ROWS)
        if name in part.row_times:
            self._has_row_times = True
            row_times = part.row_times[name][rows]
            self._count_elapsed(spans.take(rows).time_since(numbers, row_times))
            return
        self._spread.update(numbers, part.counts)
        if self.column.is_elapsed is None:
            self._look_for_growth(numbers, spans)
        if self._may_be_elapsed:
            self._count_elapsed(numbers[spans.take(rows).index()])

    def find_scale(self, compared: Sequence[NumberStatistics] = ()) -> EventScale:
        """Return the scale.

        Times elapsed are divided by the power of two nearest to their median. That is exact: it
        makes no difference whether times are divided before they are subtracted, as for windows,
        or after, as for the same histories as lists.
        """
        if not self._has_row_times and not self.column.is_elapsed and not self.is_guess:
            return super().find_scale(compared)
        n_elapsed = self._elapsed.sum()
        if not n_elapsed:
            return EventScale(0.0, 1.0, is_elapsed=True)
        median = np.searchsorted(np.cumsum(self._elapsed), n_elapsed // 2, side="right")
        return EventScale(0.0, float(2.0 ** (median - EXPONENT_OF_ONE)), is_elapsed=True)

    @property
    def is_guess(self) -> bool:  # type: ignore[override]
        """Return whether the numbers are taken for times elapsed by what they look like alone."""
        is_guess = (
            self.column.is_elapsed is None and not self._has_row_times and self._may_be_elapsed
        )
        return is_guess and self._n_shrinking >= SHRINKING_STEPS

    def _count_elapsed(self, elapsed: np.ndarray) -> None:
        """Count positive times by round(log2(time)): the exponent of the time by sqrt(2)."""
        elapsed = elapsed[elapsed > 0] * np.sqrt(2.0)
        exponents = elapsed.astype(np.float64, copy=False).view(np.int64) >> 52
        self._elapsed += np.bincount(exponents, minlength=N_EXPONENTS)

    def _look_for_growth(self, numbers: np.ndarray, spans: Spans) -> None:
        """Rule out that these are times elapsed, some rows at a time: most numbers end it soon."""
        for first in range(0, len(spans), ROWS_AT_A_TIME):
            if not self._may_be_elapsed:
                return
            rows = spans.take(slice(first, first + ROWS_AT_A_TIME))
            values = numbers[rows.index()]
            steps = np.diff(values)
            inside = np.ones(len(steps), dtype=bool)
            starts = Spans.from_lengths(rows.lengths).starts[rows.lengths > 0]
            inside[starts[1:] - 1] = False  # from one row's newest event to the next one's oldest
            steps = steps[inside]
            never_negative = not len(values) or bool(values.min() >= 0)  # NaN is not either
            self._may_be_elapsed = never_negative and bool((steps <= 0).all())
            self._n_shrinking += int((steps < 0).sum())
