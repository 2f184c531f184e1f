"""Rows given twice: where one is held out and the other learnt, the label is known."""

from collections.abc import Iterable

import numpy as np
from pandas.util import hash_array

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.lists import Column, IdLists
from sklearn_din.neighbours.blocks import number_users
from sklearn_din.utils.spans import Spans

ROWS_PER_BLOCK = 65_536  # whose events are read at a time


def find_originals(X: EncodedFeatures, y: np.ndarray) -> np.ndarray:
    """Return the number of the first row that each is a copy of, or its own: (n_rows,).

    Rows that are equal in all but the label are so by chance, with all equal to them: no copies.
    """
    blocks = [slice(at, at + ROWS_PER_BLOCK) for at in range(0, len(X), ROWS_PER_BLOCK)]
    hashes = np.concatenate([_hash_rows(X[block]) for block in blocks])
    if X.users is not None:
        hashes = _mix(hashes, [number_users(X)])
    _, first, codes = np.unique(hashes, return_index=True, return_inverse=True)
    originals, is_copied = first[codes], np.ones(len(first), dtype=bool)
    differs = (y != y[originals]).reshape(len(X), -1).any(axis=1)
    is_copied[codes[differs]] = False
    return np.where(is_copied[codes], originals, np.arange(len(X)))


def keep_together(X: EncodedFeatures, y: np.ndarray) -> np.ndarray:
    """Return for each row the number of a row whose fold it shares: (n_rows,).

    Without times those of one user, whose histories are much the same; otherwise rows given twice.
    """
    if X.users is not None and X.times is None:
        _, first, codes = np.unique(number_users(X), return_index=True, return_inverse=True)
        if len(first) > 1:
            return first[codes]
    return find_originals(X, y)


def _hash_rows(X: EncodedFeatures) -> np.ndarray:
    """Hash features and times: (n_rows,), uint64."""
    hashes = _mix(np.zeros(len(X), dtype=np.uint64), X.columns.values())
    if X.times is not None:
        hashes = _mix(hashes, [np.asarray(X.times)])
    for ragged in X.behaviours.values():
        index, spans = ragged.spans.index(), Spans.from_lengths(ragged.spans.lengths)
        ranks = np.arange(len(index)) - np.repeat(spans.starts, spans.lengths)
        events = _mix(
            ranks.astype(np.uint64), (ragged.flat(name, index) for name in ragged.columns)
        )
        sums = np.append(np.uint64(0), np.cumsum(events, dtype=np.uint64))  # they wrap around
        hashes = _mix(hashes, [sums[spans.starts + spans.lengths] - sums[spans.starts]])
    return hashes


def _mix(hashes: np.ndarray, columns: Iterable[Column]) -> np.ndarray:
    for values in columns:
        own = hash_array(values.digests if isinstance(values, IdLists) else np.asarray(values))
        hashes = hash_array(hashes * np.uint64(31) + own)
    return hashes
