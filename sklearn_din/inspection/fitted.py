"""Access to the steps, encoder, classifier and calibration of a fitted Pipeline."""

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from sklearn_din.logs.history_builder import HistoryBuilder
from sklearn_din.training.reading import Calibration, Label, Reading, read_one


class Calibrated(NamedTuple):
    """The calibration at the end of a model, which holds one fitted classifier; None is none."""

    model: CalibratedClassifierCV | None = None

    @property
    def calibration(self) -> Calibration:
        """What its calibrator has learnt."""
        if self.model is None:
            return Calibration()
        method, calibrator = self._fitted.method, self._fitted.calibrators[0]
        if method == "sigmoid":
            return Calibration(method, -float(calibrator.a_), -float(calibrator.b_))
        if method == "temperature":  # a softmax of (-logit, logit), times beta
            return Calibration(method, 2 * float(calibrator.beta_))
        points = (calibrator.X_thresholds_, calibrator.y_thresholds_)
        return Calibration(method, 1.0, 0.0, *(array.astype(np.float64) for array in points))

    def around(self, pipeline: Pipeline) -> Any:
        """Return this calibration at the end of another Pipeline."""
        if self.model is None:
            return pipeline
        calibrated, fitted = copy.copy(self.model), copy.copy(self._fitted)
        fitted.estimator = pipeline
        calibrated.calibrated_classifiers_ = [fitted]
        return calibrated

    @property
    def _fitted(self) -> Any:
        return self.model.calibrated_classifiers_[0]  # type: ignore[union-attr]


class FittedPipeline(NamedTuple):
    """The pieces of a fitted Pipeline: every step before the classifier, the encoder among them."""

    transformers: Pipeline
    encoder: Any  # their files stand below this one
    classifier: Any
    calibrated: Calibrated = Calibrated()

    def read(self, X: Any) -> Any:
        """Return impressions as the encoder is given them: after the steps before it."""
        for step in self.around_encoder()[0]:
            X = step.transform(X)
        return X

    def around_encoder(self) -> tuple[list[Any], list[Any]]:
        """Return the steps that transform rows before the encoder and behind it, no samplers."""
        steps = [step for step in flat_steps(self.transformers) if hasattr(step, "transform")]
        place = next(number for number, step in enumerate(steps) if step is self.encoder)
        return steps[:place], steps[place + 1 :]

    def reading(self, label: Label | None = None) -> Reading:
        """Return how outputs become one number for each row; calibrated, it may fall with them."""
        reading, calibration = self.classifier._read(label), self.calibration
        if not calibration.method:
            return reading
        if calibration.slope > 0:
            return read_one("probability", calibration, None)
        return Reading("probability", np.negative, lambda score: calibration(-score))

    @property
    def calibration(self) -> Calibration:
        """What turns the classifier's log-odds into probabilities."""
        own = getattr(self.classifier, "calibration_", None)
        return self.calibrated.calibration if own is None else own

    def decode_lists(self, name: str, lists: pd.Series) -> list[list | None]:
        """Return the original values of lists of ids; None where there is no list."""
        given = lists[lists.notna()]
        ids = np.concatenate([np.empty(0, dtype=np.int32), *given])
        parts = np.split(self.encoder.inverse_transform_ids(name, ids), np.cumsum(given.map(len)))
        values = dict(zip(given.index, parts, strict=False))
        return [values[row].tolist() if row in values else None for row in lists.index]


def unwrap(estimator: Any, *, purpose: str) -> tuple[Any, Calibrated]:
    """Return the fitted estimator inside searches and calibrations, and its calibration.

    Errors begin with ``purpose``, the name of the function that asks.
    """
    calibrated = Calibrated()
    while True:
        if isinstance(estimator, CalibratedClassifierCV):
            estimator, calibrated = _uncalibrate(estimator, calibrated, purpose)
        elif isinstance(estimator, FrozenEstimator):
            estimator = estimator.estimator
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        elif hasattr(estimator, "cv_results_"):
            raise TypeError(
                f"{purpose} needs a model, got a {type(estimator).__name__} with refit=False: it "
                "keeps none. Set refit=True, or fit clone(search.estimator) with the best "
                "parameters, of search.cv_results_['params']."
            )
        elif isinstance(estimator, Pipeline):
            *before, (name, last) = estimator.steps
            if not isinstance(last, CalibratedClassifierCV):
                return estimator, calibrated
            last, calibrated = _uncalibrate(last, calibrated, purpose)
            estimator = Pipeline([*before, (name, last)])
        else:
            return estimator, calibrated


def _uncalibrate(
    model: CalibratedClassifierCV, outer: Calibrated, purpose: str
) -> tuple[Any, Calibrated]:
    check_is_fitted(model)
    n_folds = len(model.calibrated_classifiers_)
    if n_folds > 1:
        raise TypeError(
            f"{purpose} needs one model and its calibration, got a CalibratedClassifierCV of "
            f"{n_folds}: one for each fold. Fit it with ensemble=False, or around "
            "FrozenEstimator(model) on rows that the model was not trained on."
        )
    if outer.model is not None:
        raise TypeError(
            f"{purpose} needs one calibration at the end, got two. Calibrate the Pipeline itself, "
            "once."
        )
    return model.calibrated_classifiers_[0].estimator, Calibrated(model)


def classifier_of(estimator: BaseEstimator, *, purpose: str) -> Any:
    """Return the fitted classifier: the estimator itself, or a Pipeline's last step."""
    estimator, _ = unwrap(estimator, purpose=purpose)
    last = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
    if isinstance(last, type) or not hasattr(last, "attention_weights"):
        raise TypeError(
            f"{purpose} needs a DINClassifier, DINRegressor, or a Pipeline that ends in one, got "
            f"{_describe(estimator)}."
        )
    check_is_fitted(last)
    return last


def split_pipeline(pipeline: BaseEstimator, *, purpose: str) -> FittedPipeline:
    """Return the pieces of a fitted Pipeline, of a search over one, of a calibrated one."""
    pipeline, calibrated = unwrap(pipeline, purpose=purpose)
    if not isinstance(pipeline, Pipeline):
        raise TypeError(
            f"{purpose} needs the whole fitted Pipeline, HistorySequenceEncoder and "
            f"DINClassifier, got {_describe(pipeline)}."
        )
    classifier = classifier_of(pipeline, purpose=purpose)
    encoders = [s for s in flat_steps(pipeline[:-1]) if hasattr(s, "inverse_transform_ids")]
    if not encoders:
        raise TypeError(
            f"{purpose} needs a HistorySequenceEncoder among the Pipeline's steps, got "
            f"{_describe(pipeline)}."
        )
    return FittedPipeline(pipeline[:-1], encoders[-1], classifier, calibrated)


def find_memory(fitted: FittedPipeline) -> HistoryBuilder | None:
    """Return the step before the encoder that remembers events or rows; None without one."""
    steps = fitted.around_encoder()[0]
    return next((step for step in steps if isinstance(step, HistoryBuilder)), None)


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
