"""What every metric checks: labels, scores, groups and weights, one of each per row."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import column_or_1d


def check_binary_labels(y_true: ArrayLike) -> NDArray[np.bool_]:
    """Return True where the label is the larger of two."""
    codes, labels = pd.factorize(pd.Series(column_or_1d(y_true)), sort=True)
    if (codes < 0).any():
        raise ValueError(
            f"y_true must not be missing, got {(codes < 0).sum()} missing labels. "
            "Drop these impressions."
        )
    if len(labels) > 2:
        raise ValueError(
            f"y_true must have two labels, got {len(labels)}: {list(labels[:5])}. "
            "Turn them into clicked or not, for example y_true >= 4."
        )
    if len(labels) == 1 and labels[0] in (0, -1):  # nothing but negatives
        return np.zeros(codes.size, dtype=bool)
    return codes == len(labels) - 1


def check_scores(values: ArrayLike, *, name: str) -> NDArray[np.float64]:
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


def check_probabilities(values: ArrayLike) -> NDArray[np.float64]:
    """Return probabilities as float64."""
    prob = check_scores(values, name="y_prob")
    if prob.size and (prob.min() < 0 or prob.max() > 1):
        raise ValueError(
            f"y_prob must lie in [0, 1], got values from {prob.min()} to {prob.max()}. "
            "Pass probabilities, not decisions."
        )
    return prob


def check_group_codes(groups: ArrayLike) -> NDArray[np.intp]:
    """Number the groups from 0, in the order in which they come."""
    if isinstance(groups, pd.DataFrame) or np.ndim(groups) != 1:
        is_frame = isinstance(groups, pd.DataFrame)
        got = "a DataFrame" if is_frame else f"shape {np.shape(groups)}"
        raise ValueError(f"groups must be one column, X['user'], got {got}.")
    codes = pd.factorize(pd.Series(groups))[0]
    if (codes < 0).any():
        raise ValueError(
            f"groups must not be missing, got {(codes < 0).sum()} impressions without a group. "
            "Give them one of their own, or drop them."
        )
    return codes


def check_weights(sample_weight: ArrayLike | None, n_samples: int) -> NDArray[np.float64]:
    """Return one weight per row, 1 where none are given."""
    if sample_weight is None:
        return np.ones(n_samples)
    weight = np.asarray(column_or_1d(sample_weight), dtype=np.float64)
    if weight.size != n_samples:
        raise ValueError(f"sample_weight must have {n_samples} values, got {weight.size}.")
    if not np.isfinite(weight).all() or (weight < 0).any() or not weight.any():
        raise ValueError(
            "sample_weight must be finite, not negative and not zero throughout, got values "
            f"from {weight.min()} to {weight.max()}."
        )
    return weight
