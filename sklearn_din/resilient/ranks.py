"""Training of several processes: gradients are summed before each step, and one error ends all.

All processes are given the same rows and draw the same order; of each joint batch, rank r of n
computes slice r. Dense gradients and the loss are added up by one all-reduce; of the embedding
tables, the touched rows of all processes are gathered, padded to the most, and added up. What is
drawn (hidden numbers, dropout) is drawn for the whole joint batch by each, which keeps the numbers
of its rows (``network/joint.py``). So all take the same step, that of one process with the whole
batch, to rounding.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sklearn_din._digests import digest
from sklearn_din._warnings import warn_user
from sklearn_din.network.batch import rows_of_rank
from sklearn_din.resilient.fingerprint import fingerprint
from sklearn_din.resilient.processes import Processes, name_ranks, process_group
from sklearn_din.training.inputs import FitInputs

if TYPE_CHECKING:
    from sklearn_din.training.net import DINNet

WITHIN_TRAINING = {"on_epoch_begin", "on_epoch_end", "on_batch_begin", "on_batch_end"}
WITHIN_TRAINING |= {"on_grad_computed"}  # events of which every process has as many


class Ranks(Processes):
    """The processes of a group that train one model: they also add tensors up."""

    def __init__(self, *, keeps_checkpoint: bool) -> None:
        remedy = (
            "fit goes on from the latest checkpoint"
            if keeps_checkpoint
            else "fit begins anew, with checkpoint_dir it would go on"
        )
        super().__init__(work="a training of", remedy=remedy)
        self.have_agreed = False  # whether all processes stop at this moment
        self._stop_request: str | None = None  # of this process, until all processes know of it
        self._on_gpu = self._on_cpu if dist.get_backend() == "gloo" else self.open(None)

    def sum(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all processes: the same bits in each of them."""
        group = self._on_cpu if tensor.device.type == "cpu" else self._on_gpu
        self.call(lambda: dist.all_reduce(tensor, group=group))

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Tensors of all processes, of one shape, in the order of their ranks."""
        group = self._on_cpu if tensor.device.type == "cpu" else self._on_gpu
        gathered = [torch.empty_like(tensor) for _ in range(self.size)]
        self.call(lambda: dist.all_gather(gathered, tensor, group=group))
        return gathered

    def device_for(self, device: str) -> str:
        """One GPU per process: ``LOCAL_RANK`` says which, as torchrun sets it."""
        if device != "cuda":
            return device
        local = os.environ.get("LOCAL_RANK", self.rank % max(torch.cuda.device_count(), 1))
        return f"cuda:{local}"

    def check_same(self, given: Mapping[str, Mapping[str, object]]) -> None:
        """Raise where two processes have different fingerprints of parameters or data."""
        first, *others = self.of_all(given)
        for rank, other in enumerate(others, start=1):
            different = [
                name
                for part in first
                for name in {**first[part], **other[part]}
                if first[part].get(name) != other[part].get(name)
            ]
            if different:
                raise ValueError(
                    f"all {self.size} processes must be given the same parameters, and the same "
                    f"rows in the same order: those of rank {rank} differ from those of rank 0 "
                    f"in: {'; '.join(different)}. Give every process all rows: fit "
                    "gives each its slice of every batch."
                )

    def check_same_weights(self, module: nn.Module) -> None:
        """Raise where the processes have ended with different weights."""
        digests = self.of_all(weights_digest(module))
        others = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
        if others:
            raise RuntimeError(
                f"all {self.size} processes must end with the same weights, and those of "
                f"{name_ranks(others)} differ from those of rank 0. Does a callback change weights "
                "or learning rates by something that differs between processes?"
            )

    def join_logits(self, step: dict[str, Tensor], n_rows: int) -> dict[str, Tensor]:
        """Return the logits of all ``n_rows`` of a joint batch, and its loss.

        ``step`` has this process' summand of the loss, and the logits of its rows.
        """
        slices = [rows_of_rank(n_rows, rank, self.size) for rank in range(self.size)]
        lengths = [rows.stop - rows.start for rows in slices]
        of_row = step["y_pred"].shape[1:]  # of several labels: one number for each
        n_numbers = of_row.numel()
        own = torch.cat([step["loss"].reshape(1), step["y_pred"].flatten()])
        gathered = self.gather(F.pad(own, (0, 1 + max(lengths) * n_numbers - len(own))))
        pairs = zip(gathered, lengths, strict=True)
        logits = [numbers[1 : 1 + length * n_numbers] for numbers, length in pairs]
        loss = torch.stack([numbers[0] for numbers in gathered]).sum()
        return {"loss": loss, "y_pred": torch.cat(logits).view(n_rows, *of_row)}

    def sum_gradients(
        self, dense: Sequence[Tensor], tables: Sequence[Tensor], numbers: Tensor
    ) -> Tensor:
        """Replace each gradient by its sum over the processes; return the sums of ``numbers``.

        A dense gradient that is None in all processes stays None; those of embedding tables are
        sparse or None. How many rows each process has touched is read by the host, which waits for
        a GPU once per step. Each process' loss is its summand of the joint batch's mean, so nothing
        is divided.
        """
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in dense]
        present = numbers.new_tensor([p.grad is not None for p in dense])
        n_touched = numbers.new_zeros(len(tables), self.size)  # exact below 16 million rows
        n_touched[:, self.rank] = numbers.new_tensor([_count_touched(table) for table in tables])
        blocks = [*(g.flatten() for g in gradients), present, n_touched.flatten(), numbers]
        flat = torch.cat(blocks)
        self.sum(flat)
        *sums, present, touched, numbers = flat.split([len(block) for block in blocks])
        for parameter, total, n_present in zip(dense, sums, present.tolist(), strict=True):
            parameter.grad = total.view_as(parameter) if n_present else None
        counts = touched.view(len(tables), self.size).long().tolist()
        for table, of_ranks in zip(tables, counts, strict=True):
            if any(of_ranks):
                _sum_rows(self, table, of_ranks)
        return numbers

    def join_gradients(self, net: DINNet, loss: Tensor) -> Tensor:
        """Sum a net's gradients, return the sum of the losses; stop if one process wants to."""
        requests = self._stop_requests(net).to(loss.device)
        tables = list(net.module_.embeddings.tables.values())
        numbers = torch.cat([loss.reshape(1), requests])
        numbers = self.sum_gradients(list(net.dense_parameters.values()), tables, numbers)
        self._stop_together(net, numbers[1:])
        return numbers[0]

    @contextmanager
    def hold_stops(self, net: DINNet, event: str) -> Iterator[None]:
        """Keep the stop of a callback, which is called in the block, until all can hear of it."""
        try:
            yield
        except KeyboardInterrupt:
            if event not in WITHIN_TRAINING:
                raise
            if net.stop_reason_ == "patience":  # all processes made the same check
                self.have_agreed = True
                raise
            is_named = net.stop_reason_ != "max_epochs"
            self._stop_request = net.stop_reason_ if is_named else "callback"
        if event == "on_epoch_end":
            requests = self._stop_requests(net)
            self.sum(requests)
            self._stop_together(net, requests)

    def _stop_requests(self, net: DINNet) -> Tensor:
        """Return whether the user, or a callback, wants this process to stop: (2,)."""
        by_user = bool(net.presses_) or self._stop_request == "user"
        return torch.tensor([by_user, self._stop_request is not None], dtype=torch.float32)

    def _stop_together(self, net: DINNet, requests: Tensor) -> None:
        by_user, by_callback = (bool(request) for request in requests.tolist())
        if by_user or by_callback:
            self.have_agreed = True
            net.stop_training("user" if by_user else "callback")

    def check_inputs(
        self, estimator: BaseEstimator, inputs: FitInputs, sample_weight: ArrayLike | None
    ) -> None:
        """Raise where another process goes on from other parameters, rows or weights."""
        given = fingerprint(estimator, inputs, sample_weight=sample_weight, groups=None)
        if hasattr(estimator, "net_"):
            given["data"]["the network so far"] = weights_digest(estimator.module_)
        self.check_same(given)


