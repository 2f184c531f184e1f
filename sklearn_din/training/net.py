"""The skorch net behind DINClassifier: how a batch is fed, the loss, the steps, why it stops."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from skorch.callbacks import Callback, EpochTimer, PassthroughScoring
from skorch.history import History
from skorch.utils import TeeGenerator
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from sklearn_din.batches.batch import Batch, to_device
from sklearn_din.batches.in_memory import ScoringBatches
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.module import DIN
from sklearn_din.neighbours.tables import NeighbourTables
from sklearn_din.network.layers import is_host
from sklearn_din.training.ctrl_c import note_ctrl_c
from sklearn_din.training.joint_steps import JointSteps
from sklearn_din.training.optim import RowwiseAdam
from sklearn_din.training.plan import Batches, TrainingPlan
from sklearn_din.training.training_state import DenseMoments, RowMoments, TrainingState

SPLIT_FROM = 1 << 17  # events of a step: a layer of 64 units over them takes 32 MiB
EVENTS_PER_PART = 1 << 15  # of a step that is split: what the processor's cache holds
StopReason = Literal["max_epochs", "patience", "callback", "user"]


def keep_freed_memory() -> None:
    """Have glibc keep the memory that one step frees for the next one.

    A step frees tens of megabytes, glibc gives them back to the system, and the next step pays a
    page fault for every 4 KiB: a third of the step's time. Freeing one large block raises both
    of glibc's dynamic thresholds (mallopt(3), M_MMAP_THRESHOLD). The block is never touched.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


