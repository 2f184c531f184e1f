"""Ranking metrics: GAUC, RelaImpr, NDCG and others, calibration, off-policy value."""

from collections.abc import Callable
from numbers import Integral, Real
from typing import NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln
from sklearn.base import BaseEstimator
from sklearn.metrics import make_scorer
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.metadata_routing import MetadataRequest

from sklearn_din.utils.frames import column_names
from sklearn_din.utils.keys import read_groups

__all__ = [
    "correct_for_sampling",
    "group_hit_rate_score",
    "group_mrr_score",
    "group_ndcg_score",
    "group_recall_score",
    "group_roc_auc_score",
    "group_roc_auc_scorer",
    "relative_improvement",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]


def group_roc_auc_score(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    groups: ArrayLike,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Impression-weighted mean of the per-group ROC AUC (GAUC).

    The AUC over all impressions also rewards distinguishing users who click often from those who
    click rarely. GAUC asks only whether each group's (usually: each user's) own impressions
    are ranked well: ``sum_g w_g AUC_g / sum_g w_g`` (Zhou et al., KDD 2018, "Metrics"), where
    ``w_g`` is the number of impressions of group g, or the sum of their sample weights.

    Groups with only one class have no AUC and are left out, with their weight.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Labels with two values (numbers, booleans or strings); the larger is the positive class.
    y_score : array-like of shape (n_samples,)
        Probabilities of the positive class or decisions; equal scores count half.
    groups : array-like of shape (n_samples,)
        The group of each impression, of any hashable type.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights within each group's AUC and, summed, of the group. None means 1 each.

    Returns
    -------
    float
        Between 0 and 1; 0.5 for scores that are uninformative within groups.

    Raises
    ------
    ValueError
        If no group holds both classes, or an input is missing, misshapen or not binary.

    Notes
    -----
    If a group's impressions are at different moments, predictions also change with what is known
    of the group at each moment. This affects the level, not the order of items, and lowers GAUC: an
    item's plain click rate may then score higher than any model that knows the user
    (``benchmarks/verdicts.py``). To compare rankings, score all of a user's impressions as of one
    moment.

    Examples
    --------
    >>> from sklearn_din.metrics import group_roc_auc_score
    >>> users = ["ann", "ann", "bob", "bob", "cem", "cem"]
    >>> group_roc_auc_score([1, 0, 0, 1, 1, 1], [.9, .1, .8, .3, .5, .6], groups=users)
    0.5
    """
    positive, score, group, weight = _check_rows(y_true, y_score, groups, sample_weight)
    auc, group_weight = _auc_by_group(positive, score, group, weight)
    ranked = ~np.isnan(auc)
    if not ranked.any():
        raise ValueError(
            f"GAUC needs at least one group with both classes, got {auc.size} groups of one "
            "class each. Use larger groups, or more impressions per group."
        )
    return float(np.average(auc[ranked], weights=group_weight[ranked]))


class _GroupScorer:
    """A scorer ``(estimator, X, y)`` around ``make_scorer`` that finds the groups.

    ``groups`` names a column of X; with None they are metadata, or the users that the encoder
    names.
    """

    _response_method = ("decision_function", "predict_proba")

    def __init__(self, score: Callable[..., float], groups: str | None) -> None:
        self._score = score
        self._groups = groups
        self._scorer = make_scorer(score, response_method=self._response_method)

    def __call__(
        self,
        estimator: BaseEstimator,
        X: object,
        y_true: ArrayLike,
        sample_weight: ArrayLike | None = None,
        **metadata: ArrayLike,
    ) -> float:
        """Return the score of the estimator's ranking of X."""
        scorer = self._scorer
        if self._groups is not None or "groups" not in metadata:
            groups = self._users(estimator, X) if self._groups is None else self._column(X)
            scorer = make_scorer(self._score, response_method=self._response_method, groups=groups)
        if sample_weight is not None:
            metadata["sample_weight"] = sample_weight
        return scorer(estimator, X, y_true, **metadata)

    def __repr__(self) -> str:
        return f"group_roc_auc_scorer(groups={self._groups!r})"

    def set_score_request(self, **requests: bool | str | None) -> Self:
        """Request metadata (``groups``, ``sample_weight``) for the scorer; return self."""
        self._scorer.set_score_request(**requests)
        return self

    def get_metadata_routing(self) -> MetadataRequest:
        """Return the metadata request; groups of a column are never asked for."""
        routing = self._scorer.get_metadata_routing()
        if self._groups is not None:
            # The splitter may want groups: passing them must not be an error here.
            routing.score.add_request(param="groups", alias=False)
        return routing

    def _accept_sample_weight(self) -> bool:  # asked by scikit-learn's multimetric scoring
        return True

    def _column(self, X: object) -> ArrayLike:
        groups = _column_of(X, self._groups)
        if groups is not None:
            return groups
        raise ValueError(
            f"{self!r} reads a column of X, got a {type(X).__name__} whose columns are "
            f"{column_names(X)}. Pass X as a DataFrame with that column, or leave groups out and "
            "use metadata routing."
        )

    def _users(self, estimator: BaseEstimator, X: object) -> ArrayLike:
        """Return the user of each row, where the encoder names them: a column of X or encoded X."""
        if getattr(X, "users", None) is not None and not isinstance(X, pd.DataFrame):
            return X.user_keys  # type: ignore[attr-defined]
        estimator = getattr(estimator, "best_estimator_", estimator)
        inside = estimator.get_params().values() if hasattr(estimator, "get_params") else ()
        encoders = [step for step in (estimator, *inside) if hasattr(step, "inverse_transform_ids")]
        names = [encoder.user for encoder in encoders if encoder.user is not None]
        for name in names:
            users = _column_of(X, name)
            if users is not None:
                return users
        problem = "group_roc_auc_scorer() got no groups."
        if names:
            problem = f"X has no column {names[0]!r}, which the encoder calls the user."
        raise ValueError(
            f"{problem} Name the user, HistorySequenceEncoder(user='user'), and keep that column "
            "in X; or name the column of groups, group_roc_auc_scorer('user'); or pass groups by "
            "metadata routing, scorer.set_score_request(groups=True)."
        )


