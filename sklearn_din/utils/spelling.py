"""Ids that differ only in how they are written."""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

INVISIBLE = r"[\u00ad\u200b-\u200f\u2060\ufeff]"  # spaces without width, and the like


def find_respelling(values: np.ndarray, known: np.ndarray) -> tuple[object, object] | None:
    """Find two ids that differ only in how they are written, where most of the values have one."""
    own, others = (_common_prefix([*map(str, ids.tolist())]) for ids in (values, known))
    prefixes = [("", ""), (own, ""), ("", others)]
    prefixes += [(own.removesuffix(others), "")] if own.endswith(others) else []
    prefixes += [("", others.removesuffix(own))] if others.endswith(own) else []
    for prefix, of_known in dict.fromkeys(prefixes):
        plain = {_plain(str(value)[len(of_known) :]): value for value in known.tolist()}
        spelt = [(value, _plain(str(value)[len(prefix) :])) for value in values.tolist()]
        pairs = [(value, plain[text]) for value, text in spelt if text in plain]
        if 2 * len(pairs) > len(values):
            return pairs[0]
    return None


def _common_prefix(texts: Sequence[str]) -> str:
    low, high = min(texts, default=""), max(texts, default="")
    n_same = next(
        (n for n, pair in enumerate(zip(low, high, strict=False)) if pair[0] != pair[1]), len(low)
    )
    return low[:n_same].rstrip("0123456789")


def _plain(value: object) -> str:
    """Return an id without what people write in several ways: NFC, visible, single spaces."""
    text = re.sub(INVISIBLE, "", unicodedata.normalize("NFC", str(value)))
    return " ".join(text.split()).casefold().removesuffix(".0").lstrip("0")
