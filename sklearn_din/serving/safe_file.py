"""The zip behind a safe file: written in one move, and checked whole before it is used."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from sklearn_din._whole_files import whole_file
from sklearn_din.state.plain_state import parse_json

MANIFEST = "manifest.json"
MEMBER_NAME = re.compile(r"[0-9]{1,9}\.(json|safetensors|skops)")
MOST_MANIFEST_BYTES = 1 << 24
BLOCK = 1 << 20
MODIFIED = (1980, 1, 1, 0, 0, 0)  # one model gives one file, whenever it is saved
PLAIN_FLAGS = 0
READABLE_BY_ALL = 0o644 << 16


class SafeFileError(ValueError):
    """A file is no safe file, is damaged, or was changed."""


def write_safe_file(
    path: Path, members: Iterable[tuple[str, bytes]], manifest: dict[str, Any], *, overwrite: bool
) -> None:
    """Write members and manifest under a temporary name, then put the file in its place.

    Parameters
    ----------
    path : Path
        Nobody ever sees half a file there: the old one stays until the new one is on the disk.
    members : iterable of (str, bytes)
        Written as they come.
    manifest : dict
        Gets the size and the SHA-256 of each member under "members". It may be filled while the
        members come.
    overwrite : bool
        Whether a file that is there may be replaced.
    """
    _refuse_existing(path, overwrite=overwrite)
    with whole_file(path) as partial:
        with open(partial, "wb") as file:
            _write_zip(file, members, manifest)
        _refuse_existing(path, overwrite=overwrite)


def _refuse_existing(path: Path, *, overwrite: bool) -> None:
    if not overwrite and os.path.lexists(path):
        raise FileExistsError(
            f"save needs a new path, got {str(path)!r}, which exists. Choose another, or pass "
            "overwrite=True to replace it."
        )


def _write_zip(
    file: IO[bytes], members: Iterable[tuple[str, bytes]], manifest: dict[str, Any]
) -> None:
    entries: dict[str, Any] = {}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members:
            entries[name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            archive.writestr(_entry(name), content)
        text = json.dumps(manifest | {"members": entries}, indent=1, allow_nan=False)
        archive.writestr(_entry(MANIFEST), text)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, MODIFIED)
    entry.external_attr = READABLE_BY_ALL
    return entry


class SafeFile:
    """An open safe file.

    Opening it reads the manifest alone. ``check`` then compares names, sizes and SHA-256 of all
    members. They are stored as they are, never compressed: all together are no larger than the
    file.

    Parameters
    ----------
    file : binary file
    what : str
        What to call it in an error.

    Attributes
    ----------
    manifest : dict
        As it was written; "members" has the size and the SHA-256 of each other member.
    """

    def __init__(self, file: IO[bytes], *, what: str) -> None:
        self._what = what
        self._size = file.seek(0, os.SEEK_END)
        try:
            self._archive = zipfile.ZipFile(file)
        except DAMAGES as error:
            raise self.error(f"it is no zip: {error}") from error
        self._entries: dict[str, zipfile.ZipInfo] = {}
        self.manifest = self._read_manifest()

    def error(self, problem: str) -> SafeFileError:
        """Return the error that says what is wrong with this file."""
        problem = problem.rstrip(".")
        return SafeFileError(
            f"{self._what} needs a whole, unchanged file that sklearn_din.save wrote: {problem}. "
            "Copy the file again, or save the model again."
        )

    def read(self, name: str) -> bytes:
        """Content of a member, compared with its size and SHA-256."""
        wanted = self.manifest["members"][name]
        content = b"".join(self._blocks(name))
        if hashlib.sha256(content).hexdigest() != wanted["sha256"]:
            raise self.error(f"{name} is not what was saved (its SHA-256 differs)")
        return content

    def check(self) -> None:
        """Compare every member with the manifest, one block in memory at a time."""
        for entry in self._archive.infolist():
            self._add(entry)
        self._check_sizes()
        for name, wanted in self.manifest["members"].items():
            digest = hashlib.sha256()
            for block in self._blocks(name):
                digest.update(block)
            if digest.hexdigest() != wanted["sha256"]:
                raise self.error(f"{name} is not what was saved (its SHA-256 differs)")

    def _read_manifest(self) -> dict[str, Any]:
        found = [its for its in self._archive.infolist() if its.filename == MANIFEST]
        if len(found) != 1 or found[0].file_size > min(MOST_MANIFEST_BYTES, self._size):
            raise self.error(f"it needs one {MANIFEST} and has {len(found)}, or a huge one")
        self._add(found[0])
        try:
            manifest = parse_json(b"".join(self._blocks(MANIFEST)))
        except (ValueError, RecursionError) as error:
            raise self.error(f"{MANIFEST} cannot be read: {error}") from error
        if type(manifest) is not dict:
            raise self.error(f"{MANIFEST} is no dict")
        return manifest

    def _add(self, entry: zipfile.ZipInfo) -> None:
        """Take a member whose name and sizes are possible."""
        name = entry.filename
        if name != entry.orig_filename or not (name == MANIFEST or MEMBER_NAME.fullmatch(name)):
            raise self.error(f"it has a member {entry.orig_filename!r:.80}")
        if self._entries.setdefault(name, entry) is not entry:
            raise self.error(f"{name} stands twice in it")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits != PLAIN_FLAGS:
            raise self.error(f"{name} is compressed or encrypted")
        if entry.file_size != entry.compress_size:
            raise self.error(f"{name} has two sizes")

    def _check_sizes(self) -> None:
        if sum(entry.file_size for entry in self._entries.values()) > self._size:
            raise self.error("its members are larger than the file")
        members = self.manifest.get("members")
        names = self._entries.keys() - {MANIFEST}
        if type(members) is not dict or members.keys() != names:
            raise self.error(f"its members are not those that {MANIFEST} names")
        for name, its in members.items():
            if type(its) is not dict or its.keys() != {"size", "sha256"}:
                raise self.error(f"{MANIFEST} lacks the size and the SHA-256 of {name}")
            if type(its["size"]) is not int or its["size"] != self._entries[name].file_size:
                raise self.error(f"{name} has {self._entries[name].file_size} bytes")

    def _blocks(self, name: str) -> Iterator[bytes]:
        try:
            with self._archive.open(self._entries[name]) as member:
                while block := member.read(BLOCK):
                    yield block
        except DAMAGES as error:
            raise self.error(f"{name} cannot be read: {error}") from error


# What zipfile raises where a file is damaged
DAMAGES = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError),
    *(OSError, EOFError, ValueError, OverflowError, struct.error, zlib.error),
)


@contextmanager
def open_safe_file(path: Path, *, what: str) -> Iterator[SafeFile]:
    """Open a safe file for reading."""
    with open(path, "rb") as file:
        yield SafeFile(file, what=what)
