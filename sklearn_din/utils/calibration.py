"""Predicted probabilities beside what came, in bins."""

import numpy as np

BINS = 10  # of as many rows each


def calibration_bins(y: np.ndarray, probability: np.ndarray) -> list[dict[str, float]]:
    """Return mean probability and rate of clicks of bins of rows, by probability; NaN is none."""
    in_order = np.argsort(probability)[: np.isfinite(probability).sum()]
    return [
        {"predicted": float(probability[rows].mean()), "observed": float(y[rows].mean())}
        for rows in np.array_split(in_order, BINS)
        if len(rows)
    ]
