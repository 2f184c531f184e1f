"""How good a ranking is: GAUC and its scorer, RelaImpr, NDCG and its like, calibration."""

from __future__ import annotations

from numbers import Real

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_consistent_length

from sklearn_din._group_scorer import GroupScorer
from sklearn_din._metric_checks import (
    check_binary_labels,
    check_group_codes,
    check_probabilities,
    check_scores,
    check_weights,
)
from sklearn_din._ranking_metrics import (
    group_hit_rate_score,
    group_mrr_score,
    group_ndcg_score,
    group_recall_score,
)

__all__ = [
    "correct_for_sampling",
    "expected_calibration_error",
    "group_hit_rate_score",
    "group_mrr_score",
    "group_ndcg_score",
    "group_recall_score",
    "group_roc_auc_score",
    "group_roc_auc_scorer",
    "relative_improvement",
]


def group_roc_auc_score(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    groups: ArrayLike,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Impression-weighted mean of the per-group ROC AUC (GAUC).

    The AUC over all impressions also rewards telling users who click often from those who
    click rarely. GAUC asks only whether each group's (usually: each user's) own impressions
    are ranked well: ``sum_g w_g AUC_g / sum_g w_g`` (Zhou et al., KDD 2018, "Metrics"), where
    ``w_g`` is the number of impressions of group g, or the sum of their sample weights.

    A group whose labels are all equal has no AUC: it is left out, and so is its weight.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Labels with two values (numbers, booleans or strings); the larger is the positive class.
    y_score : array-like of shape (n_samples,)
        Probabilities of the positive class or decisions; equal scores count half.
    groups : array-like of shape (n_samples,)
        The group of each impression, of any type that can be hashed.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights within each group's AUC and, summed, of the group. None means 1 each.

    Returns
    -------
    float
        Between 0 and 1; 0.5 for scores that know nothing about a group's own impressions.

    Raises
    ------
    ValueError
        If no group holds both classes, or an input is missing, misshapen or not binary.

    Examples
    --------
    >>> from sklearn_din.metrics import group_roc_auc_score
    >>> users = ["ann", "ann", "bob", "bob", "cem", "cem"]
    >>> group_roc_auc_score([1, 0, 0, 1, 1, 1], [.9, .1, .8, .3, .5, .6], groups=users)
    0.5
    """
    positive = check_binary_labels(y_true)
    score = check_scores(y_score, name="y_score")
    group = check_group_codes(groups)
    check_consistent_length(positive, score, group)
    weight = check_weights(sample_weight, positive.size)
    auc, group_weight = _auc_by_group(positive, score, group, weight)
    ranked = ~np.isnan(auc)
    if not ranked.any():
        raise ValueError(
            f"GAUC needs at least one group with both classes, got {auc.size} groups of one "
            "class each. Use larger groups, or more impressions per group."
        )
    return float(np.average(auc[ranked], weights=group_weight[ranked]))


def group_roc_auc_scorer(groups: str | None = None) -> GroupScorer:
    """Make a GAUC scorer for ``cross_val_score``, ``GridSearchCV`` and the like.

    Parameters
    ----------
    groups : str, default=None
        Name of the column of X that holds the groups. X is what the search receives: a
        Pipeline sees the column too, and its encoder may drop it. None: the users that the
        Pipeline's encoder was told of, ``HistorySequenceEncoder(user=...)``, or that encoded
        impressions carry. Where there are none, or other groups are wanted, None takes
        ``groups`` by metadata routing: switch ``enable_metadata_routing`` on, call
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
    >>> from sklearn.model_selection import cross_val_score
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_din.metrics import group_roc_auc_scorer
    >>> X = pd.DataFrame({"user": [1, 1, 2, 2] * 5, "price": [3.0, 1.0, 9.0, 8.0] * 5})
    >>> model = make_pipeline(
    ...     make_column_transformer(("passthrough", ["price"])), LogisticRegression()
    ... )
    >>> cross_val_score(model, X, [1, 0, 1, 0] * 5, scoring=group_roc_auc_scorer("user"), cv=2)
    array([1., 1.])
    """
    return GroupScorer(group_roc_auc_score, groups)


def relative_improvement(score: float, base_score: float) -> float:
    """How much more of the way from 0.5 a model covers than the base model (RelaImpr).

    ``(score - 0.5) / (base_score - 0.5) - 1``, as in Zhou et al. (KDD 2018, "Metrics"):
    a random model's AUC is 0.5, so only what lies above counts.

    Parameters
    ----------
    score : float
        AUC or GAUC of the model.
    base_score : float
        The same of the base model; above 0.5.

    Returns
    -------
    float
        0.1 means ten per cent better; negative means worse.

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
            f"base_score must be above 0.5, the AUC of a random ranking, got {base_score}. "
            "A base model that knows nothing cannot be improved on in relative terms: "
            "compare the scores themselves."
        )
    return float((score - 0.5) / (base_score - 0.5) - 1)


