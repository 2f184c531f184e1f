"""Distinct values and distinct rows as codes."""

from collections.abc import Collection, Hashable, Sequence

import numpy as np
import pandas as pd

from sklearn_din.utils.spelling import find_respelling
from sklearn_din.utils.validation import plain_values, spread
from sklearn_din.utils.warnings import ADVICE_FROM

SEEN_EVENTS = 10_000
SEEN_VALUES = 1_000  # whose kind, or spelling, stands for all
LEAST_USERS = 3  # with another spelling
MOST_USERS = 200_000  # whose spelling is compared
MANY_EVENTS = 10


def value_codes(column: pd.Series) -> np.ndarray:
    """Each row's position among the distinct values; missing values are one value of their own.

    Lists and arrays are compared by what they hold.

    >>> value_codes(pd.Series(["hat", None, "tie", "hat", None]))
    array([1, 0, 2, 1, 0])
    >>> value_codes(pd.Series([["hat"], [], ["hat"]]))
    array([1, 2, 1])
    """
    values = plain_values(column)
    try:
        codes, _ = pd.factorize(values)
    except TypeError:  # lists, dicts: not hashable
        codes, _ = pd.factorize(pd.Series(values, dtype=object).map(_hashable))
    return codes.astype(np.int64) + 1


def row_codes(frame: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Equal codes for the rows that are equal in every column named.

    >>> shown = pd.DataFrame({"user": [1, 1, 2, 1], "item": ["hat", "tie", "hat", "hat"]})
    >>> row_codes(shown, ["user", "item"])
    array([0, 1, 2, 0])
    """
    codes = np.zeros(len(frame), dtype=np.int64)
    for column in columns:
        part = value_codes(frame[column])
        packed = codes * (part.max(initial=0) + 1) + part
        codes = pd.factorize(packed)[0].astype(np.int64)
    return codes


def note_sampled(owners: pd.DataFrame, values: np.ndarray) -> str | None:
    """Return what to say of levels of negatives that were sampled: as many behind each click.

    owners : user and time of each row
    values : (n_rows, n_labels), 1 for a click
    """
    clicks = np.flatnonzero(values[:, 0] == 1)
    n_rows, n = len(values), len(values) // max(len(clicks), 1)
    if len(clicks) < MANY_EVENTS or n < 2 or n * len(clicks) != n_rows:
        return None
    own = np.arange(n_rows) // n * n  # the click before each row
    if not np.array_equal(clicks, np.unique(own)) or np.isnan(values[:, 0]).any():
        return None
    codes = row_codes(owners, [*owners])
    if (codes != codes[own]).any():
        return None
    return (
        f"each click has {n - 1} rows without one behind it, of its user and time, as of "
        "sample_negatives: rates of sampled rows tell nothing. Set levels=None."
    )


def holds_lists(column: pd.Series) -> bool:
    """Return whether the first value of a column is a list."""
    first = column.dropna().iloc[:1].tolist()
    return bool(first) and isinstance(first[0], list | tuple | np.ndarray)


def note_labels(events: pd.DataFrame, names: Collection[str]) -> str | None:
    """Return what to say of a column of zeros and ones in a log of which each row is a click.

    ``names`` are columns that rows and events share.

    >>> log = pd.DataFrame({"item": ["hat", "tie"] * 500, "click": [1, 0] * 500})
    >>> note_labels(log, ["item"])[:54]
    "events['click'] holds 0 in 50% of the events, and each"
    """
    if len(events) < ADVICE_FROM:
        return None
    for name in events.columns.difference([*names], sort=False):
        column = events[name]
        if getattr(column.dtype, "kind", "O") not in "biuf":
            continue
        if not column[:SEEN_VALUES].isin((0, 1)).all() or not column.isin((0, 1)).all():
            continue
        zeros = float((column == 0).mean())
        if 0 < zeros < 1:
            return (
                f"events[{name!r}] holds 0 in {zeros:.0%} of the events, and each event counts as "
                f"a click. If those rows had none, pass events[events[{name!r}] == 1]."
            )
    return None


def note_spelling(shown: pd.Series, known: pd.Index, what: str = "users") -> str | None:
    """Return what to say of users without an event who are ``known`` in another spelling."""
    users = pd.unique(plain_values(spread(shown, SEEN_EVENTS).dropna()))
    users = users[known.get_indexer(pd.Index(users, dtype=users.dtype)) < 0]
    if len(users) < LEAST_USERS or len(known) > MOST_USERS:
        return None
    pair = find_respelling(spread(users, SEEN_VALUES), known.to_numpy())
    if pair is None:
        return None
    return (
        f"{what} of impressions such as {pair[0]!a} have no events, and {pair[1]!a} has: write "
        f"{shown.name!r} in one way in both tables (spaces, upper case, prefixes, leading zeros)."
    )


def _hashable(value: object) -> Hashable:
    if isinstance(value, list | tuple | np.ndarray):
        return tuple(_hashable(element) for element in value)
    return value if isinstance(value, Hashable) else repr(value)


def find_told(codes: np.ndarray, n_old: int, n_earlier: np.ndarray | int = 0) -> np.ndarray:
    """Return the old row that each new one is: the k-th of equal ones the k-th, -1 if none.

    codes : (n_rows,), equal for equal rows, of which the first ``n_old`` are old
    n_earlier : (n_codes,), of the new rows, how many come before these

    >>> find_told(np.array([0, 1, 1, 1, 2]), 2)
    array([ 1, -1, -1])
    """
    old, new = codes[:n_old], codes[n_old:]
    n_equal = np.bincount(old, minlength=codes.max(initial=0) + 1)
    earlier = np.broadcast_to(n_earlier, n_equal.shape)[new]
    copy = pd.Series(new).groupby(new).cumcount().to_numpy() + earlier
    place = (np.cumsum(n_equal) - n_equal)[new] + copy
    is_there = copy < n_equal[new]
    return np.append(np.argsort(old, kind="stable"), -1)[np.where(is_there, place, -1)]
