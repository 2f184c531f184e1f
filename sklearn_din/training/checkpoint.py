"""A training that was killed goes on from its latest checkpoint, and ends with the same bits."""

from __future__ import annotations

import copy
import logging
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from skorch.callbacks import Callback
from tqdm.auto import tqdm

from sklearn_din._version import __version__
from sklearn_din.training.checkpoint_file import (
    n_bytes,
    read_checkpoint,
    remove_partial,
    write_checkpoint,
)
from sklearn_din.training.distributed import Ranks
from sklearn_din.training.fingerprint import Fingerprint, differences, fingerprint
from sklearn_din.training.folder_lock import locked_folder
from sklearn_din.training.inputs import FitInputs
from sklearn_din.training.net import DINNet
from sklearn_din.training.plan import TrainingPlan
from sklearn_din.training.whole_state import (
    go_on,
    go_on_within_check,
    unfinished_check,
    whole_state,
)

FILE = "training.checkpoint"
MINUTES_BETWEEN_WRITES = 10.0  # at most, where validation checks are further apart


class Checkpoint(Callback):
    """Write where a training stands, and put another training where it stood.

    It is called after all other callbacks: what is written is what the next batch begins with.
    In memory it keeps neither rows nor weights.

    Parameters
    ----------
    path : Path
        The file.
    given : dict
        Fingerprint of parameters and data.
    earlier : dict or None
        Content of the file, where another training has left one.
    verbose : int
        Whether to write a line when the training goes on.
    is_first : bool, default=True
        Whether to write the file. Of several processes that train together, rank 0 does.
    """

    def __init__(
        self,
        path: Path,
        given: Fingerprint,
        earlier: dict[str, Any] | None,
        verbose: int,
        *,
        is_first: bool = True,
    ) -> None:
        self.is_first = is_first
        self.path = path
        self.given = given
        self.earlier = earlier
        self.verbose = verbose
        self.is_over = False  # whether the training has ended, and not by Ctrl-C

    def seeds(self, fresh: np.random.RandomState) -> np.random.RandomState:
        """Return the random state that the training begins with: the earlier training's, if any.

        The caller's own RandomState is not drawn from before the training is over. It would
        otherwise be another one in the ``fit`` that goes on.
        """
        first = fresh if self.earlier is None else self.earlier["seeds"]
        self._first = copy.deepcopy(first)
        self.order = copy.deepcopy(first)
        return self.order

    def on_train_begin(
        self, net: DINNet, X: TrainingPlan, y: None = None, **kwargs: object
    ) -> None:
        """Put the net where the earlier training stood, if there was one."""
        self._plan, self._latest_write = X, time.monotonic()
        self._has_written = self.earlier is not None
        if self.earlier is not None:
            go_on(net, X, self.earlier)
            self._say_where(net, X)

    def on_epoch_begin(self, net: DINNet, **kwargs: object) -> None:
        """Begin a check, or go on in the middle of one."""
        self._check_began = time.monotonic()
        self._batches_before, self._seconds_before = 0, 0.0
        earlier, self.earlier = self.earlier, None
        if earlier is not None and earlier["unfinished"] is not None:
            self._batches_before = go_on_within_check(net, earlier)
            self._seconds_before = earlier["unfinished"]["seconds"]

    def on_batch_end(self, net: DINNet, training: bool = False, **kwargs: object) -> None:
        """Write if the latest checkpoint is old."""
        age = time.monotonic() - self._latest_write
        if training and age >= 60.0 * MINUTES_BETWEEN_WRITES:
            seconds = self._seconds_before + time.monotonic() - self._check_began
            self._write(net, unfinished_check(net, seconds))

    def on_epoch_end(self, net: DINNet, **kwargs: object) -> None:
        """Complete the record of a check that another training had begun, and write."""
        check = net.history[-1]
        check["train_batch_count"] += self._batches_before
        check["dur"] += self._seconds_before
        self._write(net, None)

    def on_train_end(
        self, net: DINNet, X: TrainingPlan | None = None, y: None = None, **kwargs: object
    ) -> None:
        """Leave the net, which keeps neither rows nor folders."""
        self.is_over = net.stop_reason_ != "user"
        del self._plan
        net.callbacks = [callback for callback in net.callbacks if callback is not self]
        net.callbacks_ = [pair for pair in net.callbacks_ if pair[1] is not self]

    def _write(self, net: DINNet, unfinished: dict[str, Any] | None) -> None:
        if not self.is_first:
            return
        own = {"versions": _versions(), "given": self.given, "seeds": self._first}
        value = own | whole_state(net, self._plan, unfinished)
        try:
            write_checkpoint(self.path, value)
        except OSError as error:
            raise self._error(error, net, n_bytes(value)) from error
        self._has_written, self._latest_write = True, time.monotonic()

    def _error(self, error: OSError, net: DINNet, size: int) -> OSError:
        left = (
            "The checkpoint before this one is whole: make room and fit again to go on from there"
            if self._has_written
            else "There is no earlier one: make room and fit again from the start"
        )
        epoch = (len(net.history) - 1) // net.checks_per_epoch_ + 1
        return OSError(
            error.errno,
            f"checkpoint_dir needs some {size / 1e6:,.1f} MB free, where it can be written to: "
            f"{error.strerror or error}. Training stopped in epoch {epoch}. {left}",
            str(self.path),
        )

    def _say_where(self, net: DINNet, plan: TrainingPlan) -> None:
        epoch = min(len(net.history) // plan.checks_per_epoch + 1, plan.max_epochs)
        text = f"training goes on from {self.path}: epoch {epoch} of {plan.max_epochs}"
        logging.getLogger("sklearn_din").info(text)
        if self.verbose:
            tqdm.write(text, file=sys.stderr)


@contextmanager
def open_checkpoint(
    estimator: BaseEstimator,
    inputs: FitInputs,
    sample_weight: ArrayLike | None,
    groups: ArrayLike | None,
    ranks: Ranks | None = None,
) -> Iterator[Checkpoint | None]:
    """Hold the folder of an estimator's checkpoint, and remove the file when training is over.

    Parameters
    ----------
    estimator : DINClassifier
    inputs : FitInputs
        What ``fit`` was given, checked.
    sample_weight, groups : array-like of shape (n,) or None
        As given to ``fit``.
    ranks : Ranks, default=None
        The processes that train together, of which rank 0 alone uses the folder. None: this one
        trains alone.

    Yields
    ------
    Checkpoint or None
        None where the estimator has no ``checkpoint_dir``.
    """
    folder = estimator.checkpoint_dir
    if folder is None and ranks is None:
        yield None
        return
    given = fingerprint(estimator, inputs, sample_weight=sample_weight, groups=groups)
    if ranks is not None:
        ranks.check_same(given | {"folder": {"checkpoint_dir": folder is None}})
    if folder is None:
        yield None
        return
    is_first = ranks is None or ranks.rank == 0
    path, earlier = Path(folder) / FILE, None
    with locked_folder(path.parent) if is_first else nullcontext():
        if is_first:
            earlier = _read_same(path, given, estimator.callbacks)
        if ranks is not None:
            earlier = ranks.from_first(earlier)
        verbose = estimator.verbose if is_first else 0
        checkpoint = Checkpoint(path, given, earlier, verbose, is_first=is_first)
        yield checkpoint
        if checkpoint.is_over and is_first:
            path.unlink(missing_ok=True)
        if checkpoint.is_over and isinstance(estimator.random_state, np.random.RandomState):
            estimator.random_state.set_state(checkpoint.order.get_state())


def _read_same(
    path: Path, given: Fingerprint, callbacks: list[Callback] | None
) -> dict[str, Any] | None:
    """Read the checkpoint of the same training, if there is one."""
    remove_partial(path)
    earlier = read_checkpoint(path)
    if earlier is not None:
        _check_same(earlier, given, path)
        _warn_of_callbacks(callbacks)
    return earlier


def _versions() -> dict[str, str]:
    return {"sklearn_din": __version__, "torch": str(torch.__version__)}


def _check_same(earlier: Mapping[str, Any], given: Fingerprint, path: Path) -> None:
    """Raise where a checkpoint is of another training; warn where torch is another.

    Another version of this package may draw other rows or train in other steps: what went on
    would be neither version's training, so it is an error. Another torch takes the same steps and
    may differ in their last bits: the user decides whether that matters.
    """
    remedy = f"Choose another folder, or delete {str(path)!r} to train from the start."
    its, own = earlier["versions"], _versions()
    if its["sklearn_din"] != own["sklearn_din"]:
        raise ValueError(
            f"checkpoint_dir holds a training of sklearn_din {its['sklearn_din']}, and this is "
            f"{own['sklearn_din']}: install that version to go on. {remedy}"
        )
    found = differences(earlier["given"], given)
    if found:
        raise ValueError(
            "checkpoint_dir must hold a training of the same parameters and data, and what "
            f"{str(path)!r} goes on with differs in: {'; '.join(found)}. {remedy}"
        )
    if its["torch"] != own["torch"]:
        warnings.warn(
            f"training goes on that began with torch {its['torch']} (here {own['torch']}): the "
            f"result may differ in its last digits. {remedy}",
            UserWarning,
            stacklevel=7,  # the caller of the estimator's fit, which has a decorator around it
        )


def _warn_of_callbacks(callbacks: list[Callback] | None) -> None:
    if callbacks:
        warnings.warn(
            "training goes on from a checkpoint, which keeps no state of callbacks: schedules, "
            "counters and files of those in callbacks= begin anew.",
            UserWarning,
            stacklevel=7,
        )
