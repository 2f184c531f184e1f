"""A number for each event of some impressions, as a table of one row per event."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.identities import ids_to_look_up
from sklearn_din.features.lists import Column, IdLists
from sklearn_din.features.schema import Behaviour

KEYS = ("row", "behaviour", "position")
WITHOUT_WEIGHTS = ("max",)  # poolings whose events have no weights


def behaviours_with_candidate(X: EncodedFeatures) -> list[Behaviour]:
    """Return the behaviours that are compared with a candidate."""
    return [behaviour for behaviour in X.schema.behaviours if not behaviour.is_bag]


def check_weights(X: EncodedFeatures, *, pooling: str) -> list[Behaviour]:
    """Return the behaviours whose events have weights; raise ValueError where none has."""
    behaviours = behaviours_with_candidate(X)
    if pooling in WITHOUT_WEIGHTS or not behaviours:
        raise ValueError(
            "attention_weights needs pooling='attention', 'sum' or 'mean' and a history with "
            f"a candidate, got pooling={pooling!r} and {len(behaviours)} such histories."
        )
    return behaviours


def event_table(
    X: EncodedFeatures, numbers: Mapping[tuple[str, ...], np.ndarray], column: str
) -> pd.DataFrame:
    """Return one row per event: where it is, its ids, and its number of each behaviour."""
    frames = []
    for behaviour in behaviours_with_candidate(X):
        history = X.behaviours[behaviour.histories]
        lengths = history.spans.lengths
        before = np.repeat(np.cumsum(lengths) - lengths, lengths)
        frame = pd.DataFrame(
            {
                "row": np.repeat(np.arange(len(X)), lengths),
                "position": np.arange(len(before)) - before,
                **{n: _shown_ids(history.flat(n)) for n in behaviour.histories},
                column: numbers[behaviour.histories],
            }
        )
        frames.append(frame.assign(behaviour=X.schema.display_name(behaviour)))
    attributes = dict.fromkeys(n for b in behaviours_with_candidate(X) for n in b.histories)
    table = pd.concat(frames, ignore_index=True)[[*KEYS, *attributes, column]]
    return table.sort_values([*KEYS], ignore_index=True)


def _shown_ids(values: Column) -> Any:
    """Return ids as nullable integers, lists of them as arrays."""
    if not isinstance(values, IdLists):
        return pd.array(ids_to_look_up(values), "Int32")
    ids, lengths = values.flatten()
    shown = np.split(ids_to_look_up(ids), np.cumsum(lengths)[:-1]) if len(values) else []
    return np.fromiter(shown, dtype=object, count=len(values))
