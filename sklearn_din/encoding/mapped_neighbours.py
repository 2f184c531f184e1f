"""Item neighbours of impressions that lie in files: learnt and written block of rows by block."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from sklearn_din.encoding.array_files import ArrayFiles, no_room
from sklearn_din.encoding.streamed_counts import Moments
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.mapped import let_go, row_blocks
from sklearn_din.features.schema import FIRST_KNOWN_ID
from sklearn_din.neighbours.chunked_scores import GrowingScores
from sklearn_din.neighbours.cooccurrence import Interactions, Rows
from sklearn_din.neighbours.item_scores import N_NUMBERS, ItemScores
from sklearn_din.neighbours.pairs import (
    SUFFIXES,
    NeighbourPair,
    free_name,
    histories_with_candidate,
    training_rows,
)

PENDING_KEYS = 1 << 21


def learn_mapped_neighbours(
    X: EncodedFeatures,
    y: ArrayLike | None,
    *,
    order: str,
    taken: Collection[str],
    files: ArrayFiles,
) -> tuple[NeighbourPair, ...]:
    """Learn as :func:`learn_neighbours` does, and write the training rows' columns to files.

    Parameters
    ----------
    X : EncodedFeatures
        Training rows, over mapped arrays.
    y : array-like of shape (n_rows,) or None
        Two labels, the larger of which is a click. With anything else, histories alone count.
    order : {"time", "user"}
        What the blocks of rows are made of.
    taken : collection of str
        Names that no column may have.
    files : ArrayFiles
        Get the columns of numbers.

    Returns
    -------
    pairs : tuple of NeighbourPair
    """
    rows = training_rows(X, y, order=order)
    if rows.n_users < 2**31:
        rows = replace(rows, users=rows.users.astype(np.int32))
    pairs: list[NeighbourPair] = []
    taken = set(taken)
    for _, history, candidate in histories_with_candidate(X.schema):
        names = tuple(free_name(f"{history}_{suffix}", taken) for suffix in SUFFIXES)
        taken |= set(names)
        told = _Told(X, rows, history, candidate)
        pairs.append(told.learn(names, files))
    return tuple(pairs)


def append_neighbours(
    X: EncodedFeatures, pairs: Sequence[NeighbourPair], files: ArrayFiles
) -> None:
    """Write the columns of rows that the pairs have not learnt from.

    Parameters
    ----------
    X : EncodedFeatures
        The rows, over mapped arrays.
    pairs : sequence of NeighbourPair
    files : ArrayFiles
        Get the columns of numbers.
    """
    for part in row_blocks(X) if pairs else ():
        rows = X[part]
        for pair in pairs:
            for name, values in pair.columns(rows).items():
                files.append(f"column {name}", values)


@dataclass(frozen=True)
class _Told:
    """The rows of one pair, told block by block what earlier blocks say."""

    X: EncodedFeatures
    rows: Rows
    history: str
    candidate: str

    def learn(self, names: tuple[str, ...], files: ArrayFiles) -> NeighbourPair:
        n_ids, n_blocks = self.X.schema[self.candidate].n_ids, self.rows.n_blocks
        found = gather_interactions(self.X, self.rows, self.history, self.candidate)
        path = files.folder / "numbers.tmp"
        try:
            numbers = _new_array(path, (len(self.X), N_NUMBERS))
            growing = GrowingScores(found)
            del found
            for block in range(n_blocks):
                shown, clicked = self._occurrences(block, n_ids)
                scores = growing.scores(block, shown, clicked)
                if block + 1 < n_blocks:
                    self._tell(numbers, scores, block + 1)
                    del scores  # before the next ones, which are as large
            kept = growing.kept(scores)
            scale = self._scale(numbers)
            pair = NeighbourPair(
                self.history, self.candidate, names, scores, kept, shown, clicked, scale
            )
            for part in row_blocks(self.X):
                for name, values in pair.scaled(numbers[part]).items():
                    files.append(f"column {name}", values)
                let_go(numbers)
        finally:
            path.unlink(missing_ok=True)
        return pair

    def _occurrences(self, block: int, n_ids: int) -> tuple[np.ndarray, np.ndarray]:
        """How often each item was a candidate up to a block, and was clicked as one."""
        counts = np.zeros((2, n_ids), dtype=np.int64)
        for part in row_blocks(self.X):
            so_far = self.rows.blocks[part] <= block
            ids = self.X.columns[self.candidate][part]
            counts[0] += np.bincount(ids[so_far], minlength=n_ids)
            counts[1] += np.bincount(ids[so_far & self.rows.clicked[part]], minlength=n_ids)
        counts[:, :FIRST_KNOWN_ID] = 0
        shown, clicked = counts.astype(np.float32)
        return shown, clicked

    def _tell(self, numbers: np.ndarray, scores: ItemScores, block: int) -> None:
        ragged = self.X.behaviours[self.X.schema.behaviour_of(self.history).histories]
        for part in row_blocks(self.X):
            own = np.flatnonzero(self.rows.blocks[part] == block) + part.start
            if len(own):
                numbers[own] = scores.numbers(
                    self.X.columns[self.candidate][own],
                    ragged.spans.take(own),
                    ragged.columns[self.history],
                )
                let_go(numbers)

    def _scale(self, numbers: np.ndarray) -> np.ndarray:
        moments = [Moments() for _ in range(N_NUMBERS)]
        for part in row_blocks(self.X):
            for place, its in enumerate(moments):
                its.add(numbers[part, place])
            let_go(numbers)
        spread = np.sqrt([its.variance for its in moments]).astype(np.float32)
        return np.where(spread > 0, spread, np.float32(1))


def gather_interactions(
    X: EncodedFeatures, rows: Rows, history: str, candidate: str
) -> Interactions:
    """Who had which item: as :meth:`Interactions.of_rows`, in memory that follows the pairs.

    Parameters
    ----------
    X : EncodedFeatures
        Training rows.
    rows : Rows
        Whose they are, their blocks, and which were clicked.
    history, candidate : str
        Columns of ids with one vocabulary.

    Returns
    -------
    Interactions
    """
    n_ids, n_blocks = X.schema[candidate].n_ids, rows.n_blocks
    ragged = X.behaviours[X.schema.behaviour_of(history).histories]
    pairs = _FirstBlocks(n_blocks)
    for part in row_blocks(X):
        spans, clicked = ragged.spans.take(part), rows.clicked[part]
        users, blocks = rows.users[part], rows.blocks[part]
        items = np.concatenate(
            [ragged.columns[history][spans.index()], X.columns[candidate][part][clicked]]
        )
        users = np.concatenate([np.repeat(users, spans.lengths), users[clicked]])
        blocks = np.concatenate([np.repeat(blocks, spans.lengths), blocks[clicked]])
        is_known = items >= FIRST_KNOWN_ID
        pairs.add(users[is_known] * np.int64(n_ids) + items[is_known], blocks[is_known])
    found, blocks = pairs.merged()
    users, items = (found // n_ids).astype(np.int32), (found % n_ids).astype(np.int32)
    return Interactions(users, items, blocks, (rows.n_users, n_ids))


class _FirstBlocks:
    """Distinct pairs and the first block of each, merged when the new ones have doubled them."""

    def __init__(self, n_blocks: int) -> None:
        self._n_blocks = n_blocks
        self._keys = np.empty(0, dtype=np.int64)
        self._pending: list[np.ndarray] = []
        self._n_pending = 0

    def add(self, pairs: np.ndarray, blocks: np.ndarray) -> None:
        self._pending.append(self._first(pairs * self._n_blocks + blocks))
        self._n_pending += len(self._pending[-1])
        if self._n_pending > max(len(self._keys), PENDING_KEYS):
            self.merged()

    def merged(self) -> tuple[np.ndarray, np.ndarray]:
        self._keys = self._first(np.concatenate([self._keys, *self._pending]))
        self._pending, self._n_pending = [], 0
        return self._keys // self._n_blocks, (self._keys % self._n_blocks).astype(np.int8)

    def _first(self, keys: np.ndarray) -> np.ndarray:
        keys = np.sort(keys)
        pairs = keys // self._n_blocks
        return keys[np.append(True, pairs[1:] != pairs[:-1])[: len(keys)]]


def _new_array(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Zeros in a file. Its room is taken at once: a full disk is an error here, not a crash."""
    n_bytes = 4 * shape[0] * shape[1]
    try:
        with open(path, "wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            file.truncate(n_bytes)
    except OSError as error:
        raise no_room(error, path.parent, n_bytes) from error
    return np.memmap(path, dtype=np.float32, mode="r+", shape=shape)
