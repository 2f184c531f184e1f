"""Encoded rows of a table: in memory if it is one chunk, in a store if it has many."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sklearn_din.encoding.histories import count_events
from sklearn_din.encoding.table import ColumnReader, Impressions
from sklearn_din.encoding.table_columns import TableColumns
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.vectors import Vectors
from sklearn_din.utils.warnings import warn_of

SEVERAL_USERS = 20  # of a few, all may be new


@dataclass(frozen=True)
class RowEncoder:
    """Encodes rows by what was learnt; ``metadata`` columns and ``vectors`` travel beside."""

    learnt: TableColumns
    metadata: Mapping[str, str]
    vectors: dict[str, Vectors]

    def encode(self, table: Impressions, *, name: str = "") -> EncodedFeatures:
        """Encode all rows, or open the store of that name in which they were kept."""
        scan = table.scan
        if scan is None:
            ((_, rows),) = table.map(self.encode_columns, table.names, "encoding")
            return rows
        from sklearn_din.encoding.stored_rows import encode_in_store

        return encode_in_store(self, table, name)._replace(vectors=self.vectors)

    def names_of(self, table: Impressions) -> list[str]:
        """Columns of a table that are read."""
        used = {*self.learnt.sources, *self.metadata.values()}
        return [name for name in table.names if name in used]

    def encode_columns(self, columns: ColumnReader) -> EncodedFeatures:
        """Encode rows that are in memory."""
        rows = self.encode_part(columns)
        n_events = count_events(rows.behaviours)
        notices = self.learnt.note_lengths(n_events, len(rows))
        if notices and (n_users := _count_users(rows)) >= SEVERAL_USERS:
            # The first rows of users have no history, their later rows have one.
            is_empty = not any(n_events.values()) and len(rows) >= 2 * n_users
            if self.learnt.are_of_fit(rows.times) and not is_empty:
                return rows
            warn_of(notices, once=True)
        return rows

    def encode_part(self, columns: ColumnReader) -> EncodedFeatures:
        """Encode some of all rows, of which notices of lengths are given in the end."""
        learnt, parts = self.learnt, self.learnt.read(columns)
        warn_of(learnt.note_far_numbers(parts), once=True)
        vectors = {name: self.vectors[name] for name in learnt.schema.vector_sizes}
        X = EncodedFeatures._without_checks(learnt.schema, {}, {}, vectors=vectors)
        learnt.add_to(X, parts)
        warn_of(learnt.note_unknown(parts, X), once=True)
        for what, name in self.metadata.items():
            if name in columns:
                setattr(X, what, columns.metadata(what, name))
        return X


def _count_users(rows: EncodedFeatures) -> int:
    """Return how many users there are at least: each is shown a candidate once, or by himself."""
    if rows.users is not None:
        return len(pd.unique(rows.users))
    names = {*rows.schema.names("categorical")}
    candidates = names & {name for b in rows.schema.behaviours for name in b.candidates}
    counts = (np.unique(rows.columns[name], return_counts=True)[1] for name in candidates)
    return min((int(shown.max()) for shown in counts), default=len(rows))
