"""Several processes at one work: gradients are summed before each step, and one error ends all.

All processes are given the same rows and draw the same order; of each joint batch, rank r of n
computes slice r. Dense gradients and the loss are added up by one all-reduce; of the embedding
tables, the touched rows of all processes are gathered, padded to the most, and added up. What is
drawn for rows (hidden ids and numbers) is drawn for the whole joint batch by each, which keeps
those of its own rows. So all take the same step, that of one process with the whole batch, to
rounding: but for Dice, whose mean and variance are those of each process' rows, and dropout, which
each process draws.
"""

from __future__ import annotations

import os
import platform
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sklearn_din.module import DIN
from sklearn_din.network.batch import rows_of_rank
from sklearn_din.network.layers import Dice
from sklearn_din.resilient.fingerprint import Fingerprint, differences, fingerprint, weights_digest
from sklearn_din.training.alone import Alone, Given
from sklearn_din.utils.warnings import warn_user

Exchanged = TypeVar("Exchanged")

MINUTES_TO_ENCODE = 24 * 60.0  # for which the others wait; one that is killed is noticed at once
MINUTES_TO_WAIT = 10.0  # for a process that is slower than the others, or gone without a trace
SECONDS_TO_CLOSE = 60.0  # for the others to hear that all have ended
SECONDS_FOR_REASON = 3.0  # for the others to give their reasons, after one has ended
MOST_LETTERS = 2_000  # of an error that is sent to the others
WITHIN_TRAINING = {"on_epoch_begin", "on_epoch_end", "on_batch_begin", "on_batch_end"}
WITHIN_TRAINING |= {"on_grad_computed"}  # events of which every process has as many


