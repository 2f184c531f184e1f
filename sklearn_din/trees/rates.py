"""Rates of clicks of ids and users among training rows, as columns for trees."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.identities import ids_to_look_up
from sklearn_din.features.schema import FIRST_KNOWN_ID
from sklearn_din.neighbours.levels import sums_before
from sklearn_din.utils.estimator_state import check_array
from sklearn_din.utils.keys import NO_KEY

OF_USERS = ""  # in place of a column
PRIOR_ROWS = 20.0  # at the base rate, to which the rows of each key are added
HIDDEN_USERS = 0.3  # fraction of users whose training rows do not know their rate, as new users


@dataclass(frozen=True)
class Blocks:
    """Which training rows know each other's labels: those of other blocks, or of earlier ones.

    of_rows : (n_rows,), number of each row's block
    are_ordered : whether a row knows earlier blocks alone
    """

    of_rows: np.ndarray
    are_ordered: bool

    def sums(self, codes: np.ndarray, is_click: np.ndarray) -> np.ndarray:
        """Return rows and clicks of each row's code in the blocks that it knows: (n_rows, 2)."""
        if self.are_ordered:
            return np.hstack(sums_before(codes, self.of_rows, is_click[:, None]))
        places = codes * (int(self.of_rows.max(initial=0)) + 1) + self.of_rows
        _, places = np.unique(places, return_inverse=True)
        weights = np.ones(len(codes)), is_click
        others = [np.bincount(codes, of)[codes] - np.bincount(places, of)[places] for of in weights]
        return np.stack(others, axis=1)


@dataclass(frozen=True, eq=False)
class Rates:
    """Training rows and clicks of each key: of each id of a column, or of each user.

    Parameters
    ----------
    column : str
        A column of ids; OF_USERS for the users of rows.
    keys : ndarray of shape (n_keys,), uint64
        Ids, or hashes of users, in ascending order.
    sums : ndarray of shape (n_keys, 2), float64
        Rows and clicks of each key.
    base : float
        Rate of all training rows.
    """

    column: str
    keys: np.ndarray
    sums: np.ndarray
    base: float

    @classmethod
    def learn(
        cls, column: str, X: EncodedFeatures, is_click: np.ndarray, blocks: Blocks
    ) -> tuple[Self, np.ndarray]:
        """Return what later rows read, and the columns of the training rows: (n_rows, 2)."""
        own = _keys_of(X, column)
        keys, codes = np.unique(own, return_inverse=True)
        sums = np.stack([np.bincount(codes), np.bincount(codes, is_click)], axis=1)
        before = blocks.sums(codes, is_click)
        is_key = keys != NO_KEY
        is_hidden = ~is_key
        if column == OF_USERS:
            is_hidden[_choose_hidden(np.flatnonzero(is_key))] = True
        before[is_hidden[codes]] = 0
        rates = cls(column, keys[is_key], sums[is_key].astype(float), float(is_click.mean()))
        return rates, rates._columns(before)

    def look_up(self, X: EncodedFeatures) -> np.ndarray:
        """Return the rate and log1p of the rows of each row's key, in all training: (n_rows, 2)."""
        return self._columns(self.counts(X))

    def counts(self, X: EncodedFeatures) -> np.ndarray:
        """Return the training rows and clicks of each row's key: (n_rows, 2), float64."""
        own = _keys_of(X, self.column)
        keys, sums = np.append(self.keys, NO_KEY), np.vstack([self.sums, np.zeros(2)])
        places = np.searchsorted(self.keys, own)
        return np.where((keys[places] == own)[:, None], sums[places], 0)

    def _columns(self, sums: np.ndarray) -> np.ndarray:
        n_rows, n_clicks = sums.T
        rate = (n_clicks + PRIOR_ROWS * self.base) / (n_rows + PRIOR_ROWS)
        return np.stack([np.where(n_rows > 0, rate, np.nan), np.log1p(n_rows)], axis=1)

    @property
    def chi_square(self) -> float:
        """How much rates of keys differ, per key: 1 by chance, 0 where each has the same rate."""
        n_rows, n_clicks = self.sums.T
        variance = n_rows * self.base * (1 - self.base)
        return float(np.sum((n_clicks - n_rows * self.base) ** 2 / variance) / max(len(n_rows), 1))

    def without(self, keys: np.ndarray) -> Self:
        """Return the rates of all other keys."""
        others = ~np.isin(self.keys, keys, kind="sort")  # numpy 2.0 fails for large hashes else
        return replace(self, keys=self.keys[others], sums=self.sums[others])

    def check(self) -> None:
        """Raise ValueError where the parts do not fit each other."""
        n, what = np.size(self.keys), "rates of clicks"
        check_array(self.keys, dtype=np.uint64, shape=(n,), what=what, least=1)
        check_array(self.sums, dtype=np.float64, shape=(n, 2), what=what, least=0)
        if (self.keys[1:] <= self.keys[:-1]).any() or (self.sums[:, 1] > self.sums[:, 0]).any():
            raise ValueError(f"{what} must be those of keys in ascending order.")
        if not 0 < self.base < 1:
            raise ValueError(f"the base of {what} must lie between 0 and 1, got {self.base!r:.60}.")


def _choose_hidden(users: np.ndarray) -> np.ndarray:
    """Return the nearest whole number to a fraction HIDDEN_USERS of the users, drawn by chance."""
    drawn = np.argsort(np.random.RandomState(0).random_sample(len(users)))
    return users[drawn[: round(HIDDEN_USERS * len(users))]]


def _keys_of(X: EncodedFeatures, column: str) -> np.ndarray:
    """Return the user, or the known id, of each row as uint64; NO_KEY where there is none."""
    if column == OF_USERS:
        return X.user_keys.hashes
    ids = ids_to_look_up(X.columns[column])
    return np.where(ids < FIRST_KNOWN_ID, NO_KEY, ids.astype(np.uint64))
