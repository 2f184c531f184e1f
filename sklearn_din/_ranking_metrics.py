"""NDCG, recall, hit rate and MRR at k by group: how good the first k places of a list are."""

from __future__ import annotations

from numbers import Integral
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln
from sklearn.utils import check_consistent_length

from sklearn_din._metric_checks import (
    check_binary_labels,
    check_group_codes,
    check_scores,
    check_weights,
)

Floats = NDArray[np.float64]


def group_ndcg_score(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    groups: ArrayLike,
    k: int | None = 10,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Mean of the per-group NDCG at k: a positive counts less, the lower it stands.

    Each group's rows are ranked by ``y_score``, the highest first. With m positives in the
    group, ``NDCG@k = sum_{r <= k} y_r / log2(1 + r)`` divided by the same of the best possible
    order, ``sum_{r <= min(m, k)} 1 / log2(1 + r)`` (Järvelin and Kekäläinen, TOIS 2002).

    Rows of equal scores have no order: the score is the expected value over all their orders,
    as in :func:`sklearn.metrics.ndcg_score`. A group without a positive has no NDCG and is left
    out. The other groups count the same, whatever their size; GAUC counts impressions instead.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Labels with two values (numbers, booleans or strings); the larger is the positive class.
    y_score : array-like of shape (n_samples,)
        Probabilities of the positive class or decisions.
    groups : array-like of shape (n_samples,)
        Whose list each row belongs to (usually the user), of any type that can be hashed.
    k : int or None, default=10
        How many places of each list are looked at; None looks at all of them.
    sample_weight : array-like of shape (n_samples,), default=None
        A group counts by the mean weight of its rows, so give all rows of a group the group's
        weight. The order and the gain of a row do not depend on it. None means 1 each.

    Returns
    -------
    float
        Between 0 and 1; 1 where each group's positives stand first.

    Raises
    ------
    ValueError
        If no group holds a positive, or an input is missing, misshapen or not binary.

    See Also
    --------
    group_recall_score, group_hit_rate_score, group_mrr_score : Other views of the same lists.

    Examples
    --------
    >>> from sklearn_din.metrics import group_ndcg_score
    >>> users = ["ann", "ann", "ann", "bob", "bob"]
    >>> round(group_ndcg_score([0, 1, 0, 1, 0], [.9, .8, .1, .7, .2], groups=users), 4)
    0.8155
    """
    lists = _read_lists(y_true, y_score, groups, k, sample_weight)
    places = np.arange(1, lists.longest + 1)
    gain = np.append(0.0, np.cumsum(1 / np.log2(1 + places)))  # of the first 0, 1, 2, ... places
    first, last = lists.start, lists.start + lists.shown
    found = lists.positives / lists.size * (gain[last] - gain[first])
    best = gain[np.minimum(lists.n_positives, lists.longest)]
    return lists.mean(lists.sums(found) / np.maximum(best, 1))


def group_recall_score(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    groups: ArrayLike,
    k: int | None = 10,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Mean of the per-group recall at k: the share of the positives among the first k rows.

    Each group's rows are ranked by ``y_score``, the highest first. ``recall@k`` is the number of
    positives in the first k places over the number of positives in the group. With more than k
    positives in a group it stays below 1 (some papers divide by ``min(k, positives)`` instead).

    Rows of equal scores have no order: the score is the expected value over all their orders.
    A group without a positive has no recall and is left out. The other groups count the same.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Labels with two values (numbers, booleans or strings); the larger is the positive class.
    y_score : array-like of shape (n_samples,)
        Probabilities of the positive class or decisions.
    groups : array-like of shape (n_samples,)
        Whose list each row belongs to (usually the user), of any type that can be hashed.
    k : int or None, default=10
        How many places of each list are looked at; None looks at all of them.
    sample_weight : array-like of shape (n_samples,), default=None
        A group counts by the mean weight of its rows, so give all rows of a group the group's
        weight. The order of the rows does not depend on it. None means 1 each.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    ValueError
        If no group holds a positive, or an input is missing, misshapen or not binary.

    Examples
    --------
    >>> from sklearn_din.metrics import group_recall_score
    >>> users = ["ann", "ann", "ann", "bob", "bob"]
    >>> group_recall_score([1, 1, 0, 0, 1], [.9, .1, .5, .7, .2], groups=users, k=1)
    0.25
    """
    lists = _read_lists(y_true, y_score, groups, k, sample_weight)
    found = lists.sums(lists.positives / lists.size * lists.shown)
    return lists.mean(found / np.maximum(lists.n_positives, 1))


def group_hit_rate_score(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    groups: ArrayLike,
    k: int | None = 10,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Share of the groups with at least one positive among the first k rows (hit rate at k).

    Each group's rows are ranked by ``y_score``, the highest first; ``hit@k`` of a group is 1
    where a positive stands in the first k places and 0 otherwise. With one positive per group it
    equals the recall.

    Rows of equal scores have no order: the score is the probability of a hit where all their
    orders are equally likely. If the last ``r`` places are taken from ``n`` equal rows with
    ``p`` positives, it is ``1 - C(n - p, r) / C(n, r)``. A group without a positive cannot have
    a hit and is left out. The other groups count the same.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Labels with two values (numbers, booleans or strings); the larger is the positive class.
    y_score : array-like of shape (n_samples,)
        Probabilities of the positive class or decisions.
    groups : array-like of shape (n_samples,)
        Whose list each row belongs to (usually the user), of any type that can be hashed.
    k : int or None, default=10
        How many places of each list are looked at; None looks at all of them, and every group
        with a positive is a hit.
    sample_weight : array-like of shape (n_samples,), default=None
        A group counts by the mean weight of its rows, so give all rows of a group the group's
        weight. The order of the rows does not depend on it. None means 1 each.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    ValueError
        If no group holds a positive, or an input is missing, misshapen or not binary.

    Examples
    --------
    >>> from sklearn_din.metrics import group_hit_rate_score
    >>> users = ["ann", "ann", "ann", "bob", "bob"]
    >>> group_hit_rate_score([1, 1, 0, 0, 1], [.9, .1, .5, .7, .2], groups=users, k=1)
    0.5
    """
    lists = _read_lists(y_true, y_score, groups, k, sample_weight)
    misses = lists.size - lists.positives
    may_miss = lists.shown <= misses
    size, misses, shown = lists.size[may_miss], misses[may_miss], lists.shown[may_miss]
    none = np.zeros(may_miss.size)  # probability that no positive of these equals is shown
    none[may_miss] = np.exp(_log_choose(misses, shown) - _log_choose(size, shown))
    return lists.mean(1 - np.multiply.reduceat(none, lists.first_block))


def group_mrr_score(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    groups: ArrayLike,
    k: int | None = 10,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Mean of one over the rank of each group's first positive (MRR at k).

    Each group's rows are ranked by ``y_score``, the highest first; the reciprocal rank is
    ``1 / r`` where the first positive stands at place ``r <= k``, and 0 where it stands below.

    Rows of equal scores have no order: the score is the expected value over all their orders.
    Where ``n`` equal rows with ``p`` positives follow ``s`` rows without one, the first positive
    is the ``j``-th of them (from 0) with probability ``C(n - 1 - j, p - 1) / C(n, p)`` and its
    rank is ``s + j + 1``. A group without a positive has no such rank and is left out. The other
    groups count the same.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Labels with two values (numbers, booleans or strings); the larger is the positive class.
    y_score : array-like of shape (n_samples,)
        Probabilities of the positive class or decisions.
    groups : array-like of shape (n_samples,)
        Whose list each row belongs to (usually the user), of any type that can be hashed.
    k : int or None, default=10
        How many places of each list are looked at; None looks at all of them.
    sample_weight : array-like of shape (n_samples,), default=None
        A group counts by the mean weight of its rows, so give all rows of a group the group's
        weight. The order of the rows does not depend on it. None means 1 each.

    Returns
    -------
    float
        Between 0 and 1; 1 where each group's first row is a positive.

    Raises
    ------
    ValueError
        If no group holds a positive, or an input is missing, misshapen or not binary.

    Examples
    --------
    >>> from sklearn_din.metrics import group_mrr_score
    >>> users = ["ann", "ann", "ann", "bob", "bob"]
    >>> group_mrr_score([1, 1, 0, 0, 1], [.9, .1, .5, .7, .2], groups=users)
    0.75
    """
    lists = _read_lists(y_true, y_score, groups, k, sample_weight)
    block = lists.first_hit()
    size, positives = lists.size[block], lists.positives[block]
    n_terms = np.minimum(lists.shown[block], size - positives + 1)
    ends = np.cumsum(n_terms)
    after = np.arange(n_terms.sum()) - np.repeat(ends - n_terms, n_terms)  # j above
    block, size, positives = (np.repeat(one, n_terms) for one in (block, size, positives))
    chance = np.exp(_log_choose(size - 1 - after, positives - 1) - _log_choose(size, positives))
    reciprocal = chance / (lists.start[block] + after + 1)
    return lists.mean(lists.sums(reciprocal, block))


class _Lists(NamedTuple):
    """Each group's rows in blocks of equal scores, the highest first, group after group.

    Parameters
    ----------
    group, start, size, positives, shown : ndarray of shape (n_blocks,)
        The group of each block, the rows of that group before it, its rows, its positives, and
        how many of its rows stand in the first k places.
    first_block : ndarray of shape (n_groups,)
    n_positives, weight : ndarray of shape (n_groups,)
    longest : int
        Places looked at in the longest list.
    """

    group: NDArray[np.intp]
    start: NDArray[np.intp]
    size: NDArray[np.intp]
    positives: NDArray[np.intp]
    shown: NDArray[np.intp]
    first_block: NDArray[np.intp]
    n_positives: NDArray[np.intp]
    weight: Floats
    longest: int

    def sums(self, values: Floats, block: NDArray[np.intp] | None = None) -> Floats:
        """Sum values of blocks (of all of them where none are named) by group."""
        group = self.group if block is None else self.group[block]
        totals = np.bincount(group, weights=values, minlength=self.weight.size)
        return totals.astype(np.float64, copy=False)

    def first_hit(self) -> NDArray[np.intp]:
        """Return each group's first block with a positive, where it has one."""
        hits = np.flatnonzero(self.positives)
        return hits[np.diff(self.group[hits], prepend=-1) != 0]

    def mean(self, values: Floats) -> float:
        """Weighted mean over the groups that have a positive."""
        has_positive = self.n_positives > 0
        weight = self.weight[has_positive]
        if not weight.any():
            raise ValueError(
                "a ranking metric needs at least one group with a positive and a weight above 0, "
                f"got {has_positive.sum()} groups with a positive among {has_positive.size}. "
                "Evaluate on rows that hold clicks."
            )
        return float(np.average(values[has_positive], weights=weight))


def _read_lists(
    y_true: ArrayLike,
    y_score: ArrayLike,
    groups: ArrayLike,
    k: int | None,
    sample_weight: ArrayLike | None,
) -> _Lists:
    if k is not None and (isinstance(k, bool) or not isinstance(k, Integral) or k < 1):
        raise ValueError(f"k must be an integer of at least 1 or None (the whole list), got {k!r}.")
    positive = check_binary_labels(y_true)
    score = check_scores(y_score, name="y_score")
    group = check_group_codes(groups)
    check_consistent_length(positive, score, group)
    weight = check_weights(sample_weight, positive.size)
    order = np.lexsort((-score, group))
    positive, score, group = positive[order], score[order], group[order]
    n_rows = np.bincount(group)
    new_group = np.diff(group, prepend=-1) != 0
    first = np.flatnonzero(new_group | np.append(True, score[1:] != score[:-1])[: score.size])
    start = first - np.flatnonzero(new_group)[group[first]]
    size = np.diff(first, append=score.size)
    longest = min(n_rows.max(initial=0), score.size if k is None else k)
    return _Lists(
        group=group[first],
        start=np.minimum(start, longest),
        size=size,
        positives=np.add.reduceat(positive, first, dtype=np.intp) if first.size else first,
        shown=np.clip(longest - start, 0, size),
        first_block=np.flatnonzero(new_group[first]),
        n_positives=np.bincount(group, weights=positive).astype(np.intp),
        weight=np.bincount(group, weights=weight[order]) / n_rows,
        longest=int(longest),
    )


def _log_choose(n: NDArray[np.intp], r: NDArray[np.intp]) -> Floats:
    """Logarithm of the number of ways to choose r of n."""
    return gammaln(n + 1) - gammaln(r + 1) - gammaln(n - r + 1)
