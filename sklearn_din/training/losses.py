"""The losses of a training: read a few steps at a time from a GPU, and checked to be finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from skorch import NeuralNetBinaryClassifier
from torch import Tensor

from sklearn_din.batches.batch import Batch
from sklearn_din.module import DIN
from sklearn_din.network.layers import is_host, number_on_host

STEPS_PER_READ = 50  # of losses on a GPU: to read one, the host waits for all steps before it


class LossReading(NeuralNetBinaryClassifier):
    """What a net does with its losses: they go into ``history``, and each must be finite.

    In the host's memory each loss is read and checked before its step changes a weight. From a GPU
    ``STEPS_PER_READ`` of them are read at once: up to so many steps may be taken after one whose
    loss was not finite. All are read before anything is kept: at the end of each pass over
    training or validation batches, before a checkpoint is written, and when training ends.
    """

    module_: DIN
    embedding_lr: float
    checks_per_epoch_: int
    _n_before: int  # rows of the history that other trainings have made
    _unread: list[tuple[Tensor, Tensor]] | None = None  # losses, and the numbers of their batches

    def note_loss(self, loss: Tensor, batch: Batch) -> None:
        """Have the loss of a batch checked, at once where that costs nothing."""
        self._unread = [*(self._unread or []), (loss.detach(), batch.numbers)]
        if is_host(loss.device) or len(self._unread) >= STEPS_PER_READ:
            self.check_losses()

    def check_losses(self) -> None:
        """Raise where a loss that has been noted is not finite."""
        unread, self._unread = self._unread, None
        if not unread:
            return
        losses = torch.stack([loss for loss, _ in unread]).tolist()
        for loss, (_, numbers) in zip(losses, unread, strict=True):
            if not math.isfinite(loss):
                raise ValueError(self._divergence_message(numbers))

    def _divergence_message(self, numbers: Tensor) -> str:
        """What may have been the cause; ``numbers`` (n_rows, n_numeric) are those of the batch."""
        numeric = self.module_.schema.names("numeric")
        hint = ""
        if numeric and len(numbers):  # a process may have no row of a joint batch
            scales = numbers.abs().amax(dim=0)
            largest = int(scales.argmax())
            hint = f" Largest number: {float(scales[largest]):.3g} in column {numeric[largest]!r}."
        epoch = math.ceil(self._n_checks() / self.checks_per_epoch_)
        return (
            f"the loss is no longer finite in epoch {epoch} with lr={self.lr:g} and "
            f"embedding_lr={self.embedding_lr:g}.{hint} Lower the learning rates, or standardise "
            "the numeric columns (HistorySequenceEncoder does)."
        )

    def _n_checks(self) -> int:
        """Rows of the history that this training has begun."""
        return len(self.history) - self._n_before

    def run_single_epoch(
        self,
        iterator: Iterable[tuple[Batch, Tensor]] | None,
        training: bool,
        prefix: str,
        step_fn: Callable[..., dict[str, Tensor]],
        **fit_params: object,
    ) -> None:
        """Go through all batches as skorch does, which reads each loss after its step.

        On a GPU a loss is a tensor in ``history`` until it is read.
        """
        if iterator is None:
            return
        n_batches = 0
        for batch in iterator:
            self.notify("on_batch_begin", batch=batch, training=training)
            step = step_fn(batch, **fit_params)
            loss = step["loss"].detach()
            number = number_on_host(loss)
            self.history.record_batch(f"{prefix}_loss", loss if number is None else number)
            self.history.record_batch(f"{prefix}_batch_size", len(batch[0]))
            self.notify("on_batch_end", batch=batch, training=training, **step)
            n_batches += 1
        self.read_losses()
        self.history.record(f"{prefix}_batch_count", n_batches)

    def read_losses(self) -> None:
        """Check all losses, and have numbers stand in the latest row of ``history``."""
        self.check_losses()
        batches: list[dict[str, Any]] = self.history[-1]["batches"]
        for name in ("train_loss", "valid_loss"):
            its = [batch for batch in batches if isinstance(batch.get(name), Tensor)]
            if its:
                losses = torch.stack([batch[name] for batch in its]).tolist()
                for batch, loss in zip(its, losses, strict=True):
                    batch[name] = loss
