"""What a fitted Pipeline remembers of rows that have come since, while its weights stay."""

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from narwhals.typing import IntoDataFrame
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from sklearn_din.inspection.fitted import flat_steps, unwrap
from sklearn_din.logs.aggregates import with_known_times
from sklearn_din.logs.history import HistoryBuilder
from sklearn_din.utils.compat import _safe_indexing
from sklearn_din.utils.frames import CallerFrame
from sklearn_din.utils.validation import check_frame, check_times, read_span, unit_ratio

Model = TypeVar("Model", bound=BaseEstimator)


def remember(model: Model, X: IntoDataFrame, y: ArrayLike) -> Model:
    """Return a new model whose memory knows these rows; its weights stay as they are.

    Later rows get the histories and levels of now: their HistoryBuilder knows the events among
    these rows and what came of them. It takes milliseconds. Rows count once, by user, time and
    columns, so a batch may be given twice. The given model is unchanged, to the last bit;
    :func:`update` learns from the rows, too.

    Parameters
    ----------
    model : HistoryBuilder, Pipeline with one, search over one, or CalibratedClassifierCV of one
        Fitted.
    X : pandas, polars or Arrow frame of shape (n_rows, ...)
        Rows that were shown since, with the columns of ``fit``.
    y : array-like of shape (n_rows,) or (n_rows, n_labels)
        What came of them.

    Returns
    -------
    model
        A new model of the same kind. Make a :class:`Ranker` of it.

    Raises
    ------
    TypeError
        If the model has no HistoryBuilder.

    See Also
    --------
    update, live_predictions

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn_din import HistoryBuilder
    >>> shown = pd.DataFrame({"user": [1, 1, 2], "item": ["hat", "tie", "hat"], "time": [1, 2, 3]})
    >>> memory = HistoryBuilder(user="user", time="time", columns="item", levels=["item"])
    >>> memory = memory.fit(shown, [1, 0, 1])
    >>> newer = remember(memory, shown.assign(time=[4, 5, 6]), [1, 0, 0])
    >>> now = pd.DataFrame({"user": [1], "item": ["hat"], "time": [9]})
    >>> [int(known.transform(now)["item_count"].iloc[0]) for known in (memory, newer)]
    [2, 4]
    """
    learner, _ = unwrap(model, purpose="remember")
    steps = [*flat_steps(learner)] if isinstance(learner, Pipeline) else [learner]
    memories = [step for step in steps if isinstance(step, HistoryBuilder)]
    if not memories:
        raise TypeError(
            "remember needs a HistoryBuilder, which attaches what is remembered to each row, got "
            f"{type(model).__name__} without one. Begin the Pipeline with HistoryBuilder(user=..., "
            "time=..., columns=[...], levels='auto')."
        )
    newer: dict[int, Any] = {}
    for step in steps[: steps.index(memories[-1]) + 1]:
        newer[id(step)] = step
        if step in memories:
            newer[id(step)] = copy.copy(step).partial_fit(X, y)
        if step is not memories[-1]:
            X = step.transform(X)
    return copy.deepcopy(model, newer | {id(step): step for step in steps if id(step) not in newer})


def live_predictions(
    model: BaseEstimator, X: IntoDataFrame, y: ArrayLike, *, every: float | str
) -> np.ndarray:
    """Return what a fitted model would have said of later rows, told in between what came of them.

    The rows are cut into periods by time. Those of each period are predicted by what was known
    when it began: the model remembers (:func:`remember`) rows of earlier periods, or, where its
    HistoryBuilder has ``known``, those whose label was known by then. This is what a test on later
    rows should measure for a model that is told each evening what happened: predicting all of them
    at once leaves its memory at the end of training.

    Parameters
    ----------
    model : Pipeline with a HistoryBuilder, search over one, or CalibratedClassifierCV of one
        Fitted on earlier rows.
    X : pandas, polars or Arrow frame of shape (n_rows, ...)
        Rows in any order, with the columns of ``fit``.
    y : array-like of shape (n_rows,) or (n_rows, n_labels)
        What came of them.
    every : number, or duration
        Length of a period: in the unit of the times where they are numbers, else a duration such as
        "1D". The first period begins with the first row.

    Returns
    -------
    ndarray of shape (n_rows,), or (n_rows, n_labels)
        The probability of the positive class, of several labels of each; of a regressor, its
        predictions.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_din import DINClassifier, HistoryBuilder, HistorySequenceEncoder
    >>> shown = pd.DataFrame({"user": [1, 2, 1, 2], "item": list("abab"), "time": [1, 2, 3, 4]})
    >>> memory = HistoryBuilder(user="user", time="time", columns=["item"], levels="auto")
    >>> encoder = HistorySequenceEncoder(user="user", time="time")
    >>> classifier = DINClassifier(max_epochs=1, random_state=0)
    >>> model = make_pipeline(memory, encoder, classifier).fit(shown, [1, 0, 1, 0])
    >>> live_predictions(model, shown.assign(time=[5, 6, 7, 8]), [1, 0, 1, 0], every=2).shape
    (4,)
    """
    learner, _ = unwrap(model, purpose="live_predictions")
    steps = flat_steps(learner) if isinstance(learner, Pipeline) else iter([learner])
    builder = next((step for step in steps if isinstance(step, HistoryBuilder)), None)
    if builder is None:
        return np.asarray(remember(model, X, y))  # raises
    shown = CallerFrame(X, name="X")
    check_frame(shown.pandas, [builder.time], name="X")
    known = with_known_times(shown.pandas, builder.time, builder.known, name="X")
    periods, known_in = _periods([shown.pandas[builder.time], known[builder.time]], every)
    predictions: list[np.ndarray] = []
    rows: list[np.ndarray] = []
    last = -1
    for period in np.unique(periods):
        if len(new := np.flatnonzero((known_in >= last) & (known_in < period))):
            model = remember(model, shown.take(new), _safe_indexing(y, new))
        rows.append(np.flatnonzero(periods == period))
        predictions.append(_predict(model, shown.take(rows[-1])))
        last = period
    joined = np.concatenate(predictions)
    joined[np.concatenate(rows)] = joined.copy()
    return joined


def _periods(columns: Sequence[Any], every: float | str) -> list[np.ndarray]:
    """Return the number of the period of each row's time, and of other columns of times."""
    read = [check_times(times, name=f"X[{times.name!r}]") for times in columns]
    unit = max((unit for _, unit, _ in read), key=lambda unit: unit_ratio(unit, "s"))
    length, exact = read_span(every, unit=unit, name="every", example="1D")
    if not exact > 0:
        raise ValueError(f"every must be positive, got {every!r}.")
    values = [times * unit_ratio(unit, own) for times, own, _ in read]
    period = length if unit is None else max(length, 1)
    return [(times - values[0].min()) // period for times in values]


def _predict(model: Any, X: Any) -> np.ndarray:
    if not hasattr(model, "predict_proba"):
        return np.asarray(model.predict(X))
    probabilities = model.predict_proba(X)
    if isinstance(probabilities, list):  # of several labels
        return np.column_stack([own[:, 1] for own in probabilities])
    return np.asarray(probabilities)[:, 1]
