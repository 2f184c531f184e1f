"""scikit-learn's callbacks in our estimators: a fit is a task that may have subtasks.

scikit-learn has callbacks since 1.9, and calls them experimental. Only this file uses their
private names, ``_skl_callbacks`` and ``_init_callback_context``, which estimators of other
packages need.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator

from sklearn_din.utils.compat import CallbackSupportMixin as CallbackSupportMixin

if TYPE_CHECKING:
    from sklearn.callback import CallbackContext  # not in every scikit-learn

Attributes = Callable[[], Mapping[str, object]]  # called only if a callback asks for them


class FitTask:
    """A fit, or a subtask of it, that has started and must be ended.

    ``given`` are X, y and metadata as given to ``fit``; ``attributes`` returns those that make a
    copy of the estimator fitted, as if the fit had stopped now: called only if a callback asks for
    it.
    """

    def __init__(
        self,
        estimator: BaseEstimator,
        context: "CallbackContext",
        given: Mapping[str, object],
        attributes: Attributes | None = None,
    ) -> None:
        self._estimator = estimator
        self._context = context
        self._given = given
        context.call_on_fit_task_begin(
            estimator=estimator, reconstruction_attributes=attributes, **given
        )

    def begin(self, name: str, attributes: Attributes | None = None) -> "FitTask":
        """Begin the next task of those that this one consists of."""
        context = self._context.subcontext(task_name=name)
        return FitTask(self._estimator, context, self._given, attributes)

    def end(self, attributes: Attributes | None = None) -> bool:
        """Notify the callbacks; return True if one of them requests to stop."""
        return self._context.call_on_fit_task_end(
            estimator=self._estimator, reconstruction_attributes=attributes, **self._given
        )

    def end_unfinished(self) -> None:
        """Notify the callbacks that the task ended without a result."""
        self._context.call_on_fit_task_end(estimator=self._estimator)


def begin_fit(
    estimator: BaseEstimator,
    X: object,
    y: ArrayLike | None,
    sample_weight: ArrayLike | None = None,
    *,
    n_parts: int = 0,
) -> FitTask | None:
    """Announce a fit of at most so many tasks to the estimator's callbacks; None if it has none.

    Called within a method under ``_fit_context``, which lets the callbacks go at the end. The task
    is to be ended with ``end(dict)`` when the estimator is fitted.
    """
    if not getattr(estimator, "_skl_callbacks", None):
        return None
    metadata = None if sample_weight is None else {"sample_weight": sample_weight}
    context = estimator._init_callback_context(max_subtasks=n_parts)
    return FitTask(estimator, context, {"X": X, "y": y, "metadata": metadata})


@contextmanager
def fit_task(estimator: BaseEstimator, X: object, y: ArrayLike | None) -> Iterator[None]:
    """Announce start and end of a fit without subtasks to the estimator's callbacks."""
    task = begin_fit(estimator, X, y)
    yield
    if task is not None:
        task.end(dict)  # the estimator is fitted: a copy needs no further attributes
