"""scikit-learn's callbacks in training: each validation check is a task, and may be the last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from skorch.callbacks import Callback

from sklearn_din._callbacks import FitTask
from sklearn_din.training.early_stopping import EarlyStopping
from sklearn_din.training.net import DINNet
from sklearn_din.training.plan import Batches, TrainingPlan


class CheckTasks(Callback):
    """Report each validation check (each epoch, where there are none) to scikit-learn's callbacks.

    A task is one row of the net's history. Callbacks may ask for the estimator as it would be if
    training stopped at that row, and may ask to stop. The net forgets this object at the end:
    it holds what ``fit`` was given.

    Parameters
    ----------
    fit_task : FitTask
        The whole training.
    attributes : callable
        Takes a trained net and returns the attributes of an estimator fitted with it.
    """

    def __init__(
        self, fit_task: FitTask, attributes: Callable[[DINNet], Mapping[str, object]]
    ) -> None:
        self.fit_task = fit_task
        self.attributes = attributes

    def on_train_begin(
        self, net: DINNet, X: TrainingPlan | None = None, y: None = None, **kwargs: object
    ) -> None:
        """No task has begun yet."""
        self._task: FitTask | None = None

    def on_epoch_begin(
        self, net: DINNet, dataset_train: Batches, dataset_valid: Batches | None, **kwargs: object
    ) -> None:
        """Begin a task."""
        name = "epoch" if dataset_valid is None else "validation check"
        self._n_rows = len(net.history)  # this check's row has just been begun
        self._task = self.fit_task.begin(name, lambda: self._attributes(net))

    def on_epoch_end(self, net: DINNet, **kwargs: object) -> None:
        """End the task; stop training if a callback asks for it."""
        if self._end(net):
            net.stop_training("callback")

    def on_train_end(
        self, net: DINNet, X: TrainingPlan | None = None, y: None = None, **kwargs: object
    ) -> None:
        """End the task that was open when training stopped, and leave the net."""
        if self._task is not None and len(net.history) == self._n_rows:
            self._end(net)  # stopped by another callback at the end of this check
        elif self._task is not None:
            self._task.end_unfinished()
        net.callbacks = [callback for callback in net.callbacks if callback is not self]
        net.callbacks_ = [pair for pair in net.callbacks_ if pair[1] is not self]

    def _end(self, net: DINNet) -> bool:
        task, self._task = self._task, None
        return task is not None and task.end(lambda: self._attributes(net))

    def _attributes(self, net: DINNet) -> Mapping[str, object]:
        return self.attributes(net_if_stopped(net))


def with_tasks(
    plan: TrainingPlan,
    fit_task: FitTask | None,
    attributes: Callable[[DINNet], Mapping[str, object]],
) -> TrainingPlan:
    """Return the plan, with a report of every check to scikit-learn's callbacks if there are any.

    Parameters
    ----------
    plan : TrainingPlan
    fit_task : FitTask or None
        The whole training. None: the estimator has no callbacks, the plan stays as it is.
    attributes : callable
        Takes a trained net and returns the attributes of an estimator fitted with it.

    Returns
    -------
    TrainingPlan
    """
    if fit_task is None:
        return plan
    return replace(plan, callbacks=(*plan.callbacks, CheckTasks(fit_task, attributes)))


def net_if_stopped(net: DINNet) -> DINNet:
    """Return the net that this training would leave if it stopped now.

    Its weights are copies: those of the best validation check so far, or the latest where no
    check has been made. Training goes on as if nothing had happened.

    Parameters
    ----------
    net : DINNet
        In training, between two validation checks.

    Returns
    -------
    DINNet
        Ready to predict.
    """
    best = [c.best_weights for _, c in net.callbacks_ if isinstance(c, EarlyStopping)]
    return net.copy_as_if_stopped(best[0] if best else {})
