"""Counts of items that the same users had: users by items, items by items, block after block."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array, triu

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.identities import ids_to_look_up
from sklearn_din.features.ragged import Ragged
from sklearn_din.features.schema import FIRST_KNOWN_ID
from sklearn_din.neighbours.blocks import N_BLOCKS, NOT_COUNTED, OrderedRows
from sklearn_din.utils.estimator_state import check_array, check_keys
from sklearn_din.utils.spans import Spans
from sklearn_din.utils.typed_fields import FORMS

MOST_PAIRS = 400_000_000  # of two items of one user; scipy counts them in about four seconds
MOST_ITEMS_PER_USER = 1_000
MOST_COUNTED = 9_000_000  # pairs of two items of one user up to which all counts are kept
ROWS_PER_BLOCK = 65_536  # of mapped rows that are read at a time
PENDING_KEYS = 1 << 21
CHUNK_PAIRS = 2_000_000  # pairs of two items of one user that are multiplied at a time
CHUNK_ITEMS = 4_096


@dataclass(frozen=True)
class Interactions:
    """Who had which item, each pair once, and the first block of rows that holds it.

    Users (codes, ascending), items (ids from 2, ascending for each user) and blocks are (n,);
    ``shape`` is the number of users and of ids. Rows that no table counts are left out.
    """

    users: np.ndarray
    items: np.ndarray
    blocks: np.ndarray
    shape: tuple[int, int]

    @classmethod
    def gather(
        cls, X: EncodedFeatures, rows: OrderedRows, history: str, candidate: str
    ) -> "Interactions":
        """Collect the events of all histories, and the clicked candidates."""
        n_ids = X.schema[candidate].n_ids
        ragged = X.behaviours[X.schema.behaviour_of(history).histories]
        first_blocks = _FirstBlocks()
        for part in row_blocks(X):
            part = np.flatnonzero(rows.blocks[part] != NOT_COUNTED) + part.start
            users, blocks, clicked = rows.users[part], rows.blocks[part], rows.clicked[part]
            owners = users.astype(np.int64) * (n_ids * N_BLOCKS) + blocks
            # Windows of one log overlap: those of each owner are merged before events are read
            spans = _spans_to_read(ragged.take(part), owners)
            codes, distinct = pd.factorize(owners)
            stride = int((spans.starts + spans.lengths).max(initial=0)) + 1  # separates owners
            covered = Spans(codes * stride + spans.starts, spans.lengths).cover()
            code, starts = np.divmod(covered.run_starts, stride)
            items = ragged.columns[history][Spans(starts, covered.run_lengths).index()]
            first_blocks.add(np.repeat(distinct[code], covered.run_lengths), items)
            first_blocks.add(owners[clicked], X.columns[candidate][part][clicked])
        pairs, blocks = first_blocks.merge()
        users, items = (pairs // n_ids).astype(np.int32), (pairs % n_ids).astype(np.int32)
        return cls(users, items, blocks, (rows.n_users, n_ids))

    def cap(self) -> "Interactions":
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
        chosen = np.sort(order[rank < cap])
        return Interactions(self.users[chosen], self.items[chosen], self.blocks[chosen], self.shape)

    def matrix(self, counted: np.ndarray) -> csr_array:
        """Users by ids, 1 where one of some blocks (bool by block) has the pair: float32."""
        chosen = counted[self.blocks]
        lengths = np.bincount(self.users[chosen], minlength=self.shape[0])
        items = self.items[chosen]
        ends = np.append(0, np.cumsum(lengths))
        return narrow_csr(np.ones(len(items), np.float32), items, ends, self.shape)


def _spans_to_read(ragged: Ragged, owners: np.ndarray) -> Spans:
    """Windows of some rows; of each owner's rows, the longest shows its older events too."""
    if ragged.n_older is None:
        return ragged.spans
    whole = ragged.whole
    by_length = np.lexsort((whole.lengths, owners))
    is_last = np.append(owners[by_length][1:] != owners[by_length][:-1], True)
    shown = ragged.spans.lengths.copy()
    shown[by_length[is_last]] = whole.lengths[by_length[is_last]]
    return whole.newest(shown)


