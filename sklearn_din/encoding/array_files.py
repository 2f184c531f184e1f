"""Encoded impressions written to files part by part, and read back as mapped arrays."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sklearn_din._spans import Spans
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.mapped import MappedFolder
from sklearn_din.features.ragged import Ragged
from sklearn_din.features.schema import Behaviour, Schema

MANIFEST = "manifest.json"
FORMAT = 1
HASHED_BYTES = 1 << 22
REORDERED_ROWS = 1 << 20
EVENT = "event "  # begins the names of arrays with one value per event, not per row
STARTS = "starts "  # and of those with the first event of each row


class ArrayFiles:
    """Arrays of one folder that are written by appending to them.

    Parameters
    ----------
    folder : Path
        It exists and is this writer's own.

    Attributes
    ----------
    arrays : dict of str to dict
        What the manifest says of each array: file, dtype, length, SHA-256.
    n_scattered : int
        Columns of events that consecutive rows read at places far from each other.
    """

    n_scattered: int = 0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.arrays: dict[str, dict[str, Any]] = {}
        self._files: dict[str, BinaryIO] = {}
        self._digests: dict[str, Any] = {}
        self._n_files = 0

    def append(self, name: str, values: np.ndarray) -> None:
        """Write values behind those that the array has already."""
        if name not in self.arrays:
            file = f"{self._n_files:04d}.bin"
            self._n_files += 1
            self.arrays[name] = {"file": file, "dtype": values.dtype.str, "length": 0}
            self._files[name] = open(self.folder / file, "wb")  # noqa: SIM115
            self._digests[name] = hashlib.sha256()
        entry = self.arrays[name]
        content = np.ascontiguousarray(values.astype(entry["dtype"], copy=False)).view(np.uint8)
        try:
            self._files[name].write(content.data)
        except OSError as error:
            raise no_room(error, self.folder, self.n_bytes + content.nbytes) from error
        self._digests[name].update(content)
        entry["length"] += len(values)

    @property
    def n_bytes(self) -> int:
        """Bytes written so far."""
        return sum(np.dtype(e["dtype"]).itemsize * e["length"] for e in self.arrays.values())

    def close(self) -> None:
        """Close the files, so that the arrays can be mapped."""
        for name, file in self._files.items():
            try:
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                raise no_room(error, self.folder, self.n_bytes) from error
            finally:
                file.close()
            self.arrays[name]["sha256"] = self._digests[name].hexdigest()
        self._files.clear()

    def reorder(self, places: np.ndarray) -> None:
        """Put the rows in another order; their events stay where they are.

        Parameters
        ----------
        places : ndarray of shape (n_rows,)
            Where each row, in the new order, is now.
        """
        self.close()
        self.n_scattered = sum(name.startswith(EVENT) for name in self.arrays)
        for name in [name for name in self.arrays if not name.startswith(EVENT)]:
            entry = self.arrays.pop(name)
            path = self.folder / entry["file"]
            values = np.memmap(path, np.dtype(entry["dtype"]), "r", shape=(entry["length"],))
            for start in range(0, len(places), REORDERED_ROWS):
                self.append(name, np.asarray(values[places[start : start + REORDERED_ROWS]]))
            del values
            path.unlink()
        self.close()

    def abandon(self) -> None:
        """Close the files where writing has failed."""
        for file in self._files.values():
            try:
                file.close()
            except OSError:  # what it still held does not fit on the disk either
                continue
        self._files.clear()

    def mapped(self, folder: MappedFolder, name: str) -> np.ndarray:
        """Return one array, mapped."""
        return map_entry(folder, self.arrays[name])


def map_entry(folder: MappedFolder, entry: Mapping[str, Any]) -> np.ndarray:
    """Return the array that a manifest's entry describes."""
    return folder.map(entry["file"], np.dtype(entry["dtype"]), entry["length"])


def append_encoded(files: ArrayFiles, part: EncodedFeatures, offsets: dict[str, int]) -> None:
    """Write the rows of one part behind those that are there.

    Parameters
    ----------
    files : ArrayFiles
    part : EncodedFeatures
        Its events are its own: they are written behind those of earlier parts.
    offsets : dict of str to int
        By behaviour, how many events were written before; it is brought up to date.
    """
    for name, values in part.columns.items():
        files.append(f"column {name}", values)
    for behaviour in part.schema.behaviours:
        ragged, key = part.behaviours[behaviour.histories], _key(behaviour)
        offset = offsets.get(key, 0)
        append_windows(files, behaviour, ragged.spans, ragged.anchors, offset=offset)
        for name, values in ragged.columns.items():
            files.append(f"{EVENT}{name}", values)
        offsets[key] = offset + len(next(iter(ragged.columns.values())))
    if part.users is not None:
        files.append("users", part.users)
    if part.times is not None:
        files.append("times", part.times)


