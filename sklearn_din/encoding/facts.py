"""Facts about columns, collected chunk by chunk over all rows; their roles follow from them."""

import re
from collections import Counter
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from sklearn_din.encoding.cells import (
    HistoryCells,
    are_whole,
    as_numbers,
    first_present,
    seconds_of,
)
from sklearn_din.encoding.table import (
    ColumnKind,
    ColumnReader,
    Impressions,
    dtype_kind,
    find_candidate,
    is_history_name,
    kind_of_values,
    share_words,
)
from sklearn_din.logs.windows import WindowArray
from sklearn_din.utils.validation import plain_values

LENGTHS = 50, 100, 200, 500, 1_000  # events that "auto" keeps: steps leave histories room to grow
CUT = 0.01  # of the rows with events, at most, but for the last of these lengths
LIST = re.compile(r"[\[(].*[\])]", re.DOTALL)
NOT_EMPTY = re.compile(r"[^\s\[\]()]")


@dataclass
class HistoryFacts:
    """Facts about the events of a history column, collected chunk by chunk.

    The ``kind`` of events is None where all cells are missing; ``any_number``, ``any_fraction`` and
    ``any_missing`` are about floats. ``windows`` and ``lengths`` are hashes by part, equal where
    those of two histories are; ``n_rows`` is the number of rows by the number of their events.
    """

    kind: str | None = None
    has_row_times: bool = False
    any_number: bool = False
    any_fraction: bool = False
    any_missing: bool = False
    n_rows: Counter[int] = field(default_factory=Counter)
    windows: dict[int, Hashable] = field(default_factory=dict)
    lengths: dict[int, Hashable] = field(default_factory=dict)

    def update(self, cells: HistoryCells) -> None:
        """Add the cells of one chunk."""
        kind, lengths = _kind_of_events(cells), cells.spans.lengths
        self.kind = self.kind or kind
        self.has_row_times |= cells.row_times is not None
        if kind == "float" and cells.row_times is None:
            numbers = pd.Series(cells.values).to_numpy(np.float64, na_value=np.nan)
            is_missing = np.isnan(numbers)
            self.any_number |= not is_missing.all()
            self.any_missing |= bool(is_missing.any())
            self.any_fraction |= not is_missing.all() and not are_whole(numbers)
        distinct, n_rows = np.unique(lengths, return_counts=True)
        self.n_rows.update(dict(zip(distinct.tolist(), n_rows.tolist(), strict=True)))

    def choose_max_length(self) -> int:
        """Return how many of its newest events a history keeps by "auto"."""

        def n_longer(most: int) -> int:
            return sum(n for length, n in self.n_rows.items() if length > most)

        enough = (most for most in LENGTHS if n_longer(most) <= CUT * n_longer(0))
        return next(enough, LENGTHS[-1])

    @property
    def is_numeric(self) -> bool:
        """Return whether the events are floats or elapsed times; everything else is an id."""
        return self.has_row_times or self.kind == "float"

    @property
    def is_whole(self) -> bool:
        """Return whether the events are floats without fractions: integers, some missing."""
        return self.is_numeric and self.any_number and not self.any_fraction


@dataclass
class ColumnFacts:
    """Facts about one column, collected chunk by chunk.

    ``example`` is the first value that is not missing (of text, not empty), ``any_other`` says
    whether some value is no whole number, ``any_missing`` is about floats.
    """

    kind: ColumnKind = "ids"
    example: object = None
    any_other: bool = False
    any_missing: bool = False
    history: HistoryFacts = field(default_factory=HistoryFacts)

    def update(
        self, columns: ColumnReader, name: str, part: int, *, is_named: bool, is_suspect: bool
    ) -> None:
        """Add a chunk; ``is_named`` and ``is_suspect``: the user or the name calls it a history."""
        self.kind, example = columns.kind(name), first_present(columns.frame[name])
        if isinstance(example, str):
            texts = (value for value in columns.frame[name] if isinstance(value, str))
            example = next(filter(NOT_EMPTY.search, texts), example)
        self.example = example if self.example is None else self.example
        # Missing cells and, with a separator, text: what else is named like a history is none.
        is_split = isinstance(example, str) and columns.separator is not None
        if is_named or self.kind == "history" or (is_suspect and (example is None or is_split)):
            cells = columns.history(name)
            self.history.update(cells)
            array = columns.frame[name].array  # of one attach_history call: the same windows
            is_attached = isinstance(array, WindowArray)
            self.history.windows[part] = array.fingerprint if is_attached else name
            self.history.lengths[part] = hash(cells.spans.lengths.tobytes())
        elif self.kind == "numbers" and example is not None:
            self.any_other |= _has_fraction(columns, name)
            self.any_missing |= bool(columns.frame[name].isna().any())
        elif example is not None:
            self.any_other |= kind_of_values(columns.frame[name]) != "integer"

    @property
    def is_whole(self) -> bool:
        """Return whether the values are whole numbers, integers or floats: ids, some missing."""
        return not self.any_other and (self.example is not None or self.kind == "ids")

    @property
    def is_text(self) -> bool:
        """Return whether the first value is text."""
        return isinstance(self.example, str)


