"""How often each id occurs in some impressions: as a candidate, elsewhere, or in histories."""

from __future__ import annotations

import numpy as np

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.mapped import PageKeeper

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
    pages = PageKeeper(X)
    for first in range(0, len(X) if rows is None else len(rows), COUNTED_ROWS):
        some = slice(first, first + COUNTED_ROWS)
        pages.read(COUNTED_ROWS)
        block = X[some if rows is None else rows[some]]
        ids = {name: block.columns[name] for name in X.schema.names("categorical")}
        for behaviour in X.schema.behaviours:
            ragged = block.behaviours[behaviour.histories]
            index = ragged.spans.index()
            ids |= {name: ragged.flat(name, index) for name in behaviour.histories}
        for name, values in ids.items():
            found = np.bincount(values)
            counts[X.schema[name].vocabulary][: len(found)] += found
    return counts
