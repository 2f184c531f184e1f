"""Which columns of a click log belong to the item, and which to the user: what negatives need."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sklearn_din.logs.distinct import value_codes

SAMPLED_ROWS = 1000  # repeated rows that are looked at before all of them are
MIN_OWNERS = 10  # items (or users) that must have several rows
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
    sampled : ndarray of int64
        Positions in ``rows`` that are looked at first, spread evenly over them.

    Examples
    --------
    >>> log = pd.DataFrame({"item": np.arange(40) % 20, "hour": np.arange(40)})
    >>> log["brand"] = log["item"] // 2
    >>> items = log["item"].to_numpy()
    >>> repeats = Repeats.of(items, rows_of=items)
    >>> repeats.owns(log["brand"]), repeats.owns(log["hour"])
    (True, False)
    """

    rows: np.ndarray
    last: np.ndarray
    sampled: np.ndarray

    @classmethod
    def of(cls, owners: np.ndarray, *, rows_of: np.ndarray) -> Repeats:
        """Repeats of each owner's code.

        Parameters
        ----------
        owners : ndarray of int64, shape (n_rows,)
            Code of each row's owner.
        rows_of : ndarray of int64, shape (n_rows,)
            Code of what the owner meets, the user of an item for example. A row that meets the
            same one as the owner's last row proves nothing: it is left out. The owners themselves
            where nothing is known of that.
        """
        last_row = np.empty(owners.max() + 1, dtype=np.int64)
        last_row[owners] = np.arange(len(owners))  # of repeated indices numpy keeps the last
        last = last_row[owners]
        is_repeat = last != np.arange(len(owners))
        if rows_of is not owners:
            is_repeat &= rows_of != rows_of[last]
        rows = np.flatnonzero(is_repeat)
        last = last[rows]
        n_sampled = min(SAMPLED_ROWS, len(rows))
        sampled = np.linspace(0, len(rows) - 1, n_sampled).astype(np.int64)
        if len(np.unique(last[sampled])) < MIN_OWNERS:
            sampled = sampled[:0]
        return cls(rows, last, sampled)

    def owns(self, column: pd.Series) -> bool:
        """Whether the column has one value for each owner, beyond chance."""
        ours, theirs = self._sampled_pairs(column)
        if len(ours) == 0 or (ours != theirs).any():
            return False
        shares = np.bincount(ours) / len(ours)
        if -np.log(shares[ours]).sum() < MIN_SURPRISE:
            return False
        return len(self.sampled) == len(self.rows) or self._all_agree(column)

    def varies(self, column: pd.Series) -> bool:
        """Whether some owner is seen to have several values in the column."""
        ours, theirs = self._sampled_pairs(column)
        return bool((ours != theirs).any())

    def _sampled_pairs(self, column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
        rows, last = self.rows[self.sampled], self.last[self.sampled]
        codes = value_codes(column.iloc[np.concatenate([rows, last])])
        return codes[: len(rows)], codes[len(rows) :]

    def _all_agree(self, column: pd.Series) -> bool:
        first = column.iloc[self.rows[0]]
        if not pd.api.types.is_hashable(first):  # lists are slow to compare: the sample decides
            return True
        codes = value_codes(column)
        return bool((codes[self.rows] == codes[self.last]).all())


def warn_of_misplaced(
    events: pd.DataFrame,
    *,
    item: str,
    items: np.ndarray,
    item_columns: Sequence[str],
    user: str | None,
    owners: np.ndarray | None,
) -> None:
    """Say which columns should be named as the item's and are not, and which are and should not.

    Parameters
    ----------
    events : DataFrame
        The log.
    item : str
        Item column.
    items : ndarray of int64
        Code of each row's item.
    item_columns : sequence of str
        Columns that follow the item.
    user : str or None
        User column.
    owners : ndarray of int64 or None
        Code of each row's user.
    """
    of_item = Repeats.of(items, rows_of=items if owners is None else owners)
    others = [name for name in events.columns if name not in {item, user, *item_columns}]
    leaking = [name for name in others if of_item.owns(events[name])]
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
    of_user = Repeats.of(owners, rows_of=items)
    personal = [
        name for name in item_columns if of_user.owns(events[name]) and of_item.varies(events[name])
    ]
    if personal:
        warnings.warn(
            f"{personal} in item_columns have one value for each {user!r} and several for an "
            f"{item!r}: a negative gets the value of another user, which gives the label away. "
            "Leave what describes the user out of item_columns.",
            UserWarning,
            stacklevel=3,
        )
