"""Training a fitted Pipeline on new rows: returns a new model and keeps the old one."""

import copy
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from sklearn_din.inspection.fitted import classifier_of, flat_steps, unwrap
from sklearn_din.training.inputs import ImpressionsLike
from sklearn_din.transformers import HistorySequenceEncoder
from sklearn_din.utils.estimator_state import EstimatorState
from sklearn_din.utils.frames import CallerFrame, column_names
from sklearn_din.utils.labels import as_classes
from sklearn_din.utils.scan import Scan
from sklearn_din.utils.warnings import warn_user

Model = TypeVar("Model", bound=BaseEstimator)
ADDED_BY_READ_EVENTS = ("position", "score", "request", "label", "known")  # no features
MANY_ROWS = 100  # that are hardly all clicks by chance
CHANCE = 1e-4
Step = Any  # a Pipeline's step, of any package


def update(
    model: Model, X: ImpressionsLike, y: ArrayLike, sample_weight: ArrayLike | None = None
) -> Model:
    """Train a fitted model further on new rows and return the result as a new model.

    This takes a small fraction of the time of a full fit. The given model is unchanged, to the
    last bit: it can still predict, and can be updated with other rows. The models share what did
    not change.

    scikit-learn's Pipeline has no ``partial_fit``; this function goes through its steps in order.
    A step with ``partial_fit`` learns from the rows and then transforms them; all others only
    transform. So :class:`HistorySequenceEncoder` appends the new ids, :class:`HistoryBuilder`
    stores the new events, and :class:`DINClassifier` makes one pass over the rows and takes the
    average of the weights along it.

    Parameters
    ----------
    model : Pipeline, search over one, CalibratedClassifierCV of one, or DINClassifier
        Fitted; a Pipeline must end in a :class:`DINClassifier`. For GridSearchCV and the like,
        ``best_estimator_`` is updated; the scores remain those of the search. A calibration does
        not change, even if the Pipeline is frozen in it: if the probabilities have shifted,
        calibrate again on rows that were not trained on.
    X : DataFrame, or EncodedFeatures for a DINClassifier
        The new rows, each once, with the columns of ``fit``; others are left out with a warning,
        without one those that only :func:`read_events` adds. No rows change nothing.
    y : array-like of shape (n,)
        Their labels; they may all be equal.
    sample_weight : array-like of shape (n,), default=None
        Factor of each impression's loss, passed to the classifier only.

    Returns
    -------
    model
        A new model of the same kind: ``model = update(model, X, y)``. A :class:`Ranker` of the old
        model goes on ranking by the old one; make a new one.

    Raises
    ------
    TypeError
        If there is no DINClassifier, or it is inside another model, such as VotingClassifier,
        that would have to be fitted again; if a CalibratedClassifierCV contains several.
    ValueError
        If rows or labels do not match those of ``fit``, or a column is missing: fit again.

    See Also
    --------
    HistorySequenceEncoder.partial_fit, DINClassifier.partial_fit

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_din import DINClassifier, HistorySequenceEncoder
    >>> shown = pd.DataFrame({"item": ["hat", "sock", "hat", "sock"]})
    >>> classifier = DINClassifier(max_epochs=1, random_state=0)
    >>> model = make_pipeline(HistorySequenceEncoder(), classifier).fit(shown, [1, 0, 1, 0])
    >>> newer = update(model, pd.DataFrame({"item": ["hat", "boot"]}), [1, 0])
    >>> newer[0].vocabularies_["item"]
    array(['hat', 'sock', 'boot'], dtype=object)
    >>> model[0].vocabularies_["item"]
    array(['hat', 'sock'], dtype=object)
    """
    from sklearn_din.training.weight_average import AveragedPass  # and skorch: slow to import

    classifier = classifier_of(model, purpose="update")
    if not np.size(y):
        return copy.copy(model)
    learner, _ = unwrap(model, purpose="update")
    steps = [*flat_steps(learner)] if isinstance(learner, Pipeline) else [learner]
    n_before = max(getattr(step, "_n_clicks_alone", 0) for step in steps)
    warn_of_clicks_alone(getattr(classifier, "classes_", None), y, n_before)
    X = _leave_out(steps[0], X)
    newer = {id(step): step for step in steps}
    for step in steps[:-1]:
        if hasattr(step, "partial_fit"):
            newer[id(step)] = _copy_to_change(step)
            newer[id(step)].partial_fit(X, y)
        X = newer[id(step)].transform(X)
    grown, averaged = _copy_to_change(classifier), AveragedPass()
    grown.callbacks = [*(classifier.callbacks or ()), averaged]
    grown.partial_fit(X, y, sample_weight=sample_weight)
    grown.callbacks = classifier.callbacks
    net = grown.net_  # the model does not keep what the callback holds
    net.callbacks = [item for item in net.callbacks if item is not averaged]
    net.callbacks_ = [pair for pair in net.callbacks_ if pair[1] is not averaged]
    # Copies of Pipeline, search and calibration, which hold the newer steps
    return copy.deepcopy(model, newer | {id(classifier): grown})


def _leave_out(step: Step, X: Any) -> Any:
    """Return rows without columns that fit did not have; read_events' own go without a word."""
    names = column_names(X) if hasattr(step, "feature_names_in_") else None
    if names is None or isinstance(X, Scan):
        return X
    known = {*step.feature_names_in_}
    if isinstance(step, HistorySequenceEncoder):
        known |= {*step._dropped, *step._metadata.values()}
    new = [name for name in names if name not in known]
    if unknown := [name for name in new if name not in ADDED_BY_READ_EVENTS]:
        warn_user(
            f"columns {unknown} were not there at fit and are left out: update learns new ids, not "
            "new columns. Fit again on rows that have them."
        )
    return CallerFrame(X, name="X").select([name for name in names if name in known]) if new else X


def warn_of_clicks_alone(
    classes: Any,
    y: ArrayLike,
    n_before: int,
    what: str = "given to update are clicks: from them the model learns that everything is clicked",
    *,
    rate: float = 0.5,
) -> None:
    """Warn where so many rows are all clicks that the model would learn to expect nothing else.

    n_before : how many clicks alone were told right before them, in other calls
    rate : of the clicks so far: at a high one many rows are all clicks by chance
    """
    labels, n_rows = np.asarray(y), np.size(y) + n_before
    least = max(MANY_ROWS, np.log(CHANCE) / np.log(min(rate, 1 - 1e-9)))
    if labels.ndim != 1 or n_rows < least or not isinstance(classes, np.ndarray):
        return
    if (as_classes(labels, classes) == classes[1]).all():
        warn_user(
            f"all of the {n_rows} rows {what}. Add the rows that were shown and not clicked, "
            "or make them by sample_negatives as for fit."
        )


def _copy_to_change(step: Step) -> Step:
    """Return a copy whose ``partial_fit`` leaves the step as it is.

    Our own estimators never write to what they have learnt, others may write to their arrays.
    """
    return copy.copy(step) if isinstance(step, EstimatorState) else copy.deepcopy(step)
