"""The trainings of the main job, said before the first one, and how long they take."""

from __future__ import annotations

from skorch import NeuralNet
from skorch.callbacks import Callback

from sklearn_din.command_line.study import MODELS, Study
from sklearn_din.estimator import DINClassifier

DIN_PACE = 3  # an epoch of DIN takes about as long as two or three of the base model's


def print_plan(study: Study, *, n_folds: int, epochs: int | None, has_final: bool) -> None:
    """Print rows, users and trainings."""
    n_fits, n_users = len(MODELS) * n_folds + has_final, study.users.nunique()
    print(
        f"{len(study.y):,} impressions of {n_users:,} users, {study.y.mean():.1%} clicked\n"
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

    def on_epoch_end(self, net: NeuralNet, **kwargs: object) -> None:
        """Print the estimate, once."""
        if len(net.history) == 1:
            seconds = net.history[-1, "dur"]
            print(
                f"first epoch: {seconds:.1f} s; what is left takes at most about "
                f"{seconds * net.max_epochs * self.n_fits / 60:.1f} min, less where trainings stop "
                "early",
                flush=True,
            )
