"""A training that was killed goes on from its latest checkpoint, and ends with the same bits."""

import copy
import logging
import math
import pickle
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from skorch.callbacks import Callback, PassthroughScoring
from torch import Tensor
from tqdm.auto import tqdm

from sklearn_din.resilient.fingerprint import Fingerprint, differences, fingerprint
from sklearn_din.training.alone import Alone
from sklearn_din.training.check_tasks import leave
from sklearn_din.training.early_stopping import EarlyStopping
from sklearn_din.training.inputs import FitInputs
from sklearn_din.training.net import DINNet
from sklearn_din.training.net_state import plain_record
from sklearn_din.training.seeding import plain_random_state, random_state_of
from sklearn_din.training.steps import read_losses
from sklearn_din.utils.digests import digest
from sklearn_din.utils.version import __version__
from sklearn_din.utils.warnings import warn_user
from sklearn_din.utils.whole_files import whole_file

FILE, LOCK = "training.checkpoint", "training.lock"
FORMAT = "sklearn_din checkpoint 4"
MINUTES_BETWEEN_WRITES = 10.0  # at most, where validation checks are further apart
N_DIGEST = len(digest())


@dataclass(eq=False)
class Checkpoint(Callback):
    """Write where a training stands, and put another training where it stood.

    It is called after all other callbacks: what is written is what the next batch begins with.
    ``given`` is the fingerprint of parameters and data, ``earlier`` the content of the file where
    another training has left one. Of several processes that train together only the first one
    writes.
    """

    path: Path
    given: Fingerprint
    earlier: dict[str, Any] | None
    verbose: int
    is_first: bool
    sees_refit = True
    is_over = False  # whether the training has ended, and not by Ctrl-C

    def seeds(self, fresh: np.random.RandomState) -> np.random.RandomState:
        """Return the random state that the training begins with: the earlier training's, if any.

        The caller's own RandomState is not drawn from before the training is over. It would
        otherwise be another one in the ``fit`` that goes on.
        """
        if self.earlier is not None:
            fresh = random_state_of(self.earlier["seeds"])
        self._first = copy.deepcopy(fresh)
        self.order = copy.deepcopy(fresh)
        return self.order

    def on_train_begin(self, net: DINNet, **kwargs: object) -> None:
        """Put the net where the earlier training stood, if there was one."""
        self._latest_write = time.monotonic()
        if self.earlier is None:
            return
        self._go_on(net, self.earlier)
        epoch = min(len(self.earlier["history"]) + 1, net.max_epochs)
        text = f"training goes on from {self.path}: epoch {epoch} of {net.max_epochs}"
        logging.getLogger("sklearn_din").info(text)
        if self.verbose:
            tqdm.write(text, file=sys.stderr)

    def on_epoch_begin(self, net: DINNet, **kwargs: object) -> None:
        """Begin an epoch, or go on in the middle of one.

        torch's random state is put back once more: callbacks may have drawn at the beginning.
        """
        self._began, self._n_checks = time.monotonic(), len(net.checks_)
        self._n_batches, self._seconds = 0, 0.0  # of the epoch, before it was cut off
        earlier, self.earlier = self.earlier, None
        if earlier is not None and earlier["unfinished"] is not None:
            unfinished = earlier["unfinished"]
            net.history[-1]["batches"] = unfinished["batches"]
            self._n_batches, self._seconds = len(unfinished["batches"]), unfinished["seconds"]
            _early_stopping(net).go_on_within_epoch(*unfinished["since_check"])
            _set_random_states(earlier["random"])

    def on_batch_end(self, net: DINNet, training: bool = False, **kwargs: object) -> None:
        """Write after a check within the epoch, and if the latest checkpoint is old.

        Not in the pass over the validation rows, which is short and is made again.
        """
        if not training or net.is_refitting_:
            return
        is_old = time.monotonic() - self._latest_write >= 60.0 * MINUTES_BETWEEN_WRITES
        if is_old or len(net.checks_) > self._n_checks:
            read_losses(net)
            seconds = self._seconds + time.monotonic() - self._began
            unfinished = {
                "batches": [plain_record(batch) for batch in net.history[-1]["batches"]],
                "seconds": seconds,
                "since_check": list(_early_stopping(net).place_within_epoch()),
            }
            self._write(net, unfinished)

    def on_epoch_end(self, net: DINNet, **kwargs: object) -> None:
        """Complete the record of an epoch that another training had begun, and write."""
        if net.is_refitting_:
            return
        epoch = net.history[-1]
        epoch["train_batch_count"] += self._n_batches
        epoch["dur"] += self._seconds
        self._write(net, None)

    def on_train_end(self, net: DINNet, **kwargs: object) -> None:
        """Leave the net, which keeps neither rows nor folders."""
        self.is_over = net.stop_reason_ != "user"
        leave(net, self)

    def _write(self, net: DINNet, unfinished: dict[str, Any] | None) -> None:
        self._n_checks = len(net.checks_)
        if not self.is_first:
            return
        finished = net.history[: None if unfinished is None else -1]
        state = {
            "format": FORMAT,
            "versions": _versions(),
            "given": self.given,
            "seeds": plain_random_state(self._first),
            "module": net.module_.state_dict(),
            "optimizer": net.optimizer_.state_dict(),
            "early_stopping": _early_stopping(net).state_dict(),
            "history": [plain_record(epoch) for epoch in finished],
            "checks": [dict(check) for check in net.checks_],
            "unfinished": unfinished,
            "order": net.batches.state_dict(),
            "random": _random_states(str(net.device)),
        }
        try:
            write_checkpoint(self.path, state)
        except OSError as error:
            raise OSError(
                error.errno,
                f"checkpoint_dir needs some {_n_bytes(state) / 1e6:,.1f} MB free, where it can be "
                f"written to: {error.strerror or error}. Training stopped in epoch "
                f"{len(net.history)}. A checkpoint before this one is whole: make room and fit "
                "again to go on from there",
                str(self.path),
            ) from error
        self._latest_write = time.monotonic()

    def _go_on(self, net: DINNet, earlier: Mapping[str, Any]) -> None:
        net.module_.load_state_dict(earlier["module"])
        net.optimizer_.load_state_dict(earlier["optimizer"])
        _early_stopping(net).load_state_dict(earlier["early_stopping"], net.device)
        net.history.extend({**epoch, "batches": []} for epoch in earlier["history"])
        net.checks_.extend(earlier["checks"])
        for _, callback in net.callbacks_:
            if isinstance(callback, PassthroughScoring):
                name = callback.name
                bests = [epoch[name] for epoch in earlier["history"] if epoch.get(f"{name}_best")]
                callback.best_score_ = bests[-1] if bests else callback.best_score_
        net.batches.load_state_dict(earlier["order"])
        _set_random_states(earlier["random"])


