"""Where encoded rows are kept: a folder per source, columns and encoder, whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from sklearn_din._plain_values import from_plain, join_arrays, split_arrays, to_plain
from sklearn_din._version import __version__
from sklearn_din._whole_files import make_cache_folder
from sklearn_din.encoding.array_files import (
    ArrayFiles,
    map_encoded,
    map_entry,
    read_manifest,
    write_manifest,
)
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.mapped import MappedFolder
from sklearn_din.features.schema import Schema
from sklearn_din.features.schema_state import schema_from_state, schema_state
from sklearn_din.tables.scan import Scan

LEARNT = "learnt "  # what an encoder learnt: arrays of this name, beside those of the rows


class EncodedCache:
    """The place of one encoding in ``cache_dir``; without one, a temporary folder.

    Parameters
    ----------
    scan : Scan
        Its ``cache_dir`` and ``memory``.
    key : str
        Digest of everything that decides what is written.
    """

    def __init__(self, scan: Scan, key: str) -> None:
        self._memory, self._parent = scan.memory, scan.cache_dir
        self._target = None if scan.cache_dir is None else scan.cache_dir / f"encoded-{key}"

    def read(self, *, is_checked: bool = False) -> tuple[EncodedFeatures, Any] | None:
        """Encoded rows and what was learnt, where both were written as a whole.

        Parameters
        ----------
        is_checked : bool, default=False
            Whether another process has just looked at every byte.
        """
        if self._target is None:
            return None
        manifest = read_manifest(self._target, is_checked=is_checked)
        if manifest is None:
            return None
        n_scattered = manifest["n_scattered"]
        folder = self._folder(self._target, n_scattered=n_scattered)
        arrays = manifest["arrays"]
        learnt = {
            name.removeprefix(LEARNT): np.array(map_entry(folder, entry)).reshape(entry["shape"])
            for name, entry in arrays.items()
            if name.startswith(LEARNT)
        }
        state = from_plain(join_arrays(manifest["state"], learnt))
        X = map_encoded(folder, arrays, schema_from_state(state["schema"]))
        return X, state["learnt"]

    @contextmanager
    def writing(self, *, is_kept: bool = True) -> Iterator[ArrayFiles]:
        """Yield files of a new folder; if the block fails, the folder is removed.

        A process that is killed may leave a folder whose name begins with ".partial-", which
        nobody reads.

        Parameters
        ----------
        is_kept : bool, default=True
            Whether the block gives the folder its place. Otherwise it is removed in the end.
        """
        if self._parent is None:
            folder = Path(tempfile.mkdtemp(prefix="sklearn-din-"))
        else:
            folder = self._parent / f".partial-{uuid.uuid4().hex}"
            make_cache_folder(folder, cache_dir=self._parent)
        files = ArrayFiles(folder)
        try:
            yield files
        except BaseException:
            files.abandon()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        if not is_kept:
            shutil.rmtree(folder, ignore_errors=True)

    def mapped(self, files: ArrayFiles, schema: Schema) -> EncodedFeatures:
        """Rows as far as they are written, for what is learnt from them."""
        files.close()
        folder = self._folder(files.folder, n_scattered=files.n_scattered)
        return map_encoded(folder, files.arrays, schema)

    def keep(self, files: ArrayFiles, schema: Schema, learnt: Any = None) -> EncodedFeatures:
        """Put the folder in its place and return the rows.

        The manifest is written after all else, and the folder gets its name after that: what has
        the name is whole. Where another process was faster, its folder stays and ours is removed.
        """
        files.close()
        if self._target is None:
            folder = self._folder(files.folder, n_scattered=files.n_scattered, is_temporary=True)
            return map_encoded(folder, files.arrays, schema)
        state = to_plain({"schema": schema_state(schema), "learnt": learnt})
        text, learnt_arrays = split_arrays(state)
        for name, array in learnt_arrays.items():
            files.append(f"{LEARNT}{name}", array.ravel())
            files.arrays[f"{LEARNT}{name}"]["shape"] = list(array.shape)
        files.close()
        write_manifest(files, {"state": text, "n_scattered": files.n_scattered})
        place = _put(files.folder, self._target)
        folder = self._folder(place, n_scattered=files.n_scattered)
        return map_encoded(folder, files.arrays, schema)

    def _folder(self, path: Path, *, n_scattered: int, is_temporary: bool = False) -> MappedFolder:
        return MappedFolder(
            path, memory=self._memory, n_scattered=n_scattered, is_temporary=is_temporary
        )


def _put(folder: Path, target: Path) -> Path:
    """Give a whole folder its name. One that is damaged makes room; one that is whole stays."""
    try:
        os.rename(folder, target)
    except OSError:
        if read_manifest(target) is None:
            broken = folder.with_name(f".partial-{uuid.uuid4().hex}")
            os.rename(target, broken)
            os.rename(folder, target)
            shutil.rmtree(broken, ignore_errors=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return target


def digest_of(*facts: object) -> str:
    """Digest of facts that JSON, or else their text, tells apart."""
    content = json.dumps([__version__, *facts], sort_keys=True, default=repr)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def digest_of_labels(y: ArrayLike | None) -> str | None:
    """Digest of the labels that item neighbours are learnt from."""
    if y is None:
        return None
    labels = np.ascontiguousarray(y)
    if labels.dtype == object:
        labels = pd.util.hash_array(labels.ravel(), categorize=True)
    digest = hashlib.sha256(str(labels.dtype).encode())
    digest.update(labels.view(np.uint8).data)
    return digest.hexdigest()


def digest_of_state(encoder: Any) -> str:
    """Digest of what an encoder is and has learnt."""
    text, arrays = split_arrays(encoder.__getstate__())
    digest = hashlib.sha256(text.encode())
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def plain_parameters(parameters: Mapping[str, object]) -> str:
    """Parameters of an encoder as text."""

    def spell(value: object) -> Any:
        return value.tolist() if isinstance(value, np.ndarray) else repr(value)

    return json.dumps(to_plain(dict(parameters)), default=spell)
