"""What a fitted Pipeline remembers of rows that have come since, while its weights stay."""

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from narwhals.typing import IntoDataFrame
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, is_classifier
from sklearn.metrics import get_scorer
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from sklearn_din.inspection.fitted import flat_steps, unwrap
from sklearn_din.logs.aggregates import with_known_times
from sklearn_din.logs.clocks import note_far
from sklearn_din.logs.distinct import holds_lists, note_spelling
from sklearn_din.logs.history_builder import HistoryBuilder
from sklearn_din.logs.row_memory import RowMemory
from sklearn_din.serving.updating import warn_of_clicks_alone
from sklearn_din.utils.compat import _safe_indexing
from sklearn_din.utils.frames import CallerFrame
from sklearn_din.utils.keys import Keys
from sklearn_din.utils.progress import show_progress
from sklearn_din.utils.row_labels import check_row_labels
from sklearn_din.utils.validation import (
    check_frame,
    plain_values,
    read_span,
    read_times_alike,
)
from sklearn_din.utils.warnings import warn_of, warn_user

Model = TypeVar("Model", bound=BaseEstimator)
MANY_ROWS = 500  # told in one call
SECONDS_BEFORE_BAR = 3.0  # of live predictions


def remember(model: Model, X: IntoDataFrame, y: ArrayLike) -> Model:
    """Return a new model whose memory knows these rows; its weights stay as they are.

    Later rows get the histories and levels of now: their HistoryBuilder knows the events among
    these rows and what came of them. It takes milliseconds. A row that is told again, the k-th of
    those equal in user, time and columns, replaces the first: a batch may be given twice, and a
    label may be 0 or missing first and 1 later (:meth:`HistoryBuilder.partial_fit`). Rows of one
    call are different rows: of an impression and its click give one, with the click's label. The
    given model is unchanged, to the last bit; :func:`update` learns from the rows, too.

    Parameters
    ----------
    model : HistoryBuilder, Pipeline with one, search over one, or CalibratedClassifierCV of one
        Fitted.
    X : pandas, polars or Arrow frame of shape (n_rows, ...)
        Rows that were shown since: user, time, and the columns that the HistoryBuilder names;
        others are left out. No rows change nothing.
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
    ValueError
        If labels or values are of another kind than at fit: nothing is remembered.

    Warns
    -----
    UserWarning
        If all rows are clicks, or clicks are far more or less frequent in 500 rows or more than in
        those remembered (once), ids are written in another way than those remembered, times are of
        another clock, or rows are decades away from all others.

    See Also
    --------
    update, live_predictions, forget

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
    steps, memories = _find_memories(model, purpose="remember")
    check_consistent_length(X, y)
    if not np.size(y):
        return copy.copy(model)
    check_row_labels(X, y)
    newer: dict[int, Any] = {}
    for step in steps[: steps.index(memories[-1]) + 1]:
        if step in memories:
            _warn_of_told_rows(step, CallerFrame(X, name="X").pandas, y, steps)
            newer[id(step)] = copy.copy(step)._tell(X, y, step._names_to_tell)
            warn_of([_note_rates(step.memory_, newer[id(step)].memory_)], once=True)
        if step is not memories[-1]:
            X = step.transform(X)
    return _with_steps(model, newer, steps)


def forget(model: Model, users: Collection[Any]) -> Model:
    """Return a new model that knows no row of some users, as if none had ever been told.

    Their events leave the histories, and their labels leave all running rates, at all times. The
    classifier drops their running rates, too. The trained weights stay until the next ``fit``. The
    given model is unchanged, and so are its files: save or export the result again.

    Parameters
    ----------
    model : HistoryBuilder, Pipeline with one, search over one, or CalibratedClassifierCV of one
        Fitted.
    users : list, array or Series
        Their ids; 7, 7.0 and "7" are one.

    Returns
    -------
    model
        A new model of the same kind.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn_din import HistoryBuilder
    >>> shown = pd.DataFrame({"user": [1, 1, 2], "item": ["hat", "tie", "hat"], "time": [1, 2, 3]})
    >>> memory = HistoryBuilder(user="user", time="time", columns="item", levels=["item"])
    >>> forget(memory.fit(shown, [1, 0, 1]), [1]).events_
       user  time item
    0     2     3  hat
    """
    steps, memories = _find_memories(model, purpose="forget")
    hashes = Keys.read(pd.Series([*users]), name="users").hashes
    newer: dict[int, Any] = {id(step): step._without(hashes) for step in memories}
    net = getattr(steps[-1], "net_", None)
    if net is not None:
        newer[id(steps[-1])] = classifier = copy.copy(steps[-1])
        classifier.net_ = net.without_users(hashes)
    return _with_steps(model, newer, steps)


def _find_memories(model: Any, *, purpose: str) -> tuple[list[Any], list[HistoryBuilder]]:
    """Return all steps of a fitted model, and those that remember."""
    learner, _ = unwrap(model, purpose=purpose)
    steps = [*flat_steps(learner)] if isinstance(learner, Pipeline) else [learner]
    memories = [step for step in steps if isinstance(step, HistoryBuilder)]
    if not memories:
        raise TypeError(
            f"{purpose} needs a HistoryBuilder, which attaches what is remembered to each row, got "
            f"{type(model).__name__} without one. Begin the Pipeline with HistoryBuilder(user=..., "
            "time=..., columns=[...], levels='auto')."
        )
    for memory in memories:
        check_is_fitted(memory, "events_")
    return steps, memories


def _with_steps(model: Model, newer: dict[int, Any], steps: Sequence[Any]) -> Model:
    """Return a copy of what stands around steps, with newer ones and the others themselves."""
    return copy.deepcopy(model, {id(step): step for step in steps} | newer)


def _warn_of_told_rows(
    memory: HistoryBuilder, X: pd.DataFrame, y: ArrayLike, steps: Sequence[Any]
) -> None:
    """Warn of rows that cannot join those remembered, or say nothing of rates."""
    if memory.memory_ is not None and memory.known is None and len(memory.memory_.values):
        what, labels = "that are remembered are clicks: all rates rise", memory.memory_.values[:, 0]
        before, rate = memory._n_clicks_alone, float(np.nan_to_num(labels).mean())
        warn_of_clicks_alone(memory.classes_, y, before, what, rate=rate)
    users = {str(step.user) for step in steps if getattr(step, "user", None)}
    if len(users) > 1:
        warn_user(f"the steps name different users, {sorted(users)}: levels are of one of them.")
    check_frame(X, memory._names_to_tell, name="X")
    events = memory.events_
    for name in (memory.user, *memory._columns):
        if not (holds_lists(events[name]) or holds_lists(X[name])):
            known = pd.Index(pd.unique(plain_values(events[name].dropna())))
            warn_of([note_spelling(X[name], known, f"values of {name!r}")])
    warn_of([note_far(X[memory.time], events[memory.time])])


def _note_rates(before: RowMemory | None, after: RowMemory | None) -> str | None:
    """Return what to ask where clicks are far more, or less, frequent in the rows just told."""
    n = len(before.times) if before is not None and before.of_clicks else 0
    if after is None or not n or len(after.times) - n < MANY_ROWS:
        return None
    parts = [(after.values[part, 0], after.replaces[part] < 0) for part in np.s_[n:, :n]]
    counts = np.array([[(y[own] == label).sum() for label in (1, 0)] for y, own in parts]) + 0.5
    odds, error = counts[:, 0] / counts[:, 1], np.sqrt((1 / counts).sum())
    if counts[0].sum() < MANY_ROWS or abs(np.log(odds[1] / odds[0])) < max(np.log(2), 4 * error):
        return None
    rates = " and ".join(f"{rate:.1%}" for rate in odds / (1 + odds))
    return (
        f"of the rows told and those of before, {rates} are clicks: were rows of one kind left "
        "out for training, or are labels told before they are certain? Levels compare both. Fit "
        "on all rows, and tell each when its label is certain."
    )


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
        "1D". The first period begins with the first row. 0: each row is asked by all that was known
        strictly before it, as of a server that is told each outcome at once.

    Returns
    -------
    ndarray of shape (n_rows,), or (n_rows, n_labels)
        The probability of the positive class, of several labels of each; of a regressor, its
        predictions.

    See Also
    --------
    live_scoring : Scores of such predictions, in a search or a cross-validation.

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
    builder = _find_memories(model, purpose="live_predictions")[1][0]
    check_consistent_length(X, y)
    check_row_labels(X, y)
    if every == 0:
        return _predict(remember(model, X, y), X)
    shown = CallerFrame(X, name="X")
    check_frame(shown.pandas, [builder.time], name="X")
    known = with_known_times(shown.pandas, builder.time, builder.known, name="X", y=y)
    periods, known_in = _periods([shown.pandas[builder.time], known[builder.time]], every)
    predictions: list[np.ndarray] = []
    rows: list[np.ndarray] = []
    last = -1
    of_periods = ((period, np.flatnonzero(periods == period)) for period in np.unique(periods))
    parts = show_progress(
        of_periods, "live predictions", len(periods), seconds_before=SECONDS_BEFORE_BAR
    )
    for period, asked in parts:
        if len(new := np.flatnonzero((known_in >= last) & (known_in < period))):
            model = remember(model, shown.take(new), _safe_indexing(y, new))
        rows.append(asked)
        predictions.append(_predict(model, shown.take(asked)))
        last = period
    joined = np.concatenate(predictions)
    joined[np.concatenate(rows)] = joined.copy()
    return joined


def _periods(columns: Sequence[Any], every: float | str) -> list[np.ndarray]:
    """Return the number of the period of each row's time, and of other columns of times."""
    values, unit = read_times_alike(columns)
    length, exact = read_span(every, unit=unit, name="every", example="1D")
    if not exact > 0:
        raise ValueError(f"every must be positive, or 0 for right after each row, got {every!r}.")
    period = length if unit is None else max(length, 1)
    return [(times - values[0].min()) // period for times in values]


def _predict(model: Any, X: Any) -> np.ndarray:
    if not hasattr(model, "predict_proba"):
        return np.asarray(model.predict(X))
    probabilities = model.predict_proba(X)
    if isinstance(probabilities, list):  # of several labels
        return np.column_stack([own[:, 1] for own in probabilities])
    return np.asarray(probabilities)[:, 1]


def live_scoring(
    scoring: str | Callable[..., float], *, every: float | str
) -> Callable[..., float]:
    """Make a scorer of what a model says when it is told in between what came of rows.

    ``cross_val_score`` and ``GridSearchCV`` ask a model that is told nothing after training: by
    time, its memory ends where the test begins. With this scorer they report, and choose, what
    is served by a model that is told: :func:`live_predictions` of the test rows.

    Parameters
    ----------
    scoring : str or callable
        A scorer of scikit-learn by its name, such as "roc_auc" or "neg_log_loss", or a callable
        ``(estimator, X, y)``, such as :func:`~sklearn_din.metrics.group_roc_auc_scorer`.
    every : number, or duration
        How often the model is told: as in :func:`live_predictions`, 0 right after each row.

    Returns
    -------
    callable
        A scorer ``(estimator, X, y)``. The estimator must have a HistoryBuilder, and X the columns
        that it remembers.

    See Also
    --------
    TimeSplit : Folds by time.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.model_selection import cross_validate
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_din import DINClassifier, HistoryBuilder, HistorySequenceEncoder, TimeSplit
    >>> shown = pd.DataFrame({"user": [1, 2] * 20, "item": list("abba") * 10, "time": range(40)})
    >>> memory = HistoryBuilder(user="user", time="time", columns=["item"], levels="auto")
    >>> encoder = HistorySequenceEncoder(user="user", time="time")
    >>> model = make_pipeline(memory, encoder, DINClassifier(max_epochs=1, random_state=0))
    >>> scoring = {"frozen": "roc_auc", "live": live_scoring("roc_auc", every=0)}
    >>> folds = TimeSplit(2, time="time")
    >>> scores = cross_validate(model, shown, [1, 0, 0, 1] * 10, cv=folds, scoring=scoring)
    >>> scores["test_live"].shape
    (2,)
    """
    return _LiveScorer(get_scorer(scoring), every)


@dataclass
class _LiveScorer:
    scorer: Callable[..., float]
    every: float | str

    def __call__(self, estimator: BaseEstimator, X: IntoDataFrame, y: ArrayLike) -> float:
        """Return the score of live predictions."""
        said = live_predictions(estimator, X, y, every=self.every)
        return self.scorer(_Answered(estimator, said), X, y)


class _Answered:
    """An estimator that has been asked already: it gives these predictions, whatever the rows."""

    def __init__(self, estimator: Any, said: np.ndarray) -> None:
        self.estimator, self.said = estimator, said

    def __getattr__(self, name: str) -> Any:
        return getattr(self.estimator, name)

    def decision_function(self, _: object) -> np.ndarray:
        return self.said - 0.5

    def predict_proba(self, _: object) -> Any:
        pairs = [np.column_stack([1 - p, p]) for p in np.atleast_2d(self.said.T)]
        return pairs if self.said.ndim == 2 else pairs[0]

    def predict(self, _: object) -> np.ndarray:
        if not is_classifier(self.estimator):
            return self.said
        is_click, classes = (self.said > 0.5).astype(int), self.estimator.classes_
        if self.said.ndim == 1:
            return classes[is_click]
        return np.column_stack([own[n] for own, n in zip(classes, is_click.T, strict=True)])