def is_one_of_several() -> bool:
    """Return whether this process is one of several in a group of torch."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class Ranks(Alone):
    """All processes of torch's group, at one piece of work: what they exchange and add up.

    Every method is called by all of them, in the same order. A process that ends with an error says
    so and closes its connections, so that none waits for it. ``work`` and ``remedy`` are for that.
    """

    def __init__(self, *, work: str, remedy: str) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._work, self._remedy = work, remedy
        self._is_closed, self._key = False, ""
        self.has_agreed = False
        self._stop_request: str | None = None  # of this process, until all processes know of it
        self._groups: list[Any] = []
        # Groups of their own: they can be closed when the work fails, and the user's stays.
        # The one name here that torch does not document: its store, where a process that has lost
        # its connections can still leave a message for the others.
        self._store = dist.distributed_c10d._get_default_store()
        self._on_cpu = self.open("gloo")
        self._on_gpu = self._on_cpu if dist.get_backend() == "gloo" else self.open(None)
        self._key = self.from_first(f"sklearn_din/{uuid.uuid4().hex}")

    def open(self, backend: str | None, *, minutes: float = MINUTES_TO_WAIT) -> Any:
        """Open a further group; that of the user's backend, where none is named."""
        timeout = timedelta(minutes=minutes)
        self.call(lambda: self._groups.append(dist.new_group(backend=backend, timeout=timeout)))
        return self._groups[-1]

    def wait_up_to(self, minutes: float) -> None:
        """Let the others compute for so long from here on before one of them answers."""
        self._on_cpu = self.open("gloo", minutes=minutes)

    def from_first(self, value: Exchanged) -> Exchanged:
        """Return the value of rank 0; those of the others are ignored."""
        values = [value]
        self.call(lambda: dist.broadcast_object_list(values, src=0, group=self._on_cpu))
        return values[0]

    def of_all(self, value: Exchanged) -> list[Exchanged]:
        """Values of all processes in the order of their ranks."""
        values: list[Any] = [None] * self.size
        self.call(lambda: dist.all_gather_object(values, value, group=self._on_cpu))
        return values

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Close the connections when all have ended their work; raise if one is gone.

        An error that ends this process is sent to the others.
        """
        if error is not None:
            if not self._is_closed:
                self._leave(f"{type(error).__name__}: {error}"[:MOST_LETTERS])
            return
        self.of_all(None)
        keys = [f"{self._key}/{rank}" for rank in range(self.size)]
        with suppress(RuntimeError):  # the process that holds the store may have ended
            self._store.set(keys[self.rank], "")
            self._store.wait(keys, timedelta(seconds=SECONDS_TO_CLOSE))
        self._close()

    def call(self, operation: Callable[[], object]) -> None:
        """Call an operation of torch; its error becomes one that says which process is gone."""
        try:
            operation()
        except RuntimeError as error:
            self._leave("")
            raise RuntimeError(self._reason()) from error

    def _leave(self, reason: str) -> None:
        """End without the others; an empty reason where another process failed first."""
        with suppress(RuntimeError):  # the process that holds the store may have ended
            self._store.set(f"{self._key}/{self.rank}", reason)
        self._close()

    def _close(self) -> None:
        self._is_closed = True
        for group in self._groups:
            with suppress(RuntimeError):
                dist.destroy_process_group(group)

    def _reason(self) -> str:
        """Say who ended, and by what: the reason is empty text where one process lost another."""
        others = {rank: f"{self._key}/{rank}" for rank in range(self.size) if rank != self.rank}
        reasons = {self.rank: ""}
        with suppress(RuntimeError):  # one of them gave no reason in time
            self._store.wait(list(others.values()), timedelta(seconds=SECONDS_FOR_REASON))
        with suppress(RuntimeError):  # the process that holds the store has ended
            for rank, key in others.items():
                if self._store.check([key]):
                    reasons[rank] = self._store.get(key).decode()
        ended = [f"rank {rank} ended with {text}" for rank, text in reasons.items() if text]
        silent = [rank for rank in range(self.size) if rank not in reasons]
        cause = " and ".join(ended) or f"{name_ranks(silent)} is gone or does not answer"
        return (
            f"{self._work} {self.size} processes needs all of them, and {cause}. Rank "
            f"{self.rank} has ended too. Start all of them again: {self._remedy}."
        )

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

    def check_given(self, given: Given) -> None:
        """Raise where two processes were given different parameters or data."""
        self.check_same(lambda: fingerprint(given))

    def check_same(self, describe: Callable[[], Fingerprint]) -> None:
        """Raise where two processes have different fingerprints of parameters or data."""
        first, *others = self.of_all(describe())
        for rank, other in enumerate(others, start=1):
            different = differences(first, other)
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
        """Return the logits of all ``n_rows`` of a joint batch, and its loss, the summands' sum."""
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

    def sum_gradients(self, module: DIN, loss: Tensor, *, by_user: bool) -> Tensor:
        """Replace each gradient by its sum over the processes; return the sum of the losses.

        A dense gradient that is None in all processes stays None. Reading how many rows each
        process has touched waits for a GPU. Running moments of activations become their mean.
        """
        tables = list(module.embeddings.tables.values())
        of_table = {id(table) for table in tables}
        dense = [p for p in module.parameters() if id(p) not in of_table]
        moments = [b for m in module.modules() if isinstance(m, Dice) for b in m.buffers()]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in dense]
        present = loss.new_tensor([p.grad is not None for p in dense])
        n_touched = loss.new_zeros(len(tables), self.size)  # exact below 16 million rows
        n_touched[:, self.rank] = loss.new_tensor(
            [0 if table.grad is None else table.grad._nnz() for table in tables]
        )
        numbers = torch.cat([loss.reshape(1), self._requests(by_user).to(loss)])
        blocks = [b.flatten() for b in (*gradients, *moments, present, n_touched, numbers)]
        flat = torch.cat(blocks)
        self.sum(flat)
        sums = list(flat.split([len(block) for block in blocks]))
        present, touched, numbers = sums[-3:]
        for moment, total in zip(moments, sums[len(dense) : -3], strict=True):
            moment.copy_((total / self.size).view_as(moment))
        for parameter, total, n_present in zip(dense, sums, present.tolist(), strict=False):
            parameter.grad = total.view_as(parameter) if n_present else None
        counts = touched.view(len(tables), self.size).long().tolist()
        for table, of_ranks in zip(tables, counts, strict=True):
            if any(of_ranks):
                _sum_rows(self, table, of_ranks)
        self._agree(numbers[1:])
        return numbers[0]

    def postpone_stop(self, event: str, reason: str) -> bool:
        """Return whether the stop of a callback has to wait until all processes know of it."""
        if event not in WITHIN_TRAINING:
            return False
        if reason == "patience":  # all processes made the same check
            self.has_agreed = True
            return False
        self._stop_request = "callback" if reason == "max_epochs" else reason
        return True

    def share_stops(self, *, by_user: bool) -> None:
        """Share with all processes whether this one stops."""
        requests = self._requests(by_user)
        self.sum(requests)
        self._agree(requests)

    def _requests(self, by_user: bool) -> Tensor:
        """Return whether the user, or a callback, wants this process to stop: (2,)."""
        by_user = by_user or self._stop_request == "user"
        return torch.tensor([by_user, by_user or self._stop_request is not None]).float()

    def _agree(self, requests: Tensor) -> None:
        by_user, by_callback = (bool(request) for request in requests.tolist())
        if by_user or by_callback:
            self.has_agreed, self.stop = True, "user" if by_user else "callback"


