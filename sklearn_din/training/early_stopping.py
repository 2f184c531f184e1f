"""Validation checks: the average of the latest weights is judged, the best average is kept.

It is kept if it is better than one output for all rows, which needs no network.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import Tensor, nn

from sklearn_din.network.batch import Batch
from sklearn_din.training.batches import ImpressionBatches
from sklearn_din.training.checks import best_check
from sklearn_din.training.steps import check_losses, read_losses
from sklearn_din.training.weight_average import share_of_part, take_weights

BATCHES_PER_CHECK = 50
MOST_CHECKS_PER_EPOCH = 4
AVERAGED_CHECKS = 4
# Patience starts with the first full average: earlier, the weights may still change so much that
# their average is worse than each (benchmarks/quality-results.md, "Recent matches in attention").
CHECKS_BEFORE_PATIENCE = AVERAGED_CHECKS

Batches = Iterable[tuple[Batch, Tensor]]  # impressions, and their encoded y (n,)


def count_checks(n_batches: int) -> int:
    """Return the number of validation checks in an epoch of so many batches.

    Examples
    --------
    >>> [count_checks(n) for n in (1, 99, 100, 1_000)]
    [1, 1, 2, 4]
    """
    return min(max(n_batches // BATCHES_PER_CHECK, 1), MOST_CHECKS_PER_EPOCH)


class EarlyStopping(Callback):
    """Stop when validation checks stop improving; keep the best average of the latest weights.

    There is a check at the end of each epoch, which is skorch's own pass over the validation
    batches, and up to three within it, between training batches. A check does not judge the latest
    weights but their average over the last ``AVERAGED_CHECKS`` checks or so: a moving average.
    The average with the smallest validation loss is what the net has in the end. Training itself
    goes on from the latest weights.

    A fit must not end worse than knowing nothing: where no check has a smaller loss than the base
    rate of the training rows (of numbers their mean), predicted for every validation row, the net
    in the end predicts that rate, and ``net.stop_reason_`` is "base_rate". Its last layer then is
    its bias alone, so that later training goes on from there. Ctrl-C leaves the best check all the
    same.

    Each check is a row of ``net.checks_``; without validation batches, each epoch is one. Then
    nothing is judged, and with ``early_stopping="auto"``, of few rows, the net in the end has the
    mean of the weights after each epoch: latest weights have learnt so few rows by heart.

    Parameters
    ----------
    patience : int
        Validation checks without a smaller loss before training stops; the first
        ``CHECKS_BEFORE_PATIENCE`` do not count.
    """

    sees_refit = True  # the pass over the validation rows

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_train_begin(self, net: NeuralNet, **kwargs: object) -> None:
        """Forget earlier checks."""
        self._n_checks_before = len(net.checks_)
        self._n_epochs_before = net.n_epochs_
        self._holds_average = False  # whether the module's weights are the average now
        self._average: dict[str, Tensor] = {}
        self._best: dict[str, Tensor] = {}
        self._predicted: list[tuple[Tensor, Tensor, Tensor, int]] = []
        train, valid = net.get_split_datasets(None)
        net.constant_ = net.target.constant(train.y, train.weights)
        self._base_bias = net.module_.bias_of(torch.as_tensor(net.constant_))
        self._base_check: dict[str, float] | None = None
        if valid is not None:
            loss = net.target.loss_of_constant(net.constant_, valid.y, valid.weights)
            self._base_check = {"valid_loss": loss, "valid_auc": 0.5}

    def on_epoch_begin(
        self,
        net: NeuralNet,
        dataset_train: ImpressionBatches,
        dataset_valid: Batches | None = None,
        **kwargs: object,
    ) -> None:
        """Choose the batches after which there are checks; the last one is skorch's own pass."""
        self._began, self._n_batches, self._valid = time.perf_counter(), 0, dataset_valid
        self._epochs_done = self._n_epochs_before + net.n_epochs_now() - 1
        if net.is_refitting_:  # training may have stopped in the middle of an epoch
            self._epochs_done = net.checks_[-1]["epoch"]
        n = dataset_train.n_batches
        self.checks_per_epoch_ = 1 if dataset_valid is None else count_checks(n)
        ends = np.linspace(0, n, self.checks_per_epoch_ + 1).round()
        self._ends = {int(end) for end in ends[1:-1]}

    def on_batch_begin(self, net: NeuralNet, training: bool = False, **kwargs: object) -> None:
        """Put the average in place before the first validation batch of an epoch."""
        if not training and not self._holds_average:
            self._begin_check(net)

    def on_batch_end(
        self,
        net: NeuralNet,
        batch: tuple[Batch, Tensor],
        training: bool,
        y_pred: Tensor,
        loss: Tensor,
        **kwargs: object,
    ) -> None:
        """Collect what an epoch's last check predicts; make the checks before it."""
        if not training:
            self._note(batch, y_pred, loss)
        elif len(net.history[-1]["batches"]) in self._ends and self._valid is not None:
            self._begin_check(net)
            for valid_batch in self._valid:
                self._note(valid_batch, **net.validation_step(valid_batch))
            net.module_.train()
            self._end_check(net)

    def on_epoch_end(self, net: NeuralNet, **kwargs: object) -> None:
        """Judge the epoch's last check, or note that the epoch is over where there are none."""
        if self._holds_average:
            self._end_check(net)
        elif not net.is_refitting_:
            net.checks_.append(self._row(net, valid_loss=np.nan, valid_auc=np.nan))
            if net.early_stopping == "auto" and net.most_epochs_ > 1:
                take_weights(self._average, net.module_, 1.0 / len(self._checks(net)))
                self._best = self._average

    def on_train_end(self, net: NeuralNet, **kwargs: object) -> None:
        """Give the net the average of the best check; keep nothing of the rows."""
        if self._holds_average:  # training ended in the middle of a check
            self._exchange(net.module_)
        if self.is_better(net) or (self._best and net.stop_reason_ == "user"):
            net.module_.load_state_dict(self._best)
        elif self._best:
            net.module_.load_state_dict(self.best_weights(net))
            net.stop_reason_ = "base_rate"
        self._average, self._best, self._valid, self._predicted = {}, {}, None, []

    def set_aside_batches(
        self, net: NeuralNet, parts: Sequence[tuple[ImpressionBatches, ImpressionBatches]]
    ) -> Iterator[tuple[Batch, Tensor]]:
        """Batches of the validation rows, part by part in time, to learn from the best weights on.

        The weights after each part enter an average that the best ones begin. Each part is
        predicted by the average before it is learnt: the loss over all parts is that of one further
        check, and the last average is kept if it is the smallest. ``parts`` hold the batches to
        learn from, and the same rows to predict.
        """
        net.module_.load_state_dict(self._best)
        self._average = {name: best.clone() for name, best in self._best.items()}
        for number, (train, valid) in enumerate(parts, start=1):
            self._exchange(net.module_)
            for batch in valid:
                self._note(batch, **net.validation_step(batch))
            self._exchange(net.module_)
            yield from train
            take_weights(self._average, net.module_, share_of_part(number, len(parts)))
        self._exchange(net.module_)
        self._end_check(net)

    def _checks(self, net: NeuralNet) -> list[dict[str, float]]:
        """Return the checks of this training."""
        return net.checks_[self._n_checks_before :]

    def _begin_check(self, net: NeuralNet) -> None:
        """Take the latest weights into their average, and put that in their place."""
        share = 1.0 / min(len(self._checks(net)) + 1, AVERAGED_CHECKS)
        take_weights(self._average, net.module_, share)
        self._exchange(net.module_)

    def _note(self, batch: tuple[Batch, Tensor], y_pred: Tensor, loss: Tensor) -> None:
        self._predicted.append((y_pred, batch[1], loss.detach(), batch[0].n_joint_rows))

    def _end_check(self, net: NeuralNet) -> None:
        """Record loss and AUC, keep the average if it is the best so far."""
        check_losses(net)
        logits, labels, losses, sizes = zip(*self._predicted, strict=True)
        self._predicted = []
        loss = float(np.average(torch.stack(losses).tolist(), weights=sizes))
        auc = net.target.auc(torch.cat(labels).numpy(), torch.cat(logits).float().cpu().numpy())
        self._exchange(net.module_)
        net.checks_.append(self._row(net, valid_loss=loss, valid_auc=auc))
        net.history.record("valid_auc", auc)
        checks = self._checks(net)
        best = best_check(checks)
        is_best = [check is best for check in checks]
        if is_best[-1]:
            for name, average in self._average.items():  # large tables are not allocated anew
                if name in self._best:
                    self._best[name].copy_(average)
                else:
                    self._best[name] = average.clone()
            return
        n_without = len(checks) - max(is_best.index(True) + 1, CHECKS_BEFORE_PATIENCE)
        if n_without >= self.patience and not net.is_refitting_:
            net.stop_training("patience")

    def _row(self, net: NeuralNet, **of_check: float) -> dict[str, float]:
        """Row of ``checks_``: the training loss is that of the batches since the check before."""
        read_losses(net)
        batches = [batch for batch in net.history[-1]["batches"] if "train_loss" in batch]
        since, now = batches[self._n_batches :], time.perf_counter()
        losses = [batch["train_loss"] for batch in since]
        sizes = [batch["train_batch_size"] for batch in since]
        seconds, self._began, self._n_batches = now - self._began, now, len(batches)
        n_before = sum(check["epoch"] > self._epochs_done for check in net.checks_)
        return {
            "epoch": self._epochs_done + (n_before + 1) / self.checks_per_epoch_,
            "train_loss": float(np.average(losses, weights=sizes)),
            **of_check,
            "seconds": seconds,
        }

    def is_better(self, net: NeuralNet) -> bool:
        """Return whether there is a best check, and it is better than the base rate, if judged."""
        if not self._best or self._base_check is None:
            return bool(self._best)
        return best_check([self._base_check, *self._checks(net)]) is not self._base_check

    def best_weights(self, net: NeuralNet) -> Mapping[str, Tensor]:
        """The average of the best check, or those that predict the base rate where it is no worse.

        They lie in memory that later checks write to. Empty before the first check.
        """
        if not self._best or self.is_better(net):
            return self._best
        weight, bias = self._best["output.weight"], self._best["output.bias"]
        constant = torch.zeros_like(bias) + self._base_bias.to(bias)
        return {**self._best, "output.weight": torch.zeros_like(weight), "output.bias": constant}

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Return the weights that the checks so far have left; not in the middle of a check.

        They lie in memory that later checks write to.
        """
        return {"average": self._average, "best": self._best}

    def load_state_dict(self, state: Mapping[str, Any], device: str | torch.device) -> None:
        """Go on from the checks of another training of the same network, on a device."""
        self._average = {name: tensor.to(device) for name, tensor in state["average"].items()}
        self._best = {name: tensor.to(device) for name, tensor in state["best"].items()}

    def go_on_within_epoch(self, n_batches: int, seconds: float) -> None:
        """Begin an epoch that had made a check after so many batches, so many seconds ago."""
        self._n_batches, self._began = n_batches, self._began - seconds

    def place_within_epoch(self) -> tuple[int, float]:
        """Batches of the epoch before its latest check, and the seconds since."""
        return self._n_batches, time.perf_counter() - self._began

    def _exchange(self, module: nn.Module) -> None:
        """Swap the module's weights and the average; no number is copied."""
        for name, weight in module.state_dict(keep_vars=True).items():
            weight.data, self._average[name] = self._average[name], weight.data
        self._holds_average = not self._holds_average
