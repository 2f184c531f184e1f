"""The mean of a network's logits and those of boosted trees, and how much of it is the trees'."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pandas as pd
from scipy.special import expit
from skorch import NeuralNet

from sklearn_din.features.encoded import EncodedFeatures, rows_per_pool
from sklearn_din.features.schema import Schema
from sklearn_din.training.alone import Alone
from sklearn_din.training.copies import keep_together
from sklearn_din.training.platt_scaling import PRIOR_OF_SCALE
from sklearn_din.training.target import Click
from sklearn_din.trees.boosted import BoostedTrees
from sklearn_din.trees.columns import TreeColumns
from sklearn_din.trees.rates import Blocks
from sklearn_din.utils.blas import one_thread_of_blas
from sklearn_din.utils.parallel import map_in_parallel

N_BLOCKS = 20  # of the training rows in time, of which each knows the labels of earlier ones
N_FOLDS = 5  # of those without times, of which each knows the labels of the others
USUAL_WEIGHT = 0.5  # of the trees
WEIGHTS = USUAL_WEIGHT, 0.0, 0.25, 0.75
N_STEPS = 20  # of Newton's method
MANY_ERRORS = 2.0  # standard errors, by which another weight must lose less
MANY_ROWS = 300  # that are held out, from which on a scale that is not small is one
SMALL_SCALE = 0.5  # of trees that know nothing: on coin flips .24 at most, on 40 logs .46 at least
Scored = tuple[np.ndarray, np.ndarray]  # rows, and their logits by what did not learn them
FitTrees = Callable[[np.ndarray | None], BoostedTrees]  # on some training rows, or on all


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
        return self.weight * _draw(self.trees, self.trees.score(X), self.scale)

    @property
    def users(self) -> np.ndarray:
        """Hashes of the users whose rates the trees read."""
        return np.empty(0, np.uint64) if self.trees is None else self.trees.columns.users

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


def mix_by_held_out(
    fit: FitTrees,
    train: np.ndarray | None,
    held_out: Scored,
    X: EncodedFeatures,
    y: np.ndarray,
    weights: np.ndarray | None,
) -> Mixture:
    """Return the mixture that suits the rows which the network held out, with trees of all rows.

    The network's logits for these rows are those of its kept check, which have the constant that
    suits them best. So do the trees', for this comparison alone: of later rows it misleads.
    ``fit`` returns trees of some rows or of all.
    """
    rows, logits = held_out
    first, trees = map_in_parallel(fit, [train, None])
    y, weights = y[rows].astype(np.float64), None if weights is None else weights[rows]
    of_trees = first.score(X[rows])
    scale = _find_scale(of_trees - first.baseline, y, weights)
    of_trees = _draw(first, of_trees, scale)
    of_trees += _find_constant(of_trees, y, weights)
    weight = choose_weight(logits, of_trees, y, weights)
    return make_mixture(trees, weight, scale, "by the held-out rows")


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
    losses = {w: factors * _losses((1 - w) * network + w * trees, y) for w in WEIGHTS}
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


def _find_constant(logits: np.ndarray, y: np.ndarray, weights: np.ndarray | None) -> float:
    """Return the constant with which logits lose least, by Newton's method."""
    constant, clicks = 0.0, np.average(y, weights=weights)
    for _ in range(N_STEPS if 0 < clicks < 1 else 0):
        p = expit(logits + constant)
        slope = np.average(p, weights=weights) - clicks
        constant -= slope / np.average(p * (1 - p), weights=weights)
    return constant


def _losses(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, logits) - y * logits


def _draw(trees: BoostedTrees, logits: np.ndarray, scale: float) -> np.ndarray:
    """Draw trees' logits towards the base rate's."""
    return trees.baseline + scale * (logits - trees.baseline)


def make_mixture(trees: BoostedTrees | None, weight: float, scale: float, by: str) -> Mixture:
    """Return a mixture by the weight that rows or folds have chosen."""
    if not weight:
        return Mixture(None, weight, 1.0, f"the network alone is better {by}")
    why = "the usual one" if weight == USUAL_WEIGHT else f"chosen {by}"
    return Mixture(trees, weight, scale, why)


def _make_blocks(X: EncodedFeatures, y: np.ndarray) -> Blocks:
    """Say which training rows know each other's labels: without times, those of other users."""
    if X.times is not None and not pd.isna(X.times).any():
        times = np.asarray(X.times)
        n_earlier = np.searchsorted(np.sort(times), times)
        return Blocks(n_earlier * N_BLOCKS // max(len(times), 1), are_ordered=True)
    folds = np.random.RandomState(0).randint(N_FOLDS, size=len(X))
    return Blocks(folds[keep_together(X, y)], are_ordered=False)