def training_ranks() -> AbstractContextManager[Alone]:
    """Join the processes that call ``fit`` together, where there are several in a group."""
    if not is_one_of_several():
        n_processes = os.environ.get("WORLD_SIZE", "1")
        is_unready = dist.is_available() and not dist.is_initialized()
        if n_processes != "1" and is_unready and dist.is_torchelastic_launched():
            warn_user(
                f"torchrun has started {n_processes} processes, and each of them trains a model of "
                "its own. To train one model together, call "
                'torch.distributed.init_process_group("gloo") before fit.'
            )
        return nullcontext(Alone())
    remedy = "fit begins anew, or with callbacks=[Checkpoint(folder)] from the latest checkpoint"
    return Ranks(work="a training of", remedy=remedy)


@contextmanager
def first_process_first(cache_dir: Path, name: Callable[[], str]) -> Iterator[None]:
    """Run the block in the first of several processes of one ``name``, then in the others."""
    if not is_one_of_several():
        yield
        return
    remedy = "fit begins anew, nothing was kept of what they have encoded"
    with Ranks(work="an encoding by", remedy=remedy) as processes:
        works = processes.of_all((platform.node(), str(cache_dir.resolve()), name()))
        is_first = works.index(works[processes.rank]) == processes.rank
        processes.wait_up_to(MINUTES_TO_ENCODE)
        if is_first:
            yield
        processes.of_all(None)
        if not is_first:
            yield


def _sum_rows(ranks: Ranks, table: Tensor, counts: list[int]) -> None:
    """Give a table the sum of all processes' sparse gradients, of ``counts`` rows each."""
    own, most = table.grad, max(counts)
    rows = torch.zeros(most, dtype=torch.int64, device=table.device)
    values = table.new_zeros(most, table.shape[1])
    if own is not None:
        rows[: own._nnz()], values[: own._nnz()] = own._indices()[0], own._values()
    all_rows = torch.cat([r[:n] for r, n in zip(ranks.gather(rows), counts, strict=True)])
    all_values = torch.cat([v[:n] for v, n in zip(ranks.gather(values), counts, strict=True)])
    joined = torch.sparse_coo_tensor(
        all_rows.unsqueeze(0), all_values, table.shape, check_invariants=False
    )
    table.grad = joined.coalesce()


def name_ranks(ranks: list[int]) -> str:
    """Name ranks in a sentence."""
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"
