"""The embeddings learned by a fitted Pipeline, one table per vocabulary."""

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator

from sklearn_din.features.schema import FIRST_KNOWN_ID
from sklearn_din.inspection.fitted import split_pipeline

KIND_OF_ID = ["padding", "unknown"]  # then known ones; ids below FIRST_KNOWN_ID


def embeddings(pipeline: BaseEstimator) -> dict[str, pd.DataFrame]:
    """Return the embedding of every value: one table per vocabulary.

    An embedding holds what nothing else tells the network of the item. Close items are alike only
    where neither item neighbours (``DINClassifier(neighbours=None)``) nor a column of the item,
    such as its category, say it already; otherwise ask :class:`ItemNeighbours` (Notes), or use
    fixed ``vectors``.

    Parameters
    ----------
    pipeline : Pipeline, search over one, or CalibratedClassifierCV of one
        Fitted, with a HistorySequenceEncoder and a DINClassifier.

    Returns
    -------
    dict of str to DataFrame of shape (n_ids, width), float32
        By the name of the vocabulary, which is that of its first column. The index has two levels,
        ``kind`` ("padding", "unknown", "known" or "new") and ``value``: ``table.loc["known"]`` is
        the table by the original values. Padding and unknown have no value; what training did not
        see has the embedding of "unknown", and so have missing values. Where the encoder has fixed
        ``vectors``, embeddings are with their projections, and values that have a vector alone
        are "new". All are copies.

    See Also
    --------
    explain : What past events counted for one impression.

    Notes
    -----
    The paper draws such vectors of goods (Zhou et al., KDD 2018, figure 6).

    Of the ten nearest items, the share of the same one of 8 categories (chance .12): .34 with the
    defaults on items alone, .13 with the category beside them, .68 without item neighbours, 1.00
    with vectors that tell the category; .85 by ``hist_item_cosine_sum`` of ItemNeighbours, of rows
    with each pair as ``item`` and a ``hist_item`` of one event (benchmarks/quality-results.md,
    "Vectors of items").

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
    module, fixed = fitted.classifier.net_.module_, fitted.encoder._look_up_vectors()
    tables = {}
    for vocabulary, n_ids in module.embeddings.sizes.items():
        name = next(f.name for f in module.schema.fields if f.vocabulary == vocabulary)
        ids, vectors = np.arange(n_ids, dtype=np.int32), fixed.get(vocabulary)
        kinds = [*KIND_OF_ID, *["known"] * (n_ids - FIRST_KNOWN_ID)]
        values = [*fitted.encoder.inverse_transform_ids(name, ids)]
        if vectors is not None:
            ids = np.concatenate([ids, vectors.new_ids])
            kinds += ["new"] * len(vectors.new_ids)
            values += [*vectors.new_values]
        index = pd.MultiIndex.from_arrays(
            [kinds, pd.Index(values, dtype=object)], names=["kind", "value"]
        )
        table = module.embeddings.look_up(vocabulary, ids, vectors)
        tables[vocabulary] = pd.DataFrame(table.cpu().numpy(), index=index)
    return tables
