"""A training step that several processes make together: gradients, losses and stops of all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from sklearn_din.batches.batch import Batch, rows_of_rank
from sklearn_din.network.joint import joint_batch
from sklearn_din.network.layers import Dice
from sklearn_din.training.distributed import Ranks
from sklearn_din.training.losses import LossReading

WISHES = ("user", "callback", "patience")  # to stop, by precedence
WITHIN_TRAINING = {"on_epoch_begin", "on_epoch_end", "on_batch_begin", "on_batch_end"}
WITHIN_TRAINING |= {"on_grad_computed"}


class JointSteps(LossReading):
    """What a net does in a training of several processes; nothing where there is one.

    Each process computes its rows of a joint batch, whose loss is the sum of the processes'
    shares. Gradients are summed before each step: all processes take the same step. A callback
    or Ctrl-C that stops the training in one of them stops all, at the same step: the wish is kept
    until the next gradients or the end of the check, where all processes hear of it.
    """

    stop_reason_: Any
    _ranks: Ranks | None = None

    @contextmanager
    def among(self, ranks: Ranks | None) -> Iterator[None]:
        """Train together with other processes within the block."""
        self._ranks, self._wish, self._is_agreed = ranks, "", False
        self._presses: list[int] = []  # of Ctrl-C
        try:
            yield
        finally:
            del self._ranks, self._wish, self._is_agreed, self._presses

    def notify(self, method_name: str, **kwargs: object) -> None:
        """As skorch does; a callback's stop is kept until all processes can hear of it."""
        if self._ranks is None or method_name not in WITHIN_TRAINING:
            super().notify(method_name, **kwargs)
            return
        try:
            super().notify(method_name, **kwargs)
        except KeyboardInterrupt:
            is_named = self.stop_reason_ in WISHES
            self._wish = self.stop_reason_ if is_named else "callback"
        if method_name == "on_epoch_end":
            wishes = torch.tensor(self._wishes())
            self._ranks.sum(wishes)
            self._stop_if_wished(wishes.tolist())

    def on_batch_end(
        self,
        net: Any,
        batch: tuple[Batch, Tensor] | None = None,
        training: bool = False,
        **kwargs: object,
    ) -> None:
        """Record how many rows the joint batch has: the loss is theirs."""
        if self._ranks is not None and batch is not None:
            name = "train_batch_size" if training else "valid_batch_size"
            self.history.record_batch(name, batch[0].n_joint_rows)

    def leaves_others(self) -> bool:
        """Whether a training of several processes stops here alone: at a second Ctrl-C."""
        return self._ranks is not None and not self._is_agreed

    def knows_its_rows(self, batch: Batch) -> AbstractContextManager[None]:
        """Let layers see within the block that other processes have the batch's other rows."""
        return joint_batch(batch.joint, None if self._ranks is None else self._ranks.sum)

    def draws_again(self, batch: Batch, *, is_last: bool) -> AbstractContextManager[None]:
        """Put torch's random state back after all parts of a joint batch but the last.

        Each part draws for the whole joint batch and takes its own rows: the numbers must be the
        same in all parts, and all processes must end with the same random state.
        """
        if batch.joint is None or is_last:
            return nullcontext()
        device = torch.device(self.device)
        devices = [device] if device.type == "cuda" else []
        return torch.random.fork_rng(devices=devices)

    def may_split(self) -> bool:
        """Whether a batch may be computed in parts, of which each process may have other numbers.

        Dice needs sums over all processes, as often in each of them.
        """
        return self._ranks is None or not any(isinstance(m, Dice) for m in self.module_.modules())

    def join_gradients(self, step: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sum gradients and loss over the processes; stop if one of them wishes to."""
        if self._ranks is None:
            return step
        tables = list(self.module_.embeddings.tables.values())
        dense = list(self.dense_parameters.values())
        numbers = torch.stack([step["loss"], *step["loss"].new_tensor(self._wishes())])
        loss, *wishes = sum_gradients(self._ranks, dense, tables, numbers)
        self._stop_if_wished([float(wish) for wish in wishes])
        return step | {"loss": loss}

    def join_logits(self, step: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Logits of all rows of a joint batch, and its loss."""
        if self._ranks is None:
            return step
        n, size = batch.n_joint_rows, self._ranks.size
        lengths = [len(range(n)[rows_of_rank(n, rank, size)]) for rank in range(size)]
        own = torch.cat([step["loss"].reshape(1), step["y_pred"]])
        found = self._ranks.gather(F.pad(own, (0, 1 + max(lengths) - len(own))))
        logits = [its[1 : 1 + length] for its, length in zip(found, lengths, strict=True)]
        return {"loss": torch.stack([its[0] for its in found]).sum(), "y_pred": torch.cat(logits)}

    def _wishes(self) -> list[float]:
        wish = "user" if self._presses else self._wish
        return [float(wish == its) for its in WISHES]

    def _stop_if_wished(self, wishes: Sequence[float]) -> None:
        """Stop, as all other processes do at this moment."""
        for reason, n_processes in zip(WISHES, wishes, strict=True):
            if n_processes:
                self.stop_reason_, self._is_agreed = reason, True
                raise KeyboardInterrupt  # skorch's own way to leave the loop


def sum_gradients(
    ranks: Ranks, dense: Sequence[Tensor], tables: Sequence[Tensor], numbers: Tensor
) -> Tensor:
    """Replace each gradient by its sum over the processes.

    One sum for all dense gradients; for the tables, the touched rows of all processes are
    gathered, padded to the longest, and rows that several have touched are added up in the order
    of the processes. How many rows each has touched decides what is sent next: the host reads it,
    and on a GPU waits for it once per step.

    Parameters
    ----------
    ranks : Ranks
    dense : sequence of Tensor
        Parameters. A gradient that is None in all processes stays None.
    tables : sequence of Tensor of shape (n_ids, width)
        Embedding tables, whose gradients are sparse or None.
    numbers : Tensor of shape (n,)
        To be summed with the gradients.

    Returns
    -------
    numbers : Tensor of shape (n,)
        Their sums.
    """
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in dense]
    present = numbers.new_tensor([p.grad is not None for p in dense])
    n_touched = numbers.new_zeros(len(tables), ranks.size)  # exact below 16 million rows
    n_touched[:, ranks.rank] = numbers.new_tensor([_n_touched(table) for table in tables])
    blocks = [*(its.flatten() for its in gradients), present, n_touched.flatten(), numbers]
    flat = torch.cat(blocks)
    ranks.sum(flat)
    *sums, present, touched, numbers = flat.split([len(block) for block in blocks])
    for parameter, its, n_present in zip(dense, sums, present.tolist(), strict=True):
        parameter.grad = its.view_as(parameter) if n_present else None
    counts = touched.view(len(tables), ranks.size).long().tolist()
    _sum_rows(ranks, [pair for pair in zip(tables, counts, strict=True) if any(pair[1])])
    return numbers