def expected_calibration_error(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    n_bins: int = 10,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Mean distance between predicted and observed click rate, over bins of equal count.

    Impressions are cut at the quantiles of ``y_prob``; equal probabilities share a bin.
    Each bin counts by its weight: ``sum_b w_b |mean(y_b) - mean(p_b)| / sum_b w_b``.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Labels with two values; the larger is the positive class.
    y_prob : array-like of shape (n_samples,)
        Probabilities of the positive class.
    n_bins : int, default=10
        Number of bins; fewer are used where probabilities repeat.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the impressions in the means; the bins hold equal counts of rows.

    Returns
    -------
    float
        0 for perfect calibration. Sampling noise alone gives about
        ``sqrt(n_bins * p * (1 - p) / n_samples)``.

    Examples
    --------
    >>> from sklearn_din.metrics import expected_calibration_error
    >>> expected_calibration_error([0, 0, 0, 1], [0.5, 0.5, 0.5, 0.5])
    0.25
    """
    if n_bins < 1:
        raise ValueError(f"n_bins must be at least 1, got {n_bins}.")
    positive = check_binary_labels(y_true)
    prob = check_probabilities(y_prob)
    check_consistent_length(positive, prob)
    weight = check_weights(sample_weight, positive.size)
    edges = np.quantile(prob, np.arange(1, n_bins) / n_bins)
    bins = np.searchsorted(edges, prob)
    gap = np.bincount(bins, weights=weight * (positive - prob))
    return float(np.abs(gap).sum() / weight.sum())


def correct_for_sampling(y_prob: ArrayLike, *, sampling_rate: float) -> NDArray[np.float64]:
    """Turn probabilities of a model trained on sampled negatives back to true ones.

    A model that saw every positive but only a share w of the negatives predicts too
    many clicks; ``p / (p + (1 - p) / w)`` is the way back (He et al., ADKDD 2014,
    "Model Re-Calibration"). The order of the predictions, and so AUC and GAUC, stay as they are.

    Parameters
    ----------
    y_prob : array-like of shape (n_samples,)
        Predicted probabilities of the positive class.
    sampling_rate : float
        The share of the negatives that the model was trained on, in (0, 1].

    Returns
    -------
    ndarray of shape (n_samples,)
        Probabilities as they are without sampling.

    Examples
    --------
    >>> from sklearn_din.metrics import correct_for_sampling
    >>> correct_for_sampling([0.0, 0.5, 1.0], sampling_rate=0.25)
    array([0. , 0.2, 1. ])
    """
    if not 0 < sampling_rate <= 1:
        raise ValueError(
            "sampling_rate must be the share of negatives kept, above 0 and at most 1, "
            f"got {sampling_rate}."
        )
    prob = check_probabilities(y_prob)
    return prob / (prob + (1 - prob) / sampling_rate)


def _auc_by_group(
    positive: NDArray[np.bool_],
    score: NDArray[np.float64],
    group: NDArray[np.intp],
    weight: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """AUC (NaN for one class) and total weight of each group, by one sort over all."""
    if not group.size:
        return np.empty(0), np.empty(0)
    order = np.lexsort((score, group))
    positive, score, group, weight = positive[order], score[order], group[order], weight[order]
    n_groups = int(group[-1]) + 1
    group_weight = np.bincount(group, weights=weight, minlength=n_groups)
    # Weights are scaled to mean 1 in each class of each group. That changes no AUC; without
    # sample weights the running sums below are then exact, with them they stay accurate.
    group_class = 2 * group + positive
    total = np.bincount(group_class, weights=weight)
    scale = np.divide(np.bincount(group_class), total, out=np.zeros_like(total), where=total > 0)
    weight = weight * scale[group_class]

    new_group = np.diff(group, prepend=-1) != 0
    first = np.flatnonzero(new_group | np.append(True, score[1:] != score[:-1]))  # of equals
    hits = np.add.reduceat(weight * positive, first)
    misses = np.add.reduceat(weight * ~positive, first)
    first_block = np.flatnonzero(new_group[first])  # of each group
    below = np.cumsum(misses) - misses
    below -= below[first_block][group[first]]
    won = np.add.reduceat(hits * (below + misses / 2), first_block)
    pairs = np.add.reduceat(hits, first_block) * np.add.reduceat(misses, first_block)
    auc = np.divide(won, pairs, out=np.full(n_groups, np.nan), where=pairs > 0)
    return auc, group_weight.astype(np.float64, copy=False)