@contextmanager
def training_ranks(*, keeps_checkpoint: bool) -> Iterator[Ranks | None]:
    """Join the processes that call ``fit`` together, and tell them if this one fails.

    Yields None where there is no process group, or only one process in it.
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
    weights = module.state_dict()
    flat = (weight.detach().cpu().contiguous().flatten() for weight in weights.values())
    return digest(*weights, *(weight.view(torch.uint8).numpy() for weight in flat))


def _warn_of_lone_training() -> None:
    n_processes = os.environ.get("WORLD_SIZE", "1")
    if n_processes == "1" or not dist.is_available() or dist.is_initialized():
        return
    if dist.is_torchelastic_launched():
        warn_user(
            f"torchrun has started {n_processes} processes, and each of them trains a model of "
            "its own. To train one model together, call "
            'torch.distributed.init_process_group("gloo") before fit.'
        )


def _count_touched(table: Tensor) -> int:
    return 0 if table.grad is None else table.grad._nnz()


def _sum_rows(ranks: Ranks, table: Tensor, counts: list[int]) -> None:
    """Give a table the sum of all processes' sparse gradients, of which each has so many rows.

    The sum holds each row once, in ascending order; rows that several processes touched are added
    in the order of the processes.
    """
    n, most = _count_touched(table), max(counts)
    rows = torch.zeros(most, dtype=torch.int64, device=table.device)
    values = table.new_zeros(most, table.shape[1])
    if n and table.grad is not None:
        rows[:n], values[:n] = table.grad._indices()[0], table.grad._values()
    all_rows = torch.cat([r[:n] for r, n in zip(ranks.gather(rows), counts, strict=True)])
    all_values = torch.cat([v[:n] for v, n in zip(ranks.gather(values), counts, strict=True)])
    ordered, order = all_rows.sort(stable=True)
    distinct, n_equal = ordered.unique_consecutive(return_counts=True)
    starts = n_equal.cumsum(0) - n_equal
    sums = F.embedding_bag(order, all_values, starts, mode="sum")
    table.grad = torch.sparse_coo_tensor(
        distinct.unsqueeze(0), sums, table.shape, is_coalesced=True, check_invariants=False
    )
