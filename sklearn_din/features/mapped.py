"""Encoded rows that are mapped from files: how many are read at a time, and copied to memory."""

from __future__ import annotations

import numpy as np

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.lists import IdLists

ARRAYS_IN_MEMORY = 4  # mapped arrays up to a quarter of the memory allowed are read in any order
POOLS_IN_MEMORY = 8  # beyond that, so much of them is read at a time


def rows_per_pool(X: EncodedFeatures) -> int | None:
    """Return how many rows are read at a time, in ascending order of their numbers.

    None where the arrays lie in memory, or are so small beside the budget that all of them may be
    read in any order.
    """
    if X.store is None or X.store.nbytes <= X.store.memory // ARRAYS_IN_MEMORY:
        return None
    return max(int(X.store.memory / POOLS_IN_MEMORY / X.store.nbytes * len(X)), 1)


def copy_to_memory(X: EncodedFeatures, rows: np.ndarray) -> EncodedFeatures:
    """Copy some rows of mapped impressions.

    Rows are in ascending order, so each page of a file is read once. Users and times are left out,
    positions kept; of the events, those that some row holds are copied.
    """
    chosen = X[rows]
    columns = {
        name: values.copy() if isinstance(values, IdLists) else np.array(values)
        for name, values in chosen.columns.items()
    }
    behaviours = {key: ragged.drop_older().compact() for key, ragged in chosen.behaviours.items()}
    positions = None if chosen.positions is None else np.array(chosen.positions)
    return EncodedFeatures._without_checks(
        X.schema, columns, behaviours, positions=positions, vectors=X.vectors
    )
