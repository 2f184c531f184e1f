"""The skorch net behind the estimators: what it trains on, how a batch is fed, why it stops."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
import torch
from numpy.typing import ArrayLike
from skorch import NeuralNetBinaryClassifier
from skorch.callbacks import Callback, EpochTimer, PassthroughScoring
from skorch.history import History
from skorch.utils import TeeGenerator
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from sklearn_din._compat import _safe_indexing
from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import FIRST_KNOWN_ID, UNKNOWN_ID, Schema
from sklearn_din.module import DIN
from sklearn_din.neighbours.tables import NeighbourTables, choose_order, learn_neighbours
from sklearn_din.network.batch import Batch, to_device
from sklearn_din.network.joint import joint_batch
from sklearn_din.network.layers import Dice, is_host, number_on_host
from sklearn_din.training.batches import ImpressionBatches, ScoringBatches
from sklearn_din.training.ctrl_c import note_ctrl_c
from sklearn_din.training.early_stopping import EarlyStopping
from sklearn_din.training.novelty import STILL, Novelty, ShownRows, measure_novelty
from sklearn_din.training.occurrences import count_occurrences, embedding_decay
from sklearn_din.training.optim import RowwiseAdam
from sklearn_din.training.parameters import TrainingParameters, names_of
from sklearn_din.training.seeding import own_random_state, seed_torch
from sklearn_din.training.target import Click, Target
from sklearn_din.training.threads import LARGEST_BATCH, ThreadChoice, lend_threads
from sklearn_din.training.validation import choose_validation, row_numbers, split_rows

if TYPE_CHECKING:
    from sklearn_din.resilient.ranks import Ranks

EARLY_STOPPING_ROWS = 1_000
LARGE_BATCH_ROWS = 100_000
VALIDATION_BATCH_SIZE = 4_096
STEPS_PER_READ = 50  # of losses on a GPU: to read one, the host waits for all steps before it
SPLIT_FROM = 1 << 17  # events of a step: a layer of 64 units over them takes 32 MiB
EVENTS_PER_PART = 1 << 15  # of a step that is split: what the processor's cache holds
WITHIN_TRAINING = {"on_epoch_begin", "on_epoch_end", "on_batch_begin", "on_batch_end"}
WITHIN_TRAINING |= {"on_grad_computed"}  # events of which every process has as many

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
    optimizer_: RowwiseAdam
    checks_: list[dict[str, float]]
    stop_reason_: StopReason
    n_epochs_: int = 0
    batch_size_: int
    novelty_: Novelty = STILL
    neighbours_: NeighbourTables = NeighbourTables()
    occurrences_: dict[str, np.ndarray]
    labels_: tuple[int, ...]
    constant_: float | np.ndarray
    order_: np.random.RandomState
    seed_: int
    ranks_: Ranks | None = None  # the processes that train together, set while they do
    _batches: tuple[ImpressionBatches, ImpressionBatches | None] | None = None
    _unread: tuple[tuple[Tensor, Tensor], ...] = ()  # losses, and the numbers of their batches
    _stop_request: StopReason | None = None  # of this process, until all processes know of it
    _threads: ThreadChoice | None = None  # set while the net trains, where there is a choice
    _is_agreed: bool = False  # whether all processes stop at this moment

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
        X, encoded, weights, groups = self._check_rows(X, y, sample_weight, groups)
        # Each row's numbers come from a table without it, whether or not it is set aside.
        self.neighbours_, X = self._learn_neighbours(X, encoded)
        # Rows are set aside before the network's weights are drawn: the seed comes after them.
        self.order_ = self.first_seeds()
        self.novelty_, moments = measure_novelty(X, share=self.validation_fraction)
        rows, held_out, how = self._choose_rows(X, encoded, groups)
        self.batch_size_ = self._size_of_batches(len(rows))
        self.occurrences_, self.labels_ = {}, (0, 0)
        shown, valid = self._shown(moments, rows), None
        train = self._batches_of(X, encoded, weights, shown, rows)
        if held_out is not None:
            to_judge = self._shown(moments, held_out)
            if to_judge is not None:
                to_judge = to_judge.hold_out(are_last=how == "last")
            valid = self._batches_of(X, encoded, weights, to_judge, held_out, in_order=True)
        seed = self.order_.randint(2**31)
        self._train(train, valid, X, encoded, seed=seed, is_new=True, shown=shown)
        return self

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
        X, encoded, weights, _ = self._check_rows(X, y, sample_weight)
        is_new, tables = not self.initialized_, self.neighbours_
        if is_new:
            tables, X = self._learn_neighbours(X, encoded)
            self.order_ = self.first_seeds()
            self.novelty_, moments = measure_novelty(X, share=self.validation_fraction)
            self.batch_size_ = self._size_of_batches(len(X))
            self.occurrences_, self.labels_, seed = {}, (0, 0), self.order_.randint(2**31)
        else:
            seed = self._next_seeds()[1]
            if tables.pairs:  # tables that had counted a row's own click would reveal it
                tables, X = tables.grow(X, self.target.clicks(encoded)), tables.add_to(X)
            if X.schema != self.module_.schema:
                grown = self.grow(X.schema)
                self.module_, self.optimizer_ = grown.module_, grown.optimizer_
                self.module__schema = X.schema
            if not isinstance(self.batch_size, str):
                self.batch_size_ = self.batch_size
            self.novelty_, moments = self.novelty_.extend(X)
        shown = self._shown(moments)
        train = self._batches_of(X, encoded, weights, shown)
        self._train(train, None, X, encoded, seed=seed, is_new=is_new, epochs=1, shown=shown)
        self.neighbours_ = tables
        return self

    def _learn_neighbours(
        self, X: EncodedFeatures, y: np.ndarray
    ) -> tuple[NeighbourTables, EncodedFeatures]:
        """Learn item neighbours from all rows, and add their numbers to these rows.

        Of several processes rank 0 learns first: those of mapped rows lie in a store beside them,
        where the others find them.
        """
        order, ranks = choose_order(X, self.neighbours), self.ranks_
        if ranks is not None and X.store is not None and ranks.rank > 0:
            ranks.of_all(None)
        tables, X = learn_neighbours(X, self.target.clicks(y), order=order)
        if ranks is not None and X.store is not None and ranks.rank == 0:
            ranks.of_all(None)
        if ranks is not None:
            ranks.check_same({"learnt": {"item neighbours": tables.digest()}})
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
        if self.ranks_ is None or self.random_state is not None:
            return seeds
        return self.ranks_.from_first(seeds)

    @property
    def batches(self) -> ImpressionBatches:
        """The training batches, while the net trains."""
        return self.get_split_datasets(None)[0]

    def _choose_rows(
        self, X: EncodedFeatures, y: np.ndarray, groups: ArrayLike | None
    ) -> tuple[np.ndarray, np.ndarray | None, str]:
        """Rows to train on, rows to validate on or None, and of what kind these are."""
        stops = self.early_stopping
        if not (len(X) >= EARLY_STOPPING_ROWS if stops == "auto" else stops):
            return row_numbers(len(X)), None, ""
        how = choose_validation(self.validation, X.times)
        rows, held_out = split_rows(
            self.target.kinds(y),
            X.users if groups is None else groups,
            how=how,
            fraction=self.validation_fraction,
            seeds=self.order_,
            times=X.times,
        )
        return rows, held_out, how

    def _shown(self, moments: np.ndarray, rows: np.ndarray | None = None) -> ShownRows | None:
        """Rows as they will be seen; None where nothing is to be hidden from them."""
        if self.novelty_.is_still:
            return None
        return ShownRows(self.novelty_, moments if rows is None else moments[rows])

    def _batches_of(
        self,
        X: EncodedFeatures,
        y: np.ndarray,
        weights: np.ndarray | None,
        shown: ShownRows | None,
        rows: np.ndarray | None = None,
        *,
        in_order: bool = False,
    ) -> ImpressionBatches:
        """Batches of these rows of X, or of all: shuffled ones to train on, or to validate on."""
        if rows is not None:
            y, weights = y[rows], None if weights is None else weights[rows]
        return ImpressionBatches(
            X,
            y,
            weights,
            batch_size=VALIDATION_BATCH_SIZE if in_order else self.batch_size_,
            shuffle=None if in_order else self.order_,
            rows=rows,
            show=None if shown is None else shown.show,
        )

    def _size_of_batches(self, n_rows: int) -> int:
        if isinstance(self.batch_size, str):
            return 256 if n_rows <= LARGE_BATCH_ROWS else 1024
        return self.batch_size

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
        shown: ShownRows | None = None,
    ) -> None:
        """Train as skorch does, under a seed; torch's random state is left as it was.

        The seed decides the new network's weights, dropout and hidden numbers. Afterwards nothing
        of the rows is left in the net.
        """
        decay = self._count(train, shown) if self.embedding_l2 else None
        if self.ranks_ is not None:
            train.share_among(self.ranks_.size, rank=self.ranks_.rank)
            if valid is not None:
                valid.share_among(self.ranks_.size, rank=self.ranks_.rank)
        devices = list(range(torch.cuda.device_count())) if self.device != "cpu" else []
        self._batches, self._has_ended, self.seed_ = (train, valid), False, seed
        try:
            with seed_torch(seed, devices=devices):
                if is_new:
                    self.module__schema = X.schema
                    self.initialize()
                    self._start_at_constant(train)
                    self.checks_, self.n_epochs_ = [], 0
                else:
                    self.initialize_callbacks()
                self._set_rates_and_decay(decay)
                self._n_before = len(self.history)
                super().partial_fit(X, y, epochs=epochs)
            if not self._has_ended:  # skorch drops a Ctrl-C, also before anything was trained
                raise KeyboardInterrupt
        finally:
            self._batches, self._unread, self._stop_request = None, (), None
            self._is_agreed = False
            if self.initialized_:
                self._set_rates_and_decay(None)
                self.optimizer_.zero_grad(set_to_none=True)
        self.module_.eval()
        self.order_ = copy.deepcopy(self.order_)  # the caller may draw from the original

    def _start_at_constant(self, train: ImpressionBatches) -> None:
        """Begin with the bias whose probability is the share of clicks, or which is the mean.

        From 1/2 a step moves the bias by the learning rate: on the way to a rare click's rate,
        everything else learns what the bias alone has to.
        """
        if self.target.has_constant(train.y):
            constant = torch.as_tensor(self.target.constant(train.y, train.weights))
            with torch.no_grad():
                self.module_.output.bias.copy_(self.module_.bias_of(constant))

    def _count(self, train: ImpressionBatches, shown: ShownRows | None) -> dict[str, np.ndarray]:
        """Factors of the L2 by vocabulary: ids and labels are counted in all trainings so far."""
        counts = self.target.count(train.y)
        earlier = self.labels_ if any(self.labels_) else (0,) * len(counts)
        self.labels_ = tuple(map(sum, zip(earlier, counts, strict=True)))
        occurrences = count_occurrences(train.X, train.rows)
        if shown is not None:
            for name, n_hidden in shown.count_hidden(train.X, train.rows).items():
                occurrences[name][UNKNOWN_ID] += n_hidden
        for name, before in self.occurrences_.items():
            occurrences[name][: len(before)] += before
        self.occurrences_ = occurrences
        strength = self.embedding_l2 * self.target.scale_of_prior(self.labels_)
        return embedding_decay(occurrences, strength / min(train.batch_size, len(train)))

    def _set_rates_and_decay(self, decay: Mapping[str, np.ndarray] | None) -> None:
        """Give the optimizer the rates of the parameters, its tables the factors of their L2."""
        dense, *tables = self.optimizer_.param_groups
        dense["lr"] = self.lr
        for width, group in zip(self.module_.embeddings.tables, tables, strict=True):
            group["lr"], group["decay"] = self.embedding_lr or self.lr, None
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
        n_left = (self.max_epochs if epochs is None else epochs) - self._n_epochs_now()
        is_alone = self.ranks_ is None and is_host(self.device)
        may_choose = is_alone and self.batch_size_ <= LARGEST_BATCH
        with (
            note_ctrl_c(raises=self.ranks_ is None) as presses,
            lend_threads(self.module_, may_choose=may_choose) as threads,
        ):
            self._presses, self._threads = presses, threads
            try:
                super().fit_loop(X, y, n_left, **kwargs)
            except KeyboardInterrupt:
                if self.ranks_ is not None and not self._is_agreed:
                    raise
                if self.stop_reason_ == "max_epochs":  # no stop_training has named another
                    self.stop_reason_ = "user" if presses else "callback"
            finally:
                del self._presses, self._threads
        self.check_losses()  # those of an epoch left unfinished
        self.drop_unfinished_epoch()
        self._has_ended = True
        return self

    def _n_epochs_now(self) -> int:
        """Epochs that this training has begun."""
        return len(self.history) - self._n_before

    def drop_unfinished_epoch(self) -> None:
        """Count the epochs that were begun; the history keeps those that were finished."""
        self.n_epochs_ += self._n_epochs_now()
        if self._n_epochs_now() and "train_loss" not in self.history[-1]:
            self.history.pop()

    def stop_training(self, reason: StopReason) -> NoReturn:
        """End the training from within a callback."""
        self.stop_reason_ = reason
        raise KeyboardInterrupt  # skorch's own way to leave the loop

    # Networks that go on from this one

    def _next_seeds(self) -> tuple[int, int]:
        """Seeds of new rows and of torch in the next training."""
        first, second = np.random.SeedSequence(self.seed_).generate_state(2)
        return int(first), int(second)

    def grow(self, schema: Schema, *, widths: Mapping[str, int] | None = None) -> DINNet:
        """Return a net with a network of its own whose tables have rows for all ids of a schema.

        The schema is that of the network, or one with ids or fields appended; ``widths`` are those
        of the embeddings where they were named by vocabulary, and some came since. By that alone no
        prediction changes. New rows are drawn as those of a new network, their moments are zero.
        """
        if not self.can_go_on():
            raise ValueError(
                "partial_fit needs the network and the optimizer's moments as fit left them, and "
                "the network of this classifier was replaced. Fit it anew."
            )
        options: dict[str, Any] = dict(self.module_.options)
        options["embedding_dim"] = widths or options["embedding_dim"]
        with torch.device("meta"):
            module = DIN(schema, **options)
        weights = grown_weights(self.module_, module, seed=self._next_seeds()[0])
        module.load_state_dict(weights, assign=True)
        net = self.around(module)
        self._copy_records(net)
        net.order_ = copy.deepcopy(self.order_)
        for name in ("batch_size_", "occurrences_", "labels_", "seed_"):
            setattr(net, name, getattr(self, name))
        net.copy_moments(self)
        net.callbacks = self.callbacks
        return net

    def around(self, module: DIN) -> DINNet:
        """Return a net with the same parameters around a network; its ``fit`` makes another."""
        own = self.get_params(deep=False) | {"callbacks": None}  # those have a state
        own = {name: value for name, value in own.items() if not name.startswith("module")}
        net = type(self)(module, **own).initialize()
        net.module, net.module__schema = DIN, module.schema
        for name, option in module.options.items():
            setattr(net, f"module__{name}", option)
        net.module_.eval()
        return net

    def can_go_on(self) -> bool:
        """Return whether the optimizer holds the moments of this network, which ``fit`` made."""
        if not hasattr(self, "seed_") or not self.is_own():
            return False
        groups = self.optimizer_.param_groups
        held = {id(parameter) for group in groups for parameter in group["params"]}
        return held == {id(parameter) for parameter in self.module_.parameters()}

    def is_own(self) -> bool:
        """Return whether the network is as ``fit`` made it, not halved or replaced."""
        parameters = self.module_.parameters()
        return type(self.module_) is DIN and all(p.dtype == torch.float32 for p in parameters)

    def copy_moments(self, earlier: DINNet) -> None:
        """Give the optimizer copies of another net's moments; ids appended since have none."""
        new, old = self.module_.embeddings, earlier.module_.embeddings
        before, first = earlier.dense_parameters, _first_layer(self.module_)
        for name, parameter in self.dense_parameters.items():
            state = earlier.optimizer_.state.get(before[name], {}) if name in before else {}
            moments = {key: moment.clone() for key, moment in state.items()}
            for key in moments if name == first else ():
                if moments[key].ndim == 2:
                    moments[key] = _move_columns(moments[key], earlier.module_, self.module_)
            self.optimizer_.state[parameter] = moments
        for width, table in new.tables.items():
            state = earlier.optimizer_.state.get(old.tables[width]) if width in old.tables else None
            if not state:
                continue
            names, known = new.vocabularies_of(width), old.vocabularies_of(width)
            squares = state["square"].split([old.sizes[name] for name in known])
            padded = [
                F.pad(square, (0, new.sizes[name] - len(square)))
                for name, square in zip(known, squares, strict=True)
            ]
            n_more = sum(new.sizes[name] for name in names[len(known) :])  # behind those known
            square = F.pad(torch.cat(padded), (0, n_more))
            numbers = {
                key: F.pad(state[key], (0, len(names) - len(known))) for key in ("total", "share")
            }
            self.optimizer_.state[table] = {"square": square, **numbers}

    def copy_as_if_stopped(self, weights: Mapping[str, Tensor]) -> DINNet:
        """Return a net with a network of its own, as a callback would leave it by stopping now.

        It has no callbacks and no moments. Empty ``weights`` mean the latest ones.
        """
        module = copy.deepcopy(self.module_)
        if weights:
            module.load_state_dict(weights)
        net = self.around(module)
        self._copy_records(net)
        net.callbacks_, net.stop_reason_, net._n_before = [], "callback", self._n_before
        net.drop_unfinished_epoch()
        return net

    def _copy_records(self, net: DINNet) -> None:
        """Give another net copies of what is noted of the trainings so far."""
        net.history = History(dict(epoch) for epoch in self.history)
        net.checks_, net.n_epochs_ = [dict(check) for check in self.checks_], self.n_epochs_
        net.neighbours_, net.novelty_ = self.neighbours_, self.novelty_.widen(net.module_.schema)

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
        with joint_batch(x.joint, None if self.ranks_ is None else self.ranks_.sum):
            return self.module_(self._on_device(x))

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
        if not len(y_true):  # a process that has no row of a joint batch
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
            step.update(self._join_gradients(self.train_step_single(batch, **fit_params)))
            self.note_loss(step["loss"], batch[0])
            named = TeeGenerator(self._name_gradients())
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
        return self._by_parts(batch, training=True)

    def validation_step(
        self, batch: tuple[Batch, Tensor], **fit_params: object
    ) -> dict[str, Tensor]:
        """Loss and logits of a batch, part by part as in training."""
        self._set_training(False)
        with torch.no_grad():
            step = self._by_parts(batch, training=False)
            if self.ranks_ is not None:
                step = self.ranks_.join_logits(step, batch[0].n_joint_rows)
        self.note_loss(step["loss"], batch[0])
        return step

    def _by_parts(self, batch: tuple[Batch, Tensor], *, training: bool) -> dict[str, Tensor]:
        whole, y = batch
        is_long = whole.n_events > SPLIT_FROM and self._may_split()
        parts = whole.split(EVENTS_PER_PART) if is_long else [whole]
        labels_of = whole.own_rows(y).split([len(part) for part in parts])
        losses, logits = [], []
        for part, labels in zip(parts, labels_of, strict=True):
            with self._draws_again(part, is_last=part is parts[-1]):
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

    def _name_gradients(self) -> Iterator[tuple[str, Tensor]]:
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

    # Losses: in the host's memory each is read and checked before its step changes a weight. From
    # a GPU ``STEPS_PER_READ`` are read at once, and all of them before anything is kept.

    def note_loss(self, loss: Tensor, batch: Batch) -> None:
        """Have the loss of a batch checked, at once where that costs nothing."""
        self._unread = (*self._unread, (loss.detach(), batch.numbers))
        if is_host(loss.device) or len(self._unread) >= STEPS_PER_READ:
            self.check_losses()

    def check_losses(self) -> None:
        """Raise where a loss that has been noted is not finite."""
        unread, self._unread = self._unread, ()
        if not unread:
            return
        losses = torch.stack([loss for loss, _ in unread]).tolist()
        for loss, (_, numbers) in zip(losses, unread, strict=True):
            if not math.isfinite(loss):
                raise ValueError(self._divergence_message(numbers))

    def _divergence_message(self, numbers: Tensor) -> str:
        """Name a possible cause; ``numbers`` (n_rows, n_numeric) are those of the batch."""
        numeric = self.module_.schema.names("numeric")
        hint = ""
        if numeric and len(numbers):  # a process may have no row of a joint batch
            scales = numbers.abs().amax(dim=0)
            largest = int(scales.argmax())
            hint = f" Largest number: {float(scales[largest]):.3g} in column {numeric[largest]!r}."
        return (
            f"the loss is no longer finite in epoch {self._n_epochs_now()} with lr={self.lr:g} and "
            f"embedding_lr={self.embedding_lr or self.lr:g}.{hint} Lower the learning rates, or "
            "standardise the numeric columns (HistorySequenceEncoder does)."
        )

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
        self.read_losses()
        self.history.record(f"{prefix}_batch_count", n_batches)

    def read_losses(self) -> None:
        """Check all losses, and have numbers stand in the latest row of ``history``."""
        self.check_losses()
        batches: list[dict[str, Any]] = self.history[-1]["batches"]
        for name in ("train_loss", "valid_loss"):
            unread = [batch for batch in batches if isinstance(batch.get(name), Tensor)]
            if unread:
                losses = torch.stack([batch[name] for batch in unread]).tolist()
                for batch, loss in zip(unread, losses, strict=True):
                    batch[name] = loss

    # Several processes: each computes its rows of a joint batch, gradients are summed before each
    # step, and who wants to stop in one of them stops all, at the same step.

    def notify(self, method_name: str, **kwargs: object) -> None:
        """As skorch does; a callback's stop is kept until all processes can hear of it."""
        if self.ranks_ is None or method_name not in WITHIN_TRAINING:
            super().notify(method_name, **kwargs)
            return
        try:
            super().notify(method_name, **kwargs)
        except KeyboardInterrupt:
            if self.stop_reason_ == "patience":  # all processes made the same check
                self._is_agreed = True
                raise
            is_named = self.stop_reason_ != "max_epochs"
            self._stop_request = self.stop_reason_ if is_named else "callback"
        if method_name == "on_epoch_end":
            requests = self._stop_requests()
            self.ranks_.sum(requests)
            self._stop_together(requests)

    def _stop_requests(self) -> Tensor:
        """Return whether the user, or a callback, wants this process to stop: (2,)."""
        by_user = bool(self._presses) or self._stop_request == "user"
        return torch.tensor([by_user, self._stop_request is not None], dtype=torch.float32)

    def _stop_together(self, requests: Tensor) -> None:
        by_user, by_callback = (bool(request) for request in requests.tolist())
        if by_user or by_callback:
            self._is_agreed = True
            self.stop_training("user" if by_user else "callback")

    def _join_gradients(self, step: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sum gradients and loss over the processes; stop if one of them wants to."""
        if self.ranks_ is None:
            return step
        tables = list(self.module_.embeddings.tables.values())
        requests = self._stop_requests().to(step["loss"].device)
        numbers = torch.cat([step["loss"].reshape(1), requests])
        dense = list(self.dense_parameters.values())
        numbers = self.ranks_.sum_gradients(dense, tables, numbers)
        self._stop_together(numbers[1:])
        return step | {"loss": numbers[0]}

    def _draws_again(self, batch: Batch, *, is_last: bool) -> AbstractContextManager[None]:
        """Put torch's random state back after all parts of a joint batch but the last.

        Each part draws for the whole joint batch and takes its own rows: the numbers must be the
        same in all parts.
        """
        if batch.joint is None or is_last:
            return nullcontext()
        device = torch.device(self.device)
        return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])

    def _may_split(self) -> bool:
        """Return whether a batch may be computed in parts, as many as each process has.

        Dice needs sums over all processes, as often in each of them.
        """
        return self.ranks_ is None or not any(isinstance(m, Dice) for m in self.module_.modules())


def grown_weights(old: DIN, new: DIN, *, seed: int) -> dict[str, Tensor]:
    """Return the weights of ``old``, copied, as a state_dict of ``new``: more ids, or more fields.

    ``new`` gives the sizes; it needs no memory. New rows and new behaviours are drawn as those of a
    new network; the first layer's weights of what is new are zero, so that the logits stay.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = {name: weight.detach().clone() for name, weight in old.state_dict().items()}
    device = next(old.parameters()).device
    for width in new.embeddings.tables:
        blocks = []
        for vocabulary in new.embeddings.vocabularies_of(width):
            known = torch.zeros(FIRST_KNOWN_ID, int(width), device=device)
            if vocabulary in old.embeddings.sizes:
                known = old.embeddings.weight(vocabulary).detach()
            fresh = torch.empty(new.embeddings.sizes[vocabulary] - len(known), int(width))
            fresh.normal_(std=new.embeddings.scale, generator=generator)
            blocks += [known, fresh.to(device)]
        weights[f"embeddings.tables.{width}"] = torch.cat(blocks)
    for number in range(len(old.interests), len(new.interests)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            interest = new.make_interest(new.schema.behaviours[number]).to(device)
        weights |= interest.state_dict(prefix=f"interests.{number}.")
    first = _first_layer(new)
    weights[first] = _move_columns(weights[first], old, new)
    return weights


def _first_layer(module: DIN) -> str:
    """Return the name of the weights that the inputs of the MLP meet first."""
    layers = {n: layer for n, layer in module.mlp.named_modules() if isinstance(layer, nn.Linear)}
    return f"mlp.{next(iter(layers))}.weight" if layers else "output.weight"


def _move_columns(columns: Tensor, old: DIN, new: DIN) -> Tensor:
    """Return columns of the MLP's inputs in the order of a network with more of them, 0 for those.

    columns : (n_units, inputs of the old one)
    """
    known = dict(zip(old.mlp_inputs, columns.split([*old.mlp_inputs.values()], dim=1), strict=True))
    blocks = [
        known.get(key, columns.new_zeros(len(columns), width))
        for key, width in new.mlp_inputs.items()
    ]
    return torch.cat(blocks, dim=1)


def _check_encoded(X: object) -> EncodedFeatures:
    if not isinstance(X, EncodedFeatures):
        raise TypeError(
            f"net_ takes EncodedFeatures, got {type(X).__name__}. "
            "Call the encoder's transform first, or use the classifier."
        )
    return X
