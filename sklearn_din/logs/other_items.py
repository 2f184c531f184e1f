"""Random items that a user does not have, drawn exactly and without rejection."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sklearn_din.utils.keys import Keys
from sklearn_din.utils.validation import check_choice, check_columns, check_count

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
    launched: bool | str
    has_catalogue: bool
    catalogue_time: str | None

    @property
    def following(self) -> list[str]:
        """Columns for which a negative takes the values of its item."""
        return [*dict.fromkeys([self.item, *self.item_columns])]

    @property
    def keys(self) -> list[str]:
        """The columns of user and item."""
        return [self.item] if self.user is None else [self.item, self.user]

    @property
    def described(self) -> list[str]:
        """Columns of a catalogue."""
        launch = self.catalogue_time
        return [*dict.fromkeys([*self.following, *([] if launch is None else [launch])])]

    def check(self, columns: Collection[Any], n_events: int) -> None:
        """Raise unless the options exist, and events have the columns and some rows."""
        check_count(self.n_negatives, name="n_negatives")
        check_choice(self.strategy, STRATEGIES, name="strategy")
        check_choice(self.launched, ("auto", True, False), name="launched")
        if self.catalogue_time is not None and not self.has_catalogue:
            raise ValueError("catalogue_time needs catalogue=, got catalogue=None.")
        if self.time is None and (self.launched is True or self.catalogue_time is not None):
            raise ValueError("launched=True and catalogue_time need time=, got time=None.")
        needed = [*self.following, *self.keys, *filter(None, [self.time])]
        check_columns(columns, needed, name="events")
        if n_events == 0:
            raise ValueError("events must have at least one row, got none.")

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


def number_ids(
    events: pd.DataFrame, column: str, *, name: str = "events"
) -> tuple[np.ndarray, np.ndarray]:
    """Number the ids of a column from 0; return the number of each row, and the ids."""
    keys = Keys.read(events[column], name=f"{name}[{column!r}]")
    if n_missing := int((keys.codes < 0).sum()):
        raise missing_ids(column, n_missing, name=name)
    return keys.codes, keys.values


def missing_ids(column: str, n_missing: int, *, name: str = "events") -> ValueError:
    """Make the error for ids that are missing."""
    return ValueError(
        f"{name}[{column!r}] must not be missing, got {n_missing} rows without. Drop those rows."
    )


class OwnItems:
    """Each owner's distinct items, laid out so that the others can be drawn exactly.

    The catalogue is a line on which each item covers its weight. Without an owner's items it is
    shorter, by which ``free`` is left; a uniform point on it, moved right by the pieces cut out
    before it, lies on another item. In the order in which items come up, a beginning holds those
    that are there at some moment. ``owners`` and ``items`` are codes of who has what.
    """

    def __init__(self, owners: np.ndarray, items: np.ndarray, weights: np.ndarray):
        n_items = len(weights)
        pairs = np.sort(owners * n_items + items)
        pairs = pairs[np.append(True, pairs[1:] != pairs[:-1])]  # np.unique hashes: slower
        pair_owner, pair_item = np.divmod(pairs, n_items)
        self._pairs, self._n_items = pairs, n_items
        self.n_owners = np.bincount(pair_item, minlength=n_items)  # of each item
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
        pools: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> np.ndarray:
        """Item codes of shape (len(owners), size), none of them the owner's own.

        ``pools`` have the first item of each draw's pool and the one behind its last; None: all. Of
        an owner who has all of a pool it is -1, or where the pool comes later, its last item.
        """
        low, free = np.zeros_like(owners), self.free[owners]
        has_none = np.zeros(len(owners), dtype=bool)
        if pools is not None:
            low, high = (self._count_free(owners, ends) for ends in pools)
            has_none = (high == low) & (pools[0] == 0)
            low, free = np.minimum(low, free - 1), np.maximum(high - low, 1)
        order = np.argsort(owners, kind="stable")  # an owner's searches then lie side by side
        owners, low, free = (values[order, None] for values in (owners, low, free))
        points = low + (rng.random_sample((len(owners), size)) * free).astype(np.int64)
        n_cut = np.searchsorted(self._keys, owners * self._stride + points, side="right")
        moved = points + self._cut[n_cut] - self._cut[self._first[owners]]
        drawn = np.empty_like(moved)
        drawn[order] = np.searchsorted(self._edges, moved, side="right") - 1
        drawn[has_none] = -1
        return drawn

    def _count_free(self, owners: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Return what each owner leaves of the items before an end."""
        n_cut = np.searchsorted(self._pairs, owners * self._n_items + ends)
        return self._edges[ends] - (self._cut[n_cut] - self._cut[self._first[owners]])


@dataclass(frozen=True)
class Arrivals:
    """When items came up, by their codes, which are in the order of ``launch``."""

    n_events: np.ndarray
    first: np.ndarray  # when the first event was; of none, after all others
    before: np.ndarray  # share of the log's events before that
    launch: np.ndarray  # since when the item is there: as a catalogue has it, else the first event

    def find_pools(
        self, items: np.ndarray, times: np.ndarray, pools: str
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Return where each event's pool of items begins and ends; None: all items.

        "launched" are those that are there. "alike" are those that had an event before, as the
        event's item had; at an item's first event, those that had none.
        """
        if pools == "all":
            return None
        if pools == "launched":
            ends = np.searchsorted(self.launch, times, side="right")
            return np.zeros_like(ends), ends
        n_up = np.searchsorted(self.launch, times, side="left")
        is_first = self.first[items] >= times
        return np.where(is_first, n_up, 0), np.where(is_first, len(self.launch), n_up)


def number_as_they_come(
    items: np.ndarray, times: np.ndarray, n_listed: int = 0, *, is_known: bool = False
) -> tuple[Arrivals, np.ndarray]:
    """Give items new codes in the order in which they came up, ties by their old codes.

    ``times`` are ranks from 1; ``n_listed`` first rows are of a catalogue, which may tell launches.
    """
    clicked, moments = items[n_listed:], times[n_listed:]
    n_items, never = items.max() + 1, times.max() + 1
    first = np.full(n_items, never)
    np.minimum.at(first, clicked, moments)
    launch = first.copy()
    if is_known:
        np.minimum.at(launch, items[:n_listed], times[:n_listed])
    order = np.argsort(launch, kind="stable")
    codes = np.empty_like(order)
    codes[order] = np.arange(n_items)
    before = np.cumsum(np.bincount(moments, minlength=never))[first[order] - 1] / len(moments)
    n_events = np.bincount(clicked, minlength=n_items)[order]
    return Arrivals(n_events, first[order], before, launch[order]), codes[items]


class ItemVersions:
    """Rows of items by item and time: versions, of ``codes``, that hold from ``times`` on."""

    def __init__(self, codes: np.ndarray, times: np.ndarray) -> None:
        self._ticks, ticks = np.unique(times, return_inverse=True)
        self._codes, self._stride = codes, len(self._ticks) + 1
        keys = codes * self._stride + ticks + 1
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def find(self, codes: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Newest version of each item up to the row's time, or its first; where that is later."""
        ticks = np.searchsorted(self._ticks, times, side="right")
        keys = codes * self._stride + ticks[:, None]
        place = np.searchsorted(self._keys, keys, side="right") - 1
        is_later = (place < 0) | (self._codes[self._order[np.maximum(place, 0)]] != codes)
        return self._order[place + is_later], is_later
