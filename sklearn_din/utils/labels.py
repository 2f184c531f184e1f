"""Labels of rows: which of two classes each one has, whatever its dtype, or a number."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import column_or_1d

SHOWN = 5  # classes that a message names
MANY = "Make it click or no click first, or let DINRegressor predict the number."
FEW = "A click log holds clicks only: sample_negatives adds what was not clicked."
NO_CLASS = "none: every row lacks the label"


def first_labels(y: ArrayLike | None) -> np.ndarray:
    """Return the labels of rows, None where one is missing: of several columns, the first."""
    if y is None:
        raise ValueError(
            "HistoryBuilder needs y to know which rows were clicks, got None. Pass y, or set "
            "events='all' and levels=None, without LABEL."
        )
    several = np.asarray(y)
    is_frame = several.ndim == 2 and several.shape[1] > 1
    labels = several[:, 0].astype(object) if is_frame else column_or_1d(y)
    is_missing = pd.isna(labels)
    if is_missing.any():
        labels = labels.astype(object)
        labels[is_missing] = None
    return labels


def two_classes(labels: np.ndarray, otherwise: str = "") -> np.ndarray:
    """Return the two kinds of labels, none missing; the larger one is the click.

    otherwise : what to do where there are not two; of a classifier's labels by default
    """
    classes = np.unique(labels)
    if len(classes) > 2:
        target = type_of_target(labels, input_name="y", raise_unknown=True)
        raise ValueError(
            f"Only binary classification is supported. The type of the target is {target}: y has "
            f"{len(classes)} classes, {classes[:SHOWN].tolist()} among them. {otherwise or MANY}"
        )
    if len(classes) < 2:
        there = f"one class only: {classes.tolist()}" if len(classes) else NO_CLASS
        raise ValueError(f"y must have two classes, got {there}. {otherwise or FEW}")
    return classes


def as_classes(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return labels as those of two classes that they are; others stay what they are.

    1, 1.0, True and "1" are one label.

    >>> as_classes(np.array(["1", "0", "1"]), np.array([False, True]))
    array([ True, False,  True])
    """
    codes, values = pd.factorize(labels, use_na_sentinel=False)
    by_name, own = {label_name(label): label for label in classes.tolist()}, values.tolist()
    as_fitted = [by_name.get(label_name(label), label) for label in own]
    is_known = not {*map(label_name, own)} - {*by_name}
    return np.array(as_fitted, dtype=classes.dtype if is_known else object)[codes]


def match_classes(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return 1 for the second of two classes, 0 for the first, NaN where a label is missing."""
    labels, is_missing = as_classes(labels, classes), pd.isna(labels)
    unseen = pd.unique(labels[~pd.Series(labels).isin(classes).to_numpy() & ~is_missing]).tolist()
    if unseen:
        others = " and others" if len(unseen) > SHOWN else ""
        raise ValueError(
            f"y has labels {unseen[:SHOWN]}{others} that were not seen at fit: "
            f"{classes.tolist()}. Give what came of each row, no probabilities."
        )
    return np.where(is_missing, np.nan, labels == classes[1]).astype(np.float64)


def is_one_hot(values: np.ndarray) -> bool:
    """Return whether each row has a single 1 beside zeros, and each column both."""
    if values.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all():
        return False
    return bool((values.sum(axis=1) == 1).all() and values.any(axis=0).all())


def label_name(label: object) -> str:
    """Return the text that a label has whatever its type: "1" of 1, 1.0, True and "1.0"."""
    is_whole = isinstance(label, bool | np.bool_)
    is_whole |= isinstance(label, float | np.floating) and float(label).is_integer()
    return str(int(label) if is_whole else label).removesuffix(".0")  # type: ignore[call-overload]
