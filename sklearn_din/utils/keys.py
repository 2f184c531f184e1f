"""Keys such as users, items and groups: who is the same, in every table, file and process."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd

from sklearn_din.utils.validation import (
    check_exact,
    check_keys,
    note_two_kinds,
    plain_values,
    python_values,
    refuse_unsure_ids,
)

NO_KEY = np.uint64(0)  # the hash of a missing key
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, without a pattern: the golden ratio
SHIFT = np.uint64(29)
KINDS = {"string": "text", "integer": "numbers", "floating": "numbers", "boolean": "numbers"}
USERS = "the column of users"


@dataclass(frozen=True, eq=False)
class Keys:
    """The key of each row of a column, whatever its dtype.

    Within a column keys are equal as Python's are: 7 is 7.0, and a number beside its text, or True
    beside 1, is an error. Between tables and files the text decides, of which hashes are made.

    codes : (n_rows,), int64. Numbers of the keys from 0, in the order in which they come; -1 where
        a key is missing.
    values : (n_keys,). The keys, or their hashes.

    >>> keys = Keys.read(np.array(["7", "hat", None, "7"], dtype=object), name="user")
    >>> keys.codes.tolist(), keys.kind, bool(keys.hashes[0] == Keys.read(np.array([7.0])).hashes[0])
    ([0, 1, -1, 0], 'text', True)
    """

    codes: np.ndarray
    values: np.ndarray
    are_hashes: bool = False

    @classmethod
    def read(cls, column: Any, *, name: str = "keys") -> Self:
        """Read a column of keys; raise where they are none, of two kinds, or merged floats."""
        is_column = isinstance(column, pd.Series | pd.Index)
        values = python_values(plain_values(column) if is_column else column)
        try:
            codes, keys = pd.factorize(values)
        except TypeError:
            check_keys(np.asarray(values), name=name)
            raise
        keys = np.asarray(keys)
        if keys.dtype.kind == "f":
            check_exact(keys, name=name)
        refuse_unsure_ids(values, keys, name=name)
        if note := note_two_kinds(keys, name=name):
            raise ValueError(note)
        return cls(codes.astype(np.int64, copy=False), keys)

    @classmethod
    def of_users(cls, users: np.ndarray | None, n_rows: int) -> Self:
        """Return the users of encoded rows, which scans keep as hashes; None: nobody's rows."""
        if users is None:
            return cls(np.full(n_rows, -1), np.empty(0, np.uint64), are_hashes=True)
        if users.dtype != np.uint64:
            return cls.read(users, name=USERS)
        codes, hashes = np.full(n_rows, -1), np.asarray(users)
        is_there = hashes != NO_KEY
        codes[is_there], values = pd.factorize(hashes[is_there])
        return cls(codes, values, are_hashes=True)

    @property
    def kind(self) -> str | None:
        """Whether keys are "text", "numbers" or "times"; None where it is not plain."""
        if self.values.dtype.kind in "Mm":
            return "times" if len(self.values) else None
        return KINDS.get(pd.api.types.infer_dtype(self.values, skipna=True))

    @cached_property
    def hashes(self) -> np.ndarray:
        """Hashes of the rows' keys by their text, NO_KEY where one is missing: uint64, (n_rows,).

        A key has one hash as an integer, as a whole float, and as text.
        """
        hashes = self.values
        if not self.are_hashes:
            texts = np.empty(len(hashes), dtype=object)
            texts[:] = [
                str(int(key) if isinstance(key, float) and key.is_integer() else key)
                for key in hashes.tolist()
            ]
            hashes = pd.util.hash_array(texts, categorize=False)
        return np.append(hashes, NO_KEY)[self.codes]

    @cached_property
    def index(self) -> pd.Index:
        """The keys, to be found."""
        return pd.Index(self.values, dtype=self.values.dtype)

    def find_in(self, known: "Keys", *, name: str) -> np.ndarray:
        """Return the number of each row's key among others, -1 where it is not there."""
        if self.kind and known.kind and self.kind != known.kind:
            raise kinds_differ(name, self.kind, known.kind)
        values = self.values
        if values.dtype.kind == "f" and known.values.dtype.kind in "iu":
            # Identifiers that a missing value had made floats: match as integers, exactly.
            is_whole = np.isfinite(values) & (np.floor(values) == values)
            is_whole &= np.abs(values) < 2.0**63
            whole = np.where(is_whole, values, 0).astype(np.int64)
            numbers = np.where(is_whole, known.index.get_indexer(pd.Index(whole)), -1)
        else:
            numbers = known.index.get_indexer(self.index)
        return np.append(numbers, -1)[self.codes]

    @property
    def ranks(self) -> np.ndarray:
        """Numbers of the rows' keys in their own order, of tuples by their text; -1: missing."""
        values: Any = self.values
        if values.dtype == object and any(isinstance(key, tuple) for key in values):
            values = pd.Index(map(repr, values))  # pandas orders none of several lengths or types
        try:
            ranks = pd.factorize(values, sort=True)[0]
        except TypeError:
            ranks = np.arange(len(values))
        return np.append(ranks, -1)[self.codes]


def kinds_differ(column: str, ours: str, theirs: str) -> TypeError:
    """Make the error for keys that could never meet."""
    return TypeError(
        f"{column!r} must hold values of one kind in impressions and events, got {ours} "
        f"and {theirs}. Convert one of them with astype."
    )


def plain_users(column: pd.Series) -> np.ndarray:
    """Return users as plain values; unsigned ones as hashes, as encoded rows hold scans' users."""
    values = plain_values(column)
    return Keys.read(values, name=USERS).hashes if values.dtype == np.uint64 else values


def read_groups(groups: Any) -> Keys:
    """Read groups of rows, a column or keys, of which none may be missing."""
    if isinstance(groups, list | tuple):  # of tuples numpy would make columns
        groups = pd.Series(groups)
    is_frame, is_read = isinstance(groups, pd.DataFrame), isinstance(groups, Keys)
    if is_frame or (not is_read and np.ndim(groups) != 1):
        got = "a DataFrame" if is_frame else f"shape {np.shape(groups)}"
        raise ValueError(f"groups must be one column, X['user'], got {got}.")
    keys = groups if is_read else Keys.read(pd.Series(groups), name="groups")
    if n_missing := int((keys.codes < 0).sum()):
        raise ValueError(
            f"groups must not be missing, got {n_missing} rows without a user or group. "
            "Give them one of their own, or drop them."
        )
    return keys


def mix_hashes(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return one hash for several hashes of each row, in their order: uint64, (n_rows,)."""
    mixed = parts[0]
    for part in parts[1:]:
        mixed = mixed * MULTIPLIER
        mixed = (mixed ^ (mixed >> SHIFT)) + part
    return mixed


def join_hashes(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the hash of several columns' keys together, missing where one of them is.

    >>> ann, hat, none = np.array([3, 5, 0], dtype=np.uint64)
    >>> join_hashes([np.array([ann, ann]), np.array([hat, none])]).tolist()[-1]
    0
    """
    if len(parts) == 1:
        return parts[0]
    is_missing = np.any([part == NO_KEY for part in parts], axis=0)
    return np.where(is_missing, NO_KEY, mix_hashes(parts))
