"""What each process of test_distributed.py does: training_together.py FOLDER CASE ..."""

import contextlib
import os
import signal
import sys
import warnings
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from skorch.callbacks import Callback

from sklearn_din import Checkpoint, DINClassifier
from sklearn_din.resilient import ranks
from sklearn_din.training import net, steps, training
from tests.abilities import ABILITIES, FRAME, encode_grown, make_encoder
from tests.callbacks import On
from tests.encoded_impressions import make_impressions, make_labels, turning_catalogue

RANK = int(os.environ.get("RANK", "0"))
SMALL = {"embedding_dim": 4, "attention_units": (8, 4), "hidden_units": (16, 8), "lr": 0.01}
SMALL |= {"batch_size": 24, "max_epochs": 2, "random_state": 0}
X = make_impressions(1400, seed=3, numbers=("hist_price",))
y = make_labels(X, seed=3)
ROWS = np.arange(240)
WEIGHTS = np.random.default_rng(0).random(len(X))


def few(n=240):
    return {"X": X[:n], "y": y[:n]}


PUBLISHED = {"interest": "paper", "activation": "dice", "attention_activation": "dice"}
# Parameters, and what is given to fit
CASES = {
    "as usual": ({"max_epochs": 20, "patience": 1, "early_stopping": True},
                 {"X": X, "y": y, "sample_weight": WEIGHTS}),
    "dropout": ({"dropout": 0.3}, few()),
    "as published": (PUBLISHED | {"early_stopping": True}, few()),
    "new items": ({"early_stopping": True}, {"X": turning_catalogue(X[:240]), "y": y[:240]}),
    "moved rate": ({"early_stopping": True, "validation": "last"},
                   few() | {"y": np.where(ROWS < 216, y[:240], ROWS % 8 > 0)}),
    "one row per batch": ({"batch_size": 1, "max_epochs": 1, "activation": "dice"}, few(21)),
    "in parts": ({}, few()),
    "numbers alone": ({}, {"X": np.random.default_rng(1).normal(size=(200, 3)), "y": y[:200]}),
    "no seed": ({"random_state": None}, few()),
    "undisturbed": ({"early_stopping": True, "max_epochs": 3}, few()),
}  # fmt: skip
LISTS = make_encoder().fit_transform(FRAME)
for ability, (kind, options, own_y) in ABILITIES.items():
    options = {"estimator": kind, "early_stopping": True, **options}
    CASES[ability] = (options, {"X": LISTS, "y": own_y})


DOUBLE = ("as usual", "new items")  # trained in double precision: those with most steps


class At(Callback):
    """Do something after a training batch of that number, in one process."""

    def __init__(self, batch, rank, act):
        self.batch, self.rank, self.act = batch, rank, act

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        self.n = 0

    def on_batch_end(self, net, training=False, **kwargs):
        self.n += training
        if training and self.n == self.batch and self.rank == RANK:
            self.act()


def stop():
    raise KeyboardInterrupt


def fail():
    raise ZeroDivisionError("a callback's own mistake")


@contextlib.contextmanager
def double_precision():
    """In single precision rounding decides on which side of zero a rectifier's input is."""
    make = training.Training._make_module

    def make_double(self, *args):
        make(self, *args)
        self.net.module_.double()

    with patch.object(training.Training, "_make_module", make_double):
        yield


def fit(case, **parameters):
    own, given = CASES[case]
    with contextlib.ExitStack() as stack:
        if case in DOUBLE:
            stack.enter_context(double_precision())
        if case == "in parts":
            changed = {"SPLIT_FROM": 50, "EVENTS_PER_PART": 50}
            changed["compute_in_native_code"] = lambda *_: None
            stack.enter_context(patch.multiple(steps, **changed))
        own = own.copy()
        estimator = own.pop("estimator", DINClassifier)
        return estimator(**SMALL | own | parameters).fit(**given)


def stopped(act, rank):
    with warnings.catch_warnings(action="ignore"):
        return fit("undisturbed", callbacks=[At(12, rank, act)])


def grown():
    classifier = DINClassifier(**SMALL).fit(**few())
    return classifier.partial_fit(X[240:400], y[240:400])


