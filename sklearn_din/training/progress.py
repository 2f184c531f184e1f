"""What training says while it runs: a progress bar, and a warning where it was interrupted."""

from __future__ import annotations

import math
import warnings
from typing import Any

from skorch.callbacks import Callback
from tqdm.auto import tqdm


class ProgressBar(Callback):
    """One bar for the whole training: epoch, time left, losses and AUC of the latest look.

    Drawn by tqdm on standard error, in a notebook as a widget. The time left is that of all
    ``max_epochs``: early stopping can only shorten it.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_din.estimator import DINClassifier
    >>> classifier = DINClassifier(max_epochs=1, callbacks=[ProgressBar()])
    >>> classifier = classifier.fit(np.eye(4), [0, 1, 0, 1])  # the bar is on standard error
    """

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Open the bar."""
        train = X.train
        self._looks_per_epoch = train.parts
        self._n_epochs = net.max_epochs // train.parts
        total = math.ceil(len(train) / train.batch_size) * self._n_epochs
        self._bar: Any = tqdm(total=total, unit="batch")
        self._describe(look=0)

    def on_epoch_begin(self, net: Any, *args: Any, **kwargs: Any) -> None:
        """Show the losses of the look before, and which epoch begins."""
        looks = _finished(net.history)
        self._describe(look=len(looks))
        if looks:
            self._show(looks[-1])

    def on_batch_end(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        """Move on by one batch; tqdm draws ten times a second at most."""
        if training:
            self._bar.update()

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Show the look whose weights are kept and close the bar."""
        looks = _finished(net.history)
        text = f"trained {len(looks) / self._looks_per_epoch:g} of {self._n_epochs} epochs"
        if looks and "valid_loss" in looks[-1]:
            best = min(range(len(looks)), key=lambda i: looks[i]["valid_loss"])
            text += f", kept {(best + 1) / self._looks_per_epoch:g}"
            self._show(looks[best])
        elif looks:
            self._show(looks[-1])
        self._bar.set_description(text)
        self._bar.close()
        del self._bar  # a fitted classifier is pickled with its callbacks

    def _describe(self, *, look: int) -> None:
        epoch = look // self._looks_per_epoch + 1
        self._bar.set_description(f"epoch {epoch} of {self._n_epochs}")

    def _show(self, look: Any) -> None:
        shown = {"loss": "train_loss", "validation": "valid_loss", "AUC": "valid_auc"}
        self._bar.set_postfix({n: f"{look[key]:.4f}" for n, key in shown.items() if key in look})


def _finished(history: Any) -> list[Any]:
    return [look for look in history if "train_loss" in look]


def finish_interrupted(net: Any, *, looks_per_epoch: int, any_callbacks: bool) -> None:
    """Warn if Ctrl-C ended the training, and drop the look that it left unfinished.

    skorch stops early by raising KeyboardInterrupt itself, between looks. A look that began and
    has no losses was left by the user; so was a training that is short, although neither
    patience nor a callback of the user's had an end of it.

    Parameters
    ----------
    net : DINNet
        After ``fit``.
    looks_per_epoch : int
    any_callbacks : bool
        Whether the user gave callbacks: one of them may have stopped the training.
    """
    history = net.history
    is_unfinished = bool(history) and "train_loss" not in history[-1]
    ran_out = any(getattr(callback, "stopped_", False) for _, callback in net.callbacks_)
    is_short = len(history) < net.max_epochs and not ran_out and not any_callbacks
    if not (is_unfinished or is_short):
        return
    epoch = max(1, math.ceil(len(history) / looks_per_epoch))
    if is_unfinished:
        history.pop()
    has_looked = any("valid_loss" in look for look in history)
    kept = "the weights of the best look so far" if has_looked else "the latest weights"
    warnings.warn(
        f"training was interrupted in epoch {epoch} of {net.max_epochs // looks_per_epoch}: "
        f"{kept} are kept and the classifier can be used. Fit again for a full training.",
        UserWarning,
        stacklevel=4,  # the caller of fit, behind its decorator
    )
