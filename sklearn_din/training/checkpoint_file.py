"""The file that a training goes on from: numbers and arrays, whole or not there, never a pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from sklearn_din._plain_values import from_plain, join_arrays, split_arrays, to_plain
from sklearn_din._whole_files import whole_file
from sklearn_din.state.array_bytes import array_pieces, octets

FORMAT = "sklearn_din checkpoint 1"


def write_checkpoint(path: Path, value: Mapping[str, Any]) -> None:
    """Write a value to a file that is there whole or not at all.

    Parameters
    ----------
    path : Path
    value : dict
        Numbers, text and arrays, as :func:`sklearn_din._plain_values.to_plain` takes them.
        Arrays are written from where they lie: no copy of them is made.
    """
    # Whatever moment the power fails at, the file is the one before or the new one, whole:
    # 1. The new one is written under another name and synced. Without the sync, the system may
    #    write the new name to the disk before the content: a file of zeros in place of the old one.
    # 2. os.replace gives it the name in one step. Until that step is on the disk, the old file is
    #    what comes back: a training goes on from there, at the price of some minutes.
    # 3. The folder is synced, so that this price is not paid later than here.
    # The file's removal after a training is not synced: should it come back, the same fit ends
    # with the same bits at once, and another fit is told what differs. Nor is the lock: the
    # process that it names is dead after a loss of power. A new file cut off in step 1 is deleted
    # by the next training in the folder. The hash in the file answers for what disks break later.
    text, arrays = split_arrays(to_plain(dict(value)))
    arrays = {n: np.ascontiguousarray(a).reshape(a.shape) for n, a in arrays.items()}
    metadata = {"format": FORMAT, "state": text, "sha256": _sha256(text, arrays)}
    with whole_file(path) as partial, open(partial, "wb") as file:
        for piece in array_pieces(arrays, metadata):
            file.write(piece)


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read what :func:`write_checkpoint` wrote; None where there is no file.

    Parameters
    ----------
    path : Path

    Raises
    ------
    ValueError
        Where the file is damaged or of another kind.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            written = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        _check(written.get("format") == FORMAT, "it has another format")
        is_same = written["sha256"] == _sha256(written["state"], arrays)
        _check(is_same, "its SHA-256 is not that of its content")
        value = from_plain(join_arrays(written["state"], arrays))
        _check(type(value) is dict, "it has another content")
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"checkpoint_dir needs a whole, unchanged checkpoint, and {str(path)!r} is damaged or "
            f"of another kind: {error}. Delete it to train from the start, or choose another "
            "folder."
        ) from error
    return value


def remove_partial(path: Path) -> None:
    """Delete what processes that were killed had begun to write in the place of a file."""
    for partial in path.parent.glob(f".partial-*-{path.name}"):
        partial.unlink(missing_ok=True)


def n_bytes(value: object) -> int:
    """Bytes of all arrays in a value: about what its file takes."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    held: Iterable[object] = value.values() if isinstance(value, dict) else ()
    return sum(map(n_bytes, held))


def _check(is_right: bool, problem: str) -> None:
    if not is_right:
        raise ValueError(problem)


def _sha256(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Hash of everything that is read back, in an order of its own."""
    sha = hashlib.sha256(text.encode("ascii"))
    for name in sorted(arrays):
        array = arrays[name]
        sha.update(json.dumps([name, array.dtype.name, array.shape]).encode("ascii"))
        sha.update(octets(array))
    return sha.hexdigest()
