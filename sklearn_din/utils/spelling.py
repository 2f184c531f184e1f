"""Ids that differ only in how they are written."""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

LEAST_WORD = 4  # letters
INVISIBLE = r"[\u00ad\u200b-\u200f\u2060\ufeff]"  # spaces without width, and the like


def without_spaces_and_case(text: str) -> str:
    r"""Return text in one form of Unicode with single spaces; whole words in lower case.

    Codes are no words, and upper case may tell them apart.
    """
    text = _visible(text)
    is_word = len(text) >= LEAST_WORD and text.replace(" ", "").isalpha()
    return text.lower() if is_word and (text.isupper() or text.istitle()) else text


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
    """Return an id without what people write in several ways."""
    return _visible(str(value)).casefold().removesuffix(".0").lstrip("0")


def _visible(text: str) -> str:
    """Return text composed (NFC), without invisible characters, with single spaces."""
    if not text.isascii():
        text = re.sub(INVISIBLE, "", unicodedata.normalize("NFC", text))
    return " ".join(text.split())
