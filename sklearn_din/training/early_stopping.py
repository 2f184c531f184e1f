"""Looks at the validation rows: the average of recent weights is judged, the best one is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from skorch.callbacks import Callback
from torch import Tensor

AVERAGED_LOOKS = 4


class BestLook(Callback):
    """Keep the average weights of the best look; stop when looks stop improving.

    Each look judges the average of the weights at this look and the ones before it: a moving
    average over some ``AVERAGED_LOOKS``. Steps of Adam scatter around the optimum, their average
    lies closer to it (Polyak and Juditsky 1992). Training itself goes on from the latest weights.

    Parameters
    ----------
    patience : int
        Looks without a smaller validation loss before training stops.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Forget earlier looks."""
        self.best_loss_ = np.inf
        self.best_look_ = 0
        self.stopped_ = False
        self._is_looking = False
        self._average: dict[str, Tensor] = {}
        self._best: dict[str, Tensor] = {}
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []

    def on_batch_begin(
        self, net: Any, batch: Any = None, training: bool = False, **kwargs: Any
    ) -> None:
        """Put the average in place before the first validation batch of a look."""
        if training or self._is_looking:
            return
        share = 1.0 / min(len(net.history), AVERAGED_LOOKS)
        with torch.no_grad():
            for name, latest in net.module_.state_dict().items():
                if name in self._average:
                    self._average[name].lerp_(latest, share)
                else:
                    self._average[name] = latest.clone()
        self._exchange(net.module_)

    def on_batch_end(
        self, net: Any, batch: Any = None, training: bool = False, **kwargs: Any
    ) -> None:
        """Collect what the look predicted."""
        if not training:
            self._logits.append(kwargs["y_pred"])
            self._labels.append(batch[1])

    def on_epoch_end(
        self, net: Any, dataset_train: Any = None, dataset_valid: Any = None, **kwargs: Any
    ) -> None:
        """Record the AUC, keep the average if its loss is the smallest so far."""
        labels = torch.cat(self._labels).numpy()
        logits = torch.cat(self._logits).float().cpu().numpy()
        self._labels, self._logits = [], []
        has_both = 0.0 < labels.mean() < 1.0
        net.history.record("valid_auc", roc_auc_score(labels, logits) if has_both else np.nan)
        self._exchange(net.module_)
        loss, look = net.history[-1, "valid_loss"], len(net.history)
        if loss < self.best_loss_:
            self.best_loss_, self.best_look_ = loss, look
            self._keep_average()
        elif look - self.best_look_ >= self.patience:
            self.stopped_ = True
            raise KeyboardInterrupt  # skorch's own way to leave the loop

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Give the best look's weights back."""
        if self._is_looking:  # interrupted by the user
            self._exchange(net.module_)
        if self._best:
            net.module_.load_state_dict(self._best)
        self._average, self._best = {}, {}
        self._logits, self._labels = [], []

    def _exchange(self, module: Any) -> None:
        """Swap the module's weights and the average; no number is copied."""
        for name, weight in module.state_dict(keep_vars=True).items():
            weight.data, self._average[name] = self._average[name], weight.data
        self._is_looking = not self._is_looking

    def _keep_average(self) -> None:
        """Copy into the same memory each time: large tables are not allocated anew."""
        for name, average in self._average.items():
            if name in self._best:
                self._best[name].copy_(average)
            else:
                self._best[name] = average.clone()
