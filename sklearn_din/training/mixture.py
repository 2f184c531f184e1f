"""The mean of a network's logits and those of boosted trees, and how much of it is the trees'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import numpy as np
import pandas as pd
from scipy.special import expit
from skorch import NeuralNet

from sklearn_din.features.encoded import EncodedFeatures, rows_per_pool
from sklearn_din.features.schema import Schema
from sklearn_din.training.alone import Alone, Given
from sklearn_din.training.copies import keep_together
from sklearn_din.training.few_labels import (
    Fold,
    losses_of_folds,
    predict_folds,
    smallest_factor,
)
from sklearn_din.training.platt_scaling import PRIOR_OF_SCALE
from sklearn_din.training.target import Click, find_constant
from sklearn_din.training.training import Training
from sklearn_din.trees.boosted import BoostedTrees
from sklearn_din.trees.columns import TreeColumns
from sklearn_din.trees.rates import OF_USERS, Blocks, Rates
from sklearn_din.utils.blas import one_thread_of_blas
from sklearn_din.utils.parallel import map_in_parallel

N_BLOCKS = 20  # of the training rows in time, of which each knows the labels of earlier ones
N_FOLDS = 5  # of those without times, of which each knows the labels of the others
USUAL_WEIGHT = 0.5  # of the trees
WEIGHTS = USUAL_WEIGHT, 0.0, 0.25, 0.75
MANY_ERRORS = 2.0  # standard errors, by which another weight must lose less
MANY_ROWS = 300  # that are held out, from which on a scale that is not small is one
# Of trees that know nothing: random labels reached .285, logs of which only the base rate moves
# .316 (benchmarks/tree_weights.py); 40 logs with signal have .46 at least.
SMALL_SCALE = 0.5


@dataclass(frozen=True, eq=False)
class Mixture:
    """Trees, and the mean of their logits and the network's.

    Parameters
    ----------
    trees : BoostedTrees or None
        Fitted on all training rows. None where the network answers alone.
    weight : float
        Of the trees in the mean; 0 without them.
    scale : float
        Factor of their logits' distance from the base rate's.
    why : str
        What has chosen the weight.
    """

    trees: BoostedTrees | None
    weight: float
    scale: float
    why: str

    def mix(self, X: EncodedFeatures, logits: np.ndarray) -> np.ndarray:
        """Return the mean of the network's logits for rows and the trees', (n_rows,), float32."""
        if self.trees is None:
            return logits
        return ((1 - self.weight) * logits + self.part_of(X)).astype(np.float32)

    def part_of(self, X: EncodedFeatures) -> np.ndarray:
        """Return the trees' summand of the mean, (n_rows,)."""
        if self.trees is None:
            return np.zeros(len(X))
        trees = self.trees
        return self.weight * (trees.baseline + self.scale * (trees.score(X) - trees.baseline))

    @property
    def users(self) -> np.ndarray:
        """Hashes of the users whose rates the trees read."""
        return np.empty(0, np.uint64) if self.trees is None else self.trees.columns.users

    @property
    def user_rates(self) -> Rates | None:
        """Rates of users that the trees read; None where they read none."""
        rates = () if self.trees is None else self.trees.columns.rates
        return next((own for own in rates if own.column == OF_USERS), None)

    def without_users(self, users: np.ndarray) -> Self:
        """Return the mixture without the rates of some users, given by their hashes."""
        if self.trees is None:
            return self
        columns = self.trees.columns.without_users(users)
        return replace(self, trees=replace(self.trees, columns=columns))

    def describe(self) -> str:
        """Return a line of the summary."""
        if self.trees is None:
            return f"boosted trees: none, {self.why}"
        scaled = "" if self.scale == 1 else f" of their log-odds times {self.scale:.2g}"
        return (
            f"boosted trees: {len(self.trees.sizes)} on {self.trees.columns.describe()}; weight "
            f"{self.weight:g}{scaled}, {self.why}"
        )

    def check_columns(self, schema: Schema) -> None:
        """Raise ValueError where rows of a schema lack a column that the trees read."""
        if self.trees is not None:
            self.trees.columns.check_columns(schema)

    def check(self) -> None:
        """Raise ValueError where the numbers are none of a mean."""
        if not 0 <= self.weight <= 1 or not 0 <= self.scale <= 1:
            raise ValueError("weight and scale of trees must lie between 0 and 1.")
        if (self.trees is None) != (self.weight == 0):
            raise ValueError("trees must be there where they have a weight, and only there.")


def check_mixture(net: NeuralNet, X: EncodedFeatures, ranks: Alone) -> None:
    """Raise where trees are asked for and cannot be fitted."""
    reason = ""
    if type(net.target) is not Click:
        reason = "one label of two kinds, got several"
    elif ranks.size > 1:
        reason = f"a training in one process, got {ranks.size} that train together"
    elif rows_per_pool(X) is not None:
        reason = "all rows in memory, and these are larger than scan_parquet's memory allows"
    if reason:
        raise ValueError(f"trees=True needs {reason}. Use trees=False.")


def fit_trees(
    X: EncodedFeatures,
    y: np.ndarray,
    weights: np.ndarray | None,
    schema: Schema,
    rows: np.ndarray | None = None,
) -> BoostedTrees:
    """Fit trees on rows, or on some of them; the schema has the numbers that they may read."""
    if rows is not None:
        X, y, weights = X[rows], y[rows], None if weights is None else weights[rows]
    columns, matrix = TreeColumns.learn(X, y, _make_blocks(X, y), schema)
    return BoostedTrees.fit(columns, matrix, y, weights)


