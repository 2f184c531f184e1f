"""Columns that follow from the item, such as its category: they belong to the candidate."""

from collections.abc import Collection, Mapping
from itertools import permutations

import numpy as np

from sklearn_din.encoding.cells import Codes

LEAST_ITEMS = 20  # of two rows or more
MOSTLY = 0.5  # of them have more than one value of a column that does not
ALMOST_ALL = 0.99  # of them have one value of a column that follows from the item


class ItemColumns:
    """Count, part by part, the items whose rows all have one value of another column.

    ``names`` are candidates of histories, and the ``item`` where the user names it; otherwise
    :meth:`finish` knows which one identifies the item.
    """

    def __init__(self, names: Collection[str], item: str = "") -> None:
        self.names, self._item = [*dict.fromkeys([*names, *([item] if item else [])])], item
        self._numbers = set[str]()  # by dtype
        self._counts = {pair: np.zeros(2, dtype=int) for pair in permutations(self.names, 2)}

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

    def finish(self, n_ids: Mapping[str, int]) -> tuple[str, tuple[str, ...]]:
        """Return the item, and the columns that follow from it; ``n_ids`` are by column.

        If not named, it is the column with the most ids. Numbers, such as amounts, come last where
        a column of other ids has fewer values and does not follow from them, as a category does
        from an item.
        """
        amounts = {
            number
            for (number, other), (n_repeated, n_same) in self._counts.items()
            if number in self._numbers and other not in self._numbers
            if n_ids[number] > n_ids[other] > LEAST_ITEMS <= n_repeated > n_same / MOSTLY
        }
        largest = max(self.names, key=lambda n: (n not in amounts, n_ids[n]), default="")
        item = self._item or largest
        return item, tuple(
            other
            for (owner, other), (n_repeated, n_same) in self._counts.items()
            if owner == item and n_repeated >= LEAST_ITEMS and n_same >= ALMOST_ALL * n_repeated
        )
