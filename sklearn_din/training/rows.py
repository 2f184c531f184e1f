"""Starting trainings: checks of the rows, held-out rows, and batches."""

from __future__ import annotations

import copy
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from skorch import NeuralNet

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.neighbours.tables import NeighbourTables, choose_order, learn_neighbours
from sklearn_din.network.number_bins import find_ranges
from sklearn_din.training.aged_levels import age_levels
from sklearn_din.training.alone import Alone, Given
from sklearn_din.training.batches import ImpressionBatches, choose_batch_size
from sklearn_din.training.copies import find_originals
from sklearn_din.training.neutral_requests import hide_requests
from sklearn_din.training.novelty import Novelty, ShownRows, measure_novelty
from sklearn_din.training.platt_scaling import scale_output, without_scale
from sklearn_din.training.seeding import own_random_state
from sklearn_din.training.simple_rates import report_better_rates
from sklearn_din.training.target import Numbers
from sklearn_din.training.training import Training
from sklearn_din.training.validation import (
    FEW_LABELS,
    FEW_ROWS,
    are_few,
    choose_validation,
    cut_in_time,
    split_rows,
)
from sklearn_din.utils.compat import _safe_indexing

EARLY_STOPPING_ROWS = 1_000
VALIDATION_BATCH_SIZE = 1_024  # what the cache holds: .7 of the time of 4,096


def train_new(
    net: NeuralNet,
    X: EncodedFeatures,
    y: ArrayLike,
    sample_weight: np.ndarray | None,
    groups: ArrayLike | None = None,
    *,
    ranks: Alone,
    epochs: int | None = None,
    uses_items: bool = True,
    learnt: list[LearntRows] | None = None,
) -> None:
    """Train a new network, optionally for a number of epochs without validation or checkpoints.

    Without ``uses_items`` the numbers of item neighbours are zeros. ``learnt`` keeps what a
    training learns of its rows before the first step, for the next training on the same rows.
    """
    given = _check_given(net, X, y, sample_weight, groups, ranks)
    if net.trees:
        from sklearn_din.training.mixture import check_mixture, mix_with_trees

        check_mixture(net, given.X, ranks)
    order = copy.deepcopy(own_random_state(net.random_state))
    if net.random_state is None:
        order = ranks.from_first(order)
    callbacks = [pair[1] if isinstance(pair, tuple) else pair for pair in net.callbacks or ()]
    with ExitStack() as stack:
        for callback in callbacks if epochs is None else ():
            if hasattr(callback, "hold"):
                order = stack.enter_context(callback.hold(given, order, ranks))
        net.order_, factor = order, None
        folds: list[Any] = []
        if epochs is None and are_few(net, given.y):
            from sklearn_din.training.few_labels import count_epochs, find_factor

            fit = partial(train_new, ranks=Alone())
            factor, uses_items, folds = ranks.from_first(find_factor(given, fit=fit))
        learnt = [] if learnt is None else learnt
        if not learnt:
            learnt.append(_learn_rows(given, ranks))
        net.neighbours_, X, net.novelty_, moments = learnt[0]
        if not uses_items:
            net.neighbours_, X = net.neighbours_.mute_items(X)
        rows = TrainingRows(X, given.y, given.weights, net.novelty_, moments)
        # Validation rows are drawn before the seed of the network's weights.
        holds_out = epochs is None and factor is None
        training = _new_training(net, rows, given.groups, holds_out, ranks=ranks, epochs=epochs)
        if factor is not None:
            net.decisions_ |= _decisions_for_few_labels(net, factor)
            training.most_epochs = count_epochs(len(X), net.max_epochs)
        training.run(X, given.y, seed=order.randint(2**31), is_new=True)
        if factor is not None:
            scale_output(net.module_, net.constant_, [0.0], [factor])
        report_better_rates(net, training, X, given.y)
        if net.trees:
            net.mixture_ = mix_with_trees(given, X, training, factor, folds)
    if isinstance(net.random_state, np.random.RandomState) and net.stop_reason_ != "user":
        net.random_state.set_state(order.get_state(legacy=False))


