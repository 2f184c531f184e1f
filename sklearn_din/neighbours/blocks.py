"""Which rows each table of item neighbours counts, and which table each row reads.

No row may read a table that counts the row's own click, under any split, or later ones. By time:
there is a table of all rows up to the end of each block, and a row reads the last one that ended
before its own time. By user: users are divided into five parts, and a row of a training user
reads the scores of all other parts, except that a training row reads those of the parts before
its user's: otherwise each part would lack just its own clicks, which a network with ids learns to
exploit (-.03 GAUC on "repetition tires", benchmarks/quality-results.md).
"""

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pandas as pd

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.utils.estimator_state import check_array
from sklearn_din.utils.keys import NO_KEY
from sklearn_din.utils.validation import UNITS_PER_SECOND

N_BLOCKS = 5
NOT_COUNTED = N_BLOCKS  # the block of rows that no table counts
NEVER = 2**62  # the moment of items that no row has had
KINDS_OF_TIME = ("int64", "float64", *(f"datetime64[{unit}]" for unit in UNITS_PER_SECOND))


@dataclass(frozen=True)
class OrderedRows:
    """Users (codes), blocks (int8, or NOT_COUNTED) and clicks of training rows: (n_rows,) each."""

    users: np.ndarray
    blocks: np.ndarray
    clicked: np.ndarray

    @property
    def n_users(self) -> int:
        """Number of users."""
        return int(self.users.max(initial=-1)) + 1


@dataclass(frozen=True, eq=False)
class ByTime:
    """Tables of all rows up to a time; a row reads the last one that ended before its own.

    ends : (n_tables,), int64, float64 or datetime64. The last time that each table counts, in
        ascending order.
    n_rows : (n_tables,), int64. How many rows each table counts.
    """

    ends: np.ndarray
    n_rows: np.ndarray

    @classmethod
    def place(cls, X: EncodedFeatures, clicked: np.ndarray) -> tuple[Self, OrderedRows]:
        """Assign training rows to blocks of time; rows without a time are not counted."""
        times = np.asarray(X.times)
        blocks = _blocks_of_time(times)
        if len(blocks) and (blocks == NOT_COUNTED).all():
            raise ValueError("neighbours='time' needs the rows' times, got missing ones alone.")
        present, codes = np.unique(blocks, return_inverse=True)
        present = present[present < NOT_COUNTED]
        blocks = np.where(blocks < NOT_COUNTED, codes, NOT_COUNTED).astype(np.int8)
        ends = [times[blocks == block].max() for block in range(len(present))]
        kind = {"i": np.int64, "u": np.int64, "f": np.float64}.get(times.dtype.kind, times.dtype)
        n_rows = np.bincount(blocks, minlength=len(present))[: len(present)].cumsum()
        return cls(np.array(ends, kind), n_rows), OrderedRows(number_users(X), blocks, clicked)

    def counted(self) -> list[np.ndarray]:
        """Return for each table which blocks it counts: bool by block."""
        return _first_blocks(len(self.ends))

    counted_at_fit = counted  # by the tables that training rows read: the same blocks

    def parts(self) -> list[np.ndarray]:
        """Return the blocks in each stored count, of which later tables are sums: all in one."""
        return self.counted()[-1:]

    def find_tables(self, X: EncodedFeatures) -> np.ndarray:
        """Return the table that each row reads: (n_rows,), -1 for none; without a time the last."""
        if X.times is None:
            return np.full(len(X), len(self.ends) - 1)
        if (X.times.dtype.kind == "M") != (self.ends.dtype.kind == "M"):
            raise ValueError(
                f"the times of these rows are {X.times.dtype}, those of fit were "
                f"{self.ends.dtype}. Give them as in fit."
            )
        return np.searchsorted(self.ends, X.times) - 1

    find_tables_at_fit = find_tables  # that each training row reads

    def grow(self, X: EncodedFeatures, clicked: np.ndarray) -> tuple[Self, OrderedRows, list[int]]:
        """Return the order after later rows, these rows, and the earlier tables to keep.

        Rows that are not later than the tables may have been counted already, and do not count. The
        tables are as many as before at most: of two that ended near each other one goes.
        """
        if X.times is None:
            raise ValueError(_needs("time"))
        is_later = X.times > self.ends[-1]
        rows = OrderedRows(number_users(X), np.where(is_later, 0, NOT_COUNTED), clicked)
        if not is_later.any():
            return self, rows, [*range(len(self.ends))]
        ends = np.append(self.ends, X.times[is_later].max()).astype(self.ends.dtype)
        n_rows = np.append(self.n_rows, self.n_rows[-1] + is_later.sum())
        kept = [*range(len(self.ends))]
        if len(ends) > N_BLOCKS:
            del kept[int(np.argmin(n_rows[1:] - np.append(0, n_rows[:-2])))]
        own = [*kept, len(ends) - 1]
        return replace(self, ends=ends[own], n_rows=n_rows[own]), rows, kept

    def check(self) -> None:
        """Raise ValueError where the tables cannot be in this order."""
        ends, what = self.ends, "the times of tables"
        if ends.dtype.name not in KINDS_OF_TIME or not np.isfinite(ends).all():
            raise ValueError(f"{what} must be numbers, or dates in a known unit.")
        n_tables = np.size(ends)
        check_array(self.n_rows, dtype=np.int64, shape=(n_tables,), what="their rows", least=1)
        if not 1 <= n_tables <= N_BLOCKS or not (ends[1:] > ends[:-1]).all():
            raise ValueError(f"{what} must be 1 to {N_BLOCKS} in ascending order.")


