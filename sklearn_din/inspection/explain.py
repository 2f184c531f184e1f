"""Which past events counted for an impression, in the caller's own values."""

from __future__ import annotations

import pandas as pd
from sklearn.base import BaseEstimator

from sklearn_din.inspection.fitted import fitted_pipeline, original_weights


def explain(pipeline: BaseEstimator, X: object) -> pd.DataFrame:
    """Say which past events counted for each impression, in the caller's own values.

    The Pipeline's twin of :meth:`DINClassifier.attention_weights`.

    Parameters
    ----------
    pipeline : Pipeline, or search over one
        Fitted; a HistorySequenceEncoder among its steps and a DINClassifier at its end.
    X : DataFrame
        Impressions, as given to the Pipeline's ``predict_proba``.

    Returns
    -------
    DataFrame
        One row per event, oldest first: row (position of the impression in X), behaviour,
        position (0 is the oldest event kept), one column of original values per attribute
        (None for a value not seen at fit, and where the behaviour lacks the attribute), weight,
        and share: the weight over the sum of absolute weights of the impression's behaviour,
        so that shares compare across impressions.

    Raises
    ------
    TypeError
        If ``pipeline`` is not such a Pipeline.
    ValueError
        If the classifier has no attention: ``pooling="max"``, or no history.

    See Also
    --------
    sklearn_din.inspection.display.AttentionDisplay : The same as a picture.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_din.estimator import DINClassifier
    >>> from sklearn_din.transformers import HistorySequenceEncoder
    >>> shown = pd.DataFrame({"item": ["hat", "sock"], "hist_item": [["sock"], ["hat", "shoe"]]})
    >>> model = make_pipeline(
    ...     HistorySequenceEncoder(), DINClassifier(pooling="mean", max_epochs=1)
    ... ).fit(shown, [0, 1])
    >>> explain(model, shown).drop(columns="behaviour")
       row  position hist_item  weight  share
    0    0         0      sock     1.0    1.0
    1    1         0       hat     0.5    0.5
    2    1         1      shoe     0.5    0.5
    """
    fitted = fitted_pipeline(pipeline, purpose="explain")
    return original_weights(fitted, fitted.encode(X))