class _FirstBlocks:
    """Distinct pairs and the first block of each, merged when the new ones have doubled them."""

    def __init__(self) -> None:
        self._keys = np.empty(0, dtype=np.int64)
        self._pending: list[np.ndarray] = []
        self._n_pending = 0

    def add(self, owners: np.ndarray, items: np.ndarray) -> None:
        """Add items of owners, which are ``user * n_ids * N_BLOCKS + block``."""
        is_known = items >= FIRST_KNOWN_ID
        keys = owners[is_known] + items[is_known] * np.int64(N_BLOCKS)
        self._pending.append(self._first(keys))
        self._n_pending += len(self._pending[-1])
        if self._n_pending > max(len(self._keys), PENDING_KEYS):
            self.merge()

    def merge(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the pairs, ``user * n_ids + item`` in ascending order, and their first blocks."""
        self._keys = self._first(np.concatenate([self._keys, *self._pending]))
        self._pending, self._n_pending = [], 0
        return self._keys // N_BLOCKS, (self._keys % N_BLOCKS).astype(np.int8)

    def _first(self, keys: np.ndarray) -> np.ndarray:
        keys = np.sort(keys, kind="stable")  # merges what comes in order, as each user's rows do
        pairs = keys // N_BLOCKS
        return keys[np.append(True, pairs[1:] != pairs[:-1])[: len(keys)]]


def row_blocks(X: EncodedFeatures) -> Iterator[slice]:
    """Walk through all rows by slices: block by block where they are mapped, otherwise at once."""
    size = max(len(X), 1) if X.store is None else ROWS_PER_BLOCK
    for start in range(0, len(X), size):
        yield slice(start, min(start + size, len(X)))


def count_pairs(by_item: csr_array, had: csr_array) -> Iterator[tuple[int, csr_array]]:
    """Yield the first of some items, and how many users had them and any item: (n_items, n_ids).

    ``had``, (n_users, n_ids), is 1 where a user had an item; ``by_item`` is its transpose. The
    counts of all pairs together may take gigabytes.
    """
    n_ids = had.shape[1]
    work = by_item @ np.diff(had.indptr).astype(np.float64)
    changes = np.flatnonzero(np.diff(np.cumsum(work) // CHUNK_PAIRS)) + 1
    begins = {*changes.tolist(), *range(0, n_ids, CHUNK_ITEMS), n_ids}
    for begin, end in pairwise(sorted(begins)):
        yield begin, csr_array(by_item[begin:end] @ had)


def count_new_clicks(
    users: np.ndarray, candidates: np.ndarray, history: Ragged, name: str, *, n_ids: int
) -> csr_array:
    """Count what later clicks add, the upper triangle, (n_ids, n_ids): each with its history.

    A click on an item that the history holds, or a second one of a user, adds nothing: counts are
    of users. The diagonal counts users.
    """
    n_rows, whole = len(candidates), history.whole
    if not n_rows:  # scipy rejects empty index arrays
        return csr_array((n_ids, n_ids), dtype=np.float32)
    events = history.columns[name][whole.index()]
    candidates = ids_to_look_up(candidates)
    rows = np.repeat(np.arange(n_rows), whole.lengths)
    is_known = events >= FIRST_KNOWN_ID
    had = _ones(rows[is_known], events[is_known], (n_rows, n_ids))
    has_it = np.asarray(had[np.arange(n_rows), candidates]).ravel() > 0
    new = np.flatnonzero((candidates >= FIRST_KNOWN_ID) & ~has_it)
    _, first = np.unique(users[new] * np.int64(n_ids) + candidates[new], return_index=True)
    new = new[first]  # the user's first click on the item
    crossed = _ones(candidates[new], new, (n_ids, n_rows)) @ had
    n_users = np.bincount(candidates[new], minlength=n_ids).astype(np.float32)
    diagonal = csr_array((n_users, (np.arange(n_ids),) * 2), shape=(n_ids, n_ids))
    return csr_array(triu(crossed + crossed.T) + diagonal)


def narrow_csr(
    values: np.ndarray, columns: np.ndarray, ends: np.ndarray, shape: tuple[int, int]
) -> csr_array:
    """Return a matrix with int32 indices if they fit; scipy keeps the dtype given."""
    kind = np.int32 if len(values) < 2**31 and max(shape) < 2**31 else np.int64
    parts = (values, columns.astype(kind, copy=False), ends.astype(kind, copy=False))
    return csr_array(parts, shape=shape)


def _write_square(matrix: csr_array) -> dict[str, np.ndarray]:
    return {
        "values": matrix.data,
        "columns": matrix.indices.astype(np.int32, copy=False),
        "lengths": np.diff(matrix.indptr).astype(np.int32),
    }


def _read_square(parts: Any, what: str) -> csr_array:
    """Return a square matrix of finite numbers, each row in order."""
    check_keys(parts, {"values", "columns", "lengths"}, what=what)
    n_ids, n_values = np.size(parts["lengths"]), np.size(parts["columns"])
    lengths = check_array(parts["lengths"], dtype="int32", shape=(n_ids,), what=what, least=0)
    columns = check_array(
        parts["columns"], dtype="int32", shape=(n_values,), what=what, least=0, most=n_ids - 1
    )
    if lengths.sum(dtype=np.int64) != n_values:
        raise ValueError("scores must have a length per id.")
    starts = np.append(0, np.cumsum(lengths, dtype=np.int64))
    steps = np.diff(columns)  # up to 1e8 values: avoid wider dtypes
    steps[starts[(starts > 0) & (starts < n_values)] - 1] = 1  # step from one id to the next
    if (steps <= 0).any():
        raise ValueError("the neighbours of an id must be in order, each once.")
    values = check_numbers(parts["values"], (n_values,), what="scores")
    return narrow_csr(values, columns, starts, (n_ids, n_ids))


FORMS[csr_array] = _write_square, _read_square


def check_numbers(array: object, shape: tuple[int, ...], *, what: str) -> np.ndarray:
    """Return float32 numbers of this shape, all finite, else raise ValueError."""
    what = f"the {what} of item neighbours"
    return check_array(array, dtype="float32", shape=shape, what=what)


def _ones(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> csr_array:
    """Return a matrix with 1 in these positions, each counted once."""
    matrix = csr_array((np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=shape)
    matrix.data[:] = 1
    return matrix


def both_triangles(upper: csr_array) -> csr_array:
    """Return the symmetric matrix with the given upper triangle, sorted within each row."""
    return sort_indices(upper + triu(upper, 1, format="csr").T)


def sort_indices(matrix: csr_array) -> csr_array:
    """Sort the columns within each row, in place."""
    matrix = csr_array(matrix)
    matrix.sort_indices()
    return matrix
