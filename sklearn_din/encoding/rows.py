"""Encoded rows of a table: in memory if it is one chunk, in a store if it has many."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sklearn_din.encoding.events import count_events
from sklearn_din.encoding.frames import ReadFrame, read_frame
from sklearn_din.encoding.learnt import Learnt
from sklearn_din.encoding.notices import warn_of_changed_units
from sklearn_din.encoding.table import Columns, Impressions
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.vectors import Vectors
from sklearn_din.utils.warnings import warn_of

SEVERAL_USERS = 20  # of a few, all may be new


@dataclass(frozen=True)
class RowEncoder:
    """Encodes the rows of tables by what was learnt.

    Columns ``metadata``, by their name in encoded rows, travel beside the features, and so do the
    ``vectors`` of vocabularies that have some.
    """

    learnt: Learnt
    metadata: Mapping[str, str]
    vectors: dict[str, Vectors]

    def encode(self, table: Impressions, *, name: str = "") -> EncodedFeatures:
        """Encode all rows, or open the store of that name in which they were kept.

        Rows of a scan are written to its ``cache_dir``, or to a temporary folder; ``name`` tells
        the rows and all that was learnt.
        """
        scan = table.scan
        if scan is None:
            ((_, rows),) = table.map(self.encode_columns, table.names, "encoding")
            return rows
        from sklearn_din.encoding.stored_rows import encode_in_store

        return encode_in_store(self, table, name)._replace(vectors=self.vectors)

    def names_of(self, table: Impressions) -> list[str]:
        """Columns of a table that are read."""
        roles = self.learnt.roles
        used = {*roles.owners, *self.learnt.scales, *self.metadata.values()}
        return [name for name in table.names if name in used]

    def read(self, columns: Columns) -> ReadFrame:
        """Read a part by its roles, times elapsed as plain numbers where such were learnt."""
        plain = [name for name, scale in self.learnt.scales.items() if not scale.is_elapsed]
        return read_frame(columns, self.learnt.roles, as_numbers_alone=plain)

    def encode_columns(self, columns: Columns) -> EncodedFeatures:
        """Encode rows that are in memory."""
        rows = self.encode_part(columns)
        notices = self.learnt.note_lengths(count_events(rows.behaviours), len(rows))
        if notices and _count_users(rows) >= SEVERAL_USERS:
            warn_of(notices, once=True)
        return rows

    def encode_part(self, columns: Columns) -> EncodedFeatures:
        """Encode some of all rows, of which notices of lengths are given in the end."""
        read = self.read(columns)
        warn_of_changed_units(self.learnt.find_changed_units(read))
        encoded, behaviours = self.learnt.encode_columns(read), self.learnt.encode_behaviours(read)
        warn_of(self.learnt.note_unknown(read, encoded, behaviours), once=True)
        warn_of(self.learnt.item_sample.note_moved(encoded, self.learnt.decode), once=True)
        metadata = {
            what: columns.metadata(what, name)
            for what, name in self.metadata.items()
            if name in columns
        }
        return EncodedFeatures._without_checks(
            self.learnt.schema,
            encoded,
            behaviours,
            vectors={name: self.vectors[name] for name in self.learnt.schema.vector_sizes},
            **metadata,
        )


def _count_users(rows: EncodedFeatures) -> int:
    """Return how many users there are at least: each is shown a candidate once, or by himself."""
    if rows.users is not None:
        return len(pd.unique(rows.users))
    names = {*rows.schema.names("categorical")}
    candidates = names & {name for b in rows.schema.behaviours for name in b.candidates}
    counts = (np.unique(rows.columns[name], return_counts=True)[1] for name in candidates)
    return min((int(shown.max()) for shown in counts), default=len(rows))
