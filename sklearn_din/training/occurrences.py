"""Counts of each id in some impressions, and the factors of the L2 that follow from them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import UNKNOWN_ID

COUNTED_ROWS = 1 << 16  # impressions whose ids are counted at a time, to bound the memory


def count_ids(X: EncodedFeatures, rows: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Count the ids of all fields that share a vocabulary.

    An event counts once for every impression whose history holds it.

    Parameters
    ----------
    X : EncodedFeatures
        The impressions.
    rows : ndarray of shape (n,), default=None
        Which of them count. None: all.

    Returns
    -------
    counts : dict of str to ndarray of shape (n_ids,), float64
        By vocabulary.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_din.features import EncodedFeatures, Field, Schema
    >>> schema = Schema((Field("item", "categorical", "item", 5),))
    >>> count_ids(EncodedFeatures(schema, {"item": np.array([3, 2, 3], "int32")}))
    {'item': array([0., 0., 1., 2., 0.])}
    """
    counts = {name: np.zeros(n_ids) for name, n_ids in X.schema.vocabulary_sizes.items()}
    for first in range(0, len(X) if rows is None else len(rows), COUNTED_ROWS):
        some = slice(first, first + COUNTED_ROWS)
        block = X[some if rows is None else rows[some]]
        ids = {name: block.columns[name] for name in X.schema.names("categorical")}
        for behaviour in X.schema.behaviours:
            ragged = block.behaviours[behaviour.histories]
            index = ragged.spans.index()
            ids |= {name: ragged.flat(name, index) for name in behaviour.histories}
        for name, values in ids.items():
            n_values = np.bincount(values)
            counts[X.schema[name].vocabulary][: len(n_values)] += n_values
    return counts


def embedding_decay(
    occurrences: Mapping[str, np.ndarray], strength: float
) -> dict[str, np.ndarray]:
    """Factors of the mini-batch aware L2: ``strength / n_j`` for each id j.

    Parameters
    ----------
    occurrences : dict of str to ndarray of shape (n_ids,)
        By vocabulary, n_j: how often each id occurs in the training impressions.
    strength : float
        Factor of an id that occurs once.

    Returns
    -------
    decay : dict of str to ndarray of shape (n_ids,), float32
        By vocabulary.
    """
    return {
        name: (strength / np.maximum(count, 1)).astype(np.float32)
        for name, count in occurrences.items()
    }


def count_occurrences(
    X: EncodedFeatures,
    hidden: Mapping[str, float] | None = None,
    rows: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Count each id as the L2 does: as a candidate, elsewhere, and in histories (section 5.1).

    Parameters
    ----------
    X : EncodedFeatures
        The training impressions.
    hidden : dict of str to float, default=None
        By column, the share of rows of which training adds a copy with the unknown id. The counts
        are then those that are expected in one pass over the impressions.
    rows : ndarray of shape (n,), default=None
        Which of the impressions are trained on. None: all.

    Returns
    -------
    occurrences : dict of str to ndarray of shape (n_ids,), float32
        By vocabulary.
    """
    counts = count_ids(X, rows)
    n_rows = len(X) if rows is None else len(rows)
    for column, share in (hidden or {}).items():
        counts[X.schema[column].vocabulary][UNKNOWN_ID] += share * n_rows
    return {name: count.astype(np.float32) for name, count in counts.items()}
