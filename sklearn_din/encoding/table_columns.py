"""The columns of a table: their statistics, what is learnt of them, and what they share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sklearn_din.encoding.column import Chunk, Column, Part
from sklearn_din.encoding.fixed_vectors import VectorScale
from sklearn_din.encoding.histories import Histories
from sklearn_din.encoding.ids import IdColumn
from sklearn_din.encoding.item_columns import ItemColumns
from sklearn_din.encoding.notices import FEW_VALUES, note_unknown
from sklearn_din.encoding.number import NumberColumn
from sklearn_din.encoding.profile import COMPARED_ROWS, ColumnProfile
from sklearn_din.encoding.table import ColumnReader
from sklearn_din.encoding.vocabulary import IdRules, Occurrences, Vocabulary, plain_ids
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.level_columns import AGE, find_levels
from sklearn_din.features.lists import IdLists
from sklearn_din.features.request_columns import find_compared
from sklearn_din.features.schema import (
    OF_LABELS,
    UNKNOWN_ID,
    Behaviour,
    Meaning,
    Schema,
    indicator,
)
from sklearn_din.utils.validation import time_numbers

HALF = 0.5  # of a column with few values
FAR_MORE = 3  # times fewer known ids than late in training: they are written in another way


class Parts(NamedTuple):
    """Some rows as the columns have read them, each as its kind does."""

    n_rows: int
    of_columns: list[Part]


@dataclass(frozen=True)
class TableColumns:
    """Every column, as an object of its kind, and what they share. It never changes.

    ``names`` are the columns of fit in their order, ``unused`` those of kinds such as dates,
    ``columns`` in the order in which they are read. Vocabularies are named by their owner, the
    candidate of a history. No part in encoding have ``longest`` (history at fit), ``of_item``
    (columns that follow from the item), ``user`` and ``newest``, a row's time.
    """

    names: tuple[str, ...]
    columns: tuple[Column, ...]
    unused: tuple[str, ...] = ()
    vocabularies: Mapping[str, Vocabulary] = field(default_factory=dict)
    vector_scales: Mapping[str, VectorScale] = field(default_factory=dict)
    longest: int = 0
    item: str = ""
    of_item: tuple[str, ...] = ()
    user: str = ""
    newest: float = -np.inf

    @cached_property
    def histories(self) -> tuple[Histories, ...]:
        """The columns that are histories, by behaviour."""
        return tuple(column for column in self.columns if isinstance(column, Histories))

    @cached_property
    def behaviours(self) -> tuple[Behaviour, ...]:
        """The histories of the same events, and their candidates."""
        return tuple(column.behaviour for column in self.histories)

    @cached_property
    def candidates(self) -> set[str]:
        """Columns that some history is compared with."""
        return {n for b in self.behaviours for n in b.candidates if n is not None}

    @cached_property
    def leaves(self) -> dict[str, Any]:
        """All columns of ids and of numbers, those of rows first."""
        return {leaf.name: leaf for column in self.columns for leaf in column.leaves}

    @property
    def in_order(self) -> list[Any]:
        """The same in the order of the table, where what is made of a column follows it."""
        place = {name: number for number, name in enumerate(self.names)}
        return sorted(self.leaves.values(), key=lambda leaf: place[leaf.sources[0]])

    @cached_property
    def numbers(self) -> dict[str, NumberColumn]:
        """The columns of numbers."""
        return {n: leaf for n, leaf in self.leaves.items() if isinstance(leaf, NumberColumn)}

    @cached_property
    def ids(self) -> dict[str, IdColumn]:
        """The columns of ids and of lists of them."""
        return {n: leaf for n, leaf in self.leaves.items() if isinstance(leaf, IdColumn)}

    @cached_property
    def meanings(self) -> dict[str, Meaning]:
        """What names say of columns: all that is read of them, which stands in their fields."""
        known = {*self.names}
        missing = {indicator(n): ("missing", (n,)) for n in known if indicator(n) in known}
        of_rows = missing | find_levels(self.names) | find_compared(self.names)
        of_events = [n for n, number in self.numbers.items() if number.is_history]
        ages: dict[str, Meaning] = {n: ("age", ()) for n in of_events if n.endswith(AGE)}
        return {n: what for n, what in of_rows.items() if n not in of_events} | ages

    @cached_property
    def levels(self) -> set[str]:
        """Columns that say what was known of a key, of the latest rows, or of all keys."""
        return {name for name, (what, _) in self.meanings.items() if what in OF_LABELS}

    @property
    def sources(self) -> set[str]:
        """Columns of the table that are read."""
        return {name for column in self.columns for name in column.sources}

    @property
    def of_rows(self) -> list[str]:
        """Columns of the table that are read by row, in its order: no histories."""
        own = {n for c in self.columns if not isinstance(c, Histories) for n in c.sources}
        return [name for name in self.names if name in own]

    @property
    def numeric(self) -> list[str]:
        """Columns with one number per row."""
        return [name for name, number in self.numbers.items() if not number.is_history]

    @property
    def categorical(self) -> list[str]:
        """Columns with one id per row."""
        return [n for n, ids in self.ids.items() if not ids.is_history and not ids.holds_lists]

    @cached_property
    def schema(self) -> Schema:
        """The meaning of each encoded column."""
        fields = tuple(field for leaf in self.in_order for field in leaf.fields(self))
        return Schema(fields, self.behaviours, self.unused, self.user, self.item)

    def decode(self, name: str, ids: np.ndarray) -> np.ndarray:
        """Return the values of a column's ids, None where they are unknown."""
        return self.vocabularies[self.ids[name].owner].decode(ids)

    def read(self, columns: ColumnReader) -> Parts:
        """Read some rows."""
        return Parts(len(columns.frame), [column.read(columns) for column in self.columns])

    def add_to(self, X: EncodedFeatures, parts: Parts) -> None:
        """Encode some rows, and add what comes of them to encoded rows."""
        for column, part in zip(self.columns, parts.of_columns, strict=True):
            encoded: Any = X.behaviours if isinstance(column, Histories) else X.columns
            encoded.update(column.encode(part, self.vocabularies))

    def note_unknown(self, parts: Parts, X: EncodedFeatures) -> Iterator[str]:
        """Yield what to say of columns of whose ids far more are unknown than at fit."""
        encoded = dict(X.columns)
        for ragged in X.behaviours.values():
            encoded |= ragged.columns
        now = {name: _fraction_unknown(encoded[name]) for name in self.ids}
        rare = {name: ids.profile.fraction("unknown") for name, ids in self.ids.items()}
        at_fit = {n: float(np.fmax(rare[n], ids.late_unknown)) for n, ids in self.ids.items()}
        far = {name for name in now if FAR_MORE * (1 - now[name]) < 1 - at_fit[name]}
        vocabularies = {name: self.vocabularies[ids.owner] for name, ids in self.ids.items()}
        few = {name for name, known in vocabularies.items() if len(known.values) < FEW_VALUES}
        far |= {name for name in few if now[name] > max(HALF, at_fit[name])}
        given = {name: part.codes[name][1] for part in parts.of_columns for name in part.codes}
        for name, ids in self.ids.items():
            if name not in far or (len(given[name]) < FEW_VALUES and name not in few):
                continue
            known = vocabularies[name]
            values = pd.unique(plain_ids(given[name], name=name))
            values = values[known.encode(values, name=name) < 0]
            same = {other for other, column in self.ids.items() if column.owner == ids.owner}
            is_item = not same.isdisjoint(self.candidates)
            options = {"is_item": is_item, "is_compared": is_item and same <= far}
            fractions = now[name], at_fit[name]
            if notice := note_unknown(name, values, known.values, fractions, **options):
                yield notice

    def profile_rows(self, parts: Parts) -> dict[str, ColumnProfile]:
        """Return what the columns of some rows look like, in the bins of the training rows."""
        profiles = dict[str, ColumnProfile]()
        for column, part in zip(self.columns, parts.of_columns, strict=True):
            n_rows = parts.n_rows, part.totals["empty"]
            for leaf in column.leaves:
                profile = leaf.profile_of(part, self.vocabularies)
                profiles[leaf.name] = profile.with_rows(*n_rows)
        return profiles

    def note_far_numbers(self, parts: Parts) -> list[str | None]:
        """Return what to say of columns whose numbers are far from those of fit."""
        some = slice(None, None, max(1, parts.n_rows // COMPARED_ROWS))
        ages = {name for name, (what, _) in self.meanings.items() if what == "age"}
        growing = self.levels | ages
        return [
            leaf.note_far(part, some)
            for column, part in zip(self.columns, parts.of_columns, strict=True)
            for leaf in column.leaves
            if leaf.name not in growing
        ]

    def are_of_fit(self, times: np.ndarray | None) -> bool:
        """Return whether most rows are no later than those of fit, whose histories may be short."""
        return times is not None and float(np.median(time_numbers(times))) <= self.newest

    def note_lengths(self, n_events: Mapping[tuple[str, ...], int], n_rows: int) -> list[str]:
        """Return what to say of histories, by behaviour, with far fewer events than at fit."""
        share = {names: "less than a third" if n else "none" for names, n in n_events.items()}
        return [
            f"histories of {'+'.join(column.behaviour.histories)} hold "
            f"{share.get(column.behaviour.histories, 'none')} "
            "of the events that they held at fit: are they empty, or cut? Attach them as for fit, "
            "from a log up to these rows; update a HistoryBuilder with the rows before them "
            "(remember)."
            for column in self.histories
            if column.has_fewer_events(n_events[column.behaviour.histories], n_rows)
        ]

    def grow(self, counts: Mapping[str, Mapping[str, Occurrences]], rules: IdRules) -> TableColumns:
        """Append values of later rows, counted by vocabulary and column, to the vocabularies."""
        vocabularies = {
            owner: self.vocabularies[owner].grow(sources, rules, name=owner)
            for owner, sources in counts.items()
        }
        return replace(self, vocabularies=vocabularies)

    def without(self, names: Collection[str]) -> TableColumns:
        """Return the same without some columns; a behaviour goes with any of its histories."""
        left = tuple(column for column in self.columns if not {*names} & {*column.sources})
        return replace(self, columns=left)

    def encode_numbers(self, numbers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return numbers of rows on their scales, and where they are missing."""
        encoded, part = dict[str, np.ndarray](), Part(numbers={**numbers})
        for name in numbers:
            encoded |= self.numbers[name].encode(part, {})
        return encoded

    def check(self) -> None:
        """Raise ValueError if the attributes are inconsistent."""
        if self.vocabularies.keys() != {ids.owner for ids in self.ids.values()}:
            raise ValueError("each column of ids must have a vocabulary.")
        if not self.vector_scales.keys() <= self.vocabularies.keys():
            raise ValueError("vectors must be those of a vocabulary.")
        leaves = [leaf for column in self.columns for leaf in column.leaves]
        if any(leaf.profile.bins.dtype != type(leaf).profile.bins.dtype for leaf in leaves):
            raise ValueError("each column must have a profile of its kind.")
        if len(self.leaves) < len(leaves) or not self.sources <= {*self.names}:
            raise ValueError("each column must be one of the columns of fit.")
        of_events = [leaf.name for histories in self.histories for leaf in histories.columns]
        if of_events != [name for behaviour in self.behaviours for name in behaviour.columns]:
            raise ValueError("the histories of a behaviour must be those that it names.")
        self.schema.check()


def _fraction_unknown(ids: Any) -> float:
    """Return the fraction of unknown ids; missing ones do not count."""
    ids = ids.distinct.ids if isinstance(ids, IdLists) else ids
    n_unknown, n_known = int(np.count_nonzero(ids < 0)), int(np.count_nonzero(ids > UNKNOWN_ID))
    return n_unknown / max(n_unknown + n_known, 1)


class TableStatistics:
    """Statistics of all columns, collected in chunks; ``totals`` are by behaviour."""

    def __init__(self, columns: TableColumns, n_rows: int) -> None:
        self.columns, self.n_rows, self._longest = columns, n_rows, 0
        leaves = columns.leaves.items()
        self.statistics: dict[str, Any] = {name: leaf.statistics() for name, leaf in leaves}
        self.totals = {b.histories: Counter[str]() for b in columns.behaviours}
        compared = [name for name, ids in columns.ids.items() if ids.is_compared]
        self._items = ItemColumns(compared, columns.item)

    def update(self, parts: Parts, start: int, times: np.ndarray | None = None) -> None:
        """Take in what was read of further rows, ``start`` first; ``times`` order them."""
        chunk = Chunk(start, parts.n_rows, self.n_rows, times)
        for part in parts.of_columns:
            for name in (*part.codes, *part.numbers):
                self.statistics[name].update(part, chunk)
        codes = {name: part.codes[name] for part in parts.of_columns for name in part.codes}
        self._items.update(codes)
        of_histories = parts.of_columns[len(parts.of_columns) - len(self.totals) :]
        for totals, part in zip(self.totals.values(), of_histories, strict=True):
            totals.update(part.totals)
            self._longest = max(self._longest, part.longest)

    def complete(self, profile: ColumnProfile, name: str) -> ColumnProfile:
        """Return a column's profile with the number of rows behind it, and how many are empty."""
        own = [self.totals[b.histories] for b in self.columns.behaviours if name in b.columns]
        return profile.with_rows(self.n_rows, sum(totals["empty"] for totals in own))

    @property
    def occurrences(self) -> dict[str, Occurrences]:
        """Values of each column of ids and how often they count, in the order of the rows."""
        return {name: self.statistics[name].occurrences for name in self.columns.ids}

    def occurrences_by_owner(self) -> dict[str, dict[str, Occurrences]]:
        """The same by the vocabulary that columns share, then by column."""
        sources = dict[str, dict[str, Occurrences]]()
        for name, counts in self.occurrences.items():
            sources.setdefault(self.columns.ids[name].owner, {})[name] = counts
        return sources

    def finish(self, rules: IdRules) -> TableColumns:
        """Return the columns with all that was learnt."""
        vocabularies = {
            owner: Vocabulary.learn(sources, rules)
            for owner, sources in self.occurrences_by_owner().items()
        }
        self.columns = replace(self.columns, vocabularies=vocabularies)
        n_ids = {name: vocabularies[ids.owner].n_ids for name, ids in self.columns.ids.items()}
        item, of_item = self._items.finish(n_ids)
        return replace(
            self.columns,
            columns=tuple(column.finish(self) for column in self.columns.columns),
            longest=self._longest,
            item=item,
            of_item=of_item,
        )
