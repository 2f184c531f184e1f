"""Progress bar of a training, with losses, AUC and time left."""

import math
from collections.abc import Mapping

from skorch.callbacks import Callback
from tqdm.auto import tqdm

from sklearn_din.training.batches import ImpressionBatches
from sklearn_din.training.early_stopping import best_check
from sklearn_din.training.net import DINNet


class ProgressBar(Callback):
    """One bar for the whole training: epoch, time left, losses and AUC of the latest check.

    Drawn by tqdm on standard error, in a notebook as a widget. The time left is that of all
    ``max_epochs``: early stopping can only shorten it.

    >>> import numpy as np
    >>> from sklearn_din.estimator import DINClassifier
    >>> classifier = DINClassifier(max_epochs=1, callbacks=[ProgressBar()])
    >>> classifier = classifier.fit(np.eye(4), [0, 1, 0, 1])  # the bar is on standard error
    """

    sees_refit = ignores_gradients = True

    def on_train_begin(self, net: DINNet, **kwargs: object) -> None:
        """Note what earlier trainings have made."""
        self._n_rows, self._n_epochs = len(net.history), net.n_epochs_
        self._n_checks = len(net.checks_)
        self._bar: tqdm | None = None

    def on_epoch_begin(
        self, net: DINNet, dataset_train: ImpressionBatches, **kwargs: object
    ) -> None:
        """Show which epoch begins; a checkpoint may have put earlier ones into the history."""
        epoch, most = len(net.history) - self._n_rows, net.training_.most_epochs
        if self._bar is None:
            n = dataset_train.n_batches
            self._bar = tqdm(total=n * most, initial=n * (epoch - 1), unit="batch")
        self._is_refit = net.training_.is_refitting
        text = "validation rows" if self._is_refit else f"epoch {epoch} of {most}"
        self._bar.set_description(text)

    def on_batch_end(self, net: DINNet, training: bool = False, **kwargs: object) -> None:
        """Move on by one batch; tqdm draws ten times per second at most."""
        if training and self._bar is not None and not net.training_.is_refitting:
            self._bar.update()

    def on_epoch_end(self, net: DINNet, **kwargs: object) -> None:
        """Show the losses of the epoch's last check."""
        if self._bar is not None and net.checks_:
            self._show_losses(self._bar, net.checks_[-1])

    def on_train_end(self, net: DINNet, **kwargs: object) -> None:
        """Show the best check and close the bar."""
        if self._bar is not None:
            is_refit, most = self._is_refit, net.training_.most_epochs
            n_epochs = net.n_epochs_ - self._n_epochs - is_refit
            text = f"trained {n_epochs} of {most} epochs{' and the validation rows' * is_refit}"
            best = best_check(net.checks_[self._n_checks :])
            if best is not None:
                text += f", kept {best['epoch'] - self._n_epochs:g}"
                self._show_losses(self._bar, best)
            self._bar.set_description(text)
            self._bar.close()
        del self._bar  # a fitted classifier is pickled with its callbacks

    @staticmethod
    def _show_losses(bar: tqdm, check: Mapping[str, float]) -> None:
        names = {"loss": "train_loss", "validation": "valid_loss", "AUC": "valid_auc"}
        shown = {name: check[key] for name, key in names.items() if math.isfinite(check[key])}
        bar.set_postfix({name: f"{number:.4f}" for name, number in shown.items()})
