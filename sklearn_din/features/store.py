"""The only format for arrays on disk: a folder with a manifest, complete or absent."""

import json
import math
import os
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike

from sklearn_din.utils.digests import digest, digest_of_file
from sklearn_din.utils.typed_fields import to_dict
from sklearn_din.utils.whole_files import remove_with, sync

MANIFEST = "manifest.json"
FORMAT = 2
BLOCK_BYTES = 1 << 22  # written at a time


@dataclass(eq=False, repr=False)
class Store:
    """Arrays of one folder, mapped into memory when they are asked for.

    A temporary folder is removed when neither the store nor an array of it is in use any more, or
    when Python ends; a copy that came through pickle never removes it. ``parent`` is the folder for
    further stores, None where it is temporary.
    """

    path: Path
    entries: dict[str, dict[str, Any]]  # file, dtype and shape of each array, as in the manifest
    facts: dict[str, Any]  # what its writer said of it
    memory: int  # bytes that readers of it may take
    is_temporary: bool = False

    def __post_init__(self) -> None:
        self.parent = None if self.is_temporary else self.path.parent
        if self.is_temporary:
            remove_with(self, self.path)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(map(_n_bytes, self.entries.values()))

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self.entries[name]
        dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
        if not _n_bytes(entry):
            return np.empty(shape, dtype)
        path = self.path / entry["file"]
        size = path.stat().st_size if path.exists() else -1
        if size != _n_bytes(entry):
            got = "it is gone" if size < 0 else f"it has {size}"
            raise FileNotFoundError(
                f"{path} must have {_n_bytes(entry)} bytes as it was written, and {got}. Scan and "
                "attach again; temporary files end with their process, those of a cache_dir stay."
            )
        # Copy-on-write, although it is only read: torch warns of read-only arrays.
        array = np.memmap(path, dtype, "c", shape=shape)
        weakref.finalize(array.base, id, self)  # does nothing: the map keeps the store
        return array

    def read_value(self) -> Any:
        """Return the value that was written by ``append_value``, in memory."""
        from sklearn_din.utils.plain_values import read_value

        arrays = {name: np.array(self[name]) for name in self.entries if name.isdecimal()}
        return read_value(self.facts["value"], arrays)

    def __reduce__(self) -> tuple:
        return Store, (self.path, self.entries, self.facts, self.memory)


class StoreWriter:
    """Writes the arrays of a new store; :func:`create_store` makes one.

    ``folder`` is renamed to ``target`` once it is whole; None: it is temporary and stays.
    """

    def __init__(self, folder: Path, target: Path | None, *, memory: int) -> None:
        self.folder, self.facts = folder, dict[str, Any]()
        self.is_finished = False
        self._target, self._memory = target, memory
        self._entries: dict[str, dict[str, Any]] = {}
        self._files: dict[str, BinaryIO] = {}
        self._allocated: dict[str, np.memmap] = {}

    def append(self, name: str, values: np.ndarray) -> None:
        """Write values behind those of the array; the first ones decide dtype and shape."""
        if name not in self._files:
            path = self._add(name, values.dtype, (0, *values.shape[1:]))
            self._files[name] = open(path, "wb")  # noqa: SIM115
        entry = self._entries[name]
        plain = np.ascontiguousarray(values.astype(entry["dtype"], "C", "same_kind", copy=False))
        if plain.size:
            with self.disk_errors(plain.nbytes):
                self._files[name].write(plain.reshape(-1).view(np.uint8).data)
        entry["shape"][0] += len(plain)

    def append_value(self, value: Any) -> None:
        """Write a value or dataclass: text as a fact, its arrays, named by numbers, beside it."""
        from sklearn_din.utils.plain_values import write_value

        self.facts["value"], arrays = write_value(to_dict(value))
        for name, array in arrays.items():
            self.append(name, array)

    def allocate(self, name: str, shape: Sequence[int], dtype: DTypeLike) -> np.ndarray:
        """Return an array of zeros in a file, to be filled in any order.

        The disk's room is taken at once: writing to a map of a full disk would end the process.
        """
        path = self._add(name, np.dtype(dtype), shape)
        n_bytes = _n_bytes(self._entries[name])
        with self.disk_errors(), open(path, "wb") as file:
            _take_room(file, n_bytes)
        if not n_bytes:
            return np.empty(tuple(shape), dtype)
        self._allocated[name] = np.memmap(path, dtype, "r+", shape=tuple(shape))
        return self._allocated[name]

    def finish(self) -> Store:
        """Close the files and give the folder its name, by which :func:`make_once` finds it.

        The files are on the disk before the name is: also after a power failure, what has the
        name is whole. Where another process was faster, its folder stays and this one is removed.
        """
        with self.disk_errors():
            for file in self._files.values():
                file.close()
        self._files.clear()
        for array in self._allocated.values():
            array.flush()
        self._allocated.clear()
        if self._target is not None:
            self._write_manifest()
            _put(self.folder, self._target)
        self.is_finished = True
        return Store(
            self.folder if self._target is None else self._target,
            self._entries,
            self.facts,
            memory=self._memory,
            is_temporary=self._target is None,
        )

    def abandon(self) -> None:
        """Close the files and remove them."""
        for file in self._files.values():
            with suppress(OSError):  # what was buffered does not fit on the disk either
                file.close()
        self._files.clear()
        self._allocated.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def disk_errors(self, n_more: int = 0) -> Iterator[None]:
        """Extend disk errors by the space needed and the remedy."""
        try:
            yield
        except OSError as error:
            n_bytes = sum(map(_n_bytes, self._entries.values())) + n_more
            raise OSError(
                error.errno,
                f"arrays could not be written to {self.folder.parent}, which needs at least "
                f"{n_bytes / 1e6:,.0f} MB: {error.strerror}. Free some of the disk, or name a "
                "folder with room in scan_parquet(cache_dir=...)",
            ) from error

    def _add(self, name: str, dtype: np.dtype, shape: Sequence[int]) -> Path:
        file = f"{len(self._entries):04d}.bin"
        sizes = [int(size) for size in shape]
        self._entries[name] = {"file": file, "dtype": dtype.str, "shape": sizes}
        return self.folder / file

    def _write_manifest(self) -> None:
        for entry in self._entries.values():
            entry["sha256"] = digest_of_file(self.folder / entry["file"])
        manifest = {"format": FORMAT, "arrays": self._entries, "facts": self.facts}
        content = json.dumps(manifest).encode()
        with self.disk_errors(len(content)):
            (self.folder / MANIFEST).write_bytes(digest(content).encode() + b"\n" + content)
            for path in [*self.folder.iterdir(), self.folder]:
                sync(path)


