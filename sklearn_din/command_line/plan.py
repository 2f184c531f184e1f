"""The trainings of the main job, said before the first one, and how long they take."""

from __future__ import annotations

import time

from skorch import NeuralNet
from skorch.callbacks import Callback

from sklearn_din.command_line.study import MODELS, Study
from sklearn_din.estimator import DINClassifier

DIN_PACE = 3  # an epoch of DIN takes about as long as two or three of the base model's


def print_plan(study: Study, *, n_folds: int, epochs: int | None, has_final: bool) -> None:
    """Print rows, users and trainings."""
    n_fits, n_users = len(MODELS) * n_folds + has_final, study.users.nunique()
    print(f"{len(study.y):,} impressions of {n_users:,} users, {study.y.mean():.1%} clicked")
    print(
        f"{n_fits} trainings (--epochs {epochs or DINClassifier().max_epochs}): "
        f"{' and '.join(MODELS)} on {n_folds} folds by user"
        f"{', DIN once more on all rows' if has_final else ''}",
        flush=True,
    )


class TimeLeft(Callback):
    """Says after the first epoch of a model's first fold how long what is left takes at most."""

    def __init__(self, model: str, n_folds: int, n_final: int) -> None:
        n_fits = n_folds + n_final
        self.n_fits = n_fits if model == "DIN" else n_folds + DIN_PACE * n_fits

    def on_train_begin(self, net: NeuralNet, **kwargs: object) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_epoch_end(self, net: NeuralNet, **kwargs: object) -> None:
        """Print the estimate, once."""
        if len(net.history) > 1:
            return
        seconds = time.perf_counter() - self._began
        most = seconds * net.max_epochs * self.n_fits
        print(
            f"first epoch: {_duration(seconds)}; what is left takes at most about "
            f"{_duration(most)}, less where trainings stop early",
            flush=True,
        )


def _duration(seconds: float) -> str:
    """Return a duration as people say it.

    Examples
    --------
    >>> _duration(0.25), _duration(45), _duration(600), _duration(9_000)
    ('0.2 s', '45 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
