"""Negative sampling: rows that the user did not choose, beside those that the user did."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import check_random_state

from sklearn_din._validation import (
    check_choice,
    check_frame,
    check_name,
    check_names,
    plain_values,
)

STRATEGIES = ("uniform", "popularity")


def sample_negatives(
    events: pd.DataFrame,
    *,
    item: str,
    item_columns: str | Sequence[str] = (),
    n_negatives: int = 1,
    user: str | None = None,
    strategy: str = "uniform",
    random_state: Any = None,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Follow each event (1) with rows that show another item (0) in its place.

    A negative repeats its event's row with another item of the log. Each is drawn on its own:
    an event may get one item twice. The draw is exact, without rejection, so it takes as long
    for a user who has almost every item.

    Parameters
    ----------
    events : DataFrame of shape (n_events, ...)
        What users chose. It is not changed.
    item : str
        Item column. The catalogue is the items that occur in it.
    item_columns : str or list of str, default=()
        Columns that follow the item, such as its category. A negative gets the values of the
        item's last row in ``events``.
    n_negatives : int, default=1
        Negatives an event.
    user : str or None, default=None
        Where given, a negative is never an item that the same user has among the events.
        None only rules out the event's own item.
    strategy : {"uniform", "popularity"}, default="uniform"
        "uniform" gives each item the same chance, "popularity" in proportion to its events.
    random_state : int, RandomState instance or None, default=None
        Makes the draw repeatable.

    Returns
    -------
    impressions : DataFrame of shape (n_events * (1 + n_negatives), ...)
        Each event followed by its negatives, with all columns and dtypes of ``events`` and a
        fresh RangeIndex.
    y : ndarray of int64
        1 for an event, 0 for a negative.

    Examples
    --------
    >>> clicks = pd.DataFrame({"user": [1, 1, 2], "item": ["hat", "sock", "tie"]})
    >>> impressions, y = sample_negatives(clicks, item="item", user="user", random_state=0)
    >>> impressions.assign(y=y)
       user  item  y
    0     1   hat  1
    1     1   tie  0
    2     1  sock  1
    3     1   tie  0
    4     2   tie  1
    5     2  sock  0
    """
    check_name(item, name="item")
    check_name(user, name="user")
    carried = [item, *check_names(item_columns, name="item_columns")]
    check_frame(events, [*carried, *([] if user is None else [user])], name="events")
    _check_options(n_negatives, strategy)
    items, catalogue = _codes(events, item)
    owners, owner_names = (items, catalogue) if user is None else _codes(events, user)
    weights = np.bincount(items) if strategy == "popularity" else np.ones(len(catalogue), np.int64)
    own = _OwnItems(owners, items, weights)
    _check_choice(own, owner_names, user)
    drawn = own.draw_others(owners, n_negatives, check_random_state(random_state))

    n_events = len(events)
    last_row = np.empty(len(catalogue), dtype=np.int64)
    last_row[items] = np.arange(n_events)  # of repeated indices numpy keeps the last
    rows = np.repeat(np.arange(n_events), 1 + n_negatives)
    sources = np.column_stack([np.arange(n_events), last_row[drawn]]).ravel()
    impressions = events.take(rows).reset_index(drop=True)
    following = {name: events[name].take(sources).set_axis(impressions.index) for name in carried}
    impressions = impressions.assign(**following)
    y = np.zeros((n_events, 1 + n_negatives), dtype=np.int64)
    y[:, 0] = 1
    return impressions, y.ravel()


class _OwnItems:
    """Each owner's distinct items, laid out so that the others can be drawn exactly.

    Think of the catalogue as a line on which each item covers its weight. Cutting out an
    owner's own items leaves a shorter line; a uniform point on it is moved right by the weight
    of the cut-out pieces before it, and then lies on another item.
    """

    def __init__(self, owners: np.ndarray, items: np.ndarray, weights: np.ndarray):
        n_items = len(weights)
        pairs = np.sort(owners * n_items + items)
        pairs = pairs[np.append(True, pairs[1:] != pairs[:-1])]  # np.unique hashes: slower
        pair_owner, pair_item = np.divmod(pairs, n_items)
        self._edges = np.concatenate([[0], np.cumsum(weights)])
        self._stride = self._edges[-1] + 1
        self._first = np.searchsorted(pair_owner, np.arange(pair_owner[-1] + 2))
        self._cut = np.concatenate([[0], np.cumsum(weights[pair_item])])
        self.free = self._edges[-1] - np.diff(self._cut[self._first])
        kept_before = self._edges[pair_item] - self._cut[:-1] + self._cut[self._first[pair_owner]]
        self._keys = pair_owner * self._stride + kept_before

    def draw_others(self, owners: np.ndarray, size: int, rng: np.random.RandomState) -> np.ndarray:
        """Item codes of shape (len(owners), size), none of them the owner's own."""
        order = np.argsort(owners, kind="stable")  # an owner's searches then lie side by side
        owners = owners[order, None]
        points = (rng.random_sample((len(owners), size)) * self.free[owners]).astype(np.int64)
        n_cut = np.searchsorted(self._keys, owners * self._stride + points, side="right")
        moved = points + self._cut[n_cut] - self._cut[self._first[owners]]
        drawn = np.empty_like(moved)
        drawn[order] = np.searchsorted(self._edges, moved, side="right") - 1
        return drawn


def _check_options(n_negatives: Any, strategy: Any) -> None:
    is_count = isinstance(n_negatives, Integral) and not isinstance(n_negatives, bool)
    if not is_count or n_negatives < 1:
        raise ValueError(f"n_negatives must be an integer of at least 1, got {n_negatives!r}.")
    check_choice(strategy, STRATEGIES, name="strategy")


def _codes(events: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    if len(events) == 0:
        raise ValueError("events must have at least one row, got none.")
    values = plain_values(events[column])
    try:
        codes, uniques = pd.factorize(values)
    except TypeError as error:  # lists, dicts: not hashable
        kind = next(type(v).__name__ for v in values if not pd.api.types.is_hashable(v))
        raise ValueError(f"events[{column!r}] must hold ids, got {kind}s.") from error
    if (codes < 0).any():
        raise ValueError(
            f"events[{column!r}] must not be missing, got {int((codes < 0).sum())} rows without. "
            "Drop those rows."
        )
    return codes.astype(np.int64), uniques


def _check_choice(own: _OwnItems, owner_names: np.ndarray, user: str | None) -> None:
    nothing_left = np.flatnonzero(own.free == 0)
    if len(nothing_left) == 0:
        return
    (owner,) = owner_names[nothing_left[:1]].tolist()
    if user is None:
        raise ValueError(f"events must have at least two items to sample from, got only {owner!r}.")
    raise ValueError(
        f"{user} {owner!r} has every item of the log, so there is no "
        "negative to sample. Leave such users out, or pass user=None."
    )
