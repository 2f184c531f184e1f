"""A column of ids, one or a list of them per cell or event: values that have a vocabulary."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sklearn_din.encoding.cells import Codes, HistoryCells
from sklearn_din.encoding.column import Chunk, Leaf, Part
from sklearn_din.encoding.profile import ColumnProfile
from sklearn_din.encoding.table import PREFIX, ColumnReader
from sklearn_din.encoding.vocabulary import Occurrences, ValueCounts, Vocabularies, plain_ids
from sklearn_din.features.lists import Column, IdLists
from sklearn_din.features.schema import UNKNOWN_ID, Field, Kind
from sklearn_din.utils.spans import Rows

if TYPE_CHECKING:
    from sklearn_din.encoding.table_columns import TableColumns, TableStatistics

FEW_LATE = 20  # with fewer late rows, their fraction of new ids says nothing
EMPTY = ColumnProfile(np.empty(0, dtype=np.int32), np.zeros(1))


@dataclass(frozen=True, eq=False)
class IdColumn(Leaf):
    """Ids of one vocabulary: one per row or event, or a list of them.

    ``owner`` is the column that the vocabulary belongs to: of a history, its candidate, whose
    single ids histories are ``is_compared`` with. ``late_unknown`` is the fraction of the owner's
    ids that the last rows of fit had and no earlier one.
    """

    name: str
    owner: str
    is_history: bool = False
    holds_lists: bool = False
    is_compared: bool = False
    late_unknown: float = 0.0
    profile: ColumnProfile = EMPTY

    def read(self, columns: ColumnReader) -> Part:
        read = columns.lists if self.holds_lists else columns.codes
        return Part({self.name: read(self.name)})

    def read_events(self, part: Part, cells: HistoryCells, events: Rows) -> None:
        read = cells.list_codes if self.holds_lists else cells.codes
        part.codes[self.name] = read(events)

    def statistics(self) -> IdStatistics:
        return IdStatistics(self)

    def encode(self, part: Part, vocabularies: Vocabularies) -> dict[str, Column]:
        codes, values = part.codes[self.name]
        ids = np.append(self.look_up(values, vocabularies), np.int32(UNKNOWN_ID))
        return {self.name: codes.map(ids) if isinstance(codes, IdLists) else ids[codes]}

    def profile_of(self, part: Part, vocabularies: Vocabularies) -> ColumnProfile:
        counts, n_missing = count_values(part.codes[self.name], part.counts)
        ids = self.look_up(part.codes[self.name][1], vocabularies)
        return self.profile.of_ids(ids, counts, missing=n_missing)

    def look_up(self, values: np.ndarray, vocabularies: Vocabularies) -> np.ndarray:
        """Return the ids of distinct values, negative ones of those that are unknown."""
        return vocabularies[self.owner].encode(plain_ids(values, name=self.name), name=self.name)

    def fields(self, columns: TableColumns) -> list[Field]:
        kind: Kind = "history" if self.is_history else "categorical"
        if self.holds_lists:
            kind = "list_history" if self.is_history else "list"
        known, vectors = columns.vocabularies[self.owner], columns.vector_scales.get(self.owner)
        n_dims = 0 if vectors is None else len(vectors.mean)
        size, grown_from = (known.n_ids, known.digest), known.grown_from
        of = (self.name.removeprefix(PREFIX),) if self.is_history else ()
        own: dict[str, Any] = {"n_dims": n_dims, "of": of, "grown_from": grown_from}
        return [Field(self.name, kind, self.owner, *size, **own)]


def count_values(codes: Codes, weights: np.ndarray | None) -> tuple[np.ndarray, float]:
    """Return how often each distinct value counts, by ``weights``, and how many are missing."""
    places, values = codes
    if isinstance(places, IdLists):
        lists = places.distinct
        weights = np.bincount(places.positions, weights, len(lists))
        places, weights = lists.ids, np.repeat(weights, lists.lengths)
    places = np.add(places, 1, dtype=np.intp)
    counts = np.bincount(places, weights, minlength=len(values) + 1)
    return counts[1:], float(counts[0])


class IdStatistics:
    """Counts of the values of a column; of a candidate, which of the late ones are new."""

    def __init__(self, column: IdColumn) -> None:
        self.column = column
        self._counts, self._n_missing = ValueCounts(), 0.0
        self._n_late = self._n_new = 0

    def update(self, part: Part, chunk: Chunk) -> None:
        """Take in the values of further rows; of late ones, count those that no earlier row has."""
        codes = part.codes[self.column.name]
        values = plain_ids(codes[1], name=self.column.name)
        if self.column.is_compared and chunk.is_late is not None:
            is_known = np.zeros(len(values) + 1, dtype=bool)  # -1 is missing
            is_known[codes[0][~chunk.is_late]] = True
            if len(earlier := self.occurrences.values):
                is_known[:-1] |= pd.Index(values).isin(earlier)
            late = codes[0][chunk.is_late]
            late = late[late >= 0]
            self._n_late += len(late)
            self._n_new += int((~is_known[late]).sum())
        counts, n_missing = count_values(codes, part.counts)
        self._counts.update(values, counts)
        self._n_missing += n_missing

    @property
    def occurrences(self) -> Occurrences:
        """Values and how often they count, in the order of the rows."""
        return self._counts.finish()

    @property
    def late_unknown(self) -> float:
        """The fraction of the late ids that are new."""
        return self._n_new / self._n_late if self._n_late >= FEW_LATE else 0.0

    def finish(self, table: TableStatistics) -> IdColumn:
        """Return the column."""
        values, counts = self.occurrences
        ids = table.columns.vocabularies[self.column.owner].encode(values, name=self.column.name)
        profile = ColumnProfile.of_ids_at_fit(ids, counts, missing=self._n_missing)
        late = table.statistics[self.column.owner].late_unknown
        profile = table.complete(profile, self.column.name)
        return replace(self.column, profile=profile, late_unknown=late)
