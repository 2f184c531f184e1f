"""Columns of a click log that belong to the item, or to the user: negatives need to know."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sklearn_din.logs.distinct import value_codes

SAMPLED_ROWS = 1000  # repeated rows that are looked at first: most columns fail here
CHECKED_ROWS = 100_000  # and then: more would only cost time
MIN_OWNERS = 5  # items (or users) that must have several rows
MIN_SURPRISE = 14.0  # natural logarithm of a million


@dataclass(frozen=True)
class Repeats:
    """Rows of an owner that has several, each beside the owner's last row.

    A column belongs to its owner where the two rows always agree, although rows of other owners
    differ. Chance must be no explanation: with the column's shares, so many agreements must be
    less probable than one in a million.

    Parameters
    ----------
    rows : ndarray of int64, shape (n_repeats,)
        Rows that are not their owner's last one.
    last : ndarray of int64, shape (n_repeats,)
        The last row of each one's owner.

    Examples
    --------
    >>> log = pd.DataFrame({"item": np.arange(40) % 20, "hour": np.arange(40)})
    >>> log["brand"] = log["item"] // 2
    >>> items = log["item"].to_numpy()
    >>> repeats = Repeats.of(items)
    >>> repeats.owns(log["brand"]), repeats.owns(log["hour"])
    (True, False)
    """

    rows: np.ndarray
    last: np.ndarray

    @classmethod
    def of(cls, owners: np.ndarray, *, partners: np.ndarray | None = None) -> Repeats:
        """Find the repeated rows of each owner.

        Owners and the partners that they meet in a row (the users of an item, for example) are
        codes. A row with the same partner as the owner's last row proves nothing and is left out.
        """
        last_row = np.empty(owners.max() + 1, dtype=np.int64)
        last_row[owners] = np.arange(len(owners))  # of repeated indices numpy keeps the last
        last = last_row[owners]
        is_repeat = last != np.arange(len(owners))
        if partners is not None:
            is_repeat &= partners != partners[last]
        rows = np.flatnonzero(is_repeat)
        if len(np.unique(last[_spread(rows, SAMPLED_ROWS)])) < MIN_OWNERS:
            rows = rows[:0]
        return cls(rows, last[rows])

    def owns(self, column: pd.Series) -> bool:
        """Return whether the column has one value for each owner, beyond chance."""
        ours, theirs = self._pairs(column, SAMPLED_ROWS)
        if len(ours) == 0 or (ours != theirs).any():
            return False
        shares = np.bincount(ours) / len(ours)
        if -np.log(shares[ours]).sum() < MIN_SURPRISE:
            return False
        is_list = not pd.api.types.is_hashable(column.iloc[self.rows[0]])
        if is_list or len(ours) == len(self.rows):  # lists are slow to compare
            return True
        ours, theirs = self._pairs(column, CHECKED_ROWS)
        return bool((ours == theirs).all())

    def varies(self, column: pd.Series) -> bool:
        """Return whether some owner is seen to have several values in the column."""
        ours, theirs = self._pairs(column, SAMPLED_ROWS)
        return bool((ours != theirs).any())

    def _pairs(self, column: pd.Series, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Codes of the values in repeated rows, and in the last rows of their owners."""
        rows, last = _spread(self.rows, n_rows), _spread(self.last, n_rows)
        codes = value_codes(column.iloc[np.concatenate([rows, last])])
        return codes[: len(rows)], codes[len(rows) :]


def _spread(values: np.ndarray, size: int) -> np.ndarray:
    """So many of the values, evenly spread over all of them."""
    if len(values) <= size:
        return values
    return values[np.linspace(0, len(values) - 1, size).astype(np.int64)]


def warn_of_misplacement(
    events: pd.DataFrame,
    *,
    item: str,
    items: np.ndarray,
    item_columns: Sequence[str],
    user: str | None,
    owners: np.ndarray | None,
) -> None:
    """Say which columns should be named as the item's and are not, and which are and should not.

    ``items`` and ``owners`` are the codes of each row's item and user.
    """
    within_items = Repeats.of(items, partners=owners)
    others = [name for name in events.columns if name not in {item, user, *item_columns}]
    leaking = [name for name in others if within_items.owns(events[name])]
    if leaking:
        named = [*item_columns, *leaking]
        warnings.warn(
            f"{leaking} have one value for each {item!r} and are not in item_columns: a negative "
            "keeps the value of the clicked item, which gives the label away. Where they describe "
            f"the item, pass item_columns={named}.",
            UserWarning,
            stacklevel=3,
        )
    if owners is None:
        return
    within_users = Repeats.of(owners, partners=items)
    personal = [
        name
        for name in item_columns
        if within_users.owns(events[name]) and within_items.varies(events[name])
    ]
    if personal:
        warnings.warn(
            f"{personal} in item_columns have one value for each {user!r} and several for an "
            f"{item!r}: a negative gets the value of another user, which gives the label away. "
            "Leave what describes the user out of item_columns.",
            UserWarning,
            stacklevel=3,
        )
