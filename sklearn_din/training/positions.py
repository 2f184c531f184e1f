"""Frequencies of the positions at which rows were shown."""

import numpy as np

from sklearn_din.training.batches import ImpressionBatches
from sklearn_din.training.target import Target
from sklearn_din.utils.warnings import warn_once

MOST_POSITIONS = 100  # larger positions count as this one


def position_shares(train: ImpressionBatches, target: Target) -> tuple[float, ...]:
    """Return the fraction of rows at each position; of clicks, half counts what all others do.

    The mean favour of clicks lies above that of all rows: between that of clicks and that of
    other rows is the favour whose probability is, to second order, the mean of all positions'.
    """
    if train.X.positions is None:
        return ()
    positions = train.X.positions if train.rows is None else train.X.positions[train.rows]
    positions = np.minimum(positions, MOST_POSITIONS)
    kinds, known = target.kinds(train.y), positions > 0
    counts = [
        np.bincount(positions[known & (kinds == kind)], minlength=positions.max(initial=1) + 1)
        for kind in np.unique(kinds[known])
    ]
    shares = [count[1:] / count.sum() for count in counts]
    at = np.unique(positions[known]).tolist()
    if len(at) < 2:
        alike = f"were at position {at[0]}" if at else "have none"
        warn_once(
            f"nothing is learnt of positions: all rows to train on {alike}. Give rows that "
            "were shown at several positions, or leave the encoder's position out."
        )
    return tuple(np.mean(shares, axis=0).tolist()) if shares else (0.0,)
