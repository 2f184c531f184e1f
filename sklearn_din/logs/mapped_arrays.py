"""Long arrays in files: appended to, filled in any order, read some rows at a time."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sklearn_din._whole_files import make_cache_folder, removed_with, synced

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
MAPPED_BYTES = 1 << 26  # of a file that is written in no order: so much is in memory at once
PIECE_BYTES = 1 << 24
FACTS = "facts.json"


class OwnedFolder:
    """A folder of files that other objects read; removed with them unless it is to be kept.

    A copy that came through pickle reads the same files and never removes them.

    Parameters
    ----------
    path : Path
        The folder.
    kept : bool
        Whether it stays on the disk when nobody uses it any more.
    """

    def __init__(self, path: Path, *, kept: bool) -> None:
        self.path, self.kept = path, kept
        if not kept:
            removed_with(self, path)

    def __reduce__(self) -> tuple:
        return _reopened, (self.path,)


@dataclass(frozen=True)
class MappedArray:
    """A one-dimensional array in a file, mapped for the moment in which rows are read.

    Nothing stays open between two calls, and pickle takes the path alone.

    Parameters
    ----------
    folder : OwnedFolder
        Where the file is.
    name : str
        Its name there.
    dtype : dtype
        Of a value.
    n_rows : int
        Number of values.
    """

    folder: OwnedFolder
    name: str
    dtype: np.dtype
    n_rows: int

    def __len__(self) -> int:
        return self.n_rows

    def take(self, rows: slice | np.ndarray) -> np.ndarray:
        """Values of some rows, by slice or by position, in memory."""
        if self.n_rows == 0:
            return np.empty(0, self.dtype)[rows]
        return np.array(self._mapped()[rows])

    def _mapped(self) -> np.ndarray:
        path = self.folder.path / self.name
        wanted = self.n_rows * self.dtype.itemsize
        size = path.stat().st_size if path.exists() else -1
        if size != wanted:
            got = "it is gone" if size < 0 else f"it has {size}"
            raise FileNotFoundError(
                f"{path} must have {wanted} bytes as it was written, and {got}. Temporary files "
                "live as long as the result in the process that made it: attach again, or give "
                "scan_parquet a cache_dir where the files stay."
            )
        return np.asarray(np.memmap(path, self.dtype, mode="r"))


class ArrayWriter:
    """Writes an array into a file, one piece after the other.

    Parameters
    ----------
    folder : Path
        Where.
    name : str
        The file's name.
    dtype : dtype
        Pieces are converted to it.
    """

    def __init__(self, folder: Path, name: str, dtype: np.dtype) -> None:
        self.name, self.dtype, self.n_rows = name, np.dtype(dtype), 0
        self._path = folder / name

    def append(self, values: np.ndarray) -> None:
        """Write values behind those that are there."""
        plain = np.ascontiguousarray(values, self.dtype)
        with open(self._path, "ab") as file:  # pieces are large: opening costs nothing beside them
            if len(plain):
                file.write(plain.view(np.uint8).data)
        self.n_rows += len(plain)

    def mapped(self, folder: OwnedFolder) -> MappedArray:
        """The array, for reading, where its folder lies in the end."""
        return MappedArray(folder, self.name, self.dtype, self.n_rows)


class FilledArray:
    """An array in a file that is filled by row numbers.

    Parameters
    ----------
    folder : Path
        Where.
    name : str
        The file's name.
    dtype : dtype
        Of a value.
    n_rows : int
        Number of values.
    default : float, default=0
        What the rows hold that nobody fills.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        dtype: np.dtype | type,
        n_rows: int,
        *,
        default: float = 0,
    ) -> None:
        self.path, self.dtype, self.n_rows = folder / name, np.dtype(dtype), n_rows
        n_values = min(PIECE_BYTES // self.dtype.itemsize, n_rows)
        piece = np.full(n_values, default, self.dtype).tobytes()
        with open(self.path, "wb") as file:  # written, since a map of a full disk ends the process
            left = n_rows * self.dtype.itemsize
            while left > 0:
                left -= file.write(piece[:left])

    def fill(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Set values of rows in ascending order."""
        if len(rows) == 0:
            return
        size = MAPPED_BYTES // self.dtype.itemsize
        edges = np.arange(rows[0] // size, rows[-1] // size + 2) * size
        cuts = np.searchsorted(rows, edges)
        for edge, first, last in zip(edges[:-1].tolist(), cuts[:-1], cuts[1:], strict=True):
            if last > first:
                shape = min(size, self.n_rows - edge)
                offset = edge * self.dtype.itemsize
                window = np.memmap(self.path, self.dtype, "r+", offset=offset, shape=(shape,))
                window[rows[first:last] - edge] = values[first:last]
                del window  # unmapped: the system writes it when it likes

    def mapped(self, folder: OwnedFolder) -> MappedArray:
        """The array, for reading, where its folder lies in the end."""
        return MappedArray(folder, self.path.name, self.dtype, self.n_rows)


@contextmanager
def new_folder(parent: Path | None) -> Iterator[Path]:
    """Yield a new folder under a hidden name; removed with its files if the block fails.

    Parameters
    ----------
    parent : Path or None
        Where to make it, and it itself where it is not there. None is the system's folder for
        temporary files.

    Raises
    ------
    OSError
        If the disk is full: it says which one, and what to do.
    """
    where = Path(tempfile.gettempdir()) if parent is None else parent
    path = where / f".sklearn-din-{uuid.uuid4().hex}"
    try:
        if parent is None:
            path.mkdir()
        else:
            make_cache_folder(path, cache_dir=parent)
        yield path
    except BaseException as error:
        shutil.rmtree(path, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in FULL:
            raise OSError(
                error.errno,
                f"the disk of {where} is full. What was written there is removed. Make room, or "
                "give scan_parquet(cache_dir=...) a folder on another disk",
            ) from error
        raise


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    """Say in the folder what is in it, as its last file, with the sizes of the others."""
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    text = json.dumps(facts | {"sizes": sizes})
    (folder / FACTS).write_text(text, encoding="utf-8")


def read_facts(folder: Path) -> dict[str, Any]:
    """What :func:`write_facts` was given."""
    return json.loads((folder / FACTS).read_text(encoding="utf-8"))


def kept_folder(target: Path | None) -> OwnedFolder | None:
    """A folder that an earlier call has written, if each of its files is whole.

    One that is not is removed: it is written again.
    """
    if target is None or not (target / FACTS).is_file():
        return None
    for name, size in read_facts(target)["sizes"].items():
        path = target / name
        if not path.is_file() or path.stat().st_size != size:
            shutil.rmtree(target, ignore_errors=True)
            return None
    return OwnedFolder(target, kept=True)


def settled(path: Path, target: Path | None) -> OwnedFolder:
    """Give a folder that was written whole its final name, which others look for.

    The files are on the disk before the name is: also after a power failure, what has the name
    is whole.

    Parameters
    ----------
    path : Path
        A folder that :func:`new_folder` made.
    target : Path or None
        Where it stays. Where a folder of that name is there already, that one is used: it was
        made of the same files. None leaves it a temporary one.
    """
    if target is None:
        return OwnedFolder(path, kept=False)
    for file in [*path.iterdir(), path]:
        synced(file)
    try:
        os.replace(path, target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(path, ignore_errors=True)
    return OwnedFolder(target, kept=True)


def _reopened(path: Path) -> OwnedFolder:
    return OwnedFolder(path, kept=True)