@dataclass(frozen=True, eq=False)
class ByUser:
    """A table of all users, for new users; a row of a known user reads all other parts.

    users : (n_users,), uint64. Hashes of the users that training had, in ascending order.
    """

    users: np.ndarray

    @classmethod
    def place(cls, X: EncodedFeatures, clicked: np.ndarray) -> tuple[Self, OrderedRows]:
        """Assign training rows to parts of users; rows without a user are not counted."""
        hashes = X.user_keys.hashes
        parts = np.where(hashes == NO_KEY, NOT_COUNTED, part_of(hashes)).astype(np.int8)
        users = np.unique(hashes[hashes != NO_KEY])
        return cls(users), OrderedRows(number_users(X), parts, clicked)

    def counted(self) -> list[np.ndarray]:
        """Return the parts counted by the table that is kept: all of them."""
        return self.counted_at_fit()[-1:]

    def counted_at_fit(self) -> list[np.ndarray]:
        """Return the parts counted by the tables that training rows read: one, two and so on."""
        return _first_blocks(N_BLOCKS)

    def parts(self) -> list[np.ndarray]:
        """Return the parts in each stored count, of which later tables are sums: one in each."""
        return list(np.eye(N_BLOCKS, N_BLOCKS + 1, dtype=bool))

    def find_tables(self, X: EncodedFeatures) -> np.ndarray:
        """Return the table that each row reads: 0, of all, or 1 + the part that it leaves out."""
        hashes = X.user_keys.hashes
        place = np.searchsorted(self.users, hashes)
        is_known = np.append(self.users, NO_KEY)[place] == hashes
        return np.where(is_known & (hashes != NO_KEY), 1 + part_of(hashes), 0)

    def find_tables_at_fit(self, X: EncodedFeatures) -> np.ndarray:
        """Return the number of the table that each training row reads: (n_rows,), -1 for none."""
        hashes = X.user_keys.hashes
        return np.where(hashes == NO_KEY, N_BLOCKS, part_of(hashes)) - 1

    def grow(self, X: EncodedFeatures, clicked: np.ndarray) -> tuple[Self, OrderedRows, list[int]]:
        """Return the order after later rows, these rows, and the tables to keep: none."""
        if X.users is None:
            raise ValueError(_needs("user"))
        later, rows = self.place(X, clicked)
        return replace(self, users=np.union1d(self.users, later.users)), rows, []

    def check(self) -> None:
        """Raise ValueError where these are no hashes of users."""
        users, what = self.users, "the hashes of users"
        check_array(users, dtype=np.uint64, shape=(np.size(users),), what=what)
        if (users[1:] <= users[:-1]).any():
            raise ValueError(f"{what} must be in ascending order.")


Order = ByTime | ByUser


def number_users(X: EncodedFeatures) -> np.ndarray:
    """Number the users from 0, not in the rows' order; a row without a user has its own number."""
    keys = X.user_keys
    codes = keys.ranks
    missing = np.flatnonzero(codes < 0)
    codes[missing] = len(keys.values) + np.arange(len(missing))
    return codes if codes.max(initial=0) >= 2**31 else codes.astype(np.int32)


def part_of(hashes: np.ndarray) -> np.ndarray:
    """Return the part that each user belongs to."""
    return (hashes % np.uint64(N_BLOCKS)).astype(np.int8)


def _blocks_of_time(times: np.ndarray) -> np.ndarray:
    """Blocks of about as many rows each, equal times together; missing ones: NOT_COUNTED."""
    firsts = [math.ceil(block * len(times) / N_BLOCKS) for block in range(1, N_BLOCKS)]
    ranks = np.maximum(np.array(firsts) - 1, 0)  # rank >= first: this one is earlier
    cuts = np.partition(times, ranks)[ranks]
    blocks = np.zeros(len(times), dtype=np.int8)
    for cut in cuts:
        blocks += times > cut
    blocks[pd.isna(times)] = NOT_COUNTED
    return blocks


def _first_blocks(n_tables: int) -> list[np.ndarray]:
    """Return the first block, the first two and so on: bool by block."""
    blocks = np.arange(N_BLOCKS + 1)
    return [blocks <= last for last in range(n_tables)]


def _needs(what: str) -> str:
    return (
        f"these rows have no {what}s, but item neighbours were learned by {what} and need it to "
        f"know which rows they count already. Give the column, HistorySequenceEncoder({what}=...)."
    )
