"""The offset of a network's logit: whether training rows show that an online model helps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sklearn_din.training.target import Click

if TYPE_CHECKING:
    from sklearn_din.training.batches import ImpressionBatches
    from sklearn_din.training.target import Target

LEAST_GAIN = 2.0  # nats, of all training rows
MOST_STEPS = 50  # of Newton's method, which needs about five
TINY = 1e-9


def choose_offset(train: ImpressionBatches, target: Target) -> tuple[str, float]:
    """Return the field that is added to the logit, and the constant that is best beside it.

    An online model gives each row the log-odds of a click from earlier labels only. They become the
    offset where they predict the training rows better than the base rate does. A column that only
    has the same name, or an estimate from random labels, does not.

    Returns
    -------
    name : str
        The field of ``train.X``; "" without an offset.
    constant : float
        Log-odds that are added to the offset of each row, so that the mean of all probabilities is
        the base rate.
    """
    name, y = train.X.schema.offset, train.y
    if not name or type(target) is not Click or not target.has_constant(y):
        return "", 0.0
    column = train.X.columns[name]
    offsets = np.asarray(column if train.rows is None else column[train.rows], dtype=np.float64)
    weights = np.ones(len(y)) if train.weights is None else train.weights.astype(np.float64)
    base = target.constant(y, train.weights)
    constant = best_constant(offsets, y, weights)
    gain = _loss(np.full(len(y), base), y, weights) - _loss(constant + offsets, y, weights)
    return (name, constant) if gain > LEAST_GAIN else ("", 0.0)


def best_constant(offsets: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    """Return the constant that has the smallest log loss, added to offsets of rows.

    >>> round(best_constant(np.array([0.0, 0.0, 0.0]), np.array([1, 0, 0]), np.ones(3)), 4)
    -0.6931
    """
    constant, low, high = 0.0, -offsets.max() - 50.0, 50.0 - offsets.min()
    for _ in range(MOST_STEPS):
        rates = 1 / (1 + np.exp(-np.clip(constant + offsets, -50.0, 50.0)))
        slope = float(weights @ (rates - y))
        low, high = (constant, high) if slope < 0 else (low, constant)
        step = slope / (float(weights @ (rates * (1 - rates))) + TINY)
        if abs(step) < TINY:
            break
        newton = constant - step
        constant = newton if low < newton < high else (low + high) / 2
    return float(constant)


def _loss(logits: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    """Return the sum of log losses."""
    return float(weights @ (np.logaddexp(0.0, logits) - y * logits))
