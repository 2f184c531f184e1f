"""A fitted Pipeline that ends in a DINClassifier: its encoder, its classifier, their weights."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import Schema
from sklearn_din.module import DIN

Ids = np.ndarray | pd.Series
ENCODED = ("row", "behaviour", "position")


class FittedEncoder(Protocol):
    """What is asked of a fitted HistorySequenceEncoder; explanations do not import it."""

    separator: str | None
    user: str | None
    time: str | None
    vocabularies_: dict[str, np.ndarray]
    scales_: dict[str, Any]
    _neighbours: tuple[Any, ...]
    _dropped: list[str]

    def inverse_transform_ids(self, name: str, ids: Ids) -> np.ndarray:
        """Return the values of one column's ids, None where unknown or missing."""

    def _with_neighbours(self, X: EncodedFeatures) -> EncodedFeatures:
        """Return impressions with the numbers of item neighbours."""


class FittedClassifier(Protocol):
    """What is asked of a fitted DINClassifier, whose file imports this wing."""

    classes_: np.ndarray
    schema_: Schema
    module_: DIN
    net_: Any
    history_: pd.DataFrame

    def attention_weights(self, X: EncodedFeatures) -> pd.DataFrame:
        """Return one row per event."""

    def predict_proba(self, X: EncodedFeatures) -> np.ndarray:
        """Return the probability of both classes, shape (n, 2)."""

    def decision_function(self, X: EncodedFeatures) -> np.ndarray:
        """Return the log-odds of the click, shape (n,)."""


class FittedPipeline(NamedTuple):
    """The steps of a fitted Pipeline.

    Parameters
    ----------
    transformers : Pipeline
        Every step before the classifier; ``transform`` gives EncodedFeatures.
    encoder : transformer
        The step among them that gives ids and takes them back.
    classifier : DINClassifier
        The last step.
    """

    transformers: Pipeline
    encoder: FittedEncoder
    classifier: FittedClassifier

    def encode(self, X: object) -> EncodedFeatures:
        """Impressions as the classifier sees them."""
        return self.transformers.transform(X)

    def with_neighbours(self, X: EncodedFeatures) -> EncodedFeatures:
        """Impressions whose candidate or history was exchanged, with their item neighbours."""
        return self.encoder._with_neighbours(X)

    @property
    def neighbours(self) -> tuple[Any, ...]:
        """Item neighbours of the classifier, one NeighbourPair per history that has a candidate."""
        return self.classifier.net_.neighbours_.pairs or self.encoder._neighbours

    def decode(self, name: str, ids: Ids) -> np.ndarray:
        """Original values of encoded ids, None where unknown or missing."""
        return self.encoder.inverse_transform_ids(name, ids)


def classifier_of(estimator: BaseEstimator, *, purpose: str) -> FittedClassifier:
    """Return the fitted classifier: the estimator itself, a Pipeline's last step, a search's best.

    Parameters
    ----------
    estimator : DINClassifier, Pipeline or search
    purpose : str
        Name of the function that asks; the error begins with it.

    Raises
    ------
    TypeError
        If there is no DINClassifier.
    NotFittedError
        If it is not fitted.
    """
    estimator = getattr(estimator, "best_estimator_", estimator)
    last = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
    if isinstance(last, type) or not hasattr(last, "attention_weights"):
        raise TypeError(
            f"{purpose} needs a DINClassifier, or a Pipeline that ends in one, got "
            f"{_described(estimator)}."
        )
    check_is_fitted(last)
    return last


def fitted_pipeline(pipeline: BaseEstimator, *, purpose: str) -> FittedPipeline:
    """Return the steps of a fitted Pipeline of transformers and a DINClassifier.

    Parameters
    ----------
    pipeline : Pipeline, or search over one
        With a HistorySequenceEncoder among its steps.
    purpose : str
        Name of the function that asks; the error begins with it.

    Raises
    ------
    TypeError
        If it is no Pipeline, does not end in a DINClassifier, or has no encoder.
    NotFittedError
        If it is not fitted.
    """
    pipeline = getattr(pipeline, "best_estimator_", pipeline)
    if not isinstance(pipeline, Pipeline):
        raise TypeError(
            f"{purpose} needs the whole fitted Pipeline, HistorySequenceEncoder and "
            f"DINClassifier, got {_described(pipeline)}. The encoder is what gives original "
            "values back."
        )
    classifier = classifier_of(pipeline, purpose=purpose)
    encoders = [s for s in flat_steps(pipeline) if hasattr(s, "inverse_transform_ids")]
    if not encoders:
        raise TypeError(
            f"{purpose} needs a HistorySequenceEncoder among the Pipeline's steps, got "
            f"{_described(pipeline)}."
        )
    return FittedPipeline(pipeline[:-1], encoders[-1], classifier)


def original_weights(pipeline: FittedPipeline, X: EncodedFeatures) -> pd.DataFrame:
    """Attention weights with original values in place of ids, and each weight's share.

    Parameters
    ----------
    pipeline : FittedPipeline
    X : EncodedFeatures
        From ``pipeline.encode``.

    Returns
    -------
    DataFrame
        As ``DINClassifier.attention_weights``, each attribute's column an object column of
        original values (None where unknown or missing), and ``share``: the weight over the sum
        of absolute weights of that impression's behaviour (0 where all are 0).
    """
    table = pipeline.classifier.attention_weights(X)
    for name in table.columns.drop([*ENCODED, "weight"]):
        values = pipeline.decode(name, table[name])
        table[name] = pd.Series(values, index=table.index, dtype=object)
    totals = table["weight"].abs().groupby([table["row"], table["behaviour"]]).transform("sum")
    table["share"] = (table["weight"] / totals.where(totals > 0, 1.0)).astype("float32")
    return table


def flat_steps(pipeline: Pipeline) -> list[BaseEstimator]:
    """Transformers in their order, those of Pipelines inside the Pipeline too."""
    steps: list[BaseEstimator] = []
    for _, step in pipeline.steps[:-1]:
        steps += [*flat_steps(step), step.steps[-1][1]] if isinstance(step, Pipeline) else [step]
    return steps


def _described(estimator: object) -> str:
    if isinstance(estimator, type):
        return f"the class {estimator.__name__} (make an instance and fit it)"
    if isinstance(estimator, Pipeline):
        names = [type(step).__name__ for _, step in estimator.steps]
        return f"a Pipeline of {', '.join(names)}"
    return type(estimator).__name__
