"""Encoded impressions whose arrays lie in files: mapped into memory, and their pages let go."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from sklearn_din._whole_files import removed_with
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.ragged import Ragged, joined

ROWS_PER_BLOCK = 65_536
ROWS_PER_PIECE = 16_384  # copied to memory before their pages go
SHARE_OF_ORDER = 4  # mapped arrays up to a quarter of the budget are read in any order
SHARE_OF_POOL = 8  # beyond that, so much of them is read at a time


class MappedFolder:
    """A folder of arrays, kept as long as an array of it is in use.

    Parameters
    ----------
    path : Path
        The folder.
    memory : int
        Bytes that reading it may take.
    is_temporary : bool
        Whether it is removed when no array of it is left, or when Python ends.
    n_scattered : int, default=0
        Columns of events that consecutive rows read at places far from each other: those of a
        log that is sorted by user. Each read of a row then costs a page.
    """

    parent = None

    def __init__(
        self, path: Path, *, memory: int, is_temporary: bool, n_scattered: int = 0
    ) -> None:
        self.path, self.memory, self.n_scattered = path, memory, n_scattered
        if is_temporary:
            removed_with(self, path)

    def map(self, file: str, dtype: DTypeLike, length: int) -> np.ndarray:
        """Return one file as an array, which keeps the folder; the file is never written to."""
        if length == 0:
            return np.empty(0, dtype=dtype)
        # Copy-on-write: torch warns of arrays that cannot be written to, and nobody writes to this.
        array = np.memmap(self.path / file, dtype=dtype, mode="c", shape=(length,))
        array.__dict__["folder"] = self
        return array


def folder_of(X: EncodedFeatures) -> MappedFolder | None:
    """Folder in which the arrays lie; None for impressions in memory."""
    return next((root.__dict__["folder"] for root in _mapped(X)), None)


def rows_per_pool(X: EncodedFeatures) -> int | None:
    """How many rows may be read before their pages are let go.

    None where the arrays lie in memory, or are so small beside the budget that all of their
    pages may stay.
    """
    folder = folder_of(X)
    if folder is None:
        return None
    n_bytes = sum(root.nbytes for root in _mapped(X))
    if n_bytes <= folder.memory // SHARE_OF_ORDER:
        return None
    return max(int(folder.memory / SHARE_OF_POOL / n_bytes * len(X)), 1)


class PageKeeper:
    """Counts the rows that are read, and lets the pages of large mapped arrays go in time.

    Parameters
    ----------
    X : EncodedFeatures
        Impressions in memory cost nothing here.
    """

    def __init__(self, X: EncodedFeatures) -> None:
        self._X, self._n_read = X, 0
        self._most = rows_per_pool(X)
        folder = folder_of(X)
        if self._most is not None and folder is not None and folder.n_scattered:
            per_row = folder.n_scattered * mmap.PAGESIZE
            self._most = min(self._most, max(folder.memory // SHARE_OF_POOL // per_row, 1))
        if self._most is not None:
            drop_pages(X)  # those of an earlier reader, which did not come to its limit

    def read(self, n_rows: int) -> None:
        """Say that so many further rows are about to be read."""
        if self._most is None:
            return
        if self._n_read >= self._most:
            drop_pages(self._X)
            self._n_read = 0
        self._n_read += n_rows


def row_blocks(X: EncodedFeatures) -> Iterator[slice]:
    """Walk through all rows by slices; the pages of large mapped arrays are let go on the way."""
    pages = PageKeeper(X)
    for start in range(0, len(X), ROWS_PER_BLOCK):
        rows = slice(start, min(start + ROWS_PER_BLOCK, len(X)))
        pages.read(rows.stop - start)
        yield rows


def copy_to_memory(X: EncodedFeatures, rows: np.ndarray) -> EncodedFeatures:
    """Copy some rows of mapped impressions; their pages are let go piece by piece.

    A row that is read brings its whole surroundings into memory, up to two megabytes per array:
    rows that lie in a few blocks are best read once, block by block.

    Parameters
    ----------
    X : EncodedFeatures
    rows : ndarray of shape (n_rows,)
        Row numbers in ascending order.

    Returns
    -------
    EncodedFeatures
        Without users and times. Of the events, those that some row holds.
    """
    pieces = []
    for start in range(0, len(rows), ROWS_PER_PIECE):
        piece = X[rows[start : start + ROWS_PER_PIECE]]
        compact = {key: ragged.compact() for key, ragged in piece.behaviours.items()}
        pieces.append(EncodedFeatures._trusted(X.schema, piece.columns, compact))
        drop_pages(X)
    columns = {name: np.concatenate([p.columns[name] for p in pieces]) for name in X.columns}
    behaviours = {key: joined([p.behaviours[key] for p in pieces]) for key in X.behaviours}
    return EncodedFeatures._trusted(X.schema, columns, behaviours)


def drop_pages(X: EncodedFeatures) -> None:
    """Give back the memory of mapped arrays: what is read again comes from the file.

    Pages of a mapped file count as memory of the process once they are read, until it says that
    it needs them no more.
    """
    for root in _mapped(X):
        let_go(root)


def let_go(mapped: np.ndarray) -> None:
    """Give back the memory of one mapped array; what was written to it is in its file."""
    if isinstance(mapped.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.base.madvise(mmap.MADV_DONTNEED)


def _mapped(X: EncodedFeatures) -> list[np.memmap]:
    """Whole mapped arrays behind the impressions, each once."""
    found = {id(root): root for array in _arrays(X) if (root := _root(array)) is not None}
    return list(found.values())


def _arrays(X: EncodedFeatures) -> Iterator[np.ndarray]:
    yield from X.columns.values()
    ragged: Ragged
    for ragged in X.behaviours.values():
        yield from ragged.columns.values()
        yield from ragged.anchors.values()
        yield from (ragged.spans.starts, ragged.spans.lengths)
    yield from (array for array in (X.users, X.times) if array is not None)


def _root(array: object) -> np.memmap | None:
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap) and "folder" in array.__dict__:
            return array
        array = array.base
    return None