def _n_touched(table: Tensor) -> int:
    return 0 if table.grad is None else table.grad._nnz()


def _sum_rows(ranks: Ranks, tables: Sequence[tuple[Tensor, list[int]]]) -> None:
    """Gather the touched rows of tables, of which each process has so many."""
    if not tables:
        return
    rows, values = [], []
    for table, counts in tables:
        n, most = _n_touched(table), max(counts)
        rows.append(torch.zeros(most, dtype=torch.int64, device=table.device))
        values.append(table.new_zeros(most, table.shape[1]))
        if n and table.grad is not None:
            rows[-1][:n], values[-1][:n] = table.grad._indices()[0], table.grad._values()
    blocks = [*rows, *values]  # rows first: they begin where eight bytes do
    sizes = [block.numel() * block.element_size() for block in blocks]
    found = ranks.gather(torch.cat([block.flatten().view(torch.uint8) for block in blocks]))
    parts = [octets.split(sizes) for octets in found]  # by process
    for k, (table, counts) in enumerate(tables):
        its_rows, its_values = [], []
        for part, n in zip(parts, counts, strict=True):
            its_rows.append(part[k].view(torch.int64)[:n])
            octets = part[len(tables) + k]
            its_values.append(octets.view(table.dtype).view(-1, table.shape[1])[:n])
        table.grad = _add_up(torch.cat(its_rows), torch.cat(its_values), table)


def _add_up(rows: Tensor, values: Tensor, table: Tensor) -> Tensor:
    """Sparse gradient that holds each row once, in ascending order.

    rows : (n,)
    values : (n, width)
    """
    ordered, order = rows.sort(stable=True)
    is_first = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=is_first[1:])
    starts = is_first.nonzero().squeeze(1)
    sums = F.embedding_bag(order, values, starts, mode="sum")
    distinct = ordered.index_select(0, starts).unsqueeze(0)
    return torch.sparse_coo_tensor(
        distinct, sums, table.shape, is_coalesced=True, check_invariants=False
    )
