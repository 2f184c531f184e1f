"""Hashes that identify texts and arrays."""

import hashlib
from pathlib import Path

import numpy as np


def digest(*parts: str | bytes | np.ndarray) -> str:
    """Return the SHA-256 of some texts and arrays, the same on every machine.

    Of an array dtype, shape and values count, whether it is a view, mapped or a copy; objects are
    hashed one by one. What comes in blocks is hashed by giving the digest so far as the first part.

    >>> digest("item", np.arange(4)[::2]) == digest("item", np.array([0, 2]))
    True
    >>> len({digest("ab", "c"), digest("a", "bc"), digest("abc"), digest("abc", np.zeros(0))})
    4
    """
    sha = hashlib.sha256()
    for part in parts:
        content = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        values = np.frombuffer(content, np.uint8) if isinstance(content, bytes) else content
        sha.update(f"{values.dtype.newbyteorder('<').str} {values.shape} ".encode())
        if values.dtype.kind not in "biufmcMU":
            import pandas as pd

            objects = np.asarray(values, dtype=object).ravel()
            values = pd.util.hash_array(objects, categorize=False)
        values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        sha.update(values.reshape(-1).view(np.uint8).data)
    return sha.hexdigest()


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