def _column_of(X: object, name: str | None) -> ArrayLike | None:
    names = column_names(X)
    return None if names is None or name not in names else X[name]  # type: ignore[index]


def group_roc_auc_scorer(groups: str | None = None) -> _GroupScorer:
    """Make a GAUC scorer for ``cross_val_score``, ``GridSearchCV`` and the like.

    Parameters
    ----------
    groups : str, default=None
        Name of the column of X with the groups. X is the frame passed to the search: the
        Pipeline gets the column too, and its encoder may drop it. None: the users of the
        Pipeline's encoder, ``HistorySequenceEncoder(user=...)``, or of encoded
        impressions. If there are none, or to use other groups, pass
        ``groups`` by metadata routing: set ``enable_metadata_routing``, call
        ``set_score_request(groups=True)`` on the scorer and pass ``groups`` as metadata.

    Returns
    -------
    callable
        A scorer ``(estimator, X, y)``; it ranks by ``decision_function`` or else
        ``predict_proba``, and takes ``sample_weight`` by metadata routing.

    See Also
    --------
    group_roc_auc_score : The score itself.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.compose import make_column_transformer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import GroupKFold, cross_val_score
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_din.metrics import group_roc_auc_scorer
    >>> X = pd.DataFrame({"user": [1, 1, 2, 2] * 5, "price": [3.0, 1.0, 9.0, 8.0] * 5})
    >>> model = make_pipeline(
    ...     make_column_transformer(("passthrough", ["price"])), LogisticRegression()
    ... )
    >>> folds = {"cv": GroupKFold(2), "groups": X["user"]}
    >>> cross_val_score(model, X, [1, 0, 1, 0] * 5, scoring=group_roc_auc_scorer("user"), **folds)
    array([1., 1.])
    """
    return _GroupScorer(group_roc_auc_score, groups)


