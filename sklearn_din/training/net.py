"""The skorch net behind the estimators: what it trains on, how a batch is fed, why it stops."""

from __future__ import annotations

import copy
import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from numpy.typing import ArrayLike
from skorch import NeuralNetBinaryClassifier
from skorch.callbacks import Callback, EpochTimer, PassthroughScoring
from skorch.utils import TeeGenerator
from torch import Tensor

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import UNKNOWN_ID
from sklearn_din.module import DIN
from sklearn_din.neighbours.tables import NeighbourTables, choose_order, learn_neighbours
from sklearn_din.network.batch import Batch, to_device
from sklearn_din.network.layers import is_host, number_on_host
from sklearn_din.training.alone import Alone
from sklearn_din.training.batches import ImpressionBatches, ScoringBatches
from sklearn_din.training.checks import best_check
from sklearn_din.training.ctrl_c import note_ctrl_c
from sklearn_din.training.early_stopping import EarlyStopping
from sklearn_din.training.growth import grow, next_seeds
from sklearn_din.training.novelty import NO_NOVELTY, Novelty, ShownRows, measure_novelty
from sklearn_din.training.occurrences import count_occurrences, embedding_decay
from sklearn_din.training.optim import RowwiseAdam
from sklearn_din.training.parameters import TrainingParameters, names_of
from sklearn_din.training.seeding import own_random_state, seed_torch
from sklearn_din.training.steps import (
    check_losses,
    compute_by_parts,
    name_gradients,
    note_loss,
    read_losses,
)
from sklearn_din.training.target import Click, Target
from sklearn_din.training.threads import LARGEST_BATCH, ThreadChoice, choose_threads
from sklearn_din.training.validation import choose_validation, cut_in_time, split_rows
from sklearn_din.utils.compat import _safe_indexing
from sklearn_din.utils.warnings import warn_once, warn_user

EARLY_STOPPING_ROWS = 1_000
LARGE_BATCH_ROWS = 100_000
VALIDATION_BATCH_SIZE = 4_096
MOST_POSITIONS = 100  # larger positions count as this one
OF_EPOCHS = EpochTimer, PassthroughScoring  # of skorch, which write the rows of ``history``
OF_SKORCH = {"lr", "batch_size", "max_epochs"}  # parameters that its own constructor takes

StopReason = Literal["max_epochs", "patience", "base_rate", "callback", "user"]


def keep_freed_memory() -> None:
    """Have glibc keep the memory that one step frees for the next one.

    A step frees tens of megabytes, glibc gives them back to the system, and the next step pays a
    page fault for every 4 KiB: a third of the step's time. Freeing one large block, which is
    never touched, raises both of glibc's dynamic thresholds (mallopt(3), M_MMAP_THRESHOLD).
    """
    torch.empty(31 << 20, dtype=torch.uint8)


