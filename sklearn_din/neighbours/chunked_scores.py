"""Scores between items of many users: from users by items, without all counts of pairs at once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array, triu

from sklearn_din.neighbours.cooccurrence import Interactions, growing_counts
from sklearn_din.neighbours.item_scores import (
    MOST_EXACT,
    MOST_NEIGHBOURS,
    SHRINKAGE,
    ItemScores,
    most_popular,
)

MOST_COUNTED = MOST_EXACT**2  # pairs of items that are counted at once
CHUNK_PAIRS = 2_000_000  # pairs of two items of one user that are multiplied at a time
CHUNK_ITEMS = 4_096


class GrowingScores:
    """Scores after each block, as of :func:`growing_counts`, in memory that is bounded.

    The counts of all pairs of items may take gigabytes where the scores need few of them: those
    of the most popular items, and those of each item's best neighbours. Where there are many,
    each item's counts are made when its neighbours are chosen, and let go.

    Parameters
    ----------
    found : Interactions
        Who had which item, sorted by user and item.
    """

    def __init__(self, found: Interactions) -> None:
        self._found = found.capped()
        lengths = np.bincount(self._found.users, minlength=found.shape[0]).astype(np.float64)
        self._is_small = float((lengths**2).sum()) <= MOST_COUNTED
        self._growing: Iterator[csr_array] | None = None

    def scores(self, block: int, shown: np.ndarray, clicked: np.ndarray) -> ItemScores:
        """Scores of all blocks up to this one; blocks come in order.

        Parameters
        ----------
        block : int
        shown, clicked : ndarray of shape (n_ids,)
            How often each item was a candidate so far, and was clicked as one.
        """
        if self._is_small:
            if self._growing is None:
                n_blocks = int(self._found.blocks.max(initial=0)) + 1
                self._growing = growing_counts(self._found, n_blocks)
                self._counts = csr_array((self._found.shape[1],) * 2, dtype=np.float32)
            self._counts = next(self._growing, self._counts)  # a last block may tell nothing new
            return ItemScores.of_counts(self._counts, shown, clicked)
        had = _matrix(self._found, block)
        n_users = np.bincount(had.indices, minlength=had.shape[1]).astype(np.float32)
        cosine = _neighbours(had, n_users)
        ids = most_popular(n_users)
        gram = _gram(had, ids).toarray()
        return ItemScores.of_parts(gram, ids, cosine, n_users, shown, clicked)

    def kept(self, scores: ItemScores) -> csr_array:
        """Upper triangle of the counts that later ones are added to, for the last scores.

        Parameters
        ----------
        scores : ItemScores
            Of the last block.
        """
        if self._is_small:
            return scores.counts_to_keep(self._counts)
        had = _matrix(self._found, int(self._found.blocks.max(initial=0)))
        n_users = np.bincount(had.indices, minlength=had.shape[1]).astype(np.float32)
        ids = most_popular(n_users)
        gram = triu(_gram(had, ids), 1, format="coo")
        del had  # as large as what comes now
        places = (ids[gram.coords[0]], ids[gram.coords[1]])
        among = csr_array((gram.data, places), shape=scores.cosine.shape)
        diagonal = csr_array((n_users, (np.arange(len(n_users)),) * 2), shape=among.shape)
        kept = csr_array(_counts_of(scores.cosine, n_users).maximum(among) + diagonal)
        kept.eliminate_zeros()
        return kept


def _matrix(found: Interactions, block: int) -> csr_array:
    """Users by ids, 1 where a block up to this one tells of the pair."""
    chosen = found.blocks <= block
    items = found.items[chosen].astype(np.int32)
    lengths = np.bincount(found.users[chosen], minlength=found.shape[0])
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return csr_array((np.ones(len(items), dtype=np.float32), items, ends), shape=found.shape)


def _gram(had: csr_array, ids: np.ndarray) -> csr_array:
    """How many users had both of two of some items."""
    some = had[:, ids]
    return csr_array(some.T @ some)


def _neighbours(had: csr_array, n_users: np.ndarray) -> csr_array:
    """Shrunk cosine of each item and its best neighbours, a few items at a time."""
    n_ids = had.shape[1]
    by_item = csr_array(had.T.tocsr())
    work = by_item @ np.diff(had.indptr).astype(np.float64)
    changes = np.flatnonzero(np.diff(np.cumsum(work) // CHUNK_PAIRS)) + 1
    begins = {*changes.tolist(), *range(0, n_ids, CHUNK_ITEMS), n_ids}
    data = np.empty(n_ids * MOST_NEIGHBOURS, dtype=np.float32)  # of which only a part is touched
    indices = np.empty(len(data), dtype=np.int32)
    ends = np.zeros(n_ids + 1, dtype=np.int64)
    for begin, end in pairwise(sorted(begins)):
        counts = csr_array(by_item[begin:end] @ had)
        counts.sort_indices()
        found = ItemScores.neighbours_of(counts, n_users, first=begin)
        ends[begin + 1 : end + 1] = ends[begin] + found.indptr[1:]
        data[ends[begin] : ends[end]] = found.data
        indices[ends[begin] : ends[end]] = found.indices
    parts = (data[: ends[-1]], indices[: ends[-1]], ends)
    return csr_array(parts, shape=(n_ids, n_ids))


def _counts_of(cosine: csr_array, n_users: np.ndarray) -> csr_array:
    """Counts above the diagonal that some neighbours' cosines were made of."""
    n_ids, ends = len(n_users), cosine.indptr
    counts, is_upper = np.empty_like(cosine.data), np.empty(len(cosine.data), dtype=bool)
    n_upper = np.zeros(n_ids, dtype=np.int64)
    for begin in range(0, n_ids, CHUNK_ITEMS):
        end = min(begin + CHUNK_ITEMS, n_ids)
        own = slice(ends[begin], ends[end])
        rows = np.repeat(np.arange(begin, end), np.diff(ends[begin : end + 1]))
        columns = cosine.indices[own]
        roots = np.sqrt(n_users[rows] * n_users[columns])
        counts[own] = np.rint(cosine.data[own] * (roots + np.float32(SHRINKAGE)))
        is_upper[own] = columns > rows
        n_upper[begin:end] = np.bincount(rows[is_upper[own]] - begin, minlength=end - begin)
    above = _of_rows(counts, cosine.indices, is_upper, n_upper)
    np.logical_not(is_upper, out=is_upper)  # no item is a neighbour of itself
    below = _of_rows(counts, cosine.indices, is_upper, np.diff(ends) - n_upper)
    del counts, is_upper  # as large as the results
    below = csr_array(below.T.tocsr())
    return csr_array(above.maximum(below))


def _of_rows(
    data: np.ndarray, columns: np.ndarray, chosen: np.ndarray, lengths: np.ndarray
) -> csr_array:
    """The chosen entries of a sparse square matrix, of which each row has so many."""
    n_ids, ends = len(lengths), np.append(0, np.cumsum(lengths))
    return csr_array((data[chosen], columns[chosen], ends), shape=(n_ids, n_ids))
