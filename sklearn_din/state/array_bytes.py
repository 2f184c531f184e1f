"""Arrays in the format of safetensors, written in Python from where they lie.

The library's own writer copies each array, and ends the process where memory for that is short.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping

import numpy as np

DTYPES = {
    **{"bool": "BOOL", "float16": "F16", "float32": "F32", "float64": "F64"},
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
}  # as safetensors names them


def array_pieces(
    arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> Iterator[bytes | memoryview]:
    """Yield the header and then each array's octets; one after the other they are the file.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        In C order and of the machine's byte order. Those of the widest dtypes come first, so that
        each begins at a multiple of its width.
    metadata : mapping of str to str, default=None
        Texts to keep in the header.

    Examples
    --------
    >>> import safetensors.numpy
    >>> content = b"".join(array_pieces({"ids": np.array([3, 5], dtype=np.int32)}))
    >>> safetensors.numpy.load(content)
    {'ids': array([3, 5], dtype=int32)}
    """
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    header: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    end = 0
    for name in names:
        array = arrays[name]
        its = {"dtype": DTYPES[array.dtype.name], "shape": list(array.shape)}
        header[name] = its | {"data_offsets": [end, end := end + array.nbytes]}
    text = json.dumps(header).encode("ascii")
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for name in names:
        yield octets(arrays[name])


def octets(array: np.ndarray) -> memoryview:
    """The memory of an array in C order, without a copy."""
    return array.reshape(-1).view(np.uint8).data
