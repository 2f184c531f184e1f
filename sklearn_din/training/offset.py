"""The offset of a network's logit: whether training rows show that an online model helps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sklearn_din.training.target import Click, find_constant

if TYPE_CHECKING:
    from sklearn_din.training.batches import ImpressionBatches
    from sklearn_din.training.target import Output, Target

LEAST_GAIN = 2.0  # nats, of all training rows


def choose_offset(name: str, train: ImpressionBatches, target: Target) -> tuple[str, Output | None]:
    """Return the field that is added to the logit, and the output from which training starts.

    An online model gives each row the log-odds of a click from earlier labels only. They become the
    offset where they predict the training rows better than the base rate does. A column that only
    has the same name, or an estimate from random labels, does not.

    Parameters
    ----------
    name : str
        The field of ``train.X`` with such log-odds; "" without one.

    Returns
    -------
    name : str
        The same; "" where it is not added.
    constant : float, array or None
        The constant that is best beside the offset, or by itself. None where there is none.
    """
    y, weights = train.y, train.weights
    if not target.has_constant(y):
        return "", None
    base = target.constant(y, weights)
    if not name or type(target) is not Click:
        return "", base
    column = train.X.columns[name]
    offsets = np.asarray(column if train.rows is None else column[train.rows], dtype=np.float64)
    constant = find_constant(offsets, y, weights)
    gain = _loss(np.full(len(y), base), y, weights) - _loss(constant + offsets, y, weights)
    return (name, constant) if gain > LEAST_GAIN else ("", base)


def _loss(logits: np.ndarray, y: np.ndarray, weights: np.ndarray | None) -> float:
    """Return the sum of log losses."""
    losses = np.logaddexp(0.0, logits) - y * logits
    return float(np.sum(losses if weights is None else weights * losses))
