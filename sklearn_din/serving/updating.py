"""A fitted Pipeline learns from rows that have come since: all of its steps, or none."""

import copy
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from sklearn_din.inspection.fitted import classifier_of, flat_steps, unwrap
from sklearn_din.training.inputs import ImpressionsLike
from sklearn_din.utils.estimator_state import EstimatorState, forget_written
from sklearn_din.utils.warnings import warn_user

Model = TypeVar("Model", bound=BaseEstimator)
MANY_ROWS = 100  # that are hardly all clicks by chance
Step = Any  # a Pipeline's step, of any package


def update(
    model: Model, X: ImpressionsLike, y: ArrayLike, sample_weight: ArrayLike | None = None
) -> Model:
    """Train a fitted model on rows that have come since, in a part of the time of a full fit.

    scikit-learn's Pipeline has no ``partial_fit``; this function goes through its steps in order. A
    step that has ``partial_fit`` learns from the rows and then transforms them; all others
    transform alone. So :class:`HistorySequenceEncoder` appends the new ids, :class:`HistoryBuilder`
    remembers the new events, and :class:`DINClassifier` makes one pass over the rows, which leaves
    the average of the weights along it. The model is changed in place when every step has
    succeeded. Where one fails, or Ctrl-C ends the training, the model is as it was before. Threads
    may ask, copy, pickle or save it meanwhile: all of an answer or copy is of the old model or of
    the new one, unless a step of another package learns, or stands between
    :class:`HistoryBuilder` and the encoder.

    A column that came since fit is added, and a warning says as what. By that alone no prediction
    changes: the network gives it weights of zero, which the rows then train. A column that is gone
    is an error.

    Parameters
    ----------
    model : Pipeline, search over one, CalibratedClassifierCV of one, or DINClassifier
        Fitted; a Pipeline ends in a :class:`DINClassifier`. Of GridSearchCV and the like,
        ``best_estimator_`` is updated; their scores stay those of the search. A calibration stays
        as it is, also where the Pipeline is frozen in it: calibrate anew, on rows that were not
        trained on, where the probabilities have moved.
    X : DataFrame, or EncodedFeatures for a DINClassifier
        The new rows, each once, with the columns of ``fit``, and others that came since.
    y : array-like of shape (n,)
        Their labels; all may be alike.
    sample_weight : array-like of shape (n,), default=None
        Factor of each impression's loss; the classifier alone gets it.

    Returns
    -------
    model
        The same object.

    Raises
    ------
    TypeError
        If there is no DINClassifier, or it stands inside another model, such as VotingClassifier,
        that would have to be fitted anew; if a CalibratedClassifierCV holds several.
    ValueError
        If rows or labels are not as those of ``fit``, or a column is gone.

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
    >>> model = update(model, pd.DataFrame({"item": ["hat", "boot"]}), [1, 0])
    >>> model[0].vocabularies_["item"]
    array(['hat', 'sock', 'boot'], dtype=object)
    """
    from sklearn_din.training.check_tasks import leave  # and skorch: slow to import
    from sklearn_din.training.weight_average import AveragedPass

    classifier = classifier_of(model, purpose="update")
    _warn_of_clicks_alone(classifier, y)
    learner, _ = unwrap(model, purpose="update")
    renewed: list[tuple[Step, Step]] = []  # steps, and the copies that have learnt
    if isinstance(learner, Pipeline):
        for step in flat_steps(learner[:-1]):
            X = _learn_and_transform(step, X, y, renewed)
    grown = _copy_to_change(classifier)
    averaged = AveragedPass()
    grown.callbacks = [*(classifier.callbacks or ()), averaged]
    grown.partial_fit(X, y, sample_weight=sample_weight)
    grown.callbacks = classifier.callbacks
    leave(grown.net_, averaged)
    renewed.append((classifier, grown))
    # A thread in the middle of a request takes the last steps as they were beside the first ones:
    # this is noted first, and then the last step is replaced first.
    forget_written()
    replaced = {step: vars(step) for step, _ in renewed if isinstance(step, EstimatorState)}
    for state in replaced.values():
        state["_replaced"].update(replaced)
    for step, learnt in reversed(renewed):
        _replace_state(step, learnt)
    return model


def _warn_of_clicks_alone(classifier: Step, y: ArrayLike) -> None:
    """Warn where so many rows are all clicks that the model would learn to expect nothing else."""
    classes, labels = getattr(classifier, "classes_", None), np.asarray(y)
    if labels.ndim != 1 or len(labels) < MANY_ROWS or not isinstance(classes, np.ndarray):
        return
    if (labels == classes[1]).all():
        warn_user(
            f"all of the {len(labels)} rows given to update are clicks: from them the model learns "
            "that everything is clicked. Add the rows that were shown and not clicked, or make "
            "them by sample_negatives as for fit."
        )


def _replace_state(step: Step, learnt: Step) -> None:
    """Let a step be what its copy has learnt, in one store."""
    step.__dict__ = vars(learnt)


def _learn_and_transform(step: Step, X: Any, y: ArrayLike, renewed: list[tuple[Step, Step]]) -> Any:
    """Let a copy of the step learn, where it can, and return the rows as it transforms them."""
    if not hasattr(step, "partial_fit"):
        return step.transform(X)
    learnt = _copy_to_change(step)
    renewed.append((step, learnt))
    learnt.partial_fit(X, y)
    return learnt.transform(X)


def _copy_to_change(step: Step) -> Step:
    """Return a copy whose ``partial_fit`` leaves the step as it is.

    Our own estimators never write to what they have learnt, they put something new in its place:
    a copy that shares all of it costs nothing. Others may write to their arrays.
    """
    if not isinstance(step, EstimatorState):
        return copy.deepcopy(step)
    shared = step._now()
    shared._set({})
    return shared
