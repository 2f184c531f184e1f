"""One training of a net: its data, its current state, and why it ended."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from types import FrameType
from typing import Literal, NoReturn

import numpy as np
import torch
from numpy.typing import ArrayLike
from skorch import NeuralNet
from skorch.callbacks import EpochTimer, PassthroughScoring, PrintLog
from skorch.utils import TeeGenerator
from torch import Tensor

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import UNKNOWN_ID, Schema
from sklearn_din.native_network.logits import NativeSteps, advise_to_compile
from sklearn_din.network.batch import Batch
from sklearn_din.network.number_bins import choose_bins, find_ranges
from sklearn_din.training.alone import Alone
from sklearn_din.training.batches import ImpressionBatches
from sklearn_din.training.newest_rows import learn_newest_rows
from sklearn_din.training.occurrences import count_ids, embedding_decay, position_shares
from sklearn_din.training.offset import choose_offset
from sklearn_din.training.optim import RowwiseAdam, check_groups, set_decay, set_rates
from sklearn_din.training.seeding import seed_torch
from sklearn_din.training.steps import Losses, begin_native_steps, compute_by_parts, name_gradients
from sklearn_din.training.threads import use_threads
from sklearn_din.training.validation_checks import ValidationChecks
from sklearn_din.utils.warnings import warn_user

OF_EPOCHS = EpochTimer, PassthroughScoring, PrintLog  # of skorch: they write or read ``history``
StopReason = Literal["max_epochs", "patience", "callback", "user"]


def keep_freed_memory() -> None:
    """Have glibc keep the memory that one step frees for the next one.

    A step frees tens of megabytes, glibc returns them to the system, and the next step pays a page
    fault for every 4 KiB. 18 steps of 1,024 impressions with 60 events took .71 to .77 s of a CPU
    in four runs with this line, and 1.06 to 1.23 s in three without (160,000 page faults). Freeing
    one large block, which is never touched, raises both of glibc's dynamic thresholds (mallopt(3),
    M_MMAP_THRESHOLD).
    """
    torch.empty(31 << 20, dtype=torch.uint8)


class Training:
    """One training, which exists during ``fit``. Callbacks find it as ``net.training_``.

    It trains on the rows ``train`` and checks on ``valid``, if there are any. ``parts`` are pairs
    of batches of those rows cut in time, to learn from and to predict, if they are learnt in the
    end; ``is_refitting`` says whether that pass is going on. ``epochs`` is given by a partial fit,
    which keeps no checkpoints; None: the net's ``max_epochs``. ``is_later`` says whether the
    validation rows come after the others.
    """

    def __init__(
        self,
        net: NeuralNet,
        train: ImpressionBatches,
        valid: ImpressionBatches | None = None,
        parts: Sequence[tuple[ImpressionBatches, ImpressionBatches]] = (),
        *,
        ranks: Alone | None = None,
        epochs: int | None = None,
        is_later: bool = False,
    ) -> None:
        self.net, self.ranks = net, ranks or Alone()
        self.train, self.valid, self.parts = train, valid, parts
        self.most_epochs = net.max_epochs if epochs is None else epochs
        self.is_partial, self.is_later = epochs is not None, is_later
        self.n_before = 0  # rows of the history
        self.losses = Losses(net)
        self.presses: list[int] = []  # of Ctrl-C
        self.is_refitting = False
        self._steps: NativeSteps | None = None
        self._checked: torch.optim.Optimizer | None = None
        for batches in filter(None, (train, valid, *chain(*parts))):
            batches.share_among(self.ranks.size, rank=self.ranks.rank)

    @property
    def n_epochs(self) -> int:
        """Number of epochs started by this training."""
        return len(self.net.history) - self.n_before

    @property
    def checks(self) -> ValidationChecks:
        """The callback that makes validation checks."""
        return dict(self.net.callbacks_)["validation_checks"]

    def run(self, X: EncodedFeatures, y: ArrayLike, *, seed: int, is_new: bool) -> None:
        """Train as skorch does, under a seed; torch's random state is left as it was.

        The seed decides the new network's weights, dropout and hidden numbers. Afterwards nothing
        of the rows is left in the net.
        """
        net, decay = self.net, None
        if net.embedding_l2:
            self.count(self.train)
            decay = self.decay_in(self.train)
        devices = list(range(torch.cuda.device_count())) if net.device != "cpu" else []
        net._training, net.seed_, net.stop_reason_ = self, seed, "max_epochs"
        try:
            with seed_torch(seed, devices=devices):
                if is_new:
                    self._make_module(X.schema, seed)
                else:
                    net.initialize_callbacks()
                leave_out_callbacks(net, monitors=self.valid is None, checkpoints=self.is_partial)
                self._set_rates()
                set_decay(net.optimizer_, net.module_, decay)
                self.n_before = len(net.history)
                net.notify("on_train_begin", X=X, y=y)
                try:
                    self._loop(X, y)
                except KeyboardInterrupt:
                    net.notify("on_train_end", X=X, y=y)
                    raise
                net.notify("on_train_end", X=X, y=y)
        finally:
            net._training = None
            if net.initialized_:
                self._set_rates()
                set_decay(net.optimizer_, net.module_, None)
                net.optimizer_.zero_grad(set_to_none=True)
        net.module_.eval()
        self.ranks.check_same_weights(net.module_)

    def _set_rates(self) -> None:
        net = self.net
        set_rates(net.optimizer_, lr=net.lr, embedding_lr=net.embedding_lr)

    def _make_module(self, schema: Schema, seed: int) -> None:
        """Give the net a new network, optimizer and history."""
        net, train = self.net, self.train
        net.module__schema = schema
        net.module__ranges = find_ranges(train.X, reads_all=net.is_published)
        net.module__bins = None
        if not net.is_published:
            net.module__bins = choose_bins(train.X, train.y, train.rows, net.neighbours_.names)
        offset = "" if net.is_published else train.X.schema.offset
        net.module__offset, constant = choose_offset(offset, train, net.target)
        net.module__position_shares, positions = (), train.X.positions
        if positions is not None:
            positions = positions if train.rows is None else positions[train.rows]
            net.module__position_shares = position_shares(positions, net.target.kinds(train.y))
        with _single_precision():  # as native code computes, and files and GPUs hold it
            net.initialize()
        # Each step moves the bias by at most the learning rate: starting from 0 with rare clicks,
        # all other weights would first learn what belongs in the bias.
        if constant is not None:
            bias = net.module_.bias_of(torch.as_tensor(constant))
            net.module_.output.bias.data.copy_(bias)
        if self.ranks.rank and net.module_.options["dropout"]:
            torch.manual_seed(seed + self.ranks.rank)  # it drops activations of its own rows
        net.checks_, net.n_epochs_ = [], 0

    def count(self, train: ImpressionBatches) -> None:
        """Add the ids and labels of further rows to those of all trainings so far."""
        net = self.net
        counts = net.target.count(train.y)
        earlier = net.labels_ if any(net.labels_) else (0,) * len(counts)
        net.labels_ = tuple(map(sum, zip(earlier, counts, strict=True)))
        counted = count_ids(train.X, train.rows)
        occurrences = {name: count.astype(np.float32) for name, count in counted.items()}
        if train.shown is not None:
            for name, n_hidden in train.shown.count_hidden(train.X, train.rows).items():
                occurrences[name][UNKNOWN_ID] += n_hidden
        for name, before in net.occurrences_.items():
            occurrences[name][: len(before)] += before
        net.occurrences_ = occurrences

    def decay_in(self, train: ImpressionBatches) -> dict[str, np.ndarray]:
        """Return factors of the L2 by vocabulary, in such batches."""
        net = self.net
        strength = net.embedding_l2 * net.target.scale_of_prior(net.labels_)
        return embedding_decay(net.occurrences_, strength / min(train.batch_size, len(train)))

    # Epochs, and their end

    def _loop(self, X: EncodedFeatures, y: ArrayLike) -> None:
        """Run skorch's epochs, record the reason for stopping, drop an unfinished epoch.

        Epochs that a checkpoint has put into the history are not made again.
        """
        keep_freed_memory()
        net, is_alone = self.net, self.ranks.size == 1
        advise_to_compile(net.module_, len(self.train))
        n_left = self.most_epochs - self.n_epochs
        with note_ctrl_c(raises=is_alone) as self.presses, use_threads():
            self._until_stopped(lambda: net.fit_loop(X, y, n_left))
            if self.parts and net.stop_reason_ in {"max_epochs", "patience"}:
                try:
                    self._until_stopped(lambda: learn_newest_rows(net))
                finally:
                    self.is_refitting = False

    def _until_stopped(self, train: Callable[[], object]) -> None:
        """Train until a callback or Ctrl-C ends it, whose reason is kept."""
        net = self.net
        reason, net.stop_reason_, self._steps = net.stop_reason_, "max_epochs", None
        try:
            train()
        except KeyboardInterrupt:
            if not self.ranks.has_agreed:
                raise
            if net.stop_reason_ == "max_epochs":  # not set by ``stop``
                net.stop_reason_ = "user" if self.presses else "callback"
        else:
            net.stop_reason_ = reason
        self.losses.check()  # those of an unfinished epoch
        net.n_epochs_ += self.n_epochs
        if self.n_epochs and "train_loss" not in net.history[-1]:  # unfinished
            net.history.pop()
        self.n_before = len(net.history)

    def stop(self, reason: StopReason) -> NoReturn:
        """End the training from within a callback."""
        self.net.stop_reason_ = reason
        raise KeyboardInterrupt  # how skorch leaves the loop

    def end_epoch(self) -> None:
        """Stop if another process stops, and let the next epoch choose again what makes its steps.

        Other callbacks than skorch's and this package's may have changed the network or the
        optimizer.
        """
        if not self._has_usual_callbacks:
            self._steps = None
        self.ranks.share_stops(by_user=bool(self.presses))
        self._stop_with_others()

    def _stop_with_others(self) -> None:
        if self.ranks.stop is not None:
            self.stop(self.ranks.stop)

    # Steps

    def step(self, batch: tuple[Batch, Tensor]) -> dict[str, Tensor]:
        """Take one step, as skorch's own does, but show callbacks the touched rows of a table.

        The optimizer calls the closure once.
        """
        net, (rows, labels) = self.net, batch
        if net.optimizer_ is not self._checked:
            check_groups(net.optimizer_, net.module_)
            self._checked = net.optimizer_
        if not self._shows_gradients:
            net._set_training(True)
            self._steps = self._steps or begin_native_steps(net, rows, labels)
            if self._steps is not None:
                loss, logits = self._steps.take(rows, labels)
                self.losses.note(loss)
                return {"loss": loss, "y_pred": logits}
            self._shows_gradients = True  # torch needs them
        step: dict[str, Tensor] = {}

        def compute_gradients() -> Tensor:
            net._zero_grad_optimizer(set_to_none=True)
            step.update(net.train_step_single(batch))
            by_user = bool(self.presses)
            step["loss"] = self.ranks.sum_gradients(net.module_, step["loss"], by_user=by_user)
            self._stop_with_others()
            self.losses.note(step["loss"])
            named = TeeGenerator(name_gradients(net))
            net.notify("on_grad_computed", named_parameters=named, batch=batch, training=True)
            return step["loss"]

        net._step_optimizer(compute_gradients)
        return step

    @cached_property
    def _has_usual_callbacks(self) -> bool:
        usual = (*OF_EPOCHS, ValidationChecks)
        return all(type(callback) in usual for _, callback in self.net.callbacks_)

    @cached_property
    def _shows_gradients(self) -> bool:
        """Whether somebody may look at the gradients, or wait for the optimizer's steps."""
        net = self.net
        others = [
            callback
            for _, callback in net.callbacks_
            if not getattr(callback, "ignores_gradients", type(callback) in OF_EPOCHS)
        ]
        is_plain = type(net.optimizer_) is RowwiseAdam and not net.optimizer_.has_hooks
        return bool(others) or not is_plain or self.ranks.size > 1

    def predict(self, batch: tuple[Batch, Tensor]) -> dict[str, Tensor]:
        """Return loss and logits of a validation batch, in chunks as in training."""
        with torch.no_grad():
            step = compute_by_parts(self.net, batch, training=False)
            step = self.ranks.join_logits(step, batch[0].n_joint_rows)
        self.losses.note(step["loss"])
        return step


