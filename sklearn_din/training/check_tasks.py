"""scikit-learn's callbacks in training: each validation check is a task and may end training."""

from collections.abc import Callable, Mapping

from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from skorch.callbacks import Callback

from sklearn_din.training.batches import ImpressionBatches
from sklearn_din.training.growth import copy_as_if_stopped
from sklearn_din.training.net import DINNet
from sklearn_din.training.validation_checks import count_checks
from sklearn_din.utils.callbacks import FitTask, begin_fit


class CheckTasks(Callback):
    """Report each validation check (each epoch, where there are none) to scikit-learn's callbacks.

    A task is one row of the net's checks. Callbacks may ask for the estimator as it would be if
    training stopped at that row, ``fitted(net)``, and may ask to stop. The net forgets this object
    at the end: it holds what ``fit`` was given.
    """

    sees_refit = True

    def __init__(
        self,
        estimator: BaseEstimator,
        X: object,
        y: ArrayLike,
        sample_weight: ArrayLike | None,
        fitted: Callable[[DINNet], Mapping[str, object]],
    ) -> None:
        self.estimator = estimator
        self.X, self.y, self.sample_weight = X, y, sample_weight
        self.fitted = fitted
        self.fit_task: FitTask | None = None

    def on_train_begin(self, net: DINNet, **kwargs: object) -> None:
        """No task has begun yet."""
        self._task: FitTask | None = None

    def on_epoch_begin(
        self,
        net: DINNet,
        dataset_train: ImpressionBatches,
        dataset_valid: object = None,
        **kwargs: object,
    ) -> None:
        """Begin a task; the pass over the validation rows is the last one."""
        if net.training_.is_refitting:
            if self._task is not None:  # early stopping left the loop in the middle of it
                self._end(net)
            self._begin(net)
            return
        self._kind = "epoch" if dataset_valid is None else "validation check"
        if self.fit_task is None:  # how many tasks there may be is known now
            per_epoch = 1 if dataset_valid is None else count_checks(dataset_train.n_batches)
            n_parts = net.max_epochs * per_epoch + bool(net.training_.parts)
            self.fit_task = begin_fit(
                self.estimator, self.X, self.y, self.sample_weight, n_parts=n_parts
            )
        self._begin(net)

    def on_batch_begin(self, net: DINNet, training: bool = False, **kwargs: object) -> None:
        """Begin a task after a check within the epoch."""
        if training and self._task is None:
            self._begin(net)

    def on_batch_end(self, net: DINNet, training: bool = False, **kwargs: object) -> None:
        """End the task after a check; stop training if a callback asks for it."""
        if self._task is not None and len(net.checks_) > self._n_rows and self._end(net):
            net.training_.stop("callback")

    on_epoch_end = on_batch_end

    def on_train_end(self, net: DINNet, **kwargs: object) -> None:
        """End the task that was open when training stopped, and leave the net."""
        if self._task is not None and len(net.checks_) > self._n_rows:
            self._end(net)  # stopped by another callback at the end of this check
        elif self._task is not None:
            self._task.end_unfinished()
        leave(net, self)

    def end_fit(self) -> None:
        """Notify the callbacks that the estimator is fitted."""
        if self.fit_task is not None:
            self.fit_task.end(dict)  # a copy of it needs no further attributes

    def _begin(self, net: DINNet) -> None:
        if self.fit_task is not None:
            self._n_rows = len(net.checks_)
            self._task = self.fit_task.begin(self._kind, lambda: self._attributes(net))

    def _end(self, net: DINNet) -> bool:
        task, self._task = self._task, None
        return task is not None and task.end(lambda: self._attributes(net))

    def _attributes(self, net: DINNet) -> Mapping[str, object]:
        """Return the estimator's attributes as if training stopped now, without stopping it."""
        weights = net.training_.checks.weights_to_keep(net)
        return self.fitted(copy_as_if_stopped(net, weights))


def leave(net: DINNet, callback: Callback) -> None:
    """Take a callback out of a net that keeps neither rows nor folders."""
    net.callbacks = [item for item in net.callbacks if item is not callback]
    net.callbacks_ = [pair for pair in net.callbacks_ if pair[1] is not callback]