def _early_stopping(net: DINNet) -> EarlyStopping:
    return next(callback for _, callback in net.callbacks_ if isinstance(callback, EarlyStopping))


def _random_states(device: str) -> list[Tensor]:
    """Random state of torch, and that of each GPU if one is trained on."""
    states = [torch.random.get_rng_state()]
    if torch.device(device).type == "cuda":
        states += torch.cuda.get_rng_state_all()
    return states


def _set_random_states(states: list[Tensor]) -> None:
    first, *others = states
    torch.random.set_rng_state(first)
    if others:
        torch.cuda.set_rng_state_all(others)


# The folder


@contextmanager
def open_checkpoint(
    estimator: BaseEstimator,
    inputs: FitInputs,
    sample_weight: ArrayLike | None,
    groups: ArrayLike | None,
    ranks: Alone,
) -> Iterator[Checkpoint | None]:
    """Hold the folder of an estimator's checkpoint, and remove the file when training is over.

    Yields None where there is no ``checkpoint_dir``: ranks then compare what they were given, and
    that is all. ``sample_weight`` and ``groups`` are as given to ``fit``; of the processes in
    ``ranks``, which train together, rank 0 alone uses the folder.
    """
    folder = estimator.checkpoint_dir
    given = fingerprint(estimator, inputs, sample_weight=sample_weight, groups=groups)
    ranks.check_same(lambda: given | {"folder": {"checkpoint_dir": folder is None}})
    if folder is None:
        yield None
        return
    is_first = ranks.rank == 0
    path = Path(folder) / FILE
    with lock_folder(path.parent) if is_first else nullcontext():
        earlier = _read_same(path, given, estimator.callbacks) if is_first else None
        earlier = ranks.from_first(earlier)
        verbose = estimator.verbose if is_first else 0
        checkpoint = Checkpoint(path, given, earlier, verbose, is_first)
        yield checkpoint
        if not checkpoint.is_over:
            return
        if is_first:
            path.unlink(missing_ok=True)
        if isinstance(estimator.random_state, np.random.RandomState):
            estimator.random_state.set_state(checkpoint.order.get_state())


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Make a folder if it is not there, and hold it within the block.

    The lock is the operating system's: it ends with the process, however that ends. The lock's
    file, which is empty, stays.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise OSError(
            error.errno,
            f"checkpoint_dir must be a folder that can be written to: {error.strerror}. Nothing "
            "was trained; choose another folder",
            str(folder),
        ) from error
    lock = filelock.FileLock(path, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise RuntimeError(
            f"checkpoint_dir must serve one training at a time, and {str(folder)!r} is held by "
            "another. Wait for it, or give each training a folder of its own (searches: n_jobs=1)."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _read_same(
    path: Path, given: Fingerprint, callbacks: list[Callback] | None
) -> dict[str, Any] | None:
    for partial in path.parent.glob(f".partial-*-{path.name}"):  # of processes that were killed
        partial.unlink(missing_ok=True)
    earlier = read_checkpoint(path)
    if earlier is None:
        return None
    _check_same(earlier, given, path)
    if callbacks:
        warn_user(
            "training goes on from a checkpoint, which keeps no state of callbacks: schedules, "
            "counters and files of those in callbacks= begin anew."
        )
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
    written, own = earlier["versions"], _versions()
    if written["sklearn_din"] != own["sklearn_din"]:
        raise ValueError(
            f"checkpoint_dir holds a training of sklearn_din {written['sklearn_din']}, and this is "
            f"{own['sklearn_din']}: install that version to go on. {remedy}"
        )
    different = differences(earlier["given"], given)
    if different:
        raise ValueError(
            "checkpoint_dir must hold a training of the same parameters and data, and what "
            f"{str(path)!r} goes on with differs in: {'; '.join(different)}. {remedy}"
        )
    if written["torch"] != own["torch"]:
        warn_user(
            f"training goes on that began with torch {written['torch']} (here {own['torch']}): the "
            f"result may differ in its last digits. {remedy}"
        )


# The file: what torch.save writes, and its SHA-256 behind it, since torch checks no bits


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write numbers, text, lists, dicts and tensors to a file that is there whole or not at all.

    Whatever moment the power fails at, the file is the one before or the new one: the new one is
    written aside, synced and put in place in one step.
    """
    with whole_file(path) as partial:
        try:
            with open(partial, "wb") as file:
                torch.save(dict(state), file)
        except RuntimeError as error:
            # After a full disk or Ctrl-C, torch fails to close its archive: raise the first error.
            raise error.__context__ or error from None
        checksum = digest(np.memmap(partial, np.uint8, "r"))
        with open(partial, "ab") as file:
            file.write(checksum.encode())


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read what :func:`write_checkpoint` wrote; None where there is no file.

    A file that is damaged or of another kind is a ValueError.
    """
    if not path.exists():
        return None
    try:
        octets = np.memmap(path, np.uint8, "r")
        if digest(octets[:-N_DIGEST]).encode() != octets[-N_DIGEST:].tobytes():
            raise ValueError("its SHA-256 is not that of its content")
        state = torch.load(path, map_location="cpu", weights_only=True)
        if type(state) is not dict or state.get("format") != FORMAT:
            raise ValueError("it has another format")
    except (ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"checkpoint_dir needs a whole, unchanged checkpoint, and {str(path)!r} is damaged or "
            f"of another kind: {error}. Delete it to train from the start, or choose another "
            "folder."
        ) from error
    return state


def _n_bytes(value: object) -> int:
    """Bytes of all tensors in a value: about what its file takes."""
    if isinstance(value, Tensor):
        return math.prod(value.shape) * value.element_size()
    if isinstance(value, dict):
        return sum(map(_n_bytes, value.values()))
    return sum(map(_n_bytes, value)) if isinstance(value, list | tuple) else 0