def leave_out_callbacks(net: NeuralNet, *, monitors: bool, checkpoints: bool) -> None:
    """Leave out callbacks that watch validation rows, or that keep checkpoints."""
    if checkpoints:
        net.callbacks_ = [pair for pair in net.callbacks_ if not hasattr(pair[1], "hold")]
    scores = {"valid_auc"}
    for _, callback in net.callbacks_:
        if getattr(callback, "on_train", True) is False:
            scores.add(getattr(callback, "name_", callback.name))
    watching = {
        name: f"{type(callback).__name__} ({callback.monitor})"
        for name, callback in net.callbacks_
        if str(getattr(callback, "monitor", None)).removesuffix("_best") in scores
    }
    if not watching or not monitors:
        return
    net.callbacks_ = [pair for pair in net.callbacks_ if pair[0] not in watching]
    warn_user(
        "callbacks that watch validation rows are left out of a training that sets none aside "
        f"(partial_fit and update never do): {', '.join(watching.values())}. Set "
        "monitor='train_loss', of skorch's Checkpoint None, or call fit with early_stopping=True."
    )


@contextmanager
def _single_precision() -> Iterator[None]:
    """Make float32 torch's default within the block."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def note_ctrl_c(*, raises: bool = True) -> Iterator[list[int]]:
    """Yield a list that grows by one entry whenever the user presses Ctrl-C.

    skorch's callbacks end a training by raising KeyboardInterrupt, as Ctrl-C does: the exception
    alone does not say who raised it, the signal does. The handler that was there is called all the
    same and is back afterwards. Python delivers the signal in the main thread only. With
    ``raises=False`` the first Ctrl-C is only noted, for processes that stop at the same step.
    """
    presses: list[int] = []
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield presses
        return
    call = handler

    def note(number: int, frame: FrameType | None) -> None:
        presses.append(number)
        if raises or len(presses) > 1:
            call(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield presses
    finally:
        signal.signal(signal.SIGINT, handler)
