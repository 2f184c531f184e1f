"""Ids that are written in two ways, "00042" and "42", and so never meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from sklearn_din._validation import spread
from sklearn_din.encoding.vocabulary import Occurrences, kind_of_ids
from sklearn_din.features.schema import Behaviour

MANY_VALUES = 20
SEEN_VALUES = 1000
FEW = 0.03  # of the ids: so few may be equal by chance


def note_unshared(behaviours: Sequence[Behaviour], counts: Mapping[str, Occurrences]) -> list[str]:
    """Return what to say of histories that share hardly any id with their candidate."""
    notices = []
    for behaviour in behaviours:
        for history, candidate in zip(behaviour.histories, behaviour.candidates, strict=True):
            if candidate is None or counts[history].values is counts[candidate].values:
                continue
            columns = sorted((history, candidate), key=lambda name: len(counts[name].values))
            few, many = (counts[name].values for name in columns)
            some = spread(few, SEEN_VALUES)
            if some.dtype != many.dtype:  # text that spells an integer equals it
                some, many = (np.array([*map(str, ids)], dtype=object) for ids in (some, many))
            known = pd.Index(some, dtype=some.dtype).isin(many)
            if len(few) < MANY_VALUES or known.mean() >= FEW:
                continue
            pair = find_respelling(some[~known], many)
            examples = pair or (some[0], many[0])
            hint = "" if pair is None else ", which seem to be the same"
            notices.append(
                f"{columns[0]} and {columns[1]} share {known.mean():.0%} of their ids, such as "
                f"{examples[0]!r:.40} and {examples[1]!r:.40}{hint}: next to nothing of a history "
                "can match its candidate. Write the ids of both in one way, or name the column "
                "that the history belongs to in histories."
            )
    return notices


def note_unknown(
    name: str, values: np.ndarray, known: np.ndarray, *, is_compared: bool
) -> str | None:
    """Return what to say of a column none of whose ids was seen at fit.

    New items are no mistake: something is said where the ids would be known in another spelling,
    and where neither candidates nor histories (``is_compared``) have a known one.
    """
    if len(values) < MANY_VALUES or kind_of_ids(values) != kind_of_ids(known):
        return None  # ids of another kind are said where they are encoded
    pair = find_respelling(spread(values, SEEN_VALUES), known)
    if pair is None and not is_compared:
        return None
    at_fit = repr(known[0] if pair is None else pair[1])
    return (
        f"no id of {name} was seen at fit, where they were such as {at_fit:.40}: all of them "
        "have the unknown id. Write them as they were written at fit (upper case, leading zeros, "
        "spaces)."
    )


def find_respelling(values: np.ndarray, known: np.ndarray) -> tuple[object, object] | None:
    """Find two ids that differ only in how they are written, where most of the values have one.

    Examples
    --------
    >>> known = np.array(["7", "42"], dtype=object)
    >>> find_respelling(np.array(["0007", "0042"], dtype=object), known)
    ('0007', '7')
    """
    plain = {_plain(value): value for value in known.tolist()}
    pairs = [(value, plain[_plain(value)]) for value in values.tolist() if _plain(value) in plain]
    return pairs[0] if 2 * len(pairs) > len(values) else None


def _plain(value: object) -> str:
    """Return an id without what people write in several ways."""
    return str(value).strip().casefold().removesuffix(".0").lstrip("0")
