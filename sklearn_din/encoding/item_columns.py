"""Columns that follow from the item, such as its category: they belong to the candidate."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import permutations

import numpy as np

from sklearn_din.encoding.cells import Codes
from sklearn_din.features.lists import Column
from sklearn_din.features.schema import FIRST_KNOWN_ID
from sklearn_din.utils.validation import spread

LEAST_ITEMS = 20  # of two rows or more
ALMOST_ALL = 0.99  # of them have one value of a column that follows from the item
SAMPLED_ITEMS = 2_000
MOSTLY = 0.5  # of the items, with another value than at fit
LOOKED_AT = 10_000  # rows


@dataclass(frozen=True)
class ItemSample:
    """Some items' values of the columns that follow from them, as ids: (2, n), sorted by item."""

    item: str = ""
    pairs: Mapping[str, np.ndarray] = field(default_factory=dict)

    def note_moved(
        self, columns: Mapping[str, Column], decode: Callable[[str, np.ndarray], np.ndarray]
    ) -> Iterator[str]:
        """Yield what to say of encoded columns of which most rows have another item's value."""
        for name, (items, values) in self.pairs.items():
            if self.item not in columns or name not in columns or not len(items):
                continue
            both = np.asarray(columns[self.item]), np.asarray(columns[name])
            shown, now = (spread(ids, LOOKED_AT) for ids in both)
            place = np.minimum(np.searchsorted(items, shown), len(items) - 1)
            is_there = (items[place] == shown) & (now >= FIRST_KNOWN_ID)
            rows = np.flatnonzero(is_there & (now != values[place]))
            share = len(rows) / max(int(is_there.sum()), 1)
            if len(np.unique(shown[rows])) >= LEAST_ITEMS and share > MOSTLY:
                row, at = rows[0], place[rows[0]]
                item = decode(self.item, shown[[row]])[0]
                value, before = decode(name, np.array([now[row], values[at]]))
                yield (
                    f"{name} of {self.item} {item!r:.40} is {value!r:.40}, and was {before!r:.40} "
                    f"at fit; so it differs for {share:.0%} of the known items: have rows another "
                    f"item's {name}? Join what describes an item by {self.item}, not by position."
                )


class ItemColumns:
    """Count, part by part, the items whose rows all have one value of another column.

    ``names`` are candidates of histories, and the ``item`` where the user names it; otherwise
    :meth:`finish` knows which one identifies the item.
    """

    def __init__(self, names: Collection[str], item: str = "") -> None:
        self.names, self._item = [*dict.fromkeys([*names, *([item] if item else [])])], item
        self._numbers = set[str]()  # by dtype
        self._counts = {pair: np.zeros(2, dtype=int) for pair in permutations(self.names, 2)}
        self._pairs: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}

    def update(self, codes: Mapping[str, Codes]) -> None:
        """Take in further rows; items are compared within them."""
        self._numbers |= {name for name in self.names if codes[name][1].dtype.kind in "iuf"}
        for (item, other), counts in self._counts.items():
            items, others = codes[item][0], codes[other][0]
            is_repeated = np.bincount(items + 1, minlength=1)[1:] > 1  # -1 is missing
            last = np.empty(len(is_repeated) + 1, dtype=others.dtype)
            last[items] = others
            is_same = np.ones(len(last), dtype=bool)
            is_same[items[others != last[items]]] = False
            is_same = is_repeated & is_same[:-1]
            counts += np.array([is_repeated.sum(), is_same.sum()])
            if (item, other) not in self._pairs and is_same.sum() >= LEAST_ITEMS:
                some = spread(np.flatnonzero(is_same), SAMPLED_ITEMS)
                some = some[last[some] >= 0]
                values = codes[item][1][some], codes[other][1][last[some]]
                self._pairs[item, other] = values

    def _find_item(self, n_ids: Mapping[str, int]) -> str:
        """Return the column that identifies the item: if not named, that with the most ids.

        Numbers, such as amounts, come last where a column of other ids has fewer values and does
        not follow from them, as a category does from an item.
        """
        amounts = {
            number
            for (number, other), (n_repeated, n_same) in self._counts.items()
            if number in self._numbers and other not in self._numbers
            if n_ids[number] > n_ids[other] > LEAST_ITEMS <= n_repeated > n_same / MOSTLY
        }
        largest = max(self.names, key=lambda n: (n not in amounts, n_ids[n]), default="")
        return self._item or largest

    def finish(
        self, n_ids: Mapping[str, int], encode: Callable[[str, np.ndarray], np.ndarray]
    ) -> tuple[tuple[str, ...], ItemSample]:
        """Return the columns that follow from the item, and some items' values of them, as ids."""
        item, following, pairs = self._find_item(n_ids), list[str](), dict[str, np.ndarray]()
        for (owner, other), (n_repeated, n_same) in self._counts.items():
            if owner != item or n_repeated < LEAST_ITEMS or n_same < ALMOST_ALL * n_repeated:
                continue
            following.append(other)
            if (item, other) in self._pairs:
                items, values = map(encode, (item, other), self._pairs[item, other])
                known = np.flatnonzero((items >= FIRST_KNOWN_ID) & (values >= FIRST_KNOWN_ID))
                known = known[np.argsort(items[known])]
                pairs[other] = np.stack([items[known], values[known]])
        return tuple(following), ItemSample(item, pairs)
