"""Processes that train one model together: what they tell each other, and what if one is gone."""

from __future__ import annotations

import hashlib
import os
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

Value = TypeVar("Value")

MINUTES_TO_WAIT = 10.0  # for a process that is slower than the others, or gone without a trace
SECONDS_FOR_WORD = 3.0  # in which the others say why they ended, after one has
MOST_LETTERS = 2_000  # of an error that the others are told


class Ranks:
    """The processes of a group that train one model, and their common words.

    Every method is called by all of them, in the same order. They wait for each other there. A
    process that ends its training with an error says so and closes its connections, so that none
    of the others waits for it.

    Parameters
    ----------
    keeps_checkpoint : bool
        Whether the training keeps a checkpoint, for what is said when a process is gone.

    Attributes
    ----------
    rank : int
        Which of the processes this one is, from 0.
    size : int
        How many they are.
    """

    def __init__(self, *, keeps_checkpoint: bool) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.keeps_checkpoint = keeps_checkpoint
        self._is_closed, self._key = False, ""
        self._groups: list[dist.ProcessGroup] = []
        # Groups of their own: they can be closed when a training fails, and the user's stays.
        # The one name here that torch does not document: its store, where a process that has lost
        # its connections can still leave a word for the others.
        self._store = dist.distributed_c10d._get_default_store()
        self._call(lambda: self._open("gloo"))
        if dist.get_backend() != "gloo":
            self._call(lambda: self._open(None))
        self._on_cpu, self._on_gpu = self._groups[0], self._groups[-1]
        self._key = self.from_first(f"sklearn_din/{uuid.uuid4().hex}")

    def sum(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all processes: the same bits in each of them."""
        group = self._on_cpu if tensor.device.type == "cpu" else self._on_gpu
        self._call(lambda: dist.all_reduce(tensor, group=group))

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Tensors of all processes, of one shape, in the order of their ranks."""
        group = self._on_cpu if tensor.device.type == "cpu" else self._on_gpu
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        self._call(lambda: dist.all_gather(found, tensor, group=group))
        return found

    def from_first(self, value: Value) -> Value:
        """Return the value of rank 0; those of the others are ignored."""
        values = [value]
        self._call(lambda: dist.broadcast_object_list(values, src=0, group=self._on_cpu))
        return values[0]

    def of_all(self, value: Value) -> list[Value]:
        """Values of all processes in the order of their ranks."""
        values: list[Any] = [None] * self.size
        self._call(lambda: dist.all_gather_object(values, value, group=self._on_cpu))
        return values

    def device_for(self, device: str) -> str:
        """One GPU per process: ``LOCAL_RANK`` says which, as torchrun sets it."""
        if device != "cuda":
            return device
        local = os.environ.get("LOCAL_RANK", self.rank % max(torch.cuda.device_count(), 1))
        return f"cuda:{local}"

    def check_same(self, given: Mapping[str, Mapping[str, object]]) -> None:
        """Raise where two processes were given different parameters or data.

        Parameters
        ----------
        given : dict of dict
            From :func:`sklearn_din.training.fingerprint.fingerprint`.
        """
        first, *others = self.of_all(given)
        for rank, its in enumerate(others, start=1):
            pairs = ((first[part], its[part]) for part in first)
            found = [
                name
                for mine, yours in pairs
                for name in {**mine, **yours}
                if mine.get(name) != yours.get(name)
            ]
            if found:
                raise ValueError(
                    f"all {self.size} processes must be given the same parameters, and the same "
                    f"rows in the same order: those of rank {rank} differ from those of rank 0 "
                    f"in: {'; '.join(found)}. Let every process read and encode all rows: fit "
                    "gives each its slice of every batch."
                )

    def check_same_weights(self, module: nn.Module) -> None:
        """Raise where the processes have ended with different weights."""
        digests = self.of_all(weights_digest(module))
        others = [rank for rank, its in enumerate(digests) if its != digests[0]]
        if others:
            raise RuntimeError(
                f"all {self.size} processes must end with the same weights, and those of "
                f"{_named(others)} differ from those of rank 0. Does a callback change weights or "
                "learning rates by something that differs between processes?"
            )

    def end(self) -> None:
        """Close the connections when all processes have ended their training."""
        keys = [f"{self._key}/{rank}" for rank in range(self.size)]
        with suppress(RuntimeError):  # the process that holds the store may have left
            self._store.set(keys[self.rank], "")
            self._store.wait(keys, timedelta(minutes=MINUTES_TO_WAIT))
        self._close()

    def fail(self, error: BaseException) -> None:
        """Tell the others what ended the training here, and close the connections."""
        if not self._is_closed:
            self._leave(f"{type(error).__name__}: {error}"[:MOST_LETTERS])

    def _open(self, backend: str | None) -> None:
        """Open a group; that of the user's backend, where none is named."""
        timeout = timedelta(minutes=MINUTES_TO_WAIT)
        self._groups.append(dist.new_group(backend=backend, timeout=timeout))

    def _leave(self, word: str) -> None:
        """End without the others; an empty word where another process is to blame."""
        with suppress(RuntimeError):  # the process that holds the store may be gone
            self._store.set(f"{self._key}/{self.rank}", word)
        self._close()

    def _close(self) -> None:
        self._is_closed = True
        for group in self._groups:
            with suppress(RuntimeError):
                dist.destroy_process_group(group)

    def _call(self, operation: Callable[[], object]) -> None:
        try:
            operation()
        except RuntimeError as error:
            self._leave("")
            raise RuntimeError(self._what_happened()) from error

    def _what_happened(self) -> str:
        words = self._words()
        told = [f"rank {rank} ended with {word}" for rank, word in words.items() if word]
        silent = [rank for rank in range(self.size) if rank not in words]
        reason = " and ".join(told) or f"{_named(silent)} is gone or does not answer"
        remedy = (
            "fit goes on from the latest checkpoint"
            if self.keeps_checkpoint
            else "fit begins anew, with checkpoint_dir it would go on"
        )
        return (
            f"a training of {self.size} processes needs all of them, and {reason}. Rank "
            f"{self.rank} has ended too. Start all of them again: {remedy}."
        )

    def _words(self) -> dict[int, str]:
        """What each process that has ended has said: nothing where it has lost another one."""
        others = {rank: f"{self._key}/{rank}" for rank in range(self.size) if rank != self.rank}
        words = {self.rank: ""}
        try:
            self._store.wait(list(others.values()), timedelta(seconds=SECONDS_FOR_WORD))
        except dist.DistNetworkError:  # the process that holds the store is gone
            return words
        except RuntimeError:  # one of them says nothing
            pass
        with suppress(RuntimeError):
            for rank, key in others.items():
                if self._store.check([key]):
                    words[rank] = self._store.get(key).decode()
        return words


@contextmanager
def training_ranks(*, keeps_checkpoint: bool) -> Iterator[Ranks | None]:
    """Join the processes that call ``fit`` together, and tell them if this one fails.

    Parameters
    ----------
    keeps_checkpoint : bool
        For what is said when a process is gone.

    Yields
    ------
    Ranks or None
        None where there is no process group, or only one process in it.
    """
    is_grouped = dist.is_available() and dist.is_initialized()
    if not is_grouped or dist.get_world_size() == 1:
        _warn_of_lone_training(is_grouped)
        yield None
        return
    ranks = Ranks(keeps_checkpoint=keeps_checkpoint)
    try:
        yield ranks
    except BaseException as error:
        ranks.fail(error)
        raise
    ranks.end()


def weights_digest(module: nn.Module) -> str:
    """SHA-256 of a network's weights."""
    sha = hashlib.sha256()
    for name, weight in module.state_dict().items():
        sha.update(name.encode())
        sha.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _warn_of_lone_training(is_grouped: bool) -> None:
    n_processes = os.environ.get("WORLD_SIZE", "1")
    if is_grouped or n_processes == "1" or not dist.is_available():
        return
    if dist.is_torchelastic_launched():
        warnings.warn(
            f"torchrun has started {n_processes} processes, and each of them trains a model of "
            "its own. To train one model together, call "
            'torch.distributed.init_process_group("gloo") before fit.',
            UserWarning,
            stacklevel=6,  # the caller of the estimator's fit, which has a decorator around it
        )


def _named(ranks: list[int]) -> str:
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"