def append_files(
    files: ArrayFiles,
    others: Path,
    arrays: Mapping[str, Mapping[str, Any]],
    offsets: Mapping[str, int],
) -> None:
    """Write what another process has encoded behind the rows that are there.

    Parameters
    ----------
    files : ArrayFiles
    others : Path
        Folder of the other process, whose files are removed.
    arrays : mapping of str to dict
        Its arrays.
    offsets : dict of str to int
        By behaviour, how many events were written before.
    """
    for name, entry in arrays.items():
        path, n_left = others / entry["file"], entry["length"]
        offset = offsets[name.removeprefix(STARTS)] if name.startswith(STARTS) else 0
        with open(path, "rb") as file:
            while n_left:
                values = np.fromfile(file, np.dtype(entry["dtype"]), min(n_left, REORDERED_ROWS))
                files.append(name, values + offset if offset else values)
                n_left -= len(values)
        path.unlink()


def append_windows(
    files: ArrayFiles,
    behaviour: Behaviour,
    spans: Spans,
    anchors: Mapping[str, np.ndarray],
    *,
    offset: int = 0,
) -> None:
    """Write the windows of some rows of one behaviour, whose first event is ``offset``."""
    key = _key(behaviour)
    files.append(f"{STARTS}{key}", spans.starts.astype(np.int64, copy=False) + offset)
    files.append(f"lengths {key}", spans.lengths)
    for name, times in anchors.items():
        files.append(f"anchor {name}", times)


def map_encoded(
    folder: MappedFolder, arrays: Mapping[str, Mapping[str, Any]], schema: Schema
) -> EncodedFeatures:
    """Encoded impressions over mapped arrays, as they were written."""

    def mapped(name: str) -> np.ndarray | None:
        return map_entry(folder, arrays[name]) if name in arrays else None

    columns = {
        field.name: map_entry(folder, arrays[f"column {field.name}"])
        for field in schema.fields
        if not field.is_history
    }
    behaviours = {}
    for behaviour in schema.behaviours:
        key, names = _key(behaviour), (*behaviour.histories, *behaviour.numbers)
        starts = map_entry(folder, arrays[f"{STARTS}{key}"])
        lengths = map_entry(folder, arrays[f"lengths {key}"])
        events = {name: map_entry(folder, arrays[f"{EVENT}{name}"]) for name in names}
        anchors = {
            n: map_entry(folder, arrays[f"anchor {n}"]) for n in names if f"anchor {n}" in arrays
        }
        behaviours[behaviour.histories] = Ragged(events, Spans(starts, lengths), anchors)
    return EncodedFeatures._trusted(
        schema,
        columns,
        behaviours,
        users=mapped("users"),
        times=mapped("times"),
        store=folder,  # type: ignore[arg-type]
    )


def write_manifest(files: ArrayFiles, facts: Mapping[str, Any]) -> None:
    """Say what the folder holds; written last, it tells a whole folder from a part of one."""
    content = json.dumps({"format": FORMAT, "arrays": files.arrays, **facts}).encode()
    digest = hashlib.sha256(content).hexdigest()
    try:
        with open(files.folder / MANIFEST, "wb") as file:
            file.write(digest.encode() + b"\n" + content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise no_room(error, files.folder, files.n_bytes) from error


def read_manifest(folder: Path, *, is_checked: bool = False) -> dict[str, Any] | None:
    """Return what a folder holds; None where it is not whole: another size, other bytes.

    Parameters
    ----------
    folder : Path
    is_checked : bool, default=False
        Whether the bytes are known to be right: another process has just looked at them.
    """
    try:
        digest, _, content = (folder / MANIFEST).read_bytes().partition(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return None
    if hashlib.sha256(content).hexdigest() != digest.decode("ascii", "replace"):
        return None
    manifest = json.loads(content)
    if manifest["format"] != FORMAT:
        return None
    is_whole = is_checked or all(
        _is_whole(folder / entry["file"], entry) for entry in manifest["arrays"].values()
    )
    return manifest if is_whole else None


def _is_whole(path: Path, entry: Mapping[str, Any]) -> bool:
    size = np.dtype(entry["dtype"]).itemsize * entry["length"]
    if not path.is_file() or path.stat().st_size != size:
        return False
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(HASHED_BYTES):
            digest.update(block)
    return digest.hexdigest() == entry["sha256"]


def _key(behaviour: Behaviour) -> str:
    return json.dumps(behaviour.histories)


def no_room(error: OSError, folder: Path, needed: int) -> OSError:
    """What to raise where the disk takes no more."""
    return OSError(
        error.errno,
        f"the encoded rows could not be written to {folder.parent}, which needs at least "
        f"{needed / 1e6:,.0f} MB: {error.strerror}. Free some of the disk, or name a folder with "
        "room for them in scan_parquet(cache_dir=...)",
    )
