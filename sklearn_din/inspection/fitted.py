"""A fitted Pipeline taken to pieces: its steps, its encoder, its classifier."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from sklearn_din.features.encoded import EncodedFeatures


class FittedPipeline(NamedTuple):
    """The pieces of a fitted Pipeline.

    The transformers are every step before the classifier; the encoder is the one of them that gives
    ids and takes them back.
    """

    transformers: Pipeline
    encoder: Any  # their files stand below this one
    classifier: Any

    def encode(self, X: object) -> EncodedFeatures:
        """Return impressions as the classifier sees them."""
        return self.transformers.transform(X)

    def read(self, X: Any) -> Any:
        """Return impressions as the encoder is given them: after the steps before it."""
        for step in flat_steps(self.transformers):
            if step is self.encoder:
                break
            X = step.transform(X)
        return X

    @property
    def neighbours(self) -> tuple[Any, ...]:
        """Item neighbours of the classifier, one NeighbourPair per history that has a candidate."""
        return self.classifier.net_.neighbours_.pairs

    def decode(self, name: str, ids: np.ndarray | pd.Series) -> np.ndarray:
        """Return the original values of a field's ids, None where unknown or missing."""
        return self.encoder.inverse_transform_ids(name, ids)


def best_of_search(estimator: Any) -> Any:
    """Return the estimator that a search has found best; any other estimator as it is."""
    return getattr(estimator, "best_estimator_", estimator)


def classifier_of(estimator: BaseEstimator, *, purpose: str) -> Any:
    """Return the fitted classifier: the estimator itself, a Pipeline's last step, a search's best.

    Errors begin with ``purpose``, the name of the function that asks.
    """
    estimator = best_of_search(estimator)
    last = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
    if isinstance(last, type) or not hasattr(last, "attention_weights"):
        raise TypeError(
            f"{purpose} needs a DINClassifier, or a Pipeline that ends in one, got "
            f"{_describe(estimator)}."
        )
    check_is_fitted(last)
    return last


def split_pipeline(pipeline: BaseEstimator, *, purpose: str) -> FittedPipeline:
    """Return the pieces of a fitted Pipeline, or of a search over one.

    It has a HistorySequenceEncoder among its steps and ends in a DINClassifier. Errors begin with
    ``purpose``, the name of the function that asks.
    """
    pipeline = best_of_search(pipeline)
    if not isinstance(pipeline, Pipeline):
        raise TypeError(
            f"{purpose} needs the whole fitted Pipeline, HistorySequenceEncoder and "
            f"DINClassifier, got {_describe(pipeline)}. The encoder is what gives original "
            "values back."
        )
    classifier = classifier_of(pipeline, purpose=purpose)
    encoders = [s for s in flat_steps(pipeline[:-1]) if hasattr(s, "inverse_transform_ids")]
    if not encoders:
        raise TypeError(
            f"{purpose} needs a HistorySequenceEncoder among the Pipeline's steps, got "
            f"{_describe(pipeline)}."
        )
    return FittedPipeline(pipeline[:-1], encoders[-1], classifier)


def flat_steps(pipeline: Pipeline) -> Iterator[Any]:
    """Return the steps in their order, those of Pipelines inside it too, without placeholders."""
    for _, step in pipeline.steps:
        if isinstance(step, Pipeline):
            yield from flat_steps(step)
        elif step is not None and not isinstance(step, str):  # "passthrough"
            yield step


def _describe(estimator: object) -> str:
    if isinstance(estimator, type):
        return f"the class {estimator.__name__} (make an instance and fit it)"
    if isinstance(estimator, Pipeline):
        names = [type(step).__name__ for _, step in estimator.steps]
        return f"a Pipeline of {', '.join(names)}"
    return type(estimator).__name__
