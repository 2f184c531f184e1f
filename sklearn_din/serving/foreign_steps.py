"""Steps that are not of this package: skops keeps them, under its own rules of trust."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from sklearn_din.serving.saved_objects import KINDS

OWN_TYPES = [f"{kind.its_type.__module__}.{kind.its_type.__qualname__}" for kind in KINDS.values()]
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def write_foreign(value: Any, *, where: str) -> bytes:
    """Write an object with skops, and try at once whether it can be read.

    Raises
    ------
    ImportError
        If skops is not installed.
    ValueError
        If skops cannot keep the object; the cause says why.
    """
    io_of = _skops(f"saving {where} ({type(value).__name__})")
    try:
        content = io_of.dumps(value)
        _check_zip(content)
        io_of.loads(content, trusted=io_of.get_untrusted_types(data=content))
    except Exception as error:  # whatever a class of somebody else raises here, it cannot be kept
        raise ValueError(f"skops cannot keep it ({error})") from error
    return content


def read_foreign(content: bytes, *, trusted: Sequence[str], where: str) -> Any:
    """Read what skops wrote, if every type in it is trusted."""
    missing = [name for name in untrusted_types(content, where=where) if name not in trusted]
    if missing:
        raise ValueError(
            f"it holds objects of {', '.join(missing)}, which skops does not know. If you trust "
            f"whoever made the file, pass trusted={missing}"
        )
    return _skops(where).loads(content, trusted=[*OWN_TYPES, *trusted])


def untrusted_types(content: bytes, *, where: str) -> list[str]:
    """Types that neither skops nor this package knows."""
    _check_zip(content)
    names = _skops(f"reading {where}").get_untrusted_types(data=content)
    return [name for name in names if name not in OWN_TYPES]


def _skops(purpose: str) -> ModuleType:
    try:
        import skops.io
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs skops, which is not installed: pip install 'sklearn-din[safe]'."
        ) from error
    return skops.io


def _check_zip(content: bytes) -> None:
    """Raise unless reading the zip takes no more memory than the zip has bytes."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
        if len({entry.filename for entry in entries}) < len(entries):
            raise ValueError("a member stands twice in it")
        if sum(entry.file_size for entry in entries) > len(content):
            raise ValueError("its members are larger than it")
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{entry.filename!r:.60} is compressed")
            if entry.filename.endswith(".npy"):
                _check_array(archive, entry)
            elif entry.filename != "schema.json":
                raise ValueError(f"{entry.filename!r:.60} is no array")


def _check_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Raise unless an array has the size that its header states: numpy allocates by the header."""
    with archive.open(entry) as member:
        version = np.lib.format.read_magic(member)
        if version not in HEADERS:
            raise ValueError(f"{entry.filename!r:.60} has an unknown version")
        shape, _, dtype = HEADERS[version](member)
        n_bytes = entry.file_size - member.tell()
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != n_bytes or min(shape, default=0) < 0:
        raise ValueError(f"{entry.filename!r:.60} has not the size that its header states")
