"""What training shows while it runs: a progress bar with losses, AUC and time left."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from skorch.callbacks import Callback
from tqdm.auto import tqdm

from sklearn_din.training.net import DINNet
from sklearn_din.training.plan import TrainingPlan


class ProgressBar(Callback):
    """One bar for the whole training: epoch, time left, losses and AUC of the latest check.

    Drawn by tqdm on standard error, in a notebook as a widget. The time left is that of all
    ``max_epochs``: early stopping can only shorten it.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_din.estimator import DINClassifier
    >>> classifier = DINClassifier(max_epochs=1, callbacks=[ProgressBar()])
    >>> classifier = classifier.fit(np.eye(4), [0, 1, 0, 1])  # the bar is on standard error
    """

    def on_train_begin(
        self, net: DINNet, X: TrainingPlan, y: None = None, **kwargs: object
    ) -> None:
        """Name the columns of which no feature is made, and open the bar."""
        unused = net.module_.schema.unused
        if unused:
            names = ", ".join(map(str, unused))
            tqdm.write(f"columns that are not used: {names}", file=sys.stderr)
        self._checks_per_epoch, self._n_before = X.checks_per_epoch, len(net.history)
        self._n_epochs = X.max_epochs
        self._n_batches_per_check = X.batches_per_epoch / X.checks_per_epoch
        self._bar = tqdm(total=X.batches_per_epoch * X.max_epochs, unit="batch")
        self._show_epoch(n_checks=0)

    def on_epoch_begin(self, net: DINNet, **kwargs: object) -> None:
        """Show the losses of the check before, and which epoch begins."""
        checks = net.history[self._n_before : -1]  # the last one has just begun
        if checks and not self._bar.n:  # a checkpoint has put them there
            self._bar.n = self._bar.initial = round(len(checks) * self._n_batches_per_check)
        self._show_epoch(n_checks=len(checks))
        if checks:
            self._show_losses(checks[-1])

    def on_batch_end(self, net: DINNet, training: bool = False, **kwargs: object) -> None:
        """Move on by one batch; tqdm draws ten times per second at most."""
        if training:
            self._bar.update()

    def on_train_end(
        self, net: DINNet, X: TrainingPlan | None = None, y: None = None, **kwargs: object
    ) -> None:
        """Show the check whose weights are kept and close the bar."""
        checks = net.history[self._n_before :]
        text = f"trained {len(checks) / self._checks_per_epoch:g} of {self._n_epochs} epochs"
        if checks and "valid_loss" in checks[-1]:
            best = min(range(len(checks)), key=lambda i: checks[i]["valid_loss"])
            text += f", kept {(best + 1) / self._checks_per_epoch:g}"
            self._show_losses(checks[best])
        elif checks:
            self._show_losses(checks[-1])
        self._bar.set_description(text)
        self._bar.close()
        del self._bar  # a fitted classifier is pickled with its callbacks

    def _show_epoch(self, *, n_checks: int) -> None:
        epoch = n_checks // self._checks_per_epoch + 1
        self._bar.set_description(f"epoch {epoch} of {self._n_epochs}")

    def _show_losses(self, check: Mapping[str, float]) -> None:
        shown = {"loss": "train_loss", "validation": "valid_loss", "AUC": "valid_auc"}
        self._bar.set_postfix({n: f"{check[key]:.4f}" for n, key in shown.items() if key in check})
