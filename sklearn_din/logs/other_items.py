"""Draws of items that their owner does not have, exact and without rejection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sklearn_din._validation import check_choice, check_count, plain_values

STRATEGIES = ("uniform", "popularity")


@dataclass(frozen=True)
class NegativesRequest:
    """The parameters of ``sample_negatives``."""

    item: str
    item_columns: list[str]
    n_negatives: int
    user: str | None
    time: str | None
    strategy: str

    @property
    def following(self) -> list[str]:
        """Columns whose values a negative takes from its own item."""
        return [self.item, *self.item_columns]

    @property
    def keys(self) -> list[str]:
        """Columns that say who chose what."""
        return [self.item] if self.user is None else [self.item, self.user]

    @property
    def timed(self) -> list[str]:
        """The time column, where there is one."""
        return [] if self.time is None else [self.time]

    def check_options(self) -> None:
        """Raise unless the options are among those that exist."""
        check_count(self.n_negatives, name="n_negatives")
        check_choice(self.strategy, STRATEGIES, name="strategy")

    def nothing_to_draw(self, owner: object) -> ValueError:
        """Make the error for an owner who has every item."""
        if self.user is None:
            return ValueError(
                f"events must have at least two items to sample from, got only {owner!r}."
            )
        return ValueError(
            f"{self.user} {owner!r} has every item of the log, so there is no "
            "negative to sample. Leave such users out, or pass user=None."
        )


def number_ids(events: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Number the ids of a column from 0; return the number of each row, and the ids."""
    values = plain_values(events[column])
    try:
        codes, uniques = pd.factorize(values)
    except TypeError as error:  # lists, dicts: not hashable
        kind = next(type(v).__name__ for v in values if not pd.api.types.is_hashable(v))
        kind = "list" if kind == "ndarray" else kind  # as Arrow gives lists out
        raise ValueError(f"events[{column!r}] must hold ids, got {kind}s.") from error
    if n_missing := int((codes < 0).sum()):
        raise missing_ids(column, n_missing)
    return codes.astype(np.int64), uniques


def missing_ids(column: str, n_missing: int) -> ValueError:
    """Make the error for ids that are missing."""
    return ValueError(
        f"events[{column!r}] must not be missing, got {n_missing} rows without. Drop those rows."
    )


class OwnItems:
    """Each owner's distinct items, laid out so that the others can be drawn exactly.

    Think of the catalogue as a line on which each item covers its weight. Cutting out an owner's
    own items leaves a shorter line; a uniform point on it is moved right by the weight of the
    cut-out pieces before it, and then lies on another item. ``owners`` and ``items`` are codes of
    who has what, ``weights`` how much of the line each item covers, and ``free`` what each owner
    leaves of it. Where items lie in the order in which they come up, those that are there at some
    moment are the line's beginning.
    """

    def __init__(self, owners: np.ndarray, items: np.ndarray, weights: np.ndarray):
        n_items = len(weights)
        pairs = np.sort(owners * n_items + items)
        pairs = pairs[np.append(True, pairs[1:] != pairs[:-1])]  # np.unique hashes: slower
        pair_owner, pair_item = np.divmod(pairs, n_items)
        self._pairs, self._n_items = pairs, n_items
        self._edges = np.concatenate([[0], np.cumsum(weights)])
        self._stride = self._edges[-1] + 1
        self._first = np.searchsorted(pair_owner, np.arange(pair_owner[-1] + 2))
        self._cut = np.concatenate([[0], np.cumsum(weights[pair_item])])
        self.free = self._edges[-1] - np.diff(self._cut[self._first])
        kept_before = self._edges[pair_item] - self._cut[:-1] + self._cut[self._first[pair_owner]]
        self._keys = pair_owner * self._stride + kept_before

    def draw_others(
        self,
        owners: np.ndarray,
        size: int,
        rng: np.random.RandomState,
        n_up: np.ndarray | None = None,
    ) -> np.ndarray:
        """Item codes of shape (len(owners), size), none of them the owner's own.

        ``n_up`` says how many items have come up at each draw's time, shape (len(owners),); None:
        all. An owner who has all of them gets the next one that comes up.
        """
        free = self.free[owners] if n_up is None else self._free_among(owners, n_up)
        order = np.argsort(owners, kind="stable")  # an owner's searches then lie side by side
        owners, free = owners[order, None], free[order, None]
        points = (rng.random_sample((len(owners), size)) * free).astype(np.int64)
        n_cut = np.searchsorted(self._keys, owners * self._stride + points, side="right")
        moved = points + self._cut[n_cut] - self._cut[self._first[owners]]
        drawn = np.empty_like(moved)
        drawn[order] = np.searchsorted(self._edges, moved, side="right") - 1
        return drawn

    def _free_among(self, owners: np.ndarray, n_up: np.ndarray) -> np.ndarray:
        """Return what each owner leaves of the first ``n_up`` items, at least 1: the next item."""
        n_cut = np.searchsorted(self._pairs, owners * self._n_items + n_up)
        free = self._edges[n_up] - (self._cut[n_cut] - self._cut[self._first[owners]])
        return np.maximum(free, 1)


def number_as_they_come(
    items: np.ndarray, times: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give items new codes in the order of their first times, ties by their old codes.

    Returns the new code of each event's item, the old code of each new one, and how many items
    have come up by each event's time, that of its own item included.

    Examples
    --------
    >>> number_as_they_come(np.array([0, 1, 0]), np.array([5, 2, 3]))
    (array([1, 0, 1]), array([1, 0]), array([2, 1, 2]))
    """
    first = np.full(items.max() + 1, times.max())
    np.minimum.at(first, items, times)
    order = np.argsort(first, kind="stable")
    codes = np.empty_like(order)
    codes[order] = np.arange(len(order))
    return codes[items], order, np.searchsorted(first[order], times, side="right")


class ItemVersions:
    """Rows of items in the order of item and time: as an item was at some moment.

    ``codes`` and ``times`` of the versions say whose each one is and from when on it holds.

    Examples
    --------
    >>> versions = ItemVersions(np.array([0, 1, 0]), np.array([2, 4, 8]))
    >>> versions.find(np.array([[0, 1], [0, 0]]), np.array([2, 9]))  # before its first, the first
    array([[0, 1],
           [2, 2]])
    """

    def __init__(self, codes: np.ndarray, times: np.ndarray) -> None:
        self._ticks, ticks = np.unique(times, return_inverse=True)
        self._codes, self._stride = codes, len(self._ticks) + 1
        keys = codes * self._stride + ticks + 1
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def find(self, codes: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Newest version of each item up to the row's time, or its first one.

        codes : (n_rows, n_negatives); times : (n_rows,)
        """
        ticks = np.searchsorted(self._ticks, times, side="right")
        keys = codes * self._stride + ticks[:, None]
        place = np.searchsorted(self._keys, keys, side="right") - 1
        is_other = self._codes[self._order[np.maximum(place, 0)]] != codes
        return self._order[place + (is_other | (place < 0))]
