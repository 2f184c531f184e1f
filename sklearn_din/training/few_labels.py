"""Few labels: how far a network trained on them may depart from the base rate, found by folds.

A few hundred validation rows cannot say when to stop, and probabilities of a network that has
learnt a few hundred rows are too extreme. So nothing is held out: all rows are learnt, and the
logits are drawn towards the base rate by a factor for which folds ask that were predicted
(benchmarks/quality-results.md, "Few labels").
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, StratifiedKFold, TimeSeriesSplit
from skorch import NeuralNet

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import FIRST_KNOWN_ID
from sklearn_din.model_selection import TimeSplit
from sklearn_din.neighbours.pairs import histories_with_candidate
from sklearn_din.neighbours.tables import choose_order
from sklearn_din.training.alone import Given
from sklearn_din.training.batches import choose_batch_size
from sklearn_din.training.copies import keep_together
from sklearn_din.training.novelty import ALWAYS, NEVER, Novelty
from sklearn_din.training.occurrences import count_ids
from sklearn_din.training.validation import FEW_ROWS, SplitRows, choose_validation, number_groups

N_FOLDS = 3
TESTED = 0.2  # fraction of the rows that each fold in time predicts
ROWS_TO_LEARN = 40_000  # by all epochs together
LEAST_EPOCHS = 4
FACTORS = np.linspace(0.0, 1.0, 41)
LEAST_FACTOR = 0.02  # keeps the order of rows
ERRORS_BELOW_BEST = 0.5  # standard errors of the folds' losses


def count_epochs(n_rows: int, most: int) -> int:
    """Return the number of epochs for so many rows.

    >>> [count_epochs(n_rows, most=20) for n_rows in (500, 4_000, 100_000)]
    [20, 10, 4]
    """
    return min(max(ROWS_TO_LEARN // n_rows, LEAST_EPOCHS), most)


class Fold(NamedTuple):
    """Rows that a fold predicts, their logits, and the base rate's of the rows that it learnt."""

    rows: np.ndarray
    center: float
    logits: np.ndarray

    def shrink(self, factor: float | np.ndarray) -> np.ndarray:
        """Draw the logits towards the base rate's."""
        return self.center + factor * (self.logits - self.center)


def find_factor(given: Given, *, fit: Callable[..., None]) -> tuple[float, bool, list[Fold]]:
    """Return the factor of the logits' distance from the base rate's, and if items' numbers help.

    ``fit`` trains a net on rows for so many epochs. Each fold trains a network of its own and
    predicts other rows: later ones, those of other groups, or any, as ``validation`` says. Any are,
    without times, those of other users where users are known, and never copies of rows it learnt.
    The factor is the smallest one whose mean loss over the folds is within half a standard error of
    the best. With ``neighbours="auto"``, folds of fewer than FEW_ROWS rows are also trained without
    the numbers of item neighbours: few rows make tables that tell more of the rows than of the
    items, unless histories are long. What the folds predicted is returned, too.
    """
    net, X = given.net, given.X
    fits = [fit]
    may_use_items = net.chosen_neighbours == "auto" and histories_with_candidate(X.schema)
    if len(X) < FEW_ROWS and may_use_items and choose_order(X, "auto") is not None:
        fits.append(partial(fit, uses_items=False))
    asked: list[list[Fold]] = [[] for _ in fits]
    for train, test in _folds_of(given):
        learnt: list[Any] = []  # which the second training of a fold need not learn again
        for own, folds in zip(fits, asked, strict=True):
            score = _score_by_network(given, partial(own, learnt=learnt), train, test)
            folds.append(Fold(test, *score))
    if len(asked[0]) < 2:
        return LEAST_FACTOR, True, []
    losses = [losses_of_folds(given, folds) for folds in asked]
    best = int(np.argmin([of_folds.mean(axis=0).min() for of_folds in losses]))
    return smallest_factor(losses[best]), best == 0, asked[best]


def predict_folds(
    given: Given, score: Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]]
) -> list[Fold]:
    """Predict the rows of each fold; ``score`` learns some rows and predicts others."""
    return [Fold(test, *score(train, test)) for train, test in _folds_of(given)]


def _folds_of(given: Given) -> Iterator[SplitRows]:
    """Yield rows to train on, of both labels, and to predict."""
    net, X, y, _, groups, _ = given
    for train, test in _make_folds(net, X, y, groups):
        if np.ptp(y[train]) > 0:
            yield train, test


