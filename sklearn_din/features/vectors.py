"""Fixed vectors of a vocabulary's values, such as text embeddings of items, looked up by ids."""

from dataclasses import dataclass

import numpy as np

from sklearn_din.features.identities import is_identity

NO_VECTOR = 0  # row of what has none: zeros


@dataclass(frozen=True, eq=False)
class Vectors:
    """A table of vectors, and which of its rows belongs to each id.

    Values that no vocabulary has may have one too, such as an item that came up yesterday.

    table : (n_vectors + 1, n_dims), float32. The vectors; row 0 is zero and stands for none.
    rows : (n_ids,), int32. By id, the row of its vector.
    new_ids : (n_new,), int32. Ids of unknown values that have a vector, ascending.
    new_rows : (n_new,), int32. Their rows.

    >>> table = np.array([[0.0], [0.5], [0.9]], dtype="float32")
    >>> new = np.array([-1101936223]), np.array([2])
    >>> vectors = Vectors(table, np.array([0, 0, 1]), *new)
    >>> vectors.rows_of(np.array([2, -2, 1, -1101936223, -1430304126]))  # -2 is id 2, hidden
    array([1, 1, 0, 2, 0])
    """

    table: np.ndarray
    rows: np.ndarray
    new_ids: np.ndarray
    new_rows: np.ndarray

    @property
    def n_dims(self) -> int:
        """Length of each vector."""
        return self.table.shape[1]

    def rows_of(self, ids: np.ndarray) -> np.ndarray:
        """Return the row of each id's vector; an id that training hides keeps its vector."""
        is_new = is_identity(ids)
        if not is_new.any():
            return self.rows[np.abs(ids)]
        rows = self.rows[np.abs(np.where(is_new, 0, ids))]
        if len(self.new_ids):
            at = np.searchsorted(self.new_ids, ids[is_new]).clip(max=len(self.new_ids) - 1)
            is_found = self.new_ids[at] == ids[is_new]
            rows[is_new] = np.where(is_found, self.new_rows[at], NO_VECTOR)
        return rows
