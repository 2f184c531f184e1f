"""Which training rows are set aside for validation: any, the last ones, or whole groups."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from sklearn_din.training.inputs import check_rows

Rows = tuple[np.ndarray, np.ndarray]  # row numbers to train on, row numbers to validate on


def split_rows(
    y: np.ndarray,
    groups: ArrayLike | None,
    *,
    how: str,
    share: float,
    seeds: np.random.RandomState,
    times: np.ndarray | None = None,
) -> Rows:
    """Training rows and validation rows.

    Parameters
    ----------
    y : ndarray of shape (n,)
        1.0 for a click. "random" keeps its share of clicks in both parts, if there are enough.
    groups : array-like of shape (n,) or None
        Needed by "groups".
    how : {"random", "last", "groups"}
        Any rows, the last ones, or all rows of some groups.
    share : float
        Share of the rows (or of the groups) set aside.
    seeds : RandomState
        Draws them.
    times : ndarray of shape (n,), default=None
        When each row was. "last" takes the rows from some time on; the time is the one for which
        their number is nearest to the share. None: the last rows in the given order.

    Returns
    -------
    train : ndarray of shape (n_train,)
    valid : ndarray of shape (n_valid,)
        Row numbers.

    Raises
    ------
    ValueError
        Where no row is left to train on, or groups are wanted and are not there.

    Examples
    --------
    >>> import numpy as np
    >>> split_rows(np.zeros(5), None, how="last", share=0.2, seeds=np.random.RandomState(0))
    (array([0, 1, 2, 3]), array([4]))
    """
    if how == "groups":
        return _whole_groups(y, groups, share=share, seeds=seeds)
    if how == "last":
        n_valid = max(1, round(share * len(y)))
        _check_rest(len(y) - n_valid, share, len(y), "rows")
        if times is not None:
            return _from_a_time_on(times, n_wanted=n_valid)
        rows = np.arange(len(y))
        return rows[:-n_valid], rows[-n_valid:]
    return _any_rows(y, share=share, seeds=seeds)


def _whole_groups(
    y: np.ndarray, groups: ArrayLike | None, *, share: float, seeds: np.random.RandomState
) -> Rows:
    if groups is None:
        raise ValueError(
            "validation='groups' needs to know whose each row is, got neither users nor groups. "
            "Name the column to the encoder, HistorySequenceEncoder(user='user'), or pass "
            "fit(..., groups=...): in a Pipeline din__groups=X['user'], with 'din' the step's "
            "name."
        )
    groups = check_rows(groups, len(y), name="groups", numeric=False)
    codes, names = pd.factorize(groups, sort=True)
    n_missing = int((codes < 0).sum())
    if n_missing:
        raise ValueError(
            f"groups must not be missing, got {n_missing} rows without a user or group. Give "
            "them one of their own, or drop them."
        )
    if len(names) < 2:
        raise ValueError(f"validation='groups' needs at least two groups, got {len(names)}.")
    _check_rest(len(names) - math.ceil(share * len(names)), share, len(names), "groups")
    splitter = GroupShuffleSplit(1, test_size=share, random_state=seeds)
    return next(splitter.split(codes, y, codes))


def _from_a_time_on(times: np.ndarray, *, n_wanted: int) -> Rows:
    """Rows before a time and rows from it on: equal times are never parted."""
    n_missing = int(pd.isna(times).sum())
    if n_missing:
        raise ValueError(
            f"validation='last' needs the time of every row, got {n_missing} missing. Drop those "
            "rows or fill the times in."
        )
    in_order = np.sort(times)
    starts = np.flatnonzero(in_order[1:] != in_order[:-1]) + 1  # where another time begins
    if not len(starts):
        raise ValueError(
            f"validation='last' needs rows of at least two different times, got {len(times)} rows "
            "of one time. Use validation='random' or 'groups'."
        )
    nearest = starts[np.argmin(np.abs(starts - (len(times) - n_wanted)))]
    is_late = times >= in_order[nearest]
    return np.flatnonzero(~is_late), np.flatnonzero(is_late)


def _any_rows(y: np.ndarray, *, share: float, seeds: np.random.RandomState) -> Rows:
    _check_rest(len(y) - math.ceil(share * len(y)), share, len(y), "rows")
    smallest = min(np.bincount(y.astype(int)))
    is_enough = smallest >= 2 and min(share, 1 - share) * len(y) >= 2
    train, valid = train_test_split(
        np.arange(len(y)), test_size=share, stratify=y if is_enough else None, random_state=seeds
    )
    return train, valid


def _check_rest(n_left: int, share: float, n: int, what: str) -> None:
    if n_left < 1:
        raise ValueError(
            f"validation_fraction={share:g} of {n} {what} leaves no training rows. Lower it, or "
            f"give more {what}."
        )
