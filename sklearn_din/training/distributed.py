"""Processes that train one model together: what they tell each other, and what if one is gone."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sklearn_din._processes import Processes, named, process_group


class Ranks(Processes):
    """The processes of a group that train one model: they also add tensors up.

    Parameters
    ----------
    keeps_checkpoint : bool
        Whether the training keeps a checkpoint, for what is said when a process is gone.
    """

    def __init__(self, *, keeps_checkpoint: bool) -> None:
        remedy = (
            "fit goes on from the latest checkpoint"
            if keeps_checkpoint
            else "fit begins anew, with checkpoint_dir it would go on"
        )
        super().__init__(work="a training of", remedy=remedy)
        self._on_gpu = self._on_cpu if dist.get_backend() == "gloo" else self.open(None)

    def sum(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all processes: the same bits in each of them."""
        group = self._on_cpu if tensor.device.type == "cpu" else self._on_gpu
        self.call(lambda: dist.all_reduce(tensor, group=group))

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Tensors of all processes, of one shape, in the order of their ranks."""
        group = self._on_cpu if tensor.device.type == "cpu" else self._on_gpu
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        self.call(lambda: dist.all_gather(found, tensor, group=group))
        return found

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
                    f"in: {'; '.join(found)}. Give every process all rows: fit "
                    "gives each its slice of every batch."
                )

    def check_same_weights(self, module: nn.Module) -> None:
        """Raise where the processes have ended with different weights."""
        digests = self.of_all(weights_digest(module))
        others = [rank for rank, its in enumerate(digests) if its != digests[0]]
        if others:
            raise RuntimeError(
                f"all {self.size} processes must end with the same weights, and those of "
                f"{named(others)} differ from those of rank 0. Does a callback change weights or "
                "learning rates by something that differs between processes?"
            )


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
    if process_group() is None:
        _warn_of_lone_training()
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


def _warn_of_lone_training() -> None:
    n_processes = os.environ.get("WORLD_SIZE", "1")
    if n_processes == "1" or not dist.is_available() or dist.is_initialized():
        return
    if dist.is_torchelastic_launched():
        warnings.warn(
            f"torchrun has started {n_processes} processes, and each of them trains a model of "
            "its own. To train one model together, call "
            'torch.distributed.init_process_group("gloo") before fit.',
            UserWarning,
            stacklevel=6,  # the caller of the estimator's fit, which has a decorator around it
        )
