"""Counts of ids and positions in some impressions, and the L2 factors computed from them."""

from collections.abc import Iterator, Mapping

import numpy as np

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.identities import ids_to_look_up
from sklearn_din.features.lists import IdLists
from sklearn_din.utils.warnings import warn_once

MOST_POSITIONS = 100  # larger positions count as this one
COUNTED_ROWS = 1 << 16  # impressions whose ids are counted at a time, to bound the memory


def count_ids(X: EncodedFeatures, rows: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Count ids per vocabulary, over all its fields and ``rows``: (n_ids,) each, float64.

    An event counts once for every impression whose history holds it, as in the L2 (section 5.1).
    """
    counts = {name: np.zeros(n_ids) for name, n_ids in X.schema.vocabulary_sizes.items()}
    for first in range(0, len(X) if rows is None else len(rows), COUNTED_ROWS):
        some = slice(first, first + COUNTED_ROWS)
        for name, ids, _ in ids_of_rows(X[some if rows is None else rows[some]]):
            n_values = np.bincount(ids)
            counts[X.schema[name].vocabulary][: len(n_values)] += n_values
    return counts


def ids_of_rows(X: EncodedFeatures) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
    """Yield each field's name and ids, and how many of them are each row's; None: one."""
    for name in X.schema.names("categorical", "list"):
        values, lengths = X.columns[name], None
        if isinstance(values, IdLists):
            values, lengths = values.flatten()
        yield name, ids_to_look_up(values), lengths
    for behaviour in X.schema.behaviours:
        ragged = X.behaviours[behaviour.histories]
        index = ragged.spans.index()
        for name in behaviour.histories:
            values, lengths = ragged.flat(name, index), ragged.spans.lengths
            if isinstance(values, IdLists):
                values, of_events = values.flatten()
                rows = np.repeat(np.arange(len(X)), lengths)
                lengths = np.bincount(rows, of_events, len(X)).astype(np.int64)
            yield name, ids_to_look_up(values), lengths


def embedding_decay(
    occurrences: Mapping[str, np.ndarray], strength: float
) -> dict[str, np.ndarray]:
    """Factors of the L2: ``strength / n_j`` for an id j that occurs n_j times, float32."""
    return {
        name: (strength / np.maximum(count, 1)).astype(np.float32)
        for name, count in occurrences.items()
    }


def position_shares(positions: np.ndarray, kinds: np.ndarray) -> tuple[float, ...]:
    """Return the fraction of rows at each position; of clicks, half counts what all others do.

    The favour whose probability is that of all positions lies between the means of both kinds.
    """
    positions, is_known = np.minimum(positions, MOST_POSITIONS), positions > 0
    counts = [
        np.bincount(positions[is_known & (kinds == kind)], minlength=positions.max(initial=1) + 1)
        for kind in np.unique(kinds[is_known])
    ]
    shares = [count[1:] / count.sum() for count in counts]
    at = np.unique(positions[is_known]).tolist()
    if len(at) < 2:
        alike = f"were at position {at[0]}" if at else "have none"
        warn_once(
            f"nothing is learnt of positions: all rows to train on {alike}. Give rows that "
            "were shown at several positions, or leave the encoder's position out."
        )
    return tuple(np.mean(shares, axis=0).tolist()) if shares else (0.0,)