class DINNet(NeuralNetBinaryClassifier):
    """skorch net on encoded impressions: the estimators without the checks of y and columns.

    ``fit(X, y)`` sets validation rows aside, makes batches and trains; the loss of a training step
    is that of its real events, with the mini-batch aware L2 on the rows of the embedding tables.
    ``partial_fit(X, y)`` makes one further pass. Callbacks see epochs as in every skorch net;
    validation checks within an epoch are :class:`EarlyStopping`'s. After training, the net holds
    no rows, and its optimizer the moments that a later ``partial_fit`` goes on from.

    Where two groups of parameters have rates of their own, a schedule that multiplies rates keeps
    their ratio; one that sets them (OneCycleLR, ``set_params(lr=...)``) gives embeddings and the
    rest the same rate.

    Parameters
    ----------
    module : type or DIN, default=DIN
        The network; ``module__schema`` follows the rows of ``fit``.
    *args, **kwargs
        As for :class:`skorch.NeuralNetBinaryClassifier`, and all of ``TrainingParameters``: as for
        DINClassifier. ``partial_fit`` sets no validation rows aside.
    target : Target, default=None
        What y is, and the loss. None: a click or none.

    Attributes
    ----------
    checks_ : list of dict
        By validation check (by epoch, where there are none): epoch, train_loss, valid_loss,
        valid_auc, seconds. ``history`` has a row for each epoch that was finished.
    stop_reason_ : {"max_epochs", "patience", "base_rate", "callback", "user"}
        Why the latest training ended: after all epochs, by early stopping, by a callback of the
        user's, or by Ctrl-C. "base_rate": however it ended, but for Ctrl-C, no validation check
        was better than the base rate of the training rows, which is what the network predicts; of
        numbers that is their mean.
    n_epochs_ : int
        Epochs begun in all trainings of this network.
    batch_size_ : int
        Impressions per training step: the moments are those of gradients of such batches.
    novelty_ : Novelty
        How often candidates are new, and when each id came up: what training hides.
    neighbours_ : NeighbourTables
        Item neighbours, which further rows are looked up in where they lack the numbers.
    occurrences_ : dict of str to ndarray of shape (n_ids,), float32
        By vocabulary, how often each id occurred in all training rows so far. Empty without L2.
    labels_ : tuple of int
        How many of those rows were not clicked, and how many were, label by label; of numbers, how
        many rows there were, and 0. (0, 0) without L2.
    constant_ : float or ndarray of shape (n_labels,)
        The best output for all training rows.
    order_ : RandomState
        Draws the order of rows.
    seed_ : int
        Of torch in the latest training. That of the next one is derived from it.
    """

    module_: DIN
    callbacks_: list[tuple[str, Any]]
    optimizer_: RowwiseAdam
    checks_: list[dict[str, float]]
    stop_reason_: StopReason
    n_epochs_: int = 0
    batch_size_: int
    novelty_: Novelty = NO_NOVELTY
    neighbours_: NeighbourTables = NeighbourTables()
    occurrences_: dict[str, np.ndarray]
    labels_: tuple[int, ...]
    constant_: float | np.ndarray
    order_: np.random.RandomState
    seed_: int
    most_epochs_: int  # of the most recent training
    presses_: Sequence[int] = ()  # of Ctrl-C, while the net trains
    is_refitting_: bool = False  # whether the pass over the validation rows is going on
    ranks_: Alone = Alone()  # the processes that train together, set while they do
    _batches: tuple[ImpressionBatches, ImpressionBatches | None] | None = None
    _parts: Sequence[tuple[ImpressionBatches, ImpressionBatches]] = ()
    unread_losses_: tuple[tuple[Tensor, Tensor], ...] = ()  # and the numbers of their batches
    _threads: ThreadChoice | None = None  # set during training if there is a choice

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
            ("early_stopping", EarlyStopping(self.patience)),
        ]

    # Trainings

    def fit(
        self,
        X: EncodedFeatures,
        y: ArrayLike,
        sample_weight: np.ndarray | None = None,
        groups: ArrayLike | None = None,
    ) -> DINNet:
        """Train a new network.

        Parameters
        ----------
        X : EncodedFeatures
            Impressions.
        y : array-like of shape (n,)
            1 for a click, 0 for none; numbers as the target has encoded them.
        sample_weight : ndarray of shape (n,), default=None
            Factor of each impression's loss. DINClassifier scales them to a mean of one.
        groups : array-like of shape (n,), default=None
            For ``validation="groups"``. None: the users that X carries.

        Returns
        -------
        self : DINNet
        """
        return self._fit_new(X, y, sample_weight, groups)

    def partial_fit(
        self,
        X: EncodedFeatures,
        y: ArrayLike,
        classes: None = None,
        sample_weight: np.ndarray | None = None,
    ) -> DINNet:
        """Train by one pass over further rows, from where the training stopped.

        No validation rows are set aside. Ids that X has beyond those of the network get rows of
        their own in its tables. A net that is not trained makes a new network first.

        Parameters
        ----------
        X, y, sample_weight
            As for ``fit``.
        classes : None
            As in skorch, not used.

        Returns
        -------
        self : DINNet
        """
        if not self.initialized_:
            return self._fit_new(X, y, sample_weight, epochs=1)
        X, encoded, weights, _ = self._check_rows(X, y, sample_weight)
        if X.positions is not None and not self.module_.options["position_shares"]:
            raise ValueError(
                "rows came with positions, and the network was trained on rows without. Fit it "
                "anew, or set the encoder's position=None."
            )
        tables, seed = self.neighbours_, next_seeds(self)[1]
        if tables.pairs:  # a table that counts a row's own click reveals it
            X, tables = tables.add_to(X), tables.grow(X, self.target.clicks(encoded))
        if X.schema != self.module_.schema:
            grown = grow(self, X.schema)
            self.module_, self.optimizer_ = grown.module_, grown.optimizer_
            self.module__schema = X.schema
        if not isinstance(self.batch_size, str):
            self.batch_size_ = self.batch_size
        self.novelty_, moments = self.novelty_.extend(X)
        train = self._batches_of(X, encoded, weights, moments)
        self._train(train, None, X, encoded, seed=seed, is_new=False, epochs=1)
        self.neighbours_ = tables
        return self

    def _fit_new(
        self,
        X: EncodedFeatures,
        y: ArrayLike,
        sample_weight: np.ndarray | None,
        groups: ArrayLike | None = None,
        epochs: int | None = None,
    ) -> DINNet:
        """Train a new network; for so many epochs without validation rows."""
        X, encoded, weights, groups = self._check_rows(X, y, sample_weight, groups)
        # Each row's numbers come from a table that does not count it, held out or not.
        self.neighbours_, X = self._learn_neighbours(X, encoded)
        # Validation rows are drawn before the seed of the network's weights.
        self.order_ = self.first_seeds()
        self.novelty_, moments = measure_novelty(X, share=self.validation_fraction)
        rows, held_out, valid = None, None, None
        stops = self.early_stopping if epochs is None else False
        if len(X) >= EARLY_STOPPING_ROWS if stops == "auto" else stops:
            how = choose_validation(self.validation, X.times)
            rows, held_out = split_rows(
                self.target.kinds(encoded),
                X.users if groups is None else groups,
                how=how,
                fraction=self.validation_fraction,
                seeds=self.order_,
                times=X.times,
            )
        self.batch_size_ = self.batch_size
        if isinstance(self.batch_size, str):
            n_rows = len(X) if rows is None else len(rows)
            self.batch_size_ = 256 if n_rows <= LARGE_BATCH_ROWS else 1024
        self.occurrences_, self.labels_ = {}, (0, 0)
        train = self._batches_of(X, encoded, weights, moments, rows)
        parts: list[tuple[ImpressionBatches, ImpressionBatches]] = []
        if held_out is not None:
            of_rows = functools.partial(self._batches_of, X, encoded, weights, moments)
            valid = of_rows(held_out, held_out=how)
            cut = self._cut_to_learn(held_out, how, X)
            parts = [(of_rows(part), of_rows(part, held_out=how)) for part in cut]
        seed = self.order_.randint(2**31)
        self._train(train, valid, X, encoded, seed=seed, is_new=True, epochs=epochs, parts=parts)
        return self

    @property
    def may_refit(self) -> bool:
        """Whether the validation rows are to be learnt once the stop is found."""
        return bool(self._parts)

    def _cut_to_learn(self, held_out: np.ndarray, how: str, X: EncodedFeatures) -> list[np.ndarray]:
        """Cut the validation rows into the parts by which they are learnt; none if they are not."""
        learns = self.refit == "validation" or (self.refit == "auto" and how == "last")
        return cut_in_time(held_out, X.times) if learns else []

    def _learn_neighbours(
        self, X: EncodedFeatures, y: np.ndarray
    ) -> tuple[NeighbourTables, EncodedFeatures]:
        """Learn item neighbours from all rows, and add their numbers to these rows.

        Of several processes rank 0 learns first: those of mapped rows lie in a store beside them,
        where the others find them.
        """
        order = choose_order(X, self.neighbours)
        with nullcontext() if X.store is None else self.ranks_.in_turn():
            tables, X = learn_neighbours(X, self.target.clicks(y), order=order)
        self.ranks_.check_same(lambda: {"learnt": {"item neighbours": tables.digest()}})
        return tables, X

    def _check_rows(
        self,
        X: object,
        y: ArrayLike,
        sample_weight: np.ndarray | None,
        groups: ArrayLike | None = None,
    ) -> tuple[EncodedFeatures, np.ndarray, np.ndarray | None, ArrayLike | None]:
        """Rows that weigh something, with y and weights as float32, and their groups."""
        rows = _check_encoded(X)
        encoded = self.target.check_encoded(y, len(rows))
        weights = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float32)
        if weights is None or weights.all():
            return rows, encoded, weights, groups
        some = np.flatnonzero(weights)
        groups = groups if groups is None else _safe_indexing(groups, some)
        return rows[some], encoded[some], weights[some], groups

    def first_seeds(self) -> np.random.RandomState:
        """Random state of a new network's rows; several processes take what rank 0 has drawn."""
        seeds = own_random_state(self.random_state)
        return self.ranks_.from_first(seeds) if self.random_state is None else seeds

    @property
    def batches(self) -> ImpressionBatches:
        """The training batches, while the net trains."""
        return self.get_split_datasets(None)[0]

    def _batches_of(
        self,
        X: EncodedFeatures,
        y: np.ndarray,
        weights: np.ndarray | None,
        moments: np.ndarray,
        rows: np.ndarray | None = None,
        *,
        held_out: str = "",
    ) -> ImpressionBatches:
        """Batches of these rows of X, or of all, as they will be seen.

        Shuffled ones to train on; in order where they are held out, and of what kind they are.
        """
        if rows is not None:
            y, weights = y[rows], None if weights is None else weights[rows]
        shown = None
        if not self.novelty_.is_still:
            shown = ShownRows(self.novelty_, moments if rows is None else moments[rows])
            shown = shown.hold_out(are_last=held_out == "last") if held_out else shown
        return ImpressionBatches(
            X,
            y,
            weights,
            batch_size=VALIDATION_BATCH_SIZE if held_out else self.batch_size_,
            shuffle=None if held_out else self.order_,
            rows=rows,
            shown=shown,
        )

    def _train(
        self,
        train: ImpressionBatches,
        valid: ImpressionBatches | None,
        X: EncodedFeatures,
        y: ArrayLike,
        *,
        seed: int,
        is_new: bool,
        epochs: int | None = None,
        parts: Sequence[tuple[ImpressionBatches, ImpressionBatches]] = (),
    ) -> None:
        """Train as skorch does, under a seed; torch's random state is left as it was.

        The seed decides the new network's weights, dropout and hidden numbers. Afterwards nothing
        of the rows is left in the net.
        """
        decay = None
        if self.embedding_l2:
            self._count(train)
            decay = self._decay_in(train)
        for batches in filter(None, (train, valid, *chain(*parts))):
            batches.share_among(self.ranks_.size, rank=self.ranks_.rank)
        devices = list(range(torch.cuda.device_count())) if self.device != "cpu" else []
        self._batches, self._parts = (train, valid), parts
        self._has_ended, self.seed_ = False, seed
        try:
            with seed_torch(seed, devices=devices):
                if is_new:
                    self.module__schema = X.schema
                    self.module__position_shares = self._position_shares(train)
                    self.initialize()
                    # Each step moves the bias by at most the learning rate: starting from 0 with
                    # rare clicks, all other weights would first learn what belongs in the bias.
                    if self.target.has_constant(train.y):
                        constant = torch.as_tensor(self.target.constant(train.y, train.weights))
                        bias = self.module_.bias_of(constant)
                        self.module_.output.bias.data.copy_(bias)
                    if self.ranks_.rank and self.module_.options["dropout"]:
                        torch.manual_seed(seed + self.ranks_.rank)  # it drops of its own rows
                    self.checks_, self.n_epochs_ = [], 0
                else:
                    self.initialize_callbacks()
                if valid is None:
                    self._leave_out_monitors()
                self._set_rates()
                self._set_decay(decay)
                self._n_before = len(self.history)
                super().partial_fit(X, y, epochs=epochs)
            if not self._has_ended:  # skorch swallows Ctrl-C, even before any training
                raise KeyboardInterrupt
        finally:
            self._batches, self._parts, self.unread_losses_ = None, (), ()
            if self.initialized_:
                self._set_rates()
                self._set_decay(None)
                self.optimizer_.zero_grad(set_to_none=True)
        self.module_.eval()
        self.order_ = copy.deepcopy(self.order_)  # the caller may draw from the original

    def _position_shares(self, train: ImpressionBatches) -> tuple[float, ...]:
        """Return the fraction of rows at each position; of clicks, half counts what all others do.

        The mean favour of clicks lies above that of all rows: between that of clicks and that of
        other rows is the favour whose probability is, to second order, the mean of all positions'.
        """
        if train.X.positions is None:
            return ()
        positions = train.X.positions if train.rows is None else train.X.positions[train.rows]
        positions = np.minimum(positions, MOST_POSITIONS)
        kinds, known = self.target.kinds(train.y), positions > 0
        counts = [
            np.bincount(positions[known & (kinds == kind)], minlength=positions.max(initial=1) + 1)
            for kind in np.unique(kinds[known])
        ]
        shares = [count[1:] / count.sum() for count in counts]
        at = np.unique(positions[known]).tolist()
        if len(at) < 2:
            alike = f"were at position {at[0]}" if at else "have none"
            warn_once(
                f"nothing is learnt of positions: all rows to train on {alike}. Give rows that "
                "were shown at several positions, or leave the encoder's position out."
            )
        return tuple(np.mean(shares, axis=0).tolist()) if shares else (0.0,)

    def _count(self, train: ImpressionBatches) -> None:
        """Add the ids and labels of further rows to those of all trainings so far."""
        counts = self.target.count(train.y)
        earlier = self.labels_ if any(self.labels_) else (0,) * len(counts)
        self.labels_ = tuple(map(sum, zip(earlier, counts, strict=True)))
        occurrences = count_occurrences(train.X, train.rows)
        if train.shown is not None:
            for name, n_hidden in train.shown.count_hidden(train.X, train.rows).items():
                occurrences[name][UNKNOWN_ID] += n_hidden
        for name, before in self.occurrences_.items():
            occurrences[name][: len(before)] += before
        self.occurrences_ = occurrences

    def _decay_in(self, train: ImpressionBatches) -> dict[str, np.ndarray]:
        """Factors of the L2 by vocabulary, in such batches."""
        strength = self.embedding_l2 * self.target.scale_of_prior(self.labels_)
        return embedding_decay(self.occurrences_, strength / min(train.batch_size, len(train)))

    def _leave_out_monitors(self) -> None:
        """Leave out callbacks that watch validation rows, where there are none: they would fail."""
        scores = {"valid_auc"}
        for _, callback in self.callbacks_:
            if getattr(callback, "on_train", True) is False:
                scores.add(getattr(callback, "name_", callback.name))
        watching = {
            name: f"{type(callback).__name__} ({callback.monitor})"
            for name, callback in self.callbacks_
            if str(getattr(callback, "monitor", None)).removesuffix("_best") in scores
        }
        if not watching:
            return
        self.callbacks_ = [pair for pair in self.callbacks_ if pair[0] not in watching]
        warn_user(
            "callbacks that watch validation rows are left out of a training that sets none aside "
            f"(partial_fit and update never do): {', '.join(watching.values())}. Set "
            "monitor='train_loss', of Checkpoint None, or call fit with early_stopping=True."
        )

    def _set_rates(self) -> None:
        """Give the optimizer the rates of the parameters."""
        dense, *tables = self.optimizer_.param_groups
        dense["lr"] = dense["initial_lr"] = self.lr  # the latter for schedules that are resumed
        for group in tables:
            group["lr"] = group["initial_lr"] = self.embedding_lr or self.lr

    def _set_decay(self, decay: Mapping[str, np.ndarray] | None) -> None:
        """Give the tables of the optimizer the factors of their L2."""
        tables = self.optimizer_.param_groups[1:]
        for width, group in zip(self.module_.embeddings.tables, tables, strict=True):
            group["decay"] = None
            if decay is not None:
                names = self.module_.embeddings.vocabularies_of(width)
                factors = np.concatenate([decay[name] for name in names])
                group["decay"] = torch.from_numpy(factors).to(self.device)

    def fit_loop(
        self, X: EncodedFeatures, y: ArrayLike, epochs: int | None = None, **kwargs: object
    ) -> DINNet:
        """Train as skorch does, keep the reason of the end, drop an epoch left unfinished.

        Epochs that a checkpoint has put into the history are not made again.
        """
        keep_freed_memory()
        self.stop_reason_ = "max_epochs"
        self.most_epochs_ = self.max_epochs if epochs is None else epochs
        n_left = self.most_epochs_ - self.n_epochs_now()
        is_alone = self.ranks_.size == 1 and is_host(self.device)
        may_choose = is_alone and self.batch_size_ <= LARGEST_BATCH
        with (
            note_ctrl_c(raises=self.ranks_.size == 1) as presses,
            choose_threads(self.module_, may_choose=may_choose) as threads,
        ):
            self.presses_, self._threads = presses, threads
            try:
                self._until_stopped(lambda: super(DINNet, self).fit_loop(X, y, n_left, **kwargs))
                if self.may_refit and self.stop_reason_ in {"max_epochs", "patience"}:
                    self._until_stopped(self._learn_set_aside)
            finally:
                self.is_refitting_ = False
                del self.presses_, self._threads
        self._has_ended = True
        return self

    def _until_stopped(self, train: Callable[[], object]) -> None:
        """Train until a callback or Ctrl-C ends it, whose reason is kept."""
        reason, self.stop_reason_ = self.stop_reason_, "max_epochs"
        try:
            train()
        except KeyboardInterrupt:
            if not self.ranks_.has_agreed:
                raise
            if self.stop_reason_ == "max_epochs":  # not set by stop_training
                self.stop_reason_ = "user" if self.presses_ else "callback"
        else:
            self.stop_reason_ = reason
        check_losses(self)  # those of an unfinished epoch
        self.drop_unfinished_epoch()

    def _learn_set_aside(self) -> None:
        """Learn the validation rows by one pass, from the best check's weights on."""
        stopping = dict(self.callbacks_)["early_stopping"]
        if not stopping.is_better(self):
            return
        self.is_refitting_ = True
        of_epoch = {"dataset_train": self._parts[0][0], "dataset_valid": None}
        with self._undo_unless_best():
            if self.embedding_l2:
                for learnt, _ in self._parts:
                    self._count(learnt)
                self._set_decay(self._decay_in(self._parts[-1][0]))
            self.notify("on_epoch_begin", **of_epoch)
            batches = stopping.set_aside_batches(self, self._parts)
            self.run_single_epoch(batches, training=True, prefix="train", step_fn=self.train_step)
            self.notify("on_epoch_end", **of_epoch)

    @contextmanager
    def _undo_unless_best(self) -> Iterator[None]:
        """Put counts, moments and the order of rows back where no check within is the best one."""
        n_checks, order = len(self.checks_), self.order_.get_state()
        counts = self.occurrences_, self.labels_
        moments = {
            parameter: {name: moment.clone() for name, moment in state.items()}
            for parameter, state in self.optimizer_.state.items()
        }
        try:
            yield
        finally:
            if best_check(self.checks_) not in self.checks_[n_checks:]:
                self.order_.set_state(order)
                self.occurrences_, self.labels_ = counts
                self.optimizer_.state = defaultdict(dict, moments)

    def n_epochs_now(self) -> int:
        """Epochs that this training has begun."""
        return len(self.history) - self._n_before

    def drop_unfinished_epoch(self) -> None:
        """Count the epochs that were begun; the history keeps those that were finished."""
        self.n_epochs_ += self.n_epochs_now()
        if self.n_epochs_now() and "train_loss" not in self.history[-1]:
            self.history.pop()
        self._n_before = len(self.history)

    def stop_training(self, reason: StopReason) -> NoReturn:
        """End the training from within a callback."""
        self.stop_reason_ = reason
        raise KeyboardInterrupt  # how skorch leaves the loop

    # How skorch's steps are made of impressions

    def initialize_optimizer(self, triggered_directly: bool | None = None) -> DINNet:
        """One optimizer: a group of all dense parameters, and one for each embedding table."""
        embeddings = self.module_.embeddings
        groups: list[dict[str, Any]] = [{"params": list(self.dense_parameters.values())}]
        for width, table in embeddings.tables.items():
            starts = embeddings.starts(width).to(table.device)
            rate = self.embedding_lr or self.lr
            groups.append({"params": [table], "lr": rate, "starts": starts})
        self.optimizer_ = RowwiseAdam(groups, lr=self.lr)
        return self

    @property
    def dense_parameters(self) -> dict[str, Tensor]:
        """All parameters but the embedding tables, by name."""
        tables = {id(table) for table in self.module_.embeddings.tables.values()}
        return {n: p for n, p in self.module_.named_parameters() if id(p) not in tables}

    def check_data(self, X: object, y: object = None) -> None:
        """Do nothing: the rows were checked before the batches were made."""

    def get_dataset(self, X: object, y: object = None) -> ScoringBatches:
        """Batches of encoded impressions in order."""
        return ScoringBatches(self.neighbours_.add_to(_check_encoded(X)))

    def get_split_datasets(
        self, X: object, y: object = None, **fit_params: object
    ) -> tuple[ImpressionBatches, ImpressionBatches | None]:
        """Return the training and the validation batches."""
        if self._batches is None:
            raise ValueError("batches are made by fit and partial_fit. Call one of them.")
        return self._batches

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        """Batches are their own iterator: whole index blocks, no collate step."""
        return dataset

    def infer(self, x: Batch, **fit_params: object) -> Tensor:
        """Batch -> logits (n,), of several labels (n, n_labels)."""
        return self.module_(self._on_device(x))

    def notify(self, method_name: str, **kwargs: object) -> None:
        """As skorch does; where several processes train, they stop together.

        Of the pass over the validation rows the user's callbacks see the gradients alone: schedules
        count the steps of the training, and monitors need validation rows.
        """
        try:
            getattr(self, method_name)(self, **kwargs)
            for _, callback in self.callbacks_:
                sees_refit = getattr(callback, "sees_refit", isinstance(callback, OF_EPOCHS))
                if sees_refit or not self.is_refitting_ or method_name == "on_grad_computed":
                    getattr(callback, method_name)(self, **kwargs)
        except KeyboardInterrupt:
            if not self.ranks_.postpone_stop(method_name, self.stop_reason_):
                raise
        if method_name == "on_epoch_end":
            self.ranks_.share_stops(by_user=bool(self.presses_))
            self._stop_with_others()

    def _stop_with_others(self) -> None:
        """End the training where the processes have agreed to."""
        if self.ranks_.stop is not None:
            self.stop_training(self.ranks_.stop)

    @torch.no_grad()
    def score(self, X: EncodedFeatures) -> np.ndarray:
        """Outputs, (n_rows,) or (n_rows, n_labels): skorch's ``forward``, in half of a request."""
        self._set_training(False)
        logits = [self.infer(batch) for batch, _ in self.get_dataset(X)]
        return torch.cat(logits).float().cpu().numpy()

    def _on_device(self, batch: Batch) -> Batch:
        """Move a batch; what only the host can find out without waiting is found out before."""
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
        """Take one step, as skorch's own does, but show callbacks the touched rows of a table.

        The optimizer calls the closure once.
        """
        step: dict[str, Tensor] = {}

        def compute_gradients() -> Tensor:
            self._zero_grad_optimizer(set_to_none=True)
            step.update(self.train_step_single(batch, **fit_params))
            by_user = bool(self.presses_)
            step["loss"] = self.ranks_.sum_gradients(self.module_, step["loss"], by_user=by_user)
            self._stop_with_others()
            note_loss(self, step["loss"], batch[0])
            named = TeeGenerator(name_gradients(self))
            self.notify("on_grad_computed", named_parameters=named, batch=batch, training=True)
            return step["loss"]

        threads, (rows, _) = self._threads, batch
        with nullcontext() if threads is None else threads.step(len(rows) + rows.n_events):
            self._step_optimizer(compute_gradients)
        return step

    def train_step_single(
        self, batch: tuple[Batch, Tensor], **fit_params: object
    ) -> dict[str, Tensor]:
        """Gradients of a batch: of its parts one after the other, where its events are many.

        Their sum is the batch's. Memory follows the part, so histories of thousands of events fit,
        and small blocks stay with the process (:func:`keep_freed_memory`): with 10,000 events per
        history a step takes a third of the time (benchmarks/README.md).
        """
        self._set_training(True)
        return compute_by_parts(self, batch, training=True)

    def validation_step(
        self, batch: tuple[Batch, Tensor], **fit_params: object
    ) -> dict[str, Tensor]:
        """Loss and logits of a batch, part by part as in training."""
        self._set_training(False)
        with torch.no_grad():
            step = compute_by_parts(self, batch, training=False)
            step = self.ranks_.join_logits(step, batch[0].n_joint_rows)
        note_loss(self, step["loss"], batch[0])
        return step

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
            self.history.record_batch(f"{prefix}_batch_size", batch[0].n_joint_rows)
            self.notify("on_batch_end", batch=batch, training=training, **step)
            n_batches += 1
        read_losses(self)
        self.history.record(f"{prefix}_batch_count", n_batches)


def _check_encoded(X: object) -> EncodedFeatures:
    if not isinstance(X, EncodedFeatures):
        raise TypeError(
            f"net_ takes EncodedFeatures, got {type(X).__name__}. "
            "Call the encoder's transform first, or use the classifier."
        )
    return X