def mix_with_trees(
    given: Given,
    X: EncodedFeatures,
    training: Training,
    factor: float | None,
    folds: Sequence[Fold],
) -> Mixture:
    """Return the mixture that suits rows which a trained network held out, or that folds predict.

    X are the given rows as they were shown to the network; its logits for ``folds``, where labels
    were few, suit them best by a factor.
    """
    y, weights, train, valid = given.y, given.weights, training.train, training.valid
    kept, fit = training.checks.take_outputs(), partial(fit_trees, X, y, weights, given.X.schema)
    if given.net.stop_reason_ == "user" or np.ptp(train.y) == 0:
        why = "the training was interrupted" if np.ptp(y) else "the rows have one label alone"
        return Mixture(None, 0.0, 1.0, why)
    if kept is not None and valid is not None:
        first, trees = map_in_parallel(fit, [train.rows, None])
        by, rows = "by the held-out rows", valid.rows
        own = None if weights is None else weights[rows]
        weight, scale, shift = _judge_held_out(first, X[rows], *kept, y[rows].astype(float), own)
        trees = replace(trees, baseline=trees.baseline + shift)
    else:
        by, trees = "by folds", None
        weight, scale = _judge_by_folds(given, fit, factor or 1.0, folds)
    if not weight:
        return Mixture(None, weight, 1.0, f"the network alone is better {by}")
    why = "the usual one" if weight == USUAL_WEIGHT else f"chosen {by}"
    return Mixture(trees or fit(None), weight, scale, why)


def _judge_held_out(
    first: BoostedTrees,
    X: EncodedFeatures,
    outputs: np.ndarray,
    has_moved: bool,
    y: np.ndarray,
    weights: np.ndarray | None,
) -> tuple[float, float, float]:
    """Return the weight, scale and shift of trees by rows that neither they nor the network learnt.

    The network's outputs for these rows are those of its kept check, which have the constant that
    suits them best. For the comparison, the trees get their best constant as well. If the check has
    moved the base rate, the trees are shifted to the network's mean, and trees that know nothing
    get no weight: they would contribute the base rate of the training rows
    (benchmarks/tree_weights.py).
    """
    logits = first.score(X) - first.baseline
    scale = _find_scale(logits, y, weights)
    logits = first.baseline + scale * logits
    if has_moved and scale < SMALL_SCALE:
        return 0.0, scale, 0.0
    shift = find_constant(logits, expit(outputs), weights) if has_moved else 0.0
    logits += find_constant(logits, y, weights)
    return choose_weight(outputs, logits, y, weights), scale, shift


def _judge_by_folds(
    given: Given, fit: Callable[..., BoostedTrees], factor: float, of_network: Sequence[Fold]
) -> tuple[float, float]:
    """Return the weight and the scale of trees: 0 where no folds can be made."""

    def score(train: np.ndarray, test: np.ndarray) -> tuple[float, np.ndarray]:
        trees = fit(train)
        return trees.baseline, trees.score(given.X[test])

    folds = predict_folds(given, score)
    if len(folds) < 2:
        return 0.0, 1.0
    scale = smallest_factor(losses_of_folds(given, folds))
    if not of_network:
        return USUAL_WEIGHT, scale
    rows = np.concatenate([fold.rows for fold in folds])
    network = np.concatenate([fold.shrink(factor) for fold in of_network])
    trees = np.concatenate([fold.shrink(scale) for fold in folds])
    weights = None if given.weights is None else given.weights[rows]
    return choose_weight(network, trees, given.y[rows], weights), scale


def choose_weight(
    network: np.ndarray, trees: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Return the trees' weight: a half, unless others lose less by two standard errors.

    The network alone comes first, so that little is given to trees only where it gains.

    network, trees : (n_rows,), logits for rows that neither has learnt

    >>> y, told = np.array([0.0, 1.0] * 50), np.array([-1.0, 1.0] * 50)
    >>> choose_weight(told, told, y), choose_weight(told, -told, y), choose_weight(-told, told, y)
    (0.5, 0.0, 0.75)
    """
    factors, best = 1.0 if weights is None else weights, USUAL_WEIGHT
    mixed = {weight: (1 - weight) * network + weight * trees for weight in WEIGHTS}
    losses = {w: factors * (np.logaddexp(0, logits) - y * logits) for w, logits in mixed.items()}
    for weight in WEIGHTS:
        more = losses[weight] - losses[best]
        if more.mean() < -MANY_ERRORS * more.std() / np.sqrt(len(y)):
            best = weight
    return best


def _find_scale(logits: np.ndarray, y: np.ndarray, weights: np.ndarray | None) -> float:
    """Return the scale of logits around the base rate's: one unless they, or rows, tell little."""
    from sklearn.linear_model import LogisticRegression  # slow to import

    if not 0 < y.mean() < 1:
        return 1.0
    with one_thread_of_blas():
        platt = LogisticRegression(C=1 / PRIOR_OF_SCALE).fit(logits[:, None], y, weights)
    scale = float(np.clip(platt.coef_.item(), 0, 1))
    return 1.0 if scale >= SMALL_SCALE and len(y) >= MANY_ROWS else scale


def _make_blocks(X: EncodedFeatures, y: np.ndarray) -> Blocks:
    """Say which training rows know each other's labels: without times, those of other users."""
    if X.times is not None and not pd.isna(X.times).any():
        times = np.asarray(X.times)
        n_earlier = np.searchsorted(np.sort(times), times)
        return Blocks(n_earlier * N_BLOCKS // max(len(times), 1), are_ordered=True)
    folds = np.random.RandomState(0).randint(N_FOLDS, size=len(X))
    return Blocks(folds[keep_together(X, y)], are_ordered=False)
