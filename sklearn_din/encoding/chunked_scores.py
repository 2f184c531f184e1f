"""Scores between items of many users: from users by items, without all counts of pairs at once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array, triu, vstack

from sklearn_din.encoding.cooccurrence import Interactions, growing_counts, upper_triangle
from sklearn_din.encoding.item_scores import MOST_EXACT, SHRINKAGE, ItemScores, most_popular

MOST_COUNTED = MOST_EXACT**2  # pairs of items that are counted at once
CHUNK_PAIRS = 4_000_000  # pairs of two items of one user that are multiplied at a time
CHUNK_ITEMS = 4_096

Told = tuple[ItemScores, csr_array]  # scores of a block, and the counts that later ones add to


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

    def scores(self, block: int, shown: np.ndarray, clicked: np.ndarray) -> Told:
        """Scores of all blocks up to this one; blocks come in order.

        Parameters
        ----------
        block : int
        shown, clicked : ndarray of shape (n_ids,)
            How often each item was a candidate so far, and was clicked as one.

        Returns
        -------
        scores : ItemScores
        kept : csr_array of shape (n_ids, n_ids)
            The upper triangle of the counts that later ones are added to.
        """
        if not self._is_small:
            return self._chunked(block, shown, clicked)
        if self._growing is None:
            self._growing = growing_counts(self._found, int(self._found.blocks.max(initial=0)) + 1)
            self._counts = csr_array((self._found.shape[1],) * 2, dtype=np.float32)
        self._counts = next(self._growing, self._counts)  # the last blocks may tell nothing new
        scores = ItemScores.of_counts(self._counts, shown, clicked)
        return scores, upper_triangle(scores.counts_to_keep(self._counts))

    def _chunked(self, block: int, shown: np.ndarray, clicked: np.ndarray) -> Told:
        had = _matrix(self._found, block)
        n_users = np.bincount(had.indices, minlength=had.shape[1]).astype(np.float32)
        ids = most_popular(n_users)
        popular = had[:, ids]
        gram = csr_array(popular.T @ popular)
        scores = ItemScores.of_parts(
            gram.toarray(), ids, csr_array(_neighbours(had, n_users)), n_users, shown, clicked
        )
        return scores, _kept(scores.cosine, n_users, gram, ids)


def _matrix(found: Interactions, block: int) -> csr_array:
    """Users by ids, 1 where a block up to this one tells of the pair."""
    chosen = found.blocks <= block
    items = found.items[chosen].astype(np.int32)
    lengths = np.bincount(found.users[chosen], minlength=found.shape[0])
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return csr_array((np.ones(len(items), dtype=np.float32), items, ends), shape=found.shape)


def _neighbours(had: csr_array, n_users: np.ndarray) -> csr_array:
    """Shrunk cosine of each item and its best neighbours, a few items at a time."""
    by_item = csr_array(had.T.tocsr())
    work = by_item @ np.diff(had.indptr).astype(np.float64)
    chunk = np.cumsum(work) // CHUNK_PAIRS
    begins = {0, *(np.flatnonzero(np.diff(chunk)) + 1), *range(0, len(work), CHUNK_ITEMS)}
    pieces = []
    for begin, end in pairwise(sorted({*map(int, begins), len(work)})):
        counts = csr_array(by_item[begin:end] @ had)
        counts.sort_indices()
        pieces.append(ItemScores.neighbours_of(counts, n_users, first=begin))
    return csr_array(vstack(pieces, format="csr"))


def _kept(cosine: csr_array, n_users: np.ndarray, gram: csr_array, ids: np.ndarray) -> csr_array:
    """Counts of neighbours and of popular items: a cosine says which count it was made of."""
    n_ids = len(n_users)
    rows = np.repeat(np.arange(n_ids), np.diff(cosine.indptr))
    roots = np.sqrt(n_users[rows] * n_users[cosine.indices])
    counts = np.rint(cosine.data * (roots + np.float32(SHRINKAGE)))
    near = csr_array((counts, cosine.indices, cosine.indptr), shape=cosine.shape)
    near = csr_array(triu(near, 1, format="csr").maximum(triu(near.T, 1, format="csr")))
    exact = triu(gram, 1, format="coo")
    places = (ids[exact.coords[0]], ids[exact.coords[1]])
    among = csr_array((exact.data, places), shape=cosine.shape)
    diagonal = csr_array((n_users, (np.arange(n_ids), np.arange(n_ids))), shape=cosine.shape)
    kept = csr_array(near.maximum(among) + diagonal)
    kept.eliminate_zeros()
    return kept