class DINNet(JointSteps):
    """skorch net over ready batches, with one optimizer for tables and all the rest.

    ``partial_fit`` takes a TrainingPlan, ``predict_proba`` takes EncodedFeatures. The net never
    keeps rows it was trained on.

    Parameters
    ----------
    module, *args, **kwargs
        As for :class:`skorch.NeuralNetBinaryClassifier`.
    embedding_lr : float, default=0.001
        Learning rate of the embedding tables.
    embedding_decay : dict of str to ndarray of shape (n_ids,), default=None
        By vocabulary, each id's factor of the mini-batch aware L2.

    Attributes
    ----------
    stop_reason_ : {"max_epochs", "patience", "callback", "user"}
        Why the latest training ended: after all epochs, by early stopping, by a callback of the
        user's, or by Ctrl-C.
    n_epochs_begun_ : int
        Epochs that the latest training began. A validation check left unfinished has no row in
        ``history``.
    checks_per_epoch_ : int
        Rows of ``history`` per epoch.
    training_state_ : TrainingState or None
        Where the latest training stopped, for one that goes on. None in the middle of a training
        and where an older version saved the net.
    neighbours_ : NeighbourTables
        Item neighbours, which rows to predict are looked up in where they lack the numbers.
    """

    stop_reason_: StopReason
    n_epochs_begun_: int
    checks_per_epoch_: int
    training_state_: TrainingState | None = None
    neighbours_: NeighbourTables = NeighbourTables()

    def __init__(
        self,
        module: DIN,
        *args: object,
        embedding_lr: float = 0.001,
        embedding_decay: Mapping[str, np.ndarray] | None = None,
        **kwargs: object,
    ) -> None:
        self.embedding_lr = embedding_lr
        self.embedding_decay = embedding_decay
        super().__init__(module, *args, **kwargs)

    @property
    def _default_callbacks(self) -> list[tuple[str, Callback]]:
        return [
            ("epoch_timer", EpochTimer()),
            ("train_loss", PassthroughScoring(name="train_loss", on_train=True)),
            ("valid_loss", PassthroughScoring(name="valid_loss")),
        ]

    def initialize_optimizer(self, triggered_directly: bool | None = None) -> DINNet:
        """One optimizer: a group of all dense parameters, and one for each embedding table."""
        embeddings = self.module_.embeddings
        groups: list[dict[str, Any]] = [
            {"params": list(self.dense_parameters.values()), "lr": self.lr}
        ]
        for width, table in embeddings.tables.items():
            groups.append(
                {
                    "params": [table],
                    "lr": self.embedding_lr,
                    "starts": embeddings.starts(width).to(table.device),
                    "decay": self._table_decay(width),
                }
            )
        self.optimizer_ = RowwiseAdam(groups, lr=self.lr)
        return self

    def _table_decay(self, width: str) -> Tensor | None:
        """Factors of a table's rows: those of its vocabularies, in the order of their rows."""
        if self.embedding_decay is None:
            return None
        vocabularies = self.module_.embeddings.vocabularies_of(width)
        decay = np.concatenate([self.embedding_decay[name] for name in vocabularies])
        return torch.from_numpy(decay).to(self.device)

    def end_training(self, plan: TrainingPlan) -> None:
        """Keep as plain arrays what a later training goes on from; free the optimizers'."""
        self.training_state_ = self.current_state(plan)
        self.forget_training()

    def current_state(self, plan: TrainingPlan) -> TrainingState:
        """Where the training stands now; the moments are the optimizers' own memory."""
        return TrainingState(
            rows=self._row_moments(),
            dense=self._dense_moments(),
            occurrences=dict(plan.occurrences),
            batch_size=plan.batch_size,
            seed=plan.seed,
            order=copy.deepcopy(plan.order),
            hiding=None if plan.hiding is None else plan.hiding.without_ids(),
        )

    def _row_moments(self) -> dict[str, RowMoments]:
        embeddings, moments = self.module_.embeddings, {}
        for width, table in embeddings.tables.items():
            names = embeddings.vocabularies_of(width)
            none = {"square": torch.zeros(len(table)), "total": torch.zeros(len(names))}
            state = self.optimizer_.state[table] or none | {"share": none["total"]}
            squares = state["square"].cpu().split([embeddings.sizes[name] for name in names])
            numbers = (state["total"].tolist(), state["share"].tolist())
            for name, square, total, share in zip(names, squares, *numbers, strict=True):
                moments[name] = RowMoments(square.numpy(), total, share)
        return moments

    @property
    def dense_parameters(self) -> dict[str, Tensor]:
        """All parameters but the embedding tables, by name."""
        tables = {id(table) for table in self.module_.embeddings.tables.values()}
        return {n: p for n, p in self.module_.named_parameters() if id(p) not in tables}

    @property
    def dense_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all parameters but the embedding tables, by name."""
        return {name: tuple(its.shape) for name, its in self.dense_parameters.items()}

    @property
    def fitting_state(self) -> TrainingState | None:
        """Where the latest training stopped; None if another network stands in the place of its."""
        state = self.training_state_
        if state is None or not state.fits(self.module_.embeddings.sizes, self.dense_shapes):
            return None
        return state

    def _dense_moments(self) -> dict[str, DenseMoments]:
        moments = {}
        for name, parameter in self.dense_parameters.items():
            state = self.optimizer_.state[parameter] or {"step": torch.zeros(())}
            mean, square = (
                state.get(key, torch.zeros(parameter.shape)).cpu().numpy()
                for key in ("exp_avg", "exp_avg_sq")
            )
            moments[name] = DenseMoments(float(state["step"]), mean, square)
        return moments

    def go_on_from(self, state: TrainingState) -> None:
        """Give copies of a training's moments to the optimizers of an initialized net."""
        embeddings = self.module_.embeddings
        for width, table in embeddings.tables.items():
            its = [state.rows[name] for name in embeddings.vocabularies_of(width)]
            self.optimizer_.state[table] = {
                "square": table.new_tensor(np.concatenate([one.square for one in its])),
                "total": table.new_tensor([one.total for one in its]),
                "share": table.new_tensor([one.share for one in its]),
            }
        for name, parameter in self.dense_parameters.items():
            moments = state.dense[name]
            if moments.step:
                self.optimizer_.state[parameter] = {
                    "step": parameter.new_tensor(moments.step),
                    "exp_avg": parameter.new_tensor(moments.mean),
                    "exp_avg_sq": parameter.new_tensor(moments.square),
                }

    def forget_training(self) -> None:
        """Let go of the optimizers' moments and of the tables' decay."""
        self.embedding_decay = None
        self.optimizer_.state.clear()
        for group in self.optimizer_.param_groups:
            group["decay"] = None  # a further step adds none

    def check_data(self, X: object, y: object = None) -> None:
        """Leave the checks to DINClassifier, which made the batches."""

    def get_dataset(self, X: object, y: object = None) -> ScoringBatches:
        """Batches of encoded impressions in order."""
        if not isinstance(X, EncodedFeatures):
            raise TypeError(
                f"net_ takes EncodedFeatures, got {type(X).__name__}. "
                "Call the encoder's transform first, or predict with the classifier."
            )
        return ScoringBatches(self.neighbours_.add_to(X))

    def partial_fit(self, X: TrainingPlan, y: None = None, **kwargs: object) -> DINNet:
        """Train as skorch does, which forgives a Ctrl-C even before there is a trained state."""
        self._has_ended, self._n_before, self._unread = False, len(self.history), None
        super().partial_fit(X, y, **kwargs)
        if not self._has_ended:
            raise KeyboardInterrupt
        return self

    def fit_loop(
        self, X: TrainingPlan, y: None = None, epochs: int | None = None, **kwargs: object
    ) -> DINNet:
        """Train as skorch does, keep the reason of the end, drop a check left unfinished.

        Checks that a checkpoint has put into the history are not made again.
        """
        keep_freed_memory()
        self.checks_per_epoch_, self.stop_reason_ = X.checks_per_epoch, "max_epochs"
        n_left = (self.max_epochs if epochs is None else epochs) - self._n_checks()
        with note_ctrl_c(raises=self._ranks is None) as presses:
            self._presses = presses
            try:
                super().fit_loop(X, y, n_left, **kwargs)
            except KeyboardInterrupt:
                if self.leaves_others():
                    raise
                if self.stop_reason_ == "max_epochs":  # no stop_training has named another
                    self.stop_reason_ = "user" if presses else "callback"
        self.check_losses()  # those of a check left unfinished
        self._drop_unfinished_check()
        self._has_ended = True
        return self

    def _drop_unfinished_check(self) -> None:
        self.n_epochs_begun_ = math.ceil(self._n_checks() / self.checks_per_epoch_)
        if self.history and "train_loss" not in self.history[-1]:
            self.history.pop()

    def stop_training(self, reason: StopReason) -> NoReturn:
        """End the training from within a callback."""
        self.stop_reason_ = reason
        raise KeyboardInterrupt  # skorch's own way to leave the loop

    def copy_as_if_stopped(self, weights: Mapping[str, Tensor]) -> DINNet:
        """Return a net with a module of its own, as a callback would leave it by stopping now.

        It has no callbacks and no optimizers' moments. Empty ``weights`` mean the latest ones.
        """
        module = copy.deepcopy(self.module_)
        if weights:
            module.load_state_dict(weights)
        module.eval()
        rates = {"lr": self.lr, "embedding_lr": self.embedding_lr}
        net = DINNet(module, **rates, train_split=None, device=self.device, verbose=0).initialize()
        net.history = History(dict(check) for check in self.history)
        net.stop_reason_ = "callback"
        net.checks_per_epoch_, net._n_before = self.checks_per_epoch_, self._n_before
        net._drop_unfinished_check()
        return net

    def get_split_datasets(
        self, X: TrainingPlan, y: None = None, **fit_params: object
    ) -> tuple[Batches, Batches | None]:
        """Return the training and the validation batches."""
        return X.train, X.valid

    def get_iterator(self, dataset: Batches, training: bool = False) -> Batches:
        """Batches are their own iterator: whole index blocks, no collate step."""
        return dataset

    def infer(self, x: Batch, **fit_params: object) -> Tensor:
        """Batch -> logits (n,)."""
        with self.knows_its_rows(x):
            return self.module_(self._on_device(x))

    def _on_device(self, batch: Batch) -> Batch:
        """Move a batch; what only the host can find out without waiting is found out before."""
        if is_host(self.device):
            return batch
        if torch.is_grad_enabled() and not batch.distinct:
            batch.distinct = self.module_.embeddings.distinct_rows(batch.ids)
        return batch.to(self.device)

    def get_loss(self, y_pred: Tensor, y_true: Tensor, X: Batch, training: bool = False) -> Tensor:
        """Weighted negative log-likelihood of the click."""
        if not len(y_true):  # a process that has no row of a joint batch
            return y_pred.sum()
        labels = to_device(y_true, y_pred.device)
        return F.binary_cross_entropy_with_logits(y_pred, labels, weight=X.weights)

    def _set_training(self, training: bool = True) -> None:
        """As skorch does before each batch, but walk through the modules only to change them."""
        if self.module_.training != training:
            super()._set_training(training)

    def train_step(self, batch: tuple[Batch, Tensor], **fit_params: object) -> dict[str, Tensor]:
        """Take one step, as skorch's own does, but show callbacks the touched rows of a table.

        The optimizer calls the closure once.
        """
        step: dict[str, Tensor] = {}

        def compute_gradients() -> Tensor:
            self._zero_grad_optimizer(set_to_none=True)
            step.update(self.join_gradients(self.train_step_single(batch, **fit_params)))
            self.note_loss(step["loss"], batch[0])
            named = TeeGenerator(self._named_gradients())
            self.notify("on_grad_computed", named_parameters=named, batch=batch, training=True)
            return step["loss"]

        self._step_optimizer(compute_gradients)
        return step

    def train_step_single(
        self, batch: tuple[Batch, Tensor], **fit_params: object
    ) -> dict[str, Tensor]:
        """Gradients of a batch: of its parts one after the other, where its events are many.

        Their sum is the batch's. Memory follows the part, so histories of thousands of events fit,
        and small blocks stay with the process (:func:`keep_freed_memory`): with 10,000 events per
        history a step takes a third of the time (benchmarks/long_histories.py).
        """
        self._set_training(True)
        return self._by_parts(batch, training=True)

    def validation_step(
        self, batch: tuple[Batch, Tensor], **fit_params: object
    ) -> dict[str, Tensor]:
        """Loss and logits of a batch, part by part as in training."""
        self._set_training(False)
        with torch.no_grad():
            step = self.join_logits(self._by_parts(batch, training=False), batch[0])
        self.note_loss(step["loss"], batch[0])
        return step

    def _by_parts(self, batch: tuple[Batch, Tensor], *, training: bool) -> dict[str, Tensor]:
        whole, y = batch
        is_long = whole.n_events > SPLIT_FROM and self.may_split()
        parts = whole.split(EVENTS_PER_PART) if is_long else [whole]
        labels_of = whole.own_rows(y).split([len(part) for part in parts])
        losses, logits = [], []
        for part, labels in zip(parts, labels_of, strict=True):
            with self.draws_again(part, is_last=part is parts[-1]):
                logits.append(self.infer(part))
            loss = self.get_loss(logits[-1], labels, X=part, training=training)
            if len(part) != whole.n_joint_rows:
                loss = loss * (len(part) / max(whole.n_joint_rows, 1))
            if training:
                loss.backward()
                loss, logits[-1] = loss.detach(), logits[-1].detach()
            losses.append(loss)
        if training and len(parts) > 1 and not is_host(self.device):
            self.module_.embeddings.merge_gradients(whole.ids)
        if len(parts) == 1:
            return {"loss": losses[0], "y_pred": logits[0]}
        return {"loss": torch.stack(losses).sum(), "y_pred": torch.cat(logits)}

    def _named_gradients(self) -> Iterator[tuple[str, Tensor]]:
        """Parameters for callbacks; a table's touched rows stand in for the table.

        Their gradient is the sparse gradient's own memory, each row once: what a callback does
        to it (clipping) reaches the optimizer.
        """
        for name, parameter in self.get_all_learnable_params():
            if parameter.grad is not None and parameter.grad.is_sparse:
                rows = parameter.grad._values()
                parameter = torch.empty_like(rows)
                parameter.grad = rows
            yield name, parameter
