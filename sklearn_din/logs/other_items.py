"""Draws of items that their owner does not have, exact and without rejection."""

from __future__ import annotations

import numpy as np

from sklearn_din._validation import check_choice, check_count

STRATEGIES = ("uniform", "popularity")


class OwnItems:
    """Each owner's distinct items, laid out so that the others can be drawn exactly.

    Think of the catalogue as a line on which each item covers its weight. Cutting out an owner's
    own items leaves a shorter line; a uniform point on it is moved right by the weight of the
    cut-out pieces before it, and then lies on another item. ``owners`` and ``items`` are codes of
    who has what, ``weights`` how much of the line each item covers, and ``free`` what each owner
    leaves of it.
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


def check_options(n_negatives: object, strategy: object) -> None:
    """Raise unless the two options are among those that exist."""
    check_count(n_negatives, name="n_negatives")
    check_choice(strategy, STRATEGIES, name="strategy")


def nothing_to_draw(owner: object, user: str | None) -> ValueError:
    """Make the error for an owner who has every item."""
    if user is None:
        return ValueError(
            f"events must have at least two items to sample from, got only {owner!r}."
        )
    return ValueError(
        f"{user} {owner!r} has every item of the log, so there is no "
        "negative to sample. Leave such users out, or pass user=None."
    )