def grown_lists():
    encoder, (kind, options, own_y) = make_encoder(), ABILITIES["several labels"]
    first = FRAME["film"] != "f2"
    classifier = kind(**SMALL | options).fit(encoder.fit_transform(FRAME[first]), own_y[first])
    return classifier.partial_fit(encode_grown(encoder), own_y)


def error_of(train):
    try:
        train()
    except (ValueError, RuntimeError, ArithmeticError) as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def missing_numbers():
    numbers = np.zeros((100, 2))
    numbers[3] = np.nan if RANK else 0.0
    DINClassifier(**SMALL).fit(numbers, y[:100])


def other_weights():
    def change(net, **_):
        net.module_.output.bias.data += RANK

    fit("undisturbed", callbacks=[On(epoch_end=change)], early_stopping=False)


def loss_not_finite():
    def spoil(net, training=False, **_):
        if RANK and training and len(net.history) == 2:
            net.module_.output.bias.data.fill_(np.nan)

    fit("undisturbed", callbacks=[On(batch_begin=spoil)], early_stopping=False)


def killed_at_the_end():
    with ranks.Ranks(work="a training of", remedy="fit begins anew"):
        if RANK:
            os.kill(os.getpid(), signal.SIGKILL)


ERRORS = {
    "loss not finite": loss_not_finite,
    "other rows": lambda: DINClassifier(**SMALL).fit(**few(240 - 40 * RANK)),
    "other parameters": lambda: DINClassifier(**SMALL | {"lr": 0.01 + RANK}).fit(**few()),
    "missing numbers": missing_numbers,
    "other weights": other_weights,
    "failing callback": lambda: fit("undisturbed", callbacks=[At(12, 1, fail)]),
    "failing rank 0": lambda: fit("undisturbed", callbacks=[At(12, 0, fail)]),
    "other folders": lambda: fit("undisturbed", callbacks=[Checkpoint("here")] if RANK else None),
}
STOPS = {
    "stopped by a callback": lambda: stopped(stop, 1),
    "stopped by Ctrl-C": lambda: stopped(lambda: signal.raise_signal(signal.SIGINT), 0),
    "grown": grown,
    "grown by lists": grown_lists,
}


def with_checkpoint(folder, *, killed):
    """Train with a checkpoint; rank 1 kills its process in the second epoch."""
    step, count = net.DINNet.train_step, 0

    def train_step(self, *args, **kwargs):
        nonlocal count
        count += 1
        if killed and RANK == 1 and count == 14:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, *args, **kwargs)

    net.DINNet.train_step = train_step
    return fit("undisturbed", callbacks=[Checkpoint(folder)])


def results_of(classifier):
    moments = classifier.net_.optimizer_.state_dict()["state"].items()
    found = {f"weight {name}": its for name, its in classifier.module_.state_dict().items()}
    found |= {
        f"moments {number} {key}": its
        for number, of_parameter in moments
        for key, its in of_parameter.items()
        if key in ("square", "exp_avg_sq")
    }
    found["history"] = classifier.history_.drop(columns="seconds").to_numpy()
    found["stop"] = np.array([classifier.net_.stop_reason_, str(classifier.n_iter_)])
    found["steps"] = [its["step"] for _, its in moments if "step" in its]
    found["losses"] = [its["train_loss"] for its in classifier.net_.history]
    return {name: np.asarray(its) for name, its in found.items()}


def run(case, folder):
    """Run a case; what it trained and what it raised is written to a file of this process."""
    path = folder / f"{case} {RANK}"
    errors = ERRORS | {"killed at the end": killed_at_the_end}
    if case in errors:
        path.with_suffix(".txt").write_text(error_of(errors[case]))
    elif case in ("killed", "resumed"):
        is_killed = case == "killed"

        def train():
            classifier = with_checkpoint(folder / "folder", killed=is_killed)
            np.savez(path.with_suffix(".npz"), **results_of(classifier))

        path.with_suffix(".txt").write_text(error_of(train))
    else:
        classifier = STOPS[case]() if case in STOPS else fit(case)
        np.savez(path.with_suffix(".npz"), **results_of(classifier))


def main(folder, *cases):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored behind a shell's "&"
    torch.distributed.init_process_group("gloo")
    ranks.SECONDS_FOR_REASON = 1.0
    for case in cases:
        run(case, Path(folder))
        if case in ERRORS:
            torch.distributed.barrier()  # the user's own group still works
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
