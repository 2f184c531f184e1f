"""Which training rows are set aside for validation: any, the last ones, or whole groups."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from sklearn_din.training.inputs import check_rows


def split_rows(
    y: np.ndarray, groups: ArrayLike | None, *, how: str, share: float, seeds: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
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
    rows = np.arange(len(y))
    if how == "last":
        n_valid = max(1, round(share * len(y)))
        _check_rest(len(y) - n_valid, share, len(y), "rows")
        return rows[:-n_valid], rows[-n_valid:]
    if how == "groups":
        if groups is None:
            raise ValueError(
                "validation='groups' needs fit(..., groups=...), got None. In a Pipeline "
                "pass din__groups=X['user'], with 'din' the step's name."
            )
        groups = check_rows(groups, len(y), name="groups", numeric=False)
        n_groups = len(np.unique(groups))
        if n_groups < 2:
            raise ValueError(f"validation='groups' needs at least two groups, got {n_groups}.")
        _check_rest(n_groups - math.ceil(share * n_groups), share, n_groups, "groups")
        return next(
            GroupShuffleSplit(1, test_size=share, random_state=seeds).split(rows, y, groups)
        )
    _check_rest(len(y) - math.ceil(share * len(y)), share, len(y), "rows")
    smallest = min(np.bincount(y.astype(int)))
    is_enough = smallest >= 2 and min(share, 1 - share) * len(y) >= 2
    train, valid = train_test_split(
        rows, test_size=share, stratify=y if is_enough else None, random_state=seeds
    )
    return train, valid


def _check_rest(n_left: int, share: float, n: int, what: str) -> None:
    if n_left < 1:
        raise ValueError(
            f"validation_fraction={share:g} of {n} {what} leaves no training rows. Lower it, or "
            f"give more {what}."
        )
