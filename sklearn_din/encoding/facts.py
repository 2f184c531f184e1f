"""Facts about columns, from which their roles follow: gathered part by part, over all rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa

from sklearn_din.encoding.cells import HistoryCells
from sklearn_din.encoding.columns import (
    ColumnKind,
    Columns,
    dtype_kind,
    find_candidate,
    is_history_name,
)
from sklearn_din.encoding.single_values import are_whole, as_numbers, first_present
from sklearn_din.encoding.table import Impressions

NUMERIC_KINDS = {"float", "integer"}


@dataclass(frozen=True)
class HistoryFacts:
    """Facts about the events of a history column.

    A part whose cells are all missing adds no kind. Events with anchors are times that read as time
    elapsed until their row; ``any_number`` and ``any_fraction`` are about floats.
    """

    kinds: frozenset[str]
    has_anchors: bool
    any_number: bool
    any_fraction: bool
    longest: int
    shortest: int

    @classmethod
    def of(cls, cells: HistoryCells) -> HistoryFacts:
        """Facts of the cells of one part."""
        kind, lengths = _kind_of_events(cells), cells.spans.lengths
        floats = np.empty(0)
        if isinstance(cells.values, np.ndarray) and kind == "float" and cells.anchors is None:
            floats = cells.values
        is_whole = are_whole(floats)
        any_number = is_whole or bool((~np.isnan(floats)).any())
        return cls(
            frozenset() if kind is None else frozenset([kind]),
            cells.anchors is not None,
            any_number,
            any_number and not is_whole,
            int(lengths.max(initial=0)),
            int(lengths.min(initial=np.iinfo(np.int32).max)),
        )

    def merge(self, later: HistoryFacts) -> HistoryFacts:
        """Facts of these rows and later ones."""
        return HistoryFacts(
            self.kinds | later.kinds,
            self.has_anchors or later.has_anchors,
            self.any_number or later.any_number,
            self.any_fraction or later.any_fraction,
            max(self.longest, later.longest),
            min(self.shortest, later.shortest),
        )

    @property
    def is_numeric(self) -> bool:
        """Return whether the events are floats or elapsed times; everything else is an id."""
        return self.has_anchors or ("float" in self.kinds and self.kinds <= NUMERIC_KINDS)

    @property
    def is_whole(self) -> bool:
        """Return whether the events are floats without fractions: integers, some missing."""
        return self.is_numeric and self.any_number and not self.any_fraction

    @property
    def is_integer(self) -> bool:
        """Return whether the events are integers."""
        return self.kinds == {"integer"}

    @property
    def is_time(self) -> bool:
        """Return whether the events are dates or durations."""
        return self.kinds == {"time"}


@dataclass(frozen=True)
class ColumnFacts:
    """Facts about one column.

    There is more than one kind only where the dtype is object. ``example`` is the first value that
    is not missing; ``any_fraction`` is about a column of floats.
    """

    kinds: frozenset[ColumnKind]
    example: object = None
    any_fraction: bool = False
    history: HistoryFacts | None = None

    def merge(self, later: ColumnFacts) -> ColumnFacts:
        """Facts of these rows and later ones."""
        if self.history is None or later.history is None:
            history = self.history or later.history
        else:
            history = self.history.merge(later.history)
        return ColumnFacts(
            self.kinds | later.kinds,
            later.example if self.example is None else self.example,
            self.any_fraction or later.any_fraction,
            history,
        )

    @property
    def is_whole(self) -> bool:
        """Return whether a column of floats holds whole numbers alone: ids, some missing."""
        return self.example is not None and not self.any_fraction

    @property
    def kind(self) -> ColumnKind:
        """Kind of the column; objects of several kinds are lists, numbers or else ids."""
        if len(self.kinds) <= 1:
            return next(iter(self.kinds), "ids")
        return "history" if "history" in self.kinds else "ids"


@dataclass(frozen=True)
class TableFacts:
    """Facts about all columns of a table, from which their roles follow.

    All rows decide, of frames and of scans alike. ``columns`` has those that may be features,
    ``integers`` names those that are integers by their dtype. Two histories have the same label in
    ``same_windows`` where one call of ``attach_history`` made them, in ``same_lengths`` where their
    lengths are equal in every row.
    """

    names: tuple[str, ...]
    columns: Mapping[str, ColumnFacts]
    integers: frozenset[str] = frozenset()
    same_windows: Mapping[str, object] = field(default_factory=dict)
    same_lengths: Mapping[str, object] = field(default_factory=dict)

    def __getitem__(self, name: str) -> ColumnFacts:
        return self.columns[name]

    def merge(self, later: TableFacts) -> TableFacts:
        """Facts of these rows and later ones."""
        columns = dict(self.columns)
        for name, facts in later.columns.items():
            columns[name] = columns[name].merge(facts) if name in columns else facts
        return TableFacts(
            self.names,
            columns,
            self.integers,
            _joint_labels(self.same_windows, later.same_windows),
            _joint_labels(self.same_lengths, later.same_lengths),
        )

    def history(self, name: str) -> HistoryFacts:
        """Facts about the events of a history."""
        facts = self.columns[name].history
        assert facts is not None
        return facts

    def find_candidate(self, history: str) -> str | None:
        """Column that a history is compared with by its name: ``item`` for ``hist_item``."""
        return find_candidate(history, self.names)

    def is_text(self, name: str) -> bool:
        """Return whether the first value of a column is text."""
        return isinstance(self.columns[name].example, str)

    def is_missing(self, name: str) -> bool:
        """Return whether all cells of a column are missing."""
        return self.columns[name].example is None


def gather_facts(
    table: Impressions,
    *,
    out: Collection[str],
    ids: Collection[str],
    histories: Collection[str] = (),
) -> TableFacts:
    """Gather the facts that decide roles, from all rows.

    Of a scan, only those columns are read whose dtype does not decide alone: lists, columns that
    are named like histories, and floats that a history may be compared with. Columns that are
    ``out`` are no features; ``ids`` and ``histories`` are what the user calls so.
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
    floats = {name for name, kind in kinds.items() if kind == "numbers"} & candidates
    names = [name for name in kinds if name in lists or name in floats or kinds[name] is None]
    facts = TableFacts(
        tuple(table.names),
        {n: ColumnFacts(frozenset([kind])) for n, kind in kinds.items() if kind and n not in names},
        frozenset(name for name in kinds if pd.api.types.is_integer_dtype(table.dtypes[name])),
    )

    def facts_of(columns: Columns) -> TableFacts:
        parts = {
            name: _facts_of_column(
                columns,
                name,
                is_named=name in histories,
                is_suspect=name in suspects,
            )
            for name in names
        }
        lists_of_part = [name for name in parts if parts[name].history is not None]
        windows = _labels(lists_of_part, columns.same_windows)
        lengths = _labels(lists_of_part, columns.same_lengths)
        return TableFacts(facts.names, parts, facts.integers, windows, lengths)

    for _, later in table.map(facts_of, names, "columns"):
        facts = facts.merge(later)
    return facts