def _score_by_network(
    given: Given, fit: Callable[..., None], train: np.ndarray, test: np.ndarray
) -> tuple[float, np.ndarray]:
    net, X, y, weights, *_ = given
    plain = copy.copy(net)
    plain.callbacks, plain.trees = None, False
    size = choose_batch_size(net.batch_size, len(y))
    fold = clone(plain).set_params(batch_size=size, random_state=0, verbose=0)
    of_train = None if weights is None else weights[train]
    fit(fold, X[train], y[train], of_train, epochs=count_epochs(len(y), net.max_epochs))
    if fold.stop_reason_ == "user":
        raise KeyboardInterrupt
    return fold.constant_, fold.score(_hide_new_ids(X[test], count_ids(X[train])))


def losses_of_folds(given: Given, folds: Iterable[Fold]) -> np.ndarray:
    """Return the log loss of each fold's rows by each factor: (n_folds, n_factors)."""
    losses = []
    for fold in folds:
        shrunk, weights = fold.shrink(FACTORS[:, None]), given.weights
        of_rows = np.logaddexp(0, shrunk) - given.y[fold.rows] * shrunk
        of_fold = None if weights is None else weights[fold.rows]
        losses.append(np.average(of_rows, axis=1, weights=of_fold))
    return np.array(losses)


def smallest_factor(losses: np.ndarray) -> float:
    """Return the smallest factor whose mean loss is near the best one's.

    losses : (n_folds, n_factors)

    >>> smallest_factor(np.array([FACTORS, FACTORS]))  # the base rate is best
    0.02
    >>> smallest_factor(np.array([(FACTORS - 0.5) ** 2, (FACTORS - 0.5) ** 2]))
    0.5
    """
    best = losses.mean(axis=0).argmin()
    behind = losses - losses[:, [best]]
    errors = behind.std(axis=0, ddof=1) / np.sqrt(len(losses))
    is_near = behind.mean(axis=0) <= ERRORS_BELOW_BEST * errors
    return max(float(FACTORS[is_near.argmax()]), LEAST_FACTOR)


def _make_folds(
    net: NeuralNet, X: EncodedFeatures, y: np.ndarray, groups: ArrayLike | None
) -> Iterator[SplitRows]:
    """Return rows to train on and to predict, of the kind that ``validation`` names."""
    how = choose_validation(net.validation, X.times)
    if how == "groups":
        codes = number_groups(X.user_keys if groups is None else groups, len(y))
        return GroupKFold(min(N_FOLDS, codes.max() + 1)).split(y, groups=codes)
    if how == "last" and X.times is None:
        return TimeSeriesSplit(N_FOLDS, test_size=round(TESTED * len(y))).split(y)
    if how == "last" and len(np.unique(np.asarray(X.times))) > N_FOLDS:
        return TimeSplit(N_FOLDS, test_size=TESTED).split(X)
    return _random_folds(y, keep_together(X, y))


def _random_folds(y: np.ndarray, together: np.ndarray) -> Iterator[SplitRows]:
    """Yield folds that part no rows which stay together, each with some of the rarer label."""
    groups, codes = np.unique(together, return_inverse=True)
    rarer = y.mean() < 0.5
    has_rarer = np.bincount(codes, y == rarer) > 0
    n_folds = min(N_FOLDS, int(has_rarer.sum()))
    if n_folds < 2:
        return
    if len(groups) - has_rarer.sum() < n_folds:  # as of users who have both labels
        has_rarer[:] = True
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=0)
    for _, chosen in folds.split(groups, has_rarer):
        is_chosen = np.isin(codes, chosen)
        yield np.flatnonzero(~is_chosen), np.flatnonzero(is_chosen)


def _hide_new_ids(X: EncodedFeatures, counts: dict[str, np.ndarray]) -> EncodedFeatures:
    """Hide the ids that no training row has, as those that come up after a training are unknown."""
    used = {X.schema[name].vocabulary for name in X.schema.names("history")}
    first_seen = {name: np.where(counts[name] > 0, ALWAYS, NEVER) for name in used}
    for first in first_seen.values():
        first[:FIRST_KNOWN_ID] = ALWAYS
    return Novelty({}, first_seen).hide(X, np.zeros(len(X)))
