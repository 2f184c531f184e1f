"""Steps of a training: long batches in parts, gradients as callbacks see them, losses checked."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.history import History
from torch import Tensor

from sklearn_din.native_network.logits import NativeSteps, add_gradients
from sklearn_din.network.batch import EVENTS_PER_PART, Batch, is_host
from sklearn_din.training.target import Click, Numbers, Target

STEPS_PER_READ = 50  # losses on a GPU: reading one makes the host wait for all earlier steps
SPLIT_FROM = 1 << 17  # events of torch's step: a layer of 64 units over them takes 32 MiB
NATIVE_LOSSES: dict[type[Target], str] = {Click: "log", Numbers: "squares"}


def compute_by_parts(
    net: NeuralNet, batch: tuple[Batch, Tensor], *, training: bool
) -> dict[str, Tensor]:
    """Return loss and logits of a batch; in training, give its gradients to the parameters.

    Torch computes many events on a CPU part by part: memory follows the part, and with 10,000
    events per history a step takes a third of the time (benchmarks/README.md).
    """
    whole, y = batch
    own = whole.own_rows(y)
    if training and (step := compute_in_native_code(net, whole, own)):
        return step
    is_long = is_host(net.device) and whole.n_events > SPLIT_FROM
    parts = whole.split(EVENTS_PER_PART) if is_long else [whole]
    labels_of = own.split([len(part) for part in parts])
    losses, logits = [], []
    for part, labels in zip(parts, labels_of, strict=True):
        # Each part draws for the whole joint batch and takes its own rows: the random state is put
        # back after all parts but the last, so that all draw the same numbers.
        draws_again = part.joint is not None and part is not parts[-1]
        with torch.random.fork_rng(devices=[], enabled=draws_again):
            logits.append(net.infer(part))
        loss = net.get_loss(logits[-1], labels, X=part, training=training)
        if len(part) != whole.n_joint_rows:
            loss = loss * (len(part) / max(whole.n_joint_rows, 1))
        if training:
            loss.backward()
            loss, logits[-1] = loss.detach(), logits[-1].detach()
        losses.append(loss)
    if len(parts) == 1:
        return {"loss": losses[0], "y_pred": logits[0]}
    return {"loss": torch.stack(losses).sum(), "y_pred": torch.cat(logits)}


@torch.enable_grad()  # as the optimizer's step does
def begin_native_steps(net: NeuralNet, rows: Batch, labels: Tensor) -> NativeSteps | None:
    """Return native steps that leave no gradients, for such batches; None where torch must help."""
    loss_name = net.native_loss(rows)
    optimized = {id(p) for group in net.optimizer_.param_groups for p in group["params"]}
    if not loss_name or not optimized.issuperset(map(id, net.module_.parameters())):
        return None
    return NativeSteps.begin(net.module_, rows, labels, loss_name, net.optimizer_.prepare)


def compute_in_native_code(net: NeuralNet, rows: Batch, labels: Tensor) -> dict[str, Tensor] | None:
    """Do what ``compute_by_parts`` does in training, in one native pass; None where torch must."""
    loss_name = net.native_loss(rows)
    step = add_gradients(net.module_, rows, labels, loss_name) if loss_name else None
    return None if step is None else dict(zip(("loss", "y_pred"), step, strict=True))


def name_gradients(net: NeuralNet) -> Iterator[tuple[str, Tensor]]:
    """Return parameters for callbacks, of a table the touched rows, by the gradient's memory."""
    for name, parameter in net.get_all_learnable_params():
        if parameter.grad is not None and parameter.grad.is_sparse:
            rows = parameter.grad._values()
            parameter = torch.empty_like(rows)
            parameter.grad = rows
        yield name, parameter


class Losses:
    """Losses of batches, all of which must be finite: checked before the step changes a weight.

    On a GPU, ``STEPS_PER_READ`` are read at once, and all of them before any result is kept.
    """

    def __init__(self, net: NeuralNet) -> None:
        self.net = net
        self.unread: list[Tensor] = []

    def note(self, loss: Tensor) -> None:
        """Have the loss of a batch checked, at once where that costs nothing."""
        reads_now = is_host(loss.device)
        if reads_now and math.isfinite(loss):
            return
        self.unread.append(loss.detach())
        if reads_now or len(self.unread) >= STEPS_PER_READ:
            self.check()

    def check(self) -> None:
        """Raise where a loss that has been noted is not finite."""
        unread, self.unread, net, largest = self.unread, [], self.net, ""
        if unread and not torch.stack(unread).isfinite().all():
            columns = net.training_.train.X.columns
            numeric = net.module_.schema.names("numeric")
            if sizes := {name: float(np.abs(columns[name]).max(initial=0)) for name in numeric}:
                name = max(sizes, key=sizes.__getitem__)
                largest = f" Largest number: {sizes[name]:.3g} in column {name!r}."
            raise ValueError(
                f"the loss is no longer finite in epoch {net.training_.n_epochs} with lr={net.lr:g}"
                f" and embedding_lr={net.embedding_lr or net.lr:g}.{largest} Lower the learning "
                "rates, or standardise the numeric columns (HistorySequenceEncoder does)."
            )

    def read(self, history: History) -> None:
        """Check all losses, and write numbers to the latest row of ``history``."""
        self.check()
        batches: list[dict[str, Any]] = history[-1]["batches"]
        for name in ("train_loss", "valid_loss"):
            unread = [batch for batch in batches if isinstance(batch.get(name), Tensor)]
            if unread:
                losses = torch.stack([batch[name] for batch in unread]).tolist()
                for batch, loss in zip(unread, losses, strict=True):
                    batch[name] = loss