def train_further(
    net: NeuralNet,
    X: EncodedFeatures,
    y: ArrayLike,
    sample_weight: np.ndarray | None,
    *,
    ranks: Alone,
) -> None:
    """Continue training a net in one pass over further rows."""
    from sklearn_din.training.growth import grow, next_seeds

    given = _check_given(net, X, y, sample_weight, None, ranks, goes_on=True)
    if given.X.positions is not None and not net.module_.options["position_shares"]:
        raise ValueError(
            "rows came with positions, and the network was trained on rows without. Fit it "
            "anew, or set the encoder's position=None."
        )
    tables, seed, X = net.neighbours_, next_seeds(net)[1], given.X
    if tables.names:  # a table that counts a row's own click reveals it
        X, tables = tables.add_to(X), tables.grow(X, net.target.clicks(given.y), given.y)
    X = hide_requests(age_levels(X, share=net.validation_fraction))
    if X.schema != net.module_.schema:
        grown = grow(net, X.schema)
        net.module_, net.optimizer_ = grown.module_, grown.optimizer_
        net.module__schema = X.schema
    net.module_.widen(find_ranges(X, net.module_.options["ranges"], reads_all=net.is_published))
    least = net.batch_size_ if isinstance(net.batch_size, str) else 0
    net.batch_size_ = max(choose_batch_size(net.batch_size, len(X)), least)
    net.novelty_, moments = net.novelty_.extend(X)
    rows = TrainingRows(X, given.y, given.weights, net.novelty_, moments)
    training = Training(net, rows.batches(net), ranks=ranks, epochs=1)
    with without_scale(net):
        training.run(X, given.y, seed=seed, is_new=False)
    net.neighbours_ = tables


def _check_given(
    net: NeuralNet,
    X: object,
    y: ArrayLike,
    sample_weight: np.ndarray | None,
    groups: ArrayLike | None,
    ranks: Alone,
    *,
    goes_on: bool = False,
) -> Given:
    """Return rows that weigh something, with y and weights as float32, and their groups."""
    rows = check_encoded(X)
    encoded = net.target.check_encoded(y, len(rows))
    weights = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float32)
    if weights is not None and not weights.all():
        some = np.flatnonzero(weights)
        groups = groups if groups is None else _safe_indexing(groups, some)
        rows, encoded, weights = rows[some], encoded[some], weights[some]
    given = Given(net, rows, encoded, weights, groups, goes_on)
    ranks.check_given(given)
    net.device = ranks.device_for(net.device)
    return given


def check_encoded(X: object) -> EncodedFeatures:
    """Raise if X is not encoded."""
    if not isinstance(X, EncodedFeatures):
        raise TypeError(
            f"net_ takes EncodedFeatures, got {type(X).__name__}. "
            "Call the encoder's transform first, or use the classifier."
        )
    return X


class LearntRows(NamedTuple):
    """Training rows with the numbers learnt from them, the tables of these, and the novelty."""

    neighbours: NeighbourTables
    X: EncodedFeatures
    novelty: Novelty
    moments: np.ndarray


def _learn_rows(given: Given, ranks: Alone) -> LearntRows:
    """Learn item neighbours, rates and novelty from rows; return the rows as training shows them.

    The numbers of each row come from a table that does not count it, held out or not.
    """
    share = given.net.validation_fraction
    neighbours, X = _learn_neighbours(given, ranks)
    X = hide_requests(age_levels(X, share=share))
    return LearntRows(neighbours, X, *measure_novelty(X, share=share))


def _learn_neighbours(given: Given, ranks: Alone) -> tuple[NeighbourTables, EncodedFeatures]:
    """Learn item neighbours and running rates of users from all rows, and add them to these rows.

    With numeric labels, only running rates of users are learnt. The published network gets neither,
    unless ``neighbours`` names an order. Where several processes train, rank 0 learns first: the
    numbers of mapped rows are written to a store beside the rows, where the others find them.
    """
    net, X = given.net, given.X
    with nullcontext() if X.store is None else ranks.in_turn():
        neighbours, is_click = net.chosen_neighbours, net.target.clicks(given.y)
        order = choose_order(X, neighbours)
        has_levels = X.users is not None and X.times is not None and not net.is_published
        if isinstance(net.target, Numbers) and has_levels:
            order = "time"
        tables, X = learn_neighbours(
            X,
            is_click,
            order=order,
            y=given.y,
            labels=net.target.label_names,
            of_items=neighbours is not None,
        )
    ranks.check_same(lambda: {"learnt": {"item neighbours": tables.digest()}})
    return tables, X


