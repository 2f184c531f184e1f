"""Validation checks: the average of the latest weights is judged, the best average is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from skorch.callbacks import Callback
from torch import Tensor

from sklearn_din.batches.batch import Batch
from sklearn_din.module import DIN
from sklearn_din.training.net import DINNet
from sklearn_din.training.plan import Batches, TrainingPlan

AVERAGED_CHECKS = 4
# Patience begins with the first full average: before, the weights may still move so far that their
# average is worse than all of them (benchmarks/quality-results.md, "Recent matches in attention").
CHECKS_BEFORE_PATIENCE = AVERAGED_CHECKS


class EarlyStopping(Callback):
    """Stop when validation checks stop improving; keep the best average of the latest weights.

    A check does not judge the latest weights but their average over the last
    ``AVERAGED_CHECKS`` checks or so: a moving average. Steps of Adam scatter around the optimum,
    their average lies closer to it (Polyak and Juditsky 1992). The average with the smallest
    validation loss is what the net has in the end. Training itself goes on from the latest
    weights.

    Parameters
    ----------
    patience : int
        Validation checks without a smaller loss before training stops; the first
        ``CHECKS_BEFORE_PATIENCE`` do not count.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_train_begin(
        self, net: DINNet, X: TrainingPlan | None = None, y: None = None, **kwargs: object
    ) -> None:
        """Forget earlier checks."""
        self.best_loss_ = np.inf
        self.best_check_ = 0
        self._n_checks = 0
        self._holds_average = False  # whether the module's weights are the average now
        self._average: dict[str, Tensor] = {}
        self._best: dict[str, Tensor] = {}
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []

    def on_batch_begin(
        self,
        net: DINNet,
        batch: tuple[Batch, Tensor] | None = None,
        training: bool = False,
        **kwargs: object,
    ) -> None:
        """Put the average in place before the first validation batch of a check."""
        if training or self._holds_average:
            return
        self._n_checks += 1
        share = 1.0 / min(self._n_checks, AVERAGED_CHECKS)
        with torch.no_grad():
            for name, latest in net.module_.state_dict().items():
                if name in self._average:
                    self._average[name].lerp_(latest, share)
                else:
                    self._average[name] = latest.clone()
        self._exchange(net.module_)

    def on_batch_end(
        self,
        net: DINNet,
        batch: tuple[Batch, Tensor],
        training: bool,
        y_pred: Tensor,
        **kwargs: object,
    ) -> None:
        """Collect what the check predicted."""
        if not training:
            self._logits.append(y_pred)
            self._labels.append(batch[1])

    def on_epoch_end(
        self,
        net: DINNet,
        dataset_train: Batches | None = None,
        dataset_valid: Batches | None = None,
        **kwargs: object,
    ) -> None:
        """Record the AUC, keep the average if its loss is the smallest so far."""
        labels = torch.cat(self._labels).numpy()
        logits = torch.cat(self._logits).float().cpu().numpy()
        self._labels, self._logits = [], []
        has_both = 0.0 < labels.mean() < 1.0
        net.history.record("valid_auc", roc_auc_score(labels, logits) if has_both else np.nan)
        self._exchange(net.module_)
        loss = net.history[-1, "valid_loss"]
        if loss < self.best_loss_:
            self.best_loss_, self.best_check_ = loss, self._n_checks
            self._keep_average()
        elif self._n_checks - max(self.best_check_, CHECKS_BEFORE_PATIENCE) >= self.patience:
            net.stop_training("patience")

    def on_train_end(
        self, net: DINNet, X: TrainingPlan | None = None, y: None = None, **kwargs: object
    ) -> None:
        """Give the net the average of the best check."""
        if self._holds_average:  # training ended in the middle of a check
            self._exchange(net.module_)
        if self._best:
            net.module_.load_state_dict(self._best)
        self._average, self._best = {}, {}
        self._logits, self._labels = [], []

    @property
    def best_weights(self) -> Mapping[str, Tensor]:
        """The average of the best check, in memory that later checks write to; empty before it."""
        return self._best

    def state_dict(self) -> dict[str, Any]:
        """What the checks so far have left, as numbers and arrays; not in the middle of a check.

        The arrays lie in memory that later checks write to.
        """
        return {
            "n_checks": self._n_checks,
            "best_check": self.best_check_,
            "best_loss": float(self.best_loss_),
            "average": {name: its.cpu().numpy() for name, its in self._average.items()},
            "best": {name: its.cpu().numpy() for name, its in self._best.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any], module: DIN) -> None:
        """Go on from the checks of another training of the same network; arrays are copied."""
        self._n_checks, self.best_check_ = state["n_checks"], state["best_check"]
        self.best_loss_ = state["best_loss"]
        weights = module.state_dict()
        for own, given in ((self._average, state["average"]), (self._best, state["best"])):
            own.clear()
            for name, array in given.items():
                own[name] = torch.empty_like(weights[name]).copy_(torch.from_numpy(array))

    def _exchange(self, module: DIN) -> None:
        """Swap the module's weights and the average; no number is copied."""
        for name, weight in module.state_dict(keep_vars=True).items():
            weight.data, self._average[name] = self._average[name], weight.data
        self._holds_average = not self._holds_average

    def _keep_average(self) -> None:
        """Copy into the same memory each time: large tables are not allocated anew."""
        for name, average in self._average.items():
            if name in self._best:
                self._best[name].copy_(average)
            else:
                self._best[name] = average.clone()