@contextmanager
def create_store(parent: Path | None, name: str, *, memory: int) -> Iterator[StoreWriter]:
    """Yield the writer of a new store, which is there once its ``finish`` has returned.

    Otherwise what was written is removed. ``parent`` is made where it is not there; None: a
    temporary folder, which lives as long as the store or an array of it is in use.
    """
    if parent is None:
        folder, target = Path(tempfile.mkdtemp(prefix="sklearn-din-")), None
    else:
        folder, target = parent / f".partial-{uuid.uuid4().hex}", parent / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                error.errno,
                f"cache_dir must be a folder that can be written to: {error.strerror}. Choose "
                "another folder",
                str(parent),
            ) from error
    writer = StoreWriter(folder, target, memory=memory)
    try:
        yield writer
    finally:
        if not writer.is_finished:
            writer.abandon()


def make_once(
    parent: Path | None, name: str, write: Callable[[StoreWriter], None], *, memory: int
) -> Store:
    """Return the store of that name, also among its facts; write it where none is whole."""
    if parent is not None and (whole := _read_manifest(parent / name)) is not None:
        return Store(parent / name, whole["arrays"], whole["facts"], memory=memory)
    with create_store(parent, name, memory=memory) as writer:
        writer.facts["name"] = name
        write(writer)
        return writer.finish()


def _n_bytes(entry: dict[str, Any]) -> int:
    return np.dtype(entry["dtype"]).itemsize * math.prod(entry["shape"])


def _take_room(file: BinaryIO, n_bytes: int) -> None:
    if not n_bytes:
        return
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, n_bytes)
        return
    zeros = bytes(min(n_bytes, BLOCK_BYTES))
    while n_bytes > 0:
        n_bytes -= file.write(zeros[:n_bytes])


def _put(folder: Path, target: Path) -> None:
    """Give a whole folder its name. One that is damaged makes room; one that is whole stays."""
    try:
        os.rename(folder, target)
    except OSError:
        if not target.is_dir():
            raise
        if _read_manifest(target) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            return
        broken = folder.with_name(f".partial-{uuid.uuid4().hex}")
        os.rename(target, broken)
        os.rename(folder, target)
        shutil.rmtree(broken, ignore_errors=True)
    sync(target.parent)


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return what a folder holds; None where it is not whole: another size, other bytes."""
    try:
        written, _, content = (folder / MANIFEST).read_bytes().partition(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return None
    if digest(content).encode() != written:
        return None
    manifest = json.loads(content)
    if manifest["format"] != FORMAT:
        return None
    entries = manifest["arrays"].values()
    for entry in entries:
        path = folder / entry["file"]
        if not path.is_file() or path.stat().st_size != _n_bytes(entry):
            return None
        if digest_of_file(path) != entry["sha256"]:
            return None
    return manifest