def gather_facts(
    table: Impressions,
    *,
    out: Collection[str],
    ids: Collection[str],
    histories: Mapping[str, str | None],
) -> dict[str, ColumnFacts]:
    """Gather the facts that decide the roles of columns, from all rows.

    Of a scan, only those columns are read whose dtype does not decide alone: lists, columns that
    are named like histories, and floats that a history may be compared with.
    """
    out = {*out} - {*histories}
    kinds = {name: dtype_kind(table.dtypes[name]) for name in table.names if name not in out}
    lists = {name for name, kind in kinds.items() if kind in (None, "history")}
    suspects = {
        name
        for name in kinds
        if is_history_name(name)
        and name not in ids
        and find_candidate(name, table.names) is not None
    }
    lists |= suspects | (kinds.keys() & {*histories})
    candidates = {find_candidate(name, table.names) for name in lists}
    candidates |= {*histories.values()}
    candidates |= {name for name in kinds if any(n.endswith(f"_{name}") for n in lists)}
    candidates |= {name for name in kinds if any(share_words(n, name) for n in lists)}
    floats = {name for name, kind in kinds.items() if kind == "numbers"} & candidates
    names = [name for name in kinds if name in lists or name in floats or kinds[name] is None]
    facts = {name: ColumnFacts() for name in kinds}
    for name, kind in kinds.items():
        if kind is not None and name not in names:  # the dtype alone tells
            of_values: Any = getattr(table.dtypes[name], "categories", table.dtypes[name])
            facts[name].kind = kind
            facts[name].any_other = not pd.api.types.is_any_real_numeric_dtype(of_values)

    numbers = count()

    def read(columns: ColumnReader) -> None:
        number = next(numbers)
        for name in names:
            is_named, is_suspect = name in histories, name in suspects
            facts[name].update(columns, name, number, is_named=is_named, is_suspect=is_suspect)

    for _ in table.map(read, names, "columns"):
        pass
    return facts


def gather_ids(
    table: Impressions, histories: Collection[str], columns: Collection[str]
) -> dict[str, set[str]]:
    """Return the distinct ids of histories and of columns, as text: 7 equals 7.0 and "7"."""
    ids: dict[str, set[str]] = {name: set() for name in (*histories, *columns)}

    def read(part: ColumnReader) -> None:
        for name in ids:
            values = part.history(name).values if name in histories else part.frame[name]
            distinct = pd.Series(values).dropna().unique()
            if getattr(distinct.dtype, "kind", "") == "f":
                distinct = distinct[np.isfinite(distinct)]
                distinct = distinct.astype(np.int64) if are_whole(distinct) else distinct
            ids[name].update(map(str, distinct))

    for _ in table.map(read, [*ids], "ids of histories"):
        pass
    return ids


def _has_fraction(columns: ColumnReader, name: str) -> bool:
    """Return whether the numbers are no ids: durations never are."""
    column = columns.frame[name]
    try:
        is_duration = seconds_of(plain_values(column)) is not None
        return is_duration or not are_whole(as_numbers(column, name=name))
    except ValueError:  # infinite, or too large: no ids, and refused where they are read as numbers
        return True


def _kind_of_events(cells: HistoryCells) -> str | None:
    """Return the kind of the events of one chunk; None where there are none."""
    if cells.is_nested:
        return "lists"
    if isinstance(cells.values, np.ndarray):
        return kind_of_values(cells.values)
    kind = cells.values.type
    if pa.types.is_null(kind):
        return None
    if pa.types.is_temporal(kind):
        return "time"
    return "integer" if pa.types.is_integer(kind) else "other"
