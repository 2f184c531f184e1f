"""Checkpoints: a killed training continues from the latest one, with identical results."""

import logging
import pickle
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from os import PathLike, fspath
from pathlib import Path
from traceback import clear_frames
from typing import Any

import filelock
import numpy as np
import torch
from skorch.callbacks import Callback, PassthroughScoring
from torch import Tensor

from sklearn_din.resilient.fingerprint import Fingerprint, differences, fingerprint
from sklearn_din.training.alone import Alone, Given
from sklearn_din.training.net import DINNet
from sklearn_din.training.net_state import plain_record
from sklearn_din.training.seeding import plain_random_state, random_state_of
from sklearn_din.utils.digests import digest
from sklearn_din.utils.version import __version__
from sklearn_din.utils.warnings import warn_user
from sklearn_din.utils.whole_files import whole_file

FILE, LOCK = "training.checkpoint", "training.lock"
FORMAT = "sklearn_din checkpoint 8"
MINUTES_BETWEEN_WRITES = 10.0  # at most, where validation checks are further apart
N_DIGEST = len(digest())


class Checkpoint(Callback):
    """Store the state of a training, so that a killed training continues with identical results.

    In ``callbacks=[Checkpoint(folder)]`` it writes one file: after each validation check (or
    epoch, without validation) and every ten minutes. The same ``fit`` then continues from there,
    and the result is identical if it uses as many threads; other parameters or data are an error.
    The file is about four times as large as the weights. It is deleted when training ends, but
    not by Ctrl-C.

    A folder serves one training at a time, including copies (``clone``, searches with
    ``n_jobs=2``): a second one is an error. The state of other callbacks is not stored.
    ``partial_fit`` and ``update`` write nothing. If several processes train one model, rank 0
    writes.

    Parameters
    ----------
    folder : str or path
        Created if it does not exist.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from sklearn_din import Checkpoint, DINClassifier
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     classifier = DINClassifier(max_epochs=1, callbacks=[Checkpoint(folder)])
    ...     classifier = classifier.fit(np.eye(4), [0, 1, 0, 1])
    """

    sees_refit = ignores_gradients = True

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.folder = folder

    def __getstate__(self) -> dict[str, str]:
        return {"folder": fspath(self.folder)}

    def __setstate__(self, state: Any) -> None:
        if type(state) is not dict or [*map(type, state.values())] != [str]:
            raise ValueError(f"the folder of a Checkpoint must be text, got {state!r:.60}.")
        self.folder = state["folder"]

    @contextmanager
    def hold(
        self, given: Given, order: np.random.RandomState, ranks: Alone
    ) -> Iterator[np.random.RandomState]:
        """Lock the folder and delete the file at the end; yield the random state to begin with."""
        path, is_first = Path(self.folder) / FILE, ranks.rank == 0
        with lock_folder(path.parent) if is_first else nullcontext():
            described = fingerprint(given)
            earlier = _read_same(path, described) if is_first else None
            earlier = ranks.from_first(earlier)
            if earlier is not None:
                order = random_state_of(earlier["seeds"])
            self._path, self._given, self._is_first = path, described, is_first
            self._earlier, self._first = earlier, plain_random_state(order)
            try:
                yield order
            finally:
                self.__dict__ = {"folder": self.folder}
            if is_first and given.net.stop_reason_ != "user":
                path.unlink(missing_ok=True)

    def on_train_begin(self, net: DINNet, **kwargs: object) -> None:
        """Restore the state of the earlier training, if there was one."""
        self._latest_write, earlier = time.monotonic(), self._earlier
        if earlier is None:
            return
        net.module_.load_state_dict(earlier["module"])
        net.optimizer_.load_state_dict(earlier["optimizer"])
        net.training_.checks.load_state_dict(earlier["early_stopping"], net.device)
        net.history.extend({**epoch, "batches": []} for epoch in earlier["history"])
        net.checks_.extend(earlier["checks"])
        for _, callback in net.callbacks_:
            if isinstance(callback, PassthroughScoring):
                name = callback.name
                bests = [epoch[name] for epoch in earlier["history"] if epoch.get(f"{name}_best")]
                callback.best_score_ = bests[-1] if bests else callback.best_score_
        net.training_.train.load_state_dict(earlier["order"])
        _set_random_states(earlier["random"])
        epoch = min(len(earlier["history"]) + 1, net.max_epochs)
        text = f"training goes on from {self._path}: epoch {epoch} of {net.max_epochs}"
        logging.getLogger("sklearn_din").info(text)

    def on_epoch_begin(self, net: DINNet, **kwargs: object) -> None:
        """Start an epoch, or continue in the middle of one, with torch's random state put back."""
        self._began, self._n_checks = time.monotonic(), len(net.checks_)
        self._n_batches, self._seconds = 0, 0.0  # of the epoch, before it was cut off
        earlier, self._earlier = self._earlier, None
        if earlier is not None and earlier["unfinished"] is not None:
            unfinished = earlier["unfinished"]
            net.history[-1]["batches"] = unfinished["batches"]
            self._n_batches, self._seconds = len(unfinished["batches"]), unfinished["seconds"]
            net.training_.checks.go_on_within_epoch(*unfinished["since_check"])
            _set_random_states(earlier["random"])

    def on_batch_end(self, net: DINNet, training: bool = False, **kwargs: object) -> None:
        """Write after a check within the epoch, and if the latest checkpoint is old."""
        if not training or net.training_.is_refitting:
            return
        is_old = time.monotonic() - self._latest_write >= 60.0 * MINUTES_BETWEEN_WRITES
        if is_old or len(net.checks_) > self._n_checks:
            net.training_.losses.read(net.history)
            seconds = self._seconds + time.monotonic() - self._began
            unfinished = {
                "batches": [plain_record(batch) for batch in net.history[-1]["batches"]],
                "seconds": seconds,
                "since_check": list(net.training_.checks.place_within_epoch()),
            }
            self._write(net, unfinished)

    def on_epoch_end(self, net: DINNet, **kwargs: object) -> None:
        """Complete the record of an epoch that another training had begun, and write."""
        if net.training_.is_refitting:
            return
        epoch = net.history[-1]
        epoch["train_batch_count"] += self._n_batches
        epoch["dur"] += self._seconds
        self._write(net, None)

    def _write(self, net: DINNet, unfinished: dict[str, Any] | None) -> None:
        self._n_checks = len(net.checks_)
        if not self._is_first:
            return
        finished = net.history[: None if unfinished is None else -1]
        state = {
            "format": FORMAT,
            "version": __version__,
            "given": self._given,
            "seeds": self._first,
            "module": net.module_.state_dict(),
            "optimizer": net.optimizer_.state_dict(),
            "early_stopping": net.training_.checks.state_dict(),
            "history": [plain_record(epoch) for epoch in finished],
            "checks": [dict(check) for check in net.checks_],
            "unfinished": unfinished,
            "order": net.training_.train.state_dict(),
            "random": _random_states(str(net.device)),
        }
        try:
            write_checkpoint(self._path, state)
        except OSError as error:
            raise OSError(
                error.errno,
                f"Checkpoint cannot be written: {error.strerror or error}. Make room and fit "
                "again, which goes on from the checkpoint before this one",
                str(self._path),
            ) from error
        self._latest_write = time.monotonic()


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
def lock_folder(folder: Path) -> Iterator[None]:
    """Create a folder if needed, and lock it by the operating system within the block."""
    path = folder / LOCK
    folder.mkdir(parents=True, exist_ok=True)
    path.touch()
    lock = filelock.FileLock(path, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise RuntimeError(
            f"Checkpoint's folder must serve one training at a time, and {str(folder)!r} is held "
            "by another. Wait for it, or give each training its own folder (searches: n_jobs=1)."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _read_same(path: Path, given: Fingerprint) -> dict[str, Any] | None:
    for partial in path.parent.glob(f".partial-*-{path.name}"):  # of processes that were killed
        partial.unlink(missing_ok=True)
    earlier = read_checkpoint(path)
    if earlier is None:
        return None
    remedy = f"Choose another folder, or delete {str(path)!r} to train from the start."
    if earlier["version"] != __version__:  # which may draw other rows
        raise ValueError(
            f"Checkpoint's folder holds a training of sklearn_din {earlier['version']}, and this "
            f"is {__version__}: install that version to continue. {remedy}"
        )
    if different := differences(earlier["given"], given):
        raise ValueError(
            "Checkpoint's folder must hold a training of the same parameters and data, but that "
            f"in {str(path)!r} differs in: {'; '.join(different)}. {remedy}"
        )
    if given["parameters"]["callbacks"]:
        warn_user(
            "training continues from a checkpoint, which does not store the state of other "
            "callbacks: their schedules, counters and files start over."
        )
    return earlier


# The file: what torch.save writes, and its SHA-256 behind it, since torch checks no bits


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write numbers, strings, lists, dicts and tensors to a file, atomically."""
    with whole_file(path) as partial:
        with open(partial, "wb") as file:
            try:
                torch.save(dict(state), file)
            except BaseException as error:
                # Free torch's writer while the file is open: it may write once more when it is
                # freed, and a write to a closed file aborts the process.
                clear_frames(error.__traceback__)
                # After a full disk or Ctrl-C, torch fails to close its archive: the first error.
                first = error.__context__ if isinstance(error, RuntimeError) else None
                raise first or error from None
        checksum = digest(np.memmap(partial, np.uint8, "r"))
        with open(partial, "ab") as file:
            file.write(checksum.encode())


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read what :func:`write_checkpoint` wrote; None where there is no file."""
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
            f"Checkpoint needs a whole, unchanged checkpoint, and {str(path)!r} is damaged or "
            f"of another kind: {error}. Delete it to train from the start, or choose another "
            "folder."
        ) from error
    return state
