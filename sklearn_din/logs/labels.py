"""Which rows of a log were clicks, by their labels: what HistoryBuilder is told."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils.validation import column_or_1d


def checked_labels(y: ArrayLike | None) -> np.ndarray:
    """Labels as an array without missing ones."""
    if y is None:
        raise ValueError(
            "HistoryBuilder(events='positive') needs y to know which rows were clicks, got None. "
            "Pass y, or set events='all'."
        )
    labels = column_or_1d(y)
    if pd.isna(labels).any():
        raise ValueError("y must not have missing labels. Drop those rows or fill them in.")
    return labels


def two_classes(y: ArrayLike | None) -> np.ndarray:
    """The two labels, the smaller one first."""
    classes = np.unique(checked_labels(y))
    if len(classes) != 2:
        raise ValueError(
            f"HistoryBuilder(events='positive') needs two classes in y, got {classes.tolist()}. "
            "Set events='all' to remember every row."
        )
    return classes