def _new_training(
    net: NeuralNet, rows: TrainingRows, groups: ArrayLike | None, holds_out: bool, **options: Any
) -> Training:
    """Return the training of a new network; where it ``holds_out`` rows, they may stop it."""
    X, kept, held_out, how = rows.X, None, None, ""
    stops = net.early_stopping if holds_out else False
    if len(X) >= EARLY_STOPPING_ROWS if stops == "auto" else stops:
        how = choose_validation(net.validation, X.times)
        kept, held_out = split_rows(
            net.target.kinds(rows.y),
            X.user_keys if groups is None and how == "groups" else groups,
            how=how,
            fraction=net.validation_fraction,
            seeds=net.order_,
            times=X.times,
            originals=find_originals(X, rows.y) if how == "random" else None,
        )
    n_rows = len(X) if kept is None else len(kept)
    net.batch_size_ = choose_batch_size(net.batch_size, n_rows)
    net.occurrences_, net.labels_ = {}, (0, 0)
    why = f"{n_rows:,} training rows" if net.batch_size == "auto" else "batch_size"
    held = _describe_validation(net, len(X), held_out, how)
    net.decisions_ = {"batch size": (str(net.batch_size_), why), "validation rows": held}
    train = rows.batches(net, kept)
    if held_out is None:
        return Training(net, train, **options)
    learns = net.refit == "validation" or (net.refit == "auto" and how == "last")
    cut = cut_in_time(held_out, X.times) if learns else []
    held_out = np.concatenate(cut) if cut else held_out  # in the order of its parts
    parts = [(rows.batches(net, part), rows.held_out(part, how)) for part in cut]
    is_later = how == "last"
    return Training(net, train, rows.held_out(held_out, how), parts, is_later=is_later, **options)


def _describe_validation(
    net: NeuralNet, n_rows: int, held_out: np.ndarray | None, how: str
) -> tuple[str, str]:
    """Return how many validation rows there are and which ones, and why."""
    if held_out is not None:
        reason = f"validation={net.validation!r}"
        if net.validation == "auto":
            reason = "the rows have times" if how == "last" else "the rows have no times in order"
        return f"{len(held_out):,} of {n_rows:,}, {how}", reason
    if net.early_stopping == "auto" and n_rows < EARLY_STOPPING_ROWS:
        return "none", f"fewer than {EARLY_STOPPING_ROWS:,} rows"
    return "none", f"early_stopping={net.early_stopping!r}"


def _decisions_for_few_labels(net: NeuralNet, factor: float) -> dict[str, tuple[str, str]]:
    few = f"fewer than {FEW_ROWS:,} rows, or than {FEW_LABELS} of the rarer label"
    scale = f"{factor:.3g}", "smallest loss in the folds, within half a standard error"
    return {"validation rows": ("none, but folds", few), "scale of the logits": scale}


class TrainingRows(NamedTuple):
    """Training rows, with y encoded by the target, and the novelty of their ids."""

    X: EncodedFeatures
    y: np.ndarray
    weights: np.ndarray | None
    novelty: Novelty
    moments: np.ndarray

    def batches(self, net: NeuralNet, rows: np.ndarray | None = None) -> ImpressionBatches:
        """Return shuffled batches of these rows, or of all, as they are shown in training."""
        options = {"batch_size": net.batch_size_, "shuffle": net.order_}
        return self._batches(rows, self._shown(rows), **options)

    def held_out(self, rows: np.ndarray, how: str) -> ImpressionBatches:
        """Return batches of validation rows in order; ``how`` says which rows they are."""
        shown = self._shown(rows)
        shown = None if shown is None else shown.hold_out(are_last=how == "last")
        return self._batches(rows, shown, batch_size=VALIDATION_BATCH_SIZE, keeps=True)

    def _shown(self, rows: np.ndarray | None) -> ShownRows | None:
        if not self.novelty.first_seen:
            return None
        return ShownRows(self.novelty, self.moments if rows is None else self.moments[rows])

    def _batches(
        self, rows: np.ndarray | None, shown: ShownRows | None, **options: Any
    ) -> ImpressionBatches:
        y, weights = self.y, self.weights
        if rows is not None:
            y, weights = y[rows], None if weights is None else weights[rows]
        return ImpressionBatches(self.X, y, weights, rows=rows, shown=shown, **options)
