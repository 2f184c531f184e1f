"""Validation checks of the average of recent weights, within epochs and at their ends.

They are rows of ``net.checks_``.
"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import Tensor

from sklearn_din.network.batch import Batch
from sklearn_din.training.batches import ImpressionBatches
from sklearn_din.training.early_stopping import AVERAGED_CHECKS, CHECK, EarlyStopping, best_check
from sklearn_din.training.platt_scaling import PlattScaling, scale_output
from sklearn_din.training.weight_average import WeightAverage
from sklearn_din.utils.calibration import calibration_bins
from sklearn_din.utils.warnings import log_once

BATCHES_PER_CHECK = 50
MOST_CHECKS_PER_EPOCH = 4


def count_checks(n_batches: int) -> int:
    """Return the number of validation checks in an epoch of so many batches.

    >>> [count_checks(n) for n in (1, 99, 100, 1_000)]
    [1, 1, 2, 4]
    """
    return min(max(n_batches // BATCHES_PER_CHECK, 1), MOST_CHECKS_PER_EPOCH)


class ValidationChecks(Callback):
    """Check the average of the latest weights on the validation rows; leave the best in the net.

    There is a check at the end of each epoch, which is skorch's own pass over the validation
    batches, and up to three within it, between training batches. A check does not judge the latest
    weights but their average over the last ``AVERAGED_CHECKS`` checks or so: a moving average.
    Each is judged by its logits' best constant and scale (:class:`PlattScaling`), and the average
    that :class:`EarlyStopping` finds best is what the net has in the end, with these in its last
    layer. Training itself goes on from the latest weights, which no scale has changed.

    Without validation batches, each epoch is a row, and nothing is judged. With
    ``early_stopping="auto"``, of few rows, the net in the end then has the mean of the weights
    after each epoch: latest weights have learnt so few rows by heart.
    """

    sees_refit = True  # the pass over the validation rows
    ignores_gradients = True

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_train_begin(self, net: NeuralNet, **kwargs: object) -> None:
        """Clear earlier checks."""
        self._n_before, self._n_epochs_before = len(net.checks_), net.n_epochs_
        self.average_ = WeightAverage()
        self._predicted: list[tuple[Tensor, Tensor, Tensor, int]] = []
        self.stopping_ = EarlyStopping(self.patience)
        self._kept: dict[str, Tensor] = {}
        train, valid = net.training_.train, net.training_.valid
        net.constant_ = net.target.constant(train.y, train.weights)
        if valid is None:
            return
        at = valid.X.positions
        at = np.zeros(len(valid), dtype=np.int32) if at is None else at[valid.rows]
        self._positions = torch.from_numpy(at).to(net.device)
        self.scaling_ = PlattScaling(net, valid)

    def on_epoch_begin(
        self,
        net: NeuralNet,
        dataset_train: ImpressionBatches,
        dataset_valid: ImpressionBatches | None = None,
        **kwargs: object,
    ) -> None:
        """Choose the batches after which there are checks; the last one is skorch's own pass."""
        self._began, self._n_batches = time.perf_counter(), 0
        self._epochs_done = self._n_epochs_before + net.training_.n_epochs - 1
        if net.training_.is_refitting:  # training may have stopped in the middle of an epoch
            self._epochs_done = net.checks_[-1]["epoch"]
        n = dataset_train.n_batches
        self.checks_per_epoch_ = 1 if dataset_valid is None else count_checks(n)
        ends = np.linspace(0, n, self.checks_per_epoch_ + 1).round()
        self._ends = {int(end) for end in ends[1:-1]}

    def on_batch_begin(self, net: NeuralNet, training: bool = False, **kwargs: object) -> None:
        """Use the average weights before the first validation batch of an epoch."""
        if not training and not self.average_.is_in_place:
            self._begin(net)

    def on_batch_end(
        self,
        net: NeuralNet,
        batch: tuple[Batch, Tensor],
        training: bool,
        y_pred: Tensor,
        loss: Tensor,
        **kwargs: object,
    ) -> None:
        """Collect the predictions of an epoch's last check; make the checks before it."""
        if not training:
            self._note(net, batch, y_pred, loss)
        elif len(net.history[-1]["batches"]) in self._ends and not net.training_.is_refitting:
            self._begin(net)
            self.predict(net, net.training_.valid)
            net.module_.train()
            self.end(net)

    def on_epoch_end(self, net: NeuralNet, **kwargs: object) -> None:
        """Evaluate the last check of the epoch, or record its end if there are none."""
        if self.average_.is_in_place:
            self.end(net)
        elif not net.training_.is_refitting:
            net.checks_.append(self._row(net))
            if net.early_stopping == "auto" and net.training_.most_epochs > 1:
                self.average_.take(net.module_, 1.0 / len(self.rows(net)))
                self.stopping_.best = self.average_.weights

    def on_train_end(self, net: NeuralNet, **kwargs: object) -> None:
        """Give the net the weights to keep, and free the others and the rows."""
        if self.average_.is_in_place:  # training ended in the middle of a check
            self.average_.exchange(net.module_)
        self.stopping_.keep_latest()
        if self.stopping_.best:
            net.module_.load_state_dict(self.stopping_.best)
        best = best_check(self.rows(net))
        if best is not None:
            scale_output(net.module_, best["centers"], best["constants"], best["scales"])
            if self.scaling_.has_moved.any():
                log_once(self.scaling_.describe())
        self.average_, self.stopping_.best, self._predicted = WeightAverage(), {}, []
        self.__dict__.pop("scaling_", None)

    def take_outputs(self) -> tuple[np.ndarray, bool] | None:
        """Return the kept check's outputs for the validation rows, once.

        With them, whether the check has moved the base rate.
        """
        kept, self._kept = self._kept, {}
        return (kept["outputs"].numpy(), bool(kept["has_moved"])) if kept else None

    def rows(self, net: NeuralNet) -> list[dict[str, float]]:
        """Return the checks of this training."""
        return net.checks_[self._n_before :]

    def _begin(self, net: NeuralNet) -> None:
        """Take the latest weights into their average, and put that in their place."""
        self.average_.take(net.module_, 1.0 / min(len(self.rows(net)) + 1, AVERAGED_CHECKS))
        self.average_.exchange(net.module_)

    def predict(self, net: NeuralNet, batches: ImpressionBatches) -> None:
        """Predict validation batches, which the next check judges."""
        for batch in batches:
            self._note(net, batch, **net.validation_step(batch))

    def _note(
        self, net: NeuralNet, batch: tuple[Batch, Tensor], y_pred: Tensor, loss: Tensor
    ) -> None:
        """Note logits and what positions have added to them, in the order of validation rows."""
        size, start = batch[0].n_joint_rows, sum(size for *_, size in self._predicted)
        favours = net.module_.favours_at(self._positions[start : start + size]).detach()
        self._predicted.append((y_pred.detach(), favours.view_as(y_pred), loss.detach(), size))

    def end(self, net: NeuralNet) -> None:
        """Record losses and AUC of the predictions, and evaluate them."""
        training, scaling = net.training_, self.scaling_
        training.losses.check()
        logits, favours, losses, sizes = zip(*self._predicted, strict=True)
        self._predicted = []
        found = scaling.fit(*(torch.cat(parts).cpu().double() for parts in (logits, favours)))
        numbers, outputs = training.ranks.from_first(found)
        self.average_.exchange(net.module_)
        auc = net.target.auc(training.valid.y, outputs.numpy())
        loss = float(np.average(torch.stack(losses).tolist(), weights=sizes))
        check = self._row(net, valid_loss=scaling.loss(outputs), unscaled_loss=loss, valid_auc=auc)
        check["centers"] = scaling.center.tolist()
        check["constants"], check["scales"] = numbers.tolist()
        net.checks_.append(check)
        if best_check(self.rows(net)) is check:
            self._kept = {"outputs": outputs, "has_moved": scaling.has_moved.any()}
            check["base_loss"] = scaling.loss()
            check["rows"] = [len(training.train), sum(sizes)]
            if outputs.ndim == 1 and np.isfinite(auc):
                values = net.target.value_of(outputs.numpy())
                check["bins"] = calibration_bins(training.valid.y, values)
        net.history.record("valid_auc", auc)
        net.history.record("is_refit", training.is_refitting)
        is_over = self.stopping_.judge(self.rows(net), self.average_.weights)
        if is_over and not training.is_refitting:
            training.stop("patience")

    def _row(self, net: NeuralNet, **of_check: float) -> dict[str, Any]:
        """Row of ``checks_``: the training loss is that of the batches since the check before."""
        net.training_.losses.read(net.history)
        batches = [batch for batch in net.history[-1]["batches"] if "train_loss" in batch]
        since, now = batches[self._n_batches :], time.perf_counter()
        losses = [batch["train_loss"] for batch in since]
        sizes = [batch["train_batch_size"] for batch in since]
        seconds, self._began, self._n_batches = now - self._began, now, len(batches)
        n_before = sum(check["epoch"] > self._epochs_done for check in net.checks_)
        return {
            "epoch": self._epochs_done + (n_before + 1) / self.checks_per_epoch_,
            "train_loss": float(np.average(losses, weights=sizes)),
            **dict.fromkeys(CHECK[2:], np.nan),
            **of_check,
            "seconds": seconds,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the state after the checks so far; not in the middle of a check.

        The weights lie in memory that later checks write to.
        """
        best = self.stopping_.best
        return {"average": self.average_.weights, "best": best, "kept": self._kept}

    def load_state_dict(self, state: Mapping[str, Any], device: str | torch.device) -> None:
        """Restore the checks of another training of the same network, on a device."""
        average, best = (
            {n: t.to(device) for n, t in state[name].items()} for name in ("average", "best")
        )
        self.average_.weights, self.stopping_.best, self._kept = average, best, dict(state["kept"])

    def go_on_within_epoch(self, n_batches: int, seconds: float) -> None:
        """Begin an epoch that had made a check after so many batches, so many seconds ago."""
        self._n_batches, self._began = n_batches, self._began - seconds

    def place_within_epoch(self) -> tuple[int, float]:
        """Batches of the epoch before its latest check, and the seconds since."""
        return self._n_batches, time.perf_counter() - self._began