def group_ndcg_score(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    groups: ArrayLike,
    k: int | None = 10,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Mean of the per-group NDCG at k, which discounts positives by their rank.

    Each group's rows are ranked by ``y_score``, the highest first. With m positives in the
    group, ``NDCG@k = sum_{r <= k} y_r / log2(1 + r)`` divided by the same for the best possible
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
        The list that each row belongs to (usually the user), of any hashable type.
    k : int or None, default=10
        Number of positions of each list to evaluate; None evaluates all.
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
    positions = np.arange(1, lists.longest + 1)
    gain = np.append(0.0, np.cumsum(1 / np.log2(1 + positions)))  # of the first 0, 1, 2, ...
    first, last = lists.start, lists.start + lists.shown
    expected = lists.positives / lists.size * (gain[last] - gain[first])
    best = gain[np.minimum(lists.n_positives, lists.longest)]
    return lists.mean(lists.sum_blocks(expected) / np.maximum(best, 1))


def group_recall_score(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    groups: ArrayLike,
    k: int | None = 10,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Mean of the per-group recall at k: the fraction of the positives among the first k rows.

    Each group's rows are ranked by ``y_score``, the highest first. ``recall@k`` is the number of
    positives in the first k positions over the number of positives in the group. With more than k
    positives in a group it stays below 1 (some papers divide by ``min(k, positives)`` instead).

    For rows with equal scores, the result is the expected value over all their orders.
    A group without a positive has no recall and is left out. The other groups count equally.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Labels with two values (numbers, booleans or strings); the larger is the positive class.
    y_score : array-like of shape (n_samples,)
        Probabilities of the positive class or decisions.
    groups : array-like of shape (n_samples,)
        The list that each row belongs to (usually the user), of any hashable type.
    k : int or None, default=10
        Number of positions of each list to evaluate; None evaluates all.
    sample_weight : array-like of shape (n_samples,), default=None
        A group's weight is the mean weight of its rows, so give all rows of a group the same
        weight. The ranking does not depend on it. None means 1 each.

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
    expected = lists.sum_blocks(lists.positives / lists.size * lists.shown)
    return lists.mean(expected / np.maximum(lists.n_positives, 1))


def group_hit_rate_score(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    groups: ArrayLike,
    k: int | None = 10,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Fraction of the groups with at least one positive among the first k rows (hit rate at k).

    Each group's rows are ranked by ``y_score``, the highest first; ``hit@k`` of a group is 1
    if a positive is among the first k positions and 0 otherwise. With one positive per group it
    equals the recall.

    Rows of equal scores have no order: the score is the probability of a hit where all their
    orders are equally likely. If the last ``r`` positions are taken from ``n`` equal rows with
    ``p`` positives, it is ``1 - C(n - p, r) / C(n, r)``. A group without a positive cannot have
    a hit and is left out. The other groups count equally.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Labels with two values (numbers, booleans or strings); the larger is the positive class.
    y_score : array-like of shape (n_samples,)
        Probabilities of the positive class or decisions.
    groups : array-like of shape (n_samples,)
        The list that each row belongs to (usually the user), of any hashable type.
    k : int or None, default=10
        Number of positions of each list to evaluate; None evaluates all, and every group
        with a positive is a hit.
    sample_weight : array-like of shape (n_samples,), default=None
        A group's weight is the mean weight of its rows, so give all rows of a group the same
        weight. The ranking does not depend on it. None means 1 each.

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
    ``1 / r`` if the first positive is at position ``r <= k``, and 0 if it is below.

    For rows with equal scores, the result is the expected value over all their orders.
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
        The list that each row belongs to (usually the user), of any hashable type.
    k : int or None, default=10
        Number of positions of each list to evaluate; None evaluates all.
    sample_weight : array-like of shape (n_samples,), default=None
        A group's weight is the mean weight of its rows, so give all rows of a group the same
        weight. The ranking does not depend on it. None means 1 each.

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
    hits = np.flatnonzero(lists.positives)
    block = hits[np.diff(lists.group[hits], prepend=-1) != 0]  # each group's first, if it has one
    size, positives = lists.size[block], lists.positives[block]
    n_terms = np.minimum(lists.shown[block], size - positives + 1)
    ends = np.cumsum(n_terms)
    after = np.arange(n_terms.sum()) - np.repeat(ends - n_terms, n_terms)  # j above
    block, size, positives = (np.repeat(each, n_terms) for each in (block, size, positives))
    chance = np.exp(_log_choose(size - 1 - after, positives - 1) - _log_choose(size, positives))
    reciprocal = chance / (lists.start[block] + after + 1)
    return lists.mean(lists.sum_blocks(reciprocal, block))


def relative_improvement(score: float, base_score: float) -> float:
    """Relative improvement of a model over the base model, measured from 0.5 (RelaImpr).

    ``(score - 0.5) / (base_score - 0.5) - 1``, as in Zhou et al. (KDD 2018, "Metrics"):
    a random model's AUC is 0.5, so only the excess counts.

    Parameters
    ----------
    score : float
        AUC or GAUC of the model.
    base_score : float
        The same of the base model; above 0.5.

    Returns
    -------
    float
        0.1 means ten percent better; negative means worse.

    Examples
    --------
    >>> from sklearn_din.metrics import relative_improvement
    >>> round(relative_improvement(0.72, 0.70), 6)
    0.1
    """
    for name, auc in {"score": score, "base_score": base_score}.items():
        if not isinstance(auc, Real) or not 0 <= auc <= 1:
            raise ValueError(f"{name} must be an AUC between 0 and 1, got {auc!r}.")
    if not base_score > 0.5:
        raise ValueError(
            f"base_score must be above 0.5, the AUC of a random ranking, got {base_score}: compare "
            "the scores themselves."
        )
    return float((score - 0.5) / (base_score - 0.5) - 1)


def correct_for_sampling(y_prob: ArrayLike, *, sampling_rate: float) -> Floats:
    """Correct the probabilities of a model trained on sampled negatives.

    A model trained on every positive but only a fraction w of the negatives predicts too
    many clicks; ``p / (p + (1 - p) / w)`` corrects this (He et al., ADKDD 2014,
    "Model Re-Calibration"). The order of the predictions, and so AUC and GAUC, do not change.

    Parameters
    ----------
    y_prob : array-like of shape (n_samples,)
        Predicted probabilities of the positive class.
    sampling_rate : float
        The fraction of the negatives that the model was trained on, in (0, 1].

    Returns
    -------
    ndarray of shape (n_samples,)
        Probabilities without the effect of sampling.

    Examples
    --------
    >>> from sklearn_din.metrics import correct_for_sampling
    >>> correct_for_sampling([0.0, 0.5, 1.0], sampling_rate=0.25)
    array([0. , 0.2, 1. ])
    """
    if not 0 < sampling_rate <= 1:
        raise ValueError(
            f"sampling_rate must be the fraction of negatives kept, in (0, 1], got {sampling_rate}."
        )
    prob = _check_scores(y_prob, name="y_prob")
    if prob.size and (prob.min() < 0 or prob.max() > 1):
        raise ValueError(
            f"y_prob must lie in [0, 1], got values from {prob.min()} to {prob.max()}. "
            "Pass probabilities, not decisions."
        )
    return prob / (prob + (1 - prob) / sampling_rate)


class _Lists(NamedTuple):
    """Each group's rows in blocks of equal scores, the highest first, group after group.

    By block: its group, the rows of that group before it, its rows, the positives among them, and
    the rows of it in the first k positions. By group: its first block, its positives, the mean
    weight of its rows. ``longest`` is the number of positions looked at in the longest list.
    """

    group: Integers
    start: Integers
    size: Integers
    positives: Integers
    shown: Integers
    first_block: Integers
    n_positives: Integers
    weight: Floats
    longest: int

    def sum_blocks(self, values: Floats, block: Integers | None = None) -> Floats:
        """Sum values of blocks (of all of them where none are named) by group."""
        group = self.group if block is None else self.group[block]
        totals = np.bincount(group, weights=values, minlength=self.weight.size)
        return totals.astype(np.float64, copy=False)

    def mean(self, values: Floats) -> float:
        """Weighted mean over the groups that have a positive."""
        has_positive = self.n_positives > 0
        weight = self.weight[has_positive]
        if not weight.any():
            raise ValueError(
                "a ranking metric needs at least one group with a positive and a weight above 0, "
                f"got {has_positive.sum()} with a positive. Evaluate on rows that hold clicks."
            )
        return float(np.average(values[has_positive], weights=weight))


def _read_lists(
    y_true: ArrayLike,
    y_score: ArrayLike,
    groups: ArrayLike,
    k: int | None,
    sample_weight: ArrayLike | None,
) -> _Lists:
    """Check the rows of a ranking metric and sort them into each group's list."""
    if k is not None and (isinstance(k, bool) or not isinstance(k, Integral) or k < 1):
        raise ValueError(f"k must be an integer of at least 1 or None (the whole list), got {k!r}.")
    positive, score, group, weight = _check_rows(y_true, y_score, groups, sample_weight)
    order, first, first_block = _sort_into_blocks(score, group)
    n_rows = np.bincount(group)
    block_group = group[order[first]]
    start = first - first[first_block][block_group]
    size = np.diff(first, append=score.size)
    longest = min(int(n_rows.max(initial=0)), score.size if k is None else int(k))
    in_order = positive[order]
    return _Lists(
        group=block_group,
        start=np.minimum(start, longest),
        size=size,
        positives=np.add.reduceat(in_order, first, dtype=np.intp) if first.size else first,
        shown=np.clip(longest - start, 0, size),
        first_block=first_block,
        n_positives=np.bincount(group, weights=positive).astype(np.intp),
        weight=np.bincount(group[order], weights=weight[order]) / n_rows,
        longest=longest,
    )


def _log_choose(n: Integers, r: Integers) -> Floats:
    return gammaln(n + 1) - gammaln(r + 1) - gammaln(n - r + 1)


def _sort_into_blocks(score: Floats, group: Integers) -> tuple[Integers, Integers, Integers]:
    """Return rows by group and falling score, and the first rows of equal scores, and of groups."""
    order = np.lexsort((-score, group))
    group, score = group[order], score[order]
    new_group = np.diff(group, prepend=-1) != 0
    new_score = np.append(True, score[1:] != score[:-1])[: score.size]
    first = np.flatnonzero(new_group | new_score)
    return order, first, np.flatnonzero(new_group[first])


def _auc_by_group(
    positive: NDArray[np.bool_], score: Floats, group: Integers, weight: Floats
) -> tuple[Floats, Floats]:
    """Return AUC (NaN for one class) and total weight of each group, by one sort over all."""
    if not group.size:
        return np.empty(0), np.empty(0)
    # Weights are scaled to mean 1 in each class of each group. That changes no AUC; without
    # sample weights the running sums below are then exact, with them they stay accurate.
    group_class = 2 * group + positive
    total = np.bincount(group_class, weights=weight)
    scale = np.divide(np.bincount(group_class), total, out=np.zeros_like(total), where=total > 0)
    scaled = weight * scale[group_class]

    order, first, first_block = _sort_into_blocks(score, group)
    hits = np.add.reduceat((scaled * positive)[order], first)
    misses = np.add.reduceat((scaled * ~positive)[order], first)
    above = np.cumsum(hits) - hits
    above -= above[first_block][group[order[first]]]
    won = np.add.reduceat(misses * (above + hits / 2), first_block)
    pairs = np.add.reduceat(hits, first_block) * np.add.reduceat(misses, first_block)
    auc = np.divide(won, pairs, out=np.full(len(first_block), np.nan), where=pairs > 0)
    return auc, np.bincount(group, weights=weight).astype(np.float64, copy=False)


def _check_rows(
    y_true: ArrayLike, y_score: ArrayLike, groups: ArrayLike, sample_weight: ArrayLike | None
) -> tuple[NDArray[np.bool_], Floats, Integers, Floats]:
    """Return True for positives, scores, numbers of groups and weights, one of each per row."""
    positive, score = _check_labels(y_true), _check_scores(y_score, name="y_score")
    group = read_groups(groups).codes
    check_consistent_length(positive, score, group)
    return positive, score, group, _check_weights(sample_weight, positive.size)


def _check_labels(y_true: ArrayLike) -> NDArray[np.bool_]:
    """Return True for the larger of two labels."""
    codes, labels = pd.factorize(pd.Series(column_or_1d(y_true)), sort=True)
    if (codes < 0).any():
        raise ValueError(
            f"y_true must not be missing, got {(codes < 0).sum()} missing labels. Drop these rows."
        )
    if len(labels) > 2:
        raise ValueError(
            f"y_true must have two labels, got {len(labels)}: {list(labels[:5])}. "
            "Turn them into clicked or not, for example y_true >= 4."
        )
    if len(labels) == 1 and labels[0] in (0, -1):  # nothing but negatives
        return np.zeros(codes.size, dtype=bool)
    return codes == len(labels) - 1


def _check_scores(values: ArrayLike, *, name: str) -> Floats:
    """Return scores or decisions as float64; infinity is a score, NaN is none."""
    score = np.asarray(values, dtype=np.float64)
    if score.ndim != 1:
        raise ValueError(
            f"{name} must be one-dimensional, got shape {score.shape}. "
            "Pass the positive class only: predict_proba(X)[:, 1]."
        )
    if np.isnan(score).any():
        raise ValueError(f"{name} must not be NaN, got {np.isnan(score).sum()} NaN.")
    return score


def _check_weights(sample_weight: ArrayLike | None, n_samples: int) -> Floats:
    if sample_weight is None:
        return np.ones(n_samples)
    weight = np.asarray(column_or_1d(sample_weight), dtype=np.float64)
    if weight.size != n_samples:
        raise ValueError(f"sample_weight must have {n_samples} values, got {weight.size}.")
    if not np.isfinite(weight).all() or (weight < 0).any() or not weight.any():
        raise ValueError(
            "sample_weight must be finite, from 0 on and not 0 throughout, got values from "
            f"{weight.min()} to {weight.max()}."
        )
    return weight
