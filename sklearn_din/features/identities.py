"""Identities of unknown values: negative ids, the same for equal values everywhere."""

from zlib import crc32

import numpy as np

from sklearn_din.features.schema import UNKNOWN_ID

N_IDENTITIES = 2**30  # from the least int32 on: below -i for each known id i, which training hides
LEAST_ID = int(np.iinfo(np.int32).min)


def is_identity(ids: np.ndarray) -> np.ndarray:
    """Return where ids are negative: unknown values distinguished by :func:`identify`."""
    return ids < LEAST_ID + N_IDENTITIES


def identify(values: np.ndarray) -> np.ndarray:
    """Give plain values that no vocabulary has a negative id each: int32, equal where they are.

    It is a checksum of the value's text, the same in every call, process and server: the same new
    item is then known again where it stands in a history and is the candidate. Text and a number
    that it spells differ.

    >>> identify(np.array(["boot", 7, "7", "boot"], dtype=object))
    array([-1101936223, -1430304126, -1648854508, -1101936223], dtype=int32)
    """
    checksums = [
        crc32(value.encode("utf-8", "surrogatepass"), 1)
        if isinstance(value, str)
        else crc32(repr(value).encode("utf-8", "surrogatepass"))
        for value in values.tolist()
    ]
    hashed = np.array(checksums, dtype=np.int64) % N_IDENTITIES
    return (hashed + LEAST_ID).astype(np.int32)


def ids_to_look_up(ids: np.ndarray) -> np.ndarray:
    """Replace negative ids by the unknown id; return the array itself if there are none.

    Tables have no row for them: numpy and torch would count from the end in silence.

    >>> ids_to_look_up(np.array([5, -1101936223, 1], dtype="int32"))
    array([5, 1, 1], dtype=int32)
    """
    is_negative = ids < 0
    return np.where(is_negative, np.int32(UNKNOWN_ID), ids) if is_negative.any() else ids
