"""The skorch net behind the estimators: what it trains on, how a batch is fed, why it stops."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from skorch import NeuralNetBinaryClassifier
from skorch.callbacks import Callback, EpochTimer, PassthroughScoring, ProgressBar
from torch import Tensor

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.module import DIN
from sklearn_din.native_network.logits import logits_of
from sklearn_din.neighbours.tables import NeighbourTables
from sklearn_din.network.batch import Batch, is_host, to_device
from sklearn_din.training.alone import Alone
from sklearn_din.training.batches import ImpressionBatches, ScoringBatches
from sklearn_din.training.novelty import NO_NOVELTY, Novelty
from sklearn_din.training.optim import RowwiseAdam, optimizer_of
from sklearn_din.training.parameters import TrainingParameters, names_of
from sklearn_din.training.rows import check_encoded, train_further, train_new
from sklearn_din.training.steps import NATIVE_LOSSES, compute_by_parts
from sklearn_din.training.target import Click, Target
from sklearn_din.training.training import OF_EPOCHS, StopReason, Training
from sklearn_din.training.validation_checks import ValidationChecks
from sklearn_din.utils.progress import show_progress

if TYPE_CHECKING:
    from sklearn_din.training.mixture import Mixture

LONG_EPOCH = 3.0  # seconds, from which on an epoch has a progress bar
OF_SKORCH = {"lr", "batch_size", "max_epochs"}  # parameters that its own constructor takes

ALONE = Alone()


class DINNet(NeuralNetBinaryClassifier):
    """skorch net on encoded impressions: the estimators without the checks of y and columns.

    ``fit(X, y)`` sets validation rows aside, makes batches and trains; the loss of a training step
    is that of its real events, with the mini-batch aware L2 on the rows of the embedding tables.
    ``partial_fit(X, y)`` makes one further pass. Callbacks see epochs as in every skorch net;
    validation checks within an epoch are those of :class:`ValidationChecks`. After training, the
    net holds no rows, and its optimizer the moments that a later ``partial_fit`` goes on from.

    If a callback comes from outside this package, each step stores its gradients in the parameters
    and calls the optimizer, which takes about a seventh longer, unless the callback's class sets
    ``ignores_gradients = True``.

    Where two groups of parameters have rates of their own, a schedule that multiplies rates keeps
    their ratio; one that sets them (OneCycleLR, ``set_params(lr=...)``) gives embeddings and the
    rest the same rate.

    It takes what :class:`skorch.NeuralNetBinaryClassifier` does, and all of ``TrainingParameters``,
    as DINClassifier; ``partial_fit`` sets no validation rows aside. ``target`` is what y is, and
    the loss; None: a click or none.

    ``stop_reason_`` says why the latest training ended: after all epochs, by early stopping, by a
    callback of the user's, or by Ctrl-C. ``valid_loss`` in ``history``, which schedules and other
    callbacks monitor, is that of the logits before :class:`PlattScaling` (``unscaled_loss`` in
    ``checks_``).
    """

    module_: DIN
    callbacks_: list[tuple[str, Any]]
    optimizer_: RowwiseAdam
    # For each validation check the numbers of ``CHECK`` and the labels' constants and scales; the
    # best one also has base_loss, rows (training and validation) and bins
    checks_: list[dict[str, Any]]
    stop_reason_: StopReason
    n_epochs_: int = 0  # that were begun, in all trainings of this network
    batch_size_: int  # of the batches whose gradients the optimizer's moments average
    novelty_: Novelty = NO_NOVELTY  # when each id came up: what training hides
    neighbours_: NeighbourTables = NeighbourTables()  # for rows that lack their numbers
    decisions_: Mapping[str, tuple[str, str]] = MappingProxyType({})  # of fit: value and reason
    mixture_: Mixture | None = None  # with boosted trees
    occurrences_: dict[str, np.ndarray]  # (n_ids,) float32, in all training rows; empty without L2
    labels_: tuple[int, ...]  # rows not clicked and clicked, by label; of numbers, rows and 0
    constant_: float | np.ndarray  # the best output for all training rows
    order_: np.random.RandomState  # draws the order of rows
    seed_: int  # of torch in the latest training; that of the next one is derived from it
    _training: Training | None = None  # while the net trains
    shows_progress: bool = False  # of each epoch

    def __init__(
        self,
        module: type[DIN] | DIN = DIN,
        *args: object,
        target: Target | None = None,
        train_split: None = None,
        verbose: int = 0,
        **kwargs: Any,
    ) -> None:
        self.target = Click() if target is None else target
        parameters = vars(TrainingParameters()) | kwargs
        own = [name for name in names_of(TrainingParameters) if name not in OF_SKORCH]
        self.__dict__.update({name: parameters.pop(name) for name in own})
        super().__init__(module, *args, verbose=verbose, train_split=train_split, **parameters)

    @property
    def _default_callbacks(self) -> list[tuple[str, Callback]]:
        return [
            ("epoch_timer", EpochTimer()),
            ("train_loss", PassthroughScoring(name="train_loss", on_train=True)),
            ("valid_loss", PassthroughScoring(name="valid_loss")),
            ("validation_checks", ValidationChecks(self.patience)),
        ]

    def initialize_callbacks(self) -> DINNet:
        """As skorch does; callbacks that save the state before the next batch come last."""
        super().initialize_callbacks()
        for _, callback in self.callbacks_:
            if isinstance(callback, ProgressBar) and callback.batches_per_epoch == "auto":
                callback.batches_per_epoch = "count"  # "auto" divides rows by batch_size="auto"
        self.callbacks_.sort(key=lambda pair: hasattr(pair[1], "hold"))
        return self

    @property
    def is_published(self) -> bool:
        """Whether the network is the paper's, which gets no inputs beyond the encoded columns."""
        return getattr(self, "module__interest", "extended") == "paper"

    @property
    def chosen_neighbours(self) -> str | None:
        """The parameter ``neighbours``, of which "auto" is None for the published network."""
        return None if self.neighbours == "auto" and self.is_published else self.neighbours

    # Trainings

    @property
    def training_(self) -> Training:
        """The training that goes on, for callbacks."""
        if self._training is None:
            raise ValueError("batches are made by fit and partial_fit. Call one of them.")
        return self._training

    def fit(
        self,
        X: EncodedFeatures,
        y: ArrayLike,
        sample_weight: np.ndarray | None = None,
        groups: ArrayLike | None = None,
        *,
        ranks: Alone = ALONE,
    ) -> DINNet:
        """Train a new network.

        y : (n,), 1 for a click, 0 for none; numbers as the target has encoded them
        sample_weight : (n,), factor of each impression's loss, which DINClassifier scales to a
            mean of one
        groups : (n,), for ``validation="groups"``; None: the users that X carries
        ranks : the processes that train together
        """
        train_new(self, X, y, sample_weight, groups, ranks=ranks)
        return self

    def partial_fit(
        self,
        X: EncodedFeatures,
        y: ArrayLike,
        classes: None = None,
        sample_weight: np.ndarray | None = None,
        *,
        ranks: Alone = ALONE,
    ) -> DINNet:
        """Train by one pass over further rows, from where the training stopped.

        No validation rows are set aside. Ids that X has beyond those of the network get rows of
        their own in its tables. A net that is not trained makes a new network first. ``classes``
        are not used, as in skorch.
        """
        if self.initialized_:
            train_further(self, X, y, sample_weight, ranks=ranks)
        else:
            train_new(self, X, y, sample_weight, ranks=ranks, epochs=1)
        return self

    # How skorch's steps are made of impressions

    def initialize_optimizer(self, triggered_directly: bool | None = None) -> DINNet:
        """One optimizer: a group of all dense parameters, and one for each embedding table."""
        self.optimizer_ = optimizer_of(self.module_, lr=self.lr, embedding_lr=self.embedding_lr)
        return self

    def check_data(self, X: object, y: object = None) -> None:
        """Do nothing: the rows were checked before the batches were made."""

    def get_dataset(self, X: object, y: object = None) -> ScoringBatches:
        """Batches of encoded impressions in order."""
        return ScoringBatches(self.neighbours_.add_to(check_encoded(X)))

    def get_split_datasets(
        self, X: object, y: object = None, **fit_params: object
    ) -> tuple[ImpressionBatches, ImpressionBatches | None]:
        """Return the training and the validation batches."""
        return self.training_.train, self.training_.valid

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        """Batches are their own iterator: whole index blocks, no collate step."""
        return dataset

    def infer(self, x: Batch, **fit_params: object) -> Tensor:
        """Batch -> logits (n,), of several labels (n, n_labels)."""
        return logits_of(self.module_, self._on_device(x))

    def native_loss(self, rows: Batch) -> str:
        """Return the name of the target's loss in native code; "" where torch must compute it."""
        is_plain = type(self) is DINNet and is_host(self.device)  # a subclass may change the logits
        return NATIVE_LOSSES.get(type(self.target), "") if is_plain and len(rows) else ""

    def notify(self, method_name: str, **kwargs: object) -> None:
        """As skorch does; where several processes train, they stop together.

        Of the pass over the validation rows the user's callbacks see the gradients alone: schedules
        count the steps of the training, and monitors need validation rows.
        """
        training = self.training_
        sees_all = not training.is_refitting or method_name == "on_grad_computed"
        try:
            getattr(self, method_name)(self, **kwargs)
            for _, callback in self.callbacks_:
                if sees_all or getattr(callback, "sees_refit", isinstance(callback, OF_EPOCHS)):
                    getattr(callback, method_name)(self, **kwargs)
        except KeyboardInterrupt:
            if not training.ranks.postpone_stop(method_name, self.stop_reason_):
                raise
        if method_name == "on_epoch_end":
            training.end_epoch()

    @torch.no_grad()
    def score(self, X: EncodedFeatures) -> np.ndarray:
        """Return outputs, (n_rows,) or (n_rows, n_labels), in half the time of ``forward``."""
        self._set_training(False)
        logits = [self.infer(batch) for batch, _ in self.get_dataset(X)]
        outputs = torch.cat(logits).float().cpu().numpy()
        return outputs if self.mixture_ is None else self.mixture_.mix(X, outputs)

    def without_users(self, users: np.ndarray) -> DINNet:
        """Return a copy without the rates of some users, given by their hashes."""
        net = copy.copy(self)
        net.neighbours_ = self.neighbours_.without_users(users)
        if self.mixture_ is not None:
            net.mixture_ = self.mixture_.without_users(users)
        return net

    @property
    def reads_users(self) -> bool:
        """Whether outputs of a row follow from its user, beside its columns."""
        return self.neighbours_.reads_users or bool(self.mixture_ and len(self.mixture_.users))

    def _on_device(self, batch: Batch) -> Batch:
        """Move a batch; before that, find its distinct rows: later the host would have to wait."""
        if is_host(self.device):
            return batch
        if torch.is_grad_enabled() and not batch.distinct:
            batch.distinct = self.module_.embeddings.distinct_rows(batch.ids)
        return batch.to(self.device)

    def get_loss(self, y_pred: Tensor, y_true: Tensor, X: Batch, training: bool = False) -> Tensor:
        """Weighted loss of the target."""
        if not len(y_true):  # a process without rows of a joint batch
            return y_pred.sum()
        labels = to_device(y_true, y_pred.device)
        return self.target.loss(y_pred, labels, X.weights)

    def _set_training(self, training: bool = True) -> None:
        """As skorch does before each batch, but walk through the modules only to change them."""
        if self.module_.training != training:
            super()._set_training(training)

    def train_step(self, batch: tuple[Batch, Tensor], **fit_params: object) -> dict[str, Tensor]:
        """Take one step."""
        return self.training_.step(batch)

    def train_step_single(
        self, batch: tuple[Batch, Tensor], **fit_params: object
    ) -> dict[str, Tensor]:
        """Give the parameters the gradients of a batch; return its loss and logits."""
        self._set_training(True)
        return compute_by_parts(self, batch, training=True)

    def validation_step(
        self, batch: tuple[Batch, Tensor], **fit_params: object
    ) -> dict[str, Tensor]:
        """Return loss and logits of a batch."""
        self._set_training(False)
        return self.training_.predict(batch)

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
        if training and self.shows_progress:
            of_epoch = f"epoch {len(self.history)}"
            n_rows = len(self.training_.train)
            iterator = show_progress(iterator, of_epoch, n_rows, seconds_before=LONG_EPOCH)
        for batch in iterator:
            self.notify("on_batch_begin", batch=batch, training=training)
            step = step_fn(batch, **fit_params)
            loss = step["loss"].detach()
            seen = loss.item() if is_host(loss.device) else loss
            self.history.record_batch(f"{prefix}_loss", seen)
            self.history.record_batch(f"{prefix}_batch_size", batch[0].n_joint_rows)
            self.notify("on_batch_end", batch=batch, training=training, **step)
            n_batches += 1
        self.training_.losses.read(self.history)
        self.history.record(f"{prefix}_batch_count", n_batches)