def _facts_of_column(
    columns: Columns, name: str, *, is_named: bool, is_suspect: bool
) -> ColumnFacts:
    kind, example = columns.kind(name), first_present(columns.frame[name])
    # Missing cells and, with a separator, text: what else is named like a history is none.
    is_split = isinstance(example, str) and columns.separator is not None
    is_list = is_named or kind == "history"
    is_list |= is_suspect and (example is None or is_split)
    kinds = frozenset[ColumnKind]() if example is None and kind == "ids" else frozenset([kind])
    if is_list:
        return ColumnFacts(kinds, example, history=HistoryFacts.of(columns.history(name)))
    is_float = kind == "numbers" and example is not None
    return ColumnFacts(kinds, example, is_float and _has_fraction(columns, name))


def _has_fraction(columns: Columns, name: str) -> bool:
    try:
        return not are_whole(as_numbers(columns.frame[name], name=name))
    except ValueError:  # infinite, or too large: no ids, and refused where they are read as numbers
        return True


def _kind_of_events(cells: HistoryCells) -> str | None:
    if isinstance(cells.values, np.ndarray):
        kinds = {"f": "float", "i": "integer", "u": "integer", "m": "time", "M": "time"}
        return kinds.get(cells.values.dtype.kind, "other")
    kind = cells.values.type
    if pa.types.is_null(kind):
        return None
    if pa.types.is_temporal(kind):
        return "time"
    return "integer" if pa.types.is_integer(kind) else "other"


def _labels(names: Collection[str], are_same: object) -> dict[str, str]:
    """Give each name the first name that it is the same as."""
    labels: dict[str, str] = {}
    for name in names:
        heads = (head for head in dict.fromkeys(labels.values()) if are_same(head, name))  # type: ignore[operator]
        labels[name] = next(heads, name)
    return labels


def _joint_labels(labels: Mapping[str, object], later: Mapping[str, object]) -> dict[str, object]:
    """Labels that are equal where both are."""
    if not labels:
        return dict(later)
    return {name: (labels.get(name), later.get(name)) for name in {**labels, **later}}
