"""The vectors that a fitted Pipeline has learnt, one table per vocabulary."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator

from sklearn_din.features.schema import FIRST_KNOWN_ID
from sklearn_din.inspection.fitted import split_pipeline

KIND_OF_ID = ["padding", "unknown"]  # then known ones; ids below FIRST_KNOWN_ID


def embeddings(pipeline: BaseEstimator) -> dict[str, pd.DataFrame]:
    """Return the embedding of every value: one table per vocabulary.

    Items that lie close to each other were of use in the same way for the same users.

    Parameters
    ----------
    pipeline : Pipeline, search over one, or CalibratedClassifierCV of one
        Fitted, with a HistorySequenceEncoder and a DINClassifier.

    Returns
    -------
    dict of str to DataFrame of shape (n_ids, width), float32
        By the name of the vocabulary, which is that of its first column. The index has two levels,
        ``kind`` ("padding", "unknown" or "known") and ``value``: ``table.loc["known"]`` is the
        table by the original values, without the other two, whose value is missing. What training
        did not see has the vector of "unknown", and so have missing values. All are copies.

    See Also
    --------
    explain : What past events counted for one impression.

    Notes
    -----
    The paper draws such vectors of goods (Zhou et al., KDD 2018, figure 6).

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_din import DINClassifier, HistorySequenceEncoder
    >>> X = pd.DataFrame({"item": ["a", "b"], "hist_item": [["b"], ["a", "b"]]})
    >>> classifier = DINClassifier(embedding_dim=4, max_epochs=1)
    >>> model = make_pipeline(HistorySequenceEncoder(), classifier).fit(X, [0, 1])
    >>> table = embeddings(model)["item"]
    >>> table.shape, table.loc["known"].index.tolist()
    ((4, 4), ['a', 'b'])
    """
    fitted = split_pipeline(pipeline, purpose="embeddings")
    module = fitted.classifier.net_.module_
    tables = {}
    for vocabulary, n_ids in module.embeddings.sizes.items():
        name = next(f.name for f in module.schema.fields if f.vocabulary == vocabulary)
        ids = np.arange(n_ids)
        kinds = [*KIND_OF_ID, *["known"] * (n_ids - FIRST_KNOWN_ID)]
        index = pd.MultiIndex.from_arrays(
            [kinds, pd.Index(fitted.decode(name, ids), dtype=object)], names=["kind", "value"]
        )
        vectors = module.embeddings.weight(vocabulary).detach().cpu().numpy().copy()
        tables[vocabulary] = pd.DataFrame(vectors, index=index)
    return tables
