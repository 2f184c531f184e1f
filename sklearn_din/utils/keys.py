"""Keys such as users and items as hashes: the same in every table, file and process."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sklearn_din.utils.validation import key_codes

NO_KEY = np.uint64(0)  # the hash of a missing key
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, without a pattern: the golden ratio
SHIFT = np.uint64(29)


def hash_keys(values: np.ndarray, *, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return hashes of keys by their text, and where they are missing: uint64, bool, (n_rows,).

    A key has one hash as an integer, as a whole float, and as text.

    >>> hashes, is_missing = hash_keys(np.array([7, 7.0, "7", None], dtype=object), name="user")
    >>> len(set(hashes[:3].tolist())), is_missing.tolist()
    (1, [False, False, False, True])
    """
    codes, keys = key_codes(values, name=name)
    texts = np.empty(len(keys), dtype=object)
    texts[:] = [
        str(int(key) if isinstance(key, float) and key.is_integer() else key)
        for key in keys.tolist()
    ]
    hashes = pd.util.hash_array(texts, categorize=False)
    return np.append(hashes, NO_KEY)[codes], codes < 0


def mix_hashes(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return one hash for several hashes of each row, in their order: uint64, (n_rows,)."""
    mixed = parts[0]
    for part in parts[1:]:
        mixed = mixed * MULTIPLIER
        mixed = (mixed ^ (mixed >> SHIFT)) + part
    return mixed


def join_hashes(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the hash of several columns' keys together, missing where one of them is.

    >>> ann, hat, none = np.array([3, 5, 0], dtype=np.uint64)
    >>> join_hashes([np.array([ann, ann]), np.array([hat, none])]).tolist()[-1]
    0
    """
    if len(parts) == 1:
        return parts[0]
    is_missing = np.any([part == NO_KEY for part in parts], axis=0)
    return np.where(is_missing, NO_KEY, mix_hashes(parts))
