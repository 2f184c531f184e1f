"""Validation rows to hold out: random ones, the last ones, or all rows of some groups."""

import math

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.model_selection import GroupShuffleSplit, train_test_split
from skorch import NeuralNet

from sklearn_din.training.inputs import check_rows
from sklearn_din.training.target import Click
from sklearn_din.utils.keys import Keys, read_groups
from sklearn_din.utils.spans import row_dtype, row_of_nearest_change
from sklearn_din.utils.warnings import warn_user

MOST_PARTS = 8  # chunks of the pass over validation rows; weights are averaged after each
ROWS_PER_PART = 32  # minimum per chunk
FEW_ROWS = 3_000
FEW_LABELS = 300  # of the rarer kind
LEAST_ROWS = 10  # fewer rows do not make folds
Groups = ArrayLike | Keys
SplitRows = tuple[np.ndarray, np.ndarray]  # row numbers to train on, row numbers to validate on


def are_few(net: NeuralNet, y: np.ndarray) -> bool:
    """Return whether the labels are too few to validate on, and the user has not chosen a way."""
    if type(net.target) is not Click or net.early_stopping != "auto" or len(y) < LEAST_ROWS:
        return False
    callbacks = [pair[1] if isinstance(pair, tuple) else pair for pair in net.callbacks or ()]
    if any(getattr(callback, "monitor", None) for callback in callbacks):
        return False
    n_rarer = min(int(y.sum()), len(y) - int(y.sum()))
    return n_rarer > 0 and (len(y) < FEW_ROWS or n_rarer < FEW_LABELS)


def choose_validation(how: str, times: np.ndarray | None) -> str:
    """Resolve validation="auto", which warns of times for which "last" raises."""
    if how != "auto":
        return how
    if times is None:
        return "random"
    trouble = why_no_order(times)
    if not trouble:
        return "last"
    warn_user(
        "validation='auto' validates on random rows, because the times do not say which rows are "
        f"the last ones. Validation by time needs {trouble}"
    )
    return "random"


def split_rows(
    y: np.ndarray,
    groups: Groups | None,
    *,
    how: str,
    fraction: float,
    seeds: np.random.RandomState,
    times: np.ndarray | None = None,
    originals: np.ndarray | None = None,
) -> SplitRows:
    """Return the numbers of training rows and of validation rows.

    "random" keeps the fraction of clicks in both parts, and copies of a row with the one of
    ``originals``; "last" cuts by time, or in the given order; "groups" takes all rows of some.
    """
    if how == "groups":
        codes = number_groups(groups, len(y))
        n_groups = codes.max() + 1
        _check_rest(n_groups - math.ceil(fraction * n_groups), fraction, n_groups, "groups")
        splitter = GroupShuffleSplit(1, test_size=fraction, random_state=seeds)
        return next(splitter.split(codes, y, codes))
    if how == "last":
        n_valid = max(1, round(fraction * len(y)))
        _check_rest(len(y) - n_valid, fraction, len(y), "rows")
        if times is not None:
            return rows_from_a_time_on(times, n_wanted=n_valid)
        rows = row_numbers(len(y))
        return rows[:-n_valid], rows[-n_valid:]
    originals = np.arange(len(y)) if originals is None else originals
    rows = np.unique(originals)
    train, valid = _any_rows(y[rows], fraction=fraction, seeds=seeds)
    if len(rows) == len(y):
        return train, valid
    is_valid = np.isin(originals, rows[valid])
    return row_numbers(~is_valid), row_numbers(is_valid)


def number_groups(groups: Groups | None, n_rows: int) -> np.ndarray:
    """Return the group of each row, numbered from 0; an error where there are not two."""
    if groups is None or (isinstance(groups, Keys) and not len(groups.values)):
        raise ValueError(
            "validation='groups' needs the user or group of each row, got neither users nor "
            "groups. Name the user column, HistorySequenceEncoder(user='user'), or pass "
            "fit(..., groups=...): in a Pipeline din__groups=X['user'], with 'din' the step's "
            "name."
        )
    codes = check_rows(read_groups(groups).ranks, n_rows, name="groups").astype(np.int64)
    n_groups = codes.max(initial=-1) + 1
    if n_groups < 2:
        raise ValueError(
            f"validation='groups' needs at least two groups, got {n_groups}. Use "
            "validation='random' or 'last'."
        )
    return codes


def rows_from_a_time_on(times: np.ndarray, *, n_wanted: int) -> SplitRows:
    """Row numbers before a time, and some ``n_wanted`` from it on; equal times stay together."""
    trouble = why_no_order(times)
    if trouble:
        raise ValueError(f"validation='last' needs {trouble}")
    (cut,) = late_times(times, n_wanted=n_wanted)
    is_late = times >= cut
    return row_numbers(~is_late), row_numbers(is_late)


def cut_in_time(rows: np.ndarray, times: np.ndarray | None) -> list[np.ndarray]:
    """Divide rows into up to eight chunks in order of time; none if two would be too small."""
    n_parts = min(len(rows) // ROWS_PER_PART, MOST_PARTS)
    if n_parts < 2:
        return []
    if times is not None:
        rows = rows[np.argsort(times[rows], kind="stable")]
    return np.array_split(rows, n_parts)


def row_numbers(chosen: np.ndarray | int) -> np.ndarray:
    """Numbers of the rows that a mask marks, or of the first n rows: int32 if they fit."""
    if isinstance(chosen, int):
        return np.arange(chosen, dtype=row_dtype(chosen))
    return np.flatnonzero(chosen).astype(row_dtype(len(chosen)))


def late_times(times: np.ndarray, *, n_wanted: int, n_times: int = 1) -> np.ndarray:
    """Times from which on about ``n_wanted``, twice, three times as many rows are left.

    >>> late_times(np.array([4, 1, 2, 3]), n_wanted=1, n_times=2)
    array([3, 4])
    """
    in_order = times if (times[1:] >= times[:-1]).all() else np.sort(times)
    rows = len(times) - n_wanted * np.arange(1, n_times + 1)
    cuts = {row_of_nearest_change(in_order, int(row)) for row in rows}
    return in_order[sorted(cuts)]


def why_no_order(times: np.ndarray) -> str:
    """Return why times do not define the last rows; an empty string if they do."""
    n_missing = int(pd.isna(times).sum())
    if n_missing:
        return (
            f"the time of every row, got {n_missing} missing. Drop those rows or fill the times in."
        )
    if not (times[1:] != times[:-1]).any():
        return (
            f"rows of at least two different times, got {len(times)} rows of one time. Use "
            "validation='random' or 'groups'."
        )
    return ""


def _any_rows(y: np.ndarray, *, fraction: float, seeds: np.random.RandomState) -> SplitRows:
    _check_rest(len(y) - math.ceil(fraction * len(y)), fraction, len(y), "rows")
    smallest = min(np.bincount(y.astype(int)))
    is_enough = smallest >= 2 and min(fraction, 1 - fraction) * len(y) >= 2
    train, valid = train_test_split(
        np.arange(len(y)), test_size=fraction, stratify=y if is_enough else None, random_state=seeds
    )
    return train, valid


def _check_rest(n_left: int, fraction: float, n: int, what: str) -> None:
    if n_left < 1:
        raise ValueError(
            f"validation_fraction={fraction:g} of {n} {what} leaves no training rows. Lower it, or "
            f"give more {what}."
        )
