"""Training rows shown as if each were alone in its request."""

from __future__ import annotations

import numpy as np

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.request_columns import neutral_numbers

NEUTRAL_SHARE = 0.1  # of the training rows


def hide_requests(X: EncodedFeatures) -> EncodedFeatures:
    """Return training rows, of which a tenth does not know the other rows of its request.

    A row that is scored by itself has neutral comparisons (``attach_request``). A network that was
    trained on whole requests alone takes them for those of an average row, and its
    predictions of rows one by one are worse than without the columns.
    """
    compared = neutral_numbers(X.schema, X.columns)
    if not compared:
        return X
    rows = np.random.RandomState(1).random_sample(len(X)) < NEUTRAL_SHARE
    columns = dict(X.columns)
    for name in compared:
        columns[name] = np.where(rows, np.float32(X.schema[name].neutral), X.columns[name])
    return X._replace(columns=columns)
