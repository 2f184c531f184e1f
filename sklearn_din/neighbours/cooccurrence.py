"""Which items the same users had: users by items, and items by items, in the order of blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, triu

from sklearn_din.features.ragged import Ragged
from sklearn_din.features.schema import FIRST_KNOWN_ID

MOST_PAIRS = 400_000_000  # of two items of one user: some four seconds
MOST_ITEMS_PER_USER = 1_000


@dataclass(frozen=True)
class Interactions:
    """Who had which item, each pair once, and the block of rows that tells it.

    Parameters
    ----------
    users : ndarray of shape (n,)
        Codes from 0.
    items : ndarray of shape (n,)
        Ids from 2.
    blocks : ndarray of shape (n,)
        The first block with a row that holds the item in its history or has it clicked.
    shape : tuple of int
        Number of users, and number of ids.

    Examples
    --------
    >>> from sklearn_din._spans import Spans
    >>> spans = Spans(np.array([0, 0]), np.array([1, 2]))
    >>> history = Ragged({"hist": np.array([2, 3], "int32")}, spans)
    >>> rows = Rows(users=np.zeros(2, int), blocks=np.arange(2), clicked=np.array([False, True]))
    >>> found = Interactions.of_rows(rows, np.array([3, 4]), history, "hist", n_ids=5)
    >>> found.users, found.items, found.blocks
    (array([0, 0, 0]), array([2, 3, 4]), array([0, 1, 1]))
    """

    users: np.ndarray
    items: np.ndarray
    blocks: np.ndarray
    shape: tuple[int, int]

    @classmethod
    def of_rows(
        cls, rows: Rows, candidates: np.ndarray, history: Ragged, name: str, *, n_ids: int
    ) -> Interactions:
        """Collect the events of all histories, and the clicked candidates.

        Parameters
        ----------
        rows : Rows
            Whose each row is, its block, and whether it was clicked.
        candidates : ndarray of shape (n_rows,), int32
            Id of the candidate.
        history : Ragged
            The histories of the rows.
        name : str
            Which of their columns holds the items.
        n_ids : int
            Size of the vocabulary.
        """
        owners, blocks = _owners(rows, history)
        users = np.concatenate([owners, rows.users[rows.clicked]]).astype(np.int64)
        items = np.concatenate([history.columns[name], candidates[rows.clicked]])
        blocks = np.concatenate([blocks, rows.blocks[rows.clicked]])
        is_known = (items >= FIRST_KNOWN_ID) & (blocks < rows.n_blocks)
        users, items, blocks = users[is_known], items[is_known], blocks[is_known]
        keys = np.sort((users * n_ids + items) * rows.n_blocks + blocks)
        pairs = keys // rows.n_blocks
        is_first = np.append(True, pairs[1:] != pairs[:-1])[: len(pairs)]
        pairs, blocks = pairs[is_first], (keys % rows.n_blocks)[is_first]
        return cls(pairs // n_ids, pairs % n_ids, blocks, (rows.n_users, n_ids))

    def capped(self) -> Interactions:
        """Keep so few items of the users with most that no more than MOST_PAIRS are multiplied."""
        lengths = np.bincount(self.users, minlength=self.shape[0])
        cap = MOST_ITEMS_PER_USER
        while cap > 1 and (np.minimum(lengths, cap).astype(float) ** 2).sum() > MOST_PAIRS:
            cap //= 2
        if lengths.max(initial=0) <= cap:
            return self
        draws = np.random.RandomState(0).random_sample(len(self.users))
        order = np.lexsort((draws, self.users))
        starts = np.cumsum(lengths) - lengths
        rank = np.arange(len(order)) - starts[self.users[order]]
        kept = np.sort(order[rank < cap])
        return Interactions(self.users[kept], self.items[kept], self.blocks[kept], self.shape)

    def matrix(self, block: int) -> csr_array:
        """Users by ids, 1 where the block is the first that tells of the pair."""
        chosen = self.blocks == block
        ones = np.ones(np.count_nonzero(chosen), dtype=np.float32)
        return csr_array((ones, (self.users[chosen], self.items[chosen])), shape=self.shape)


@dataclass(frozen=True)
class Rows:
    """What is known of the training rows beside their features.

    Parameters
    ----------
    users : ndarray of shape (n_rows,)
        Whose each row is: codes from 0.
    blocks : ndarray of shape (n_rows,)
        Block of each row, from 0; the rows of a block are told of earlier blocks alone.
    clicked : ndarray of shape (n_rows,), bool
        Whether the candidate was clicked.
    """

    users: np.ndarray
    blocks: np.ndarray
    clicked: np.ndarray

    @property
    def n_users(self) -> int:
        """Number of users."""
        return int(self.users.max(initial=-1)) + 1

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return int(self.blocks.max(initial=0)) + 1


def _owners(rows: Rows, history: Ragged) -> tuple[np.ndarray, np.ndarray]:
    """For each event whose it is, and the first block with a row that holds it.

    An event that no row holds has the block ``n_blocks``.
    """
    n_events = len(next(iter(history.columns.values())))
    owners = np.zeros(n_events, dtype=np.int64)
    blocks = np.full(n_events, rows.n_blocks)
    for block in reversed(range(rows.n_blocks)):
        chosen = rows.blocks == block
        spans = history.spans.take(chosen)
        index = spans.index()
        owners[index] = np.repeat(rows.users[chosen], spans.lengths)
        blocks[index] = block
    return owners, blocks


def count_new_clicks(
    users: np.ndarray, candidates: np.ndarray, history: Ragged, name: str, *, n_ids: int
) -> csr_array:
    """What clicks that have come since add to the counts: each with the events of its history.

    A click on an item that the history holds already adds nothing, nor does a second click of the
    same user on an item: the counts are of users, not of clicks.

    Parameters
    ----------
    users : ndarray of shape (n_rows,)
        Whose each click is: codes from 0.
    candidates : ndarray of shape (n_rows,), int32
        Id of the clicked candidate.
    history : Ragged
        The histories of these rows.
    name : str
        Which of their columns holds the items.
    n_ids : int
        Size of the vocabulary.

    Returns
    -------
    csr_array of shape (n_ids, n_ids), float32
        The upper triangle; the diagonal counts users.
    """
    lengths = history.spans.lengths
    events = history.flat(name).astype(np.int64)
    rows = np.repeat(np.arange(len(candidates)), lengths)
    shown = candidates.astype(np.int64)
    has_it = np.bincount(rows[events == shown[rows]], minlength=len(shown)) > 0
    fresh = np.flatnonzero((shown >= FIRST_KNOWN_ID) & ~has_it)
    _, first = np.unique(users[fresh] * np.int64(n_ids) + shown[fresh], return_index=True)
    counts = np.zeros(len(shown), dtype=bool)
    counts[fresh[first]] = True
    used = counts[rows] & (events >= FIRST_KNOWN_ID)
    pairs = np.unique(rows[used] * np.int64(n_ids) + events[used])  # each event of a row once
    one, other = shown[pairs // n_ids], pairs % n_ids
    alone = shown[counts]
    lower = np.concatenate([np.minimum(one, other), alone])
    upper = np.concatenate([np.maximum(one, other), alone])
    ones = np.ones(len(lower), dtype=np.float32)
    return csr_array((ones, (lower, upper)), shape=(n_ids, n_ids))


def upper_triangle(counts: csr_array) -> csr_array:
    """Half of a symmetric matrix, the diagonal included."""
    return csr_array(triu(counts, format="csr"))


def both_triangles(upper: csr_array) -> csr_array:
    """The symmetric matrix whose upper triangle is given."""
    return csr_array(upper + triu(upper, 1, format="csr").T)


def growing_counts(interactions: Interactions, n_blocks: int) -> Iterator[csr_array]:
    """After each block: how many users had both items, ids by ids; the diagonal counts users.

    Parameters
    ----------
    interactions : Interactions
    n_blocks : int

    Yields
    ------
    csr_array of shape (n_ids, n_ids), float32
        Of all blocks so far, sorted inside each row.

    Examples
    --------
    >>> both = Interactions(np.array([0, 0]), np.array([2, 3]), np.array([0, 1]), (1, 4))
    >>> [counts.nnz for counts in growing_counts(both, 2)]
    [1, 4]
    """
    interactions = interactions.capped()
    n_ids = interactions.shape[1]
    counts = csr_array((n_ids, n_ids), dtype=np.float32)
    seen = csr_array(interactions.shape, dtype=np.float32)
    for block in range(n_blocks):
        new = interactions.matrix(block)
        crossed = new.T @ seen
        counts = csr_array(counts + (new.T @ new + crossed + crossed.T))
        counts.sort_indices()
        seen = seen + new
        yield counts
