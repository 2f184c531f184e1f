"""Columns that follow from the item, such as its category: they belong to the candidate."""

from collections.abc import Iterable, Mapping
from itertools import permutations

import numpy as np

from sklearn_din.encoding.cells import Codes
from sklearn_din.features.schema import item_column

LEAST_ITEMS = 20  # of two rows or more
ALMOST_ALL = 0.99  # of them have one value of a column that follows from the item


class ItemColumns:
    """Count, part by part, the items whose rows all have one value of another column.

    ``names`` are candidates of histories; which one identifies the item is known at the end.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = [*dict.fromkeys(names)]
        self._counts = {pair: np.zeros(2, dtype=int) for pair in permutations(self.names, 2)}

    def update(self, codes: Mapping[str, Codes]) -> None:
        """Take in further rows; items are compared within them."""
        for (item, other), counts in self._counts.items():
            items, others = codes[item][0], codes[other][0]
            is_repeated = np.bincount(items + 1, minlength=1)[1:] > 1  # -1 is missing
            last = np.empty(len(is_repeated) + 1, dtype=others.dtype)
            last[items] = others
            is_same = np.ones(len(last), dtype=bool)
            is_same[items[others != last[items]]] = False
            is_same = is_repeated & is_same[:-1]
            counts += np.array([is_repeated.sum(), is_same.sum()])

    def finish(self, n_ids: Mapping[str, int]) -> tuple[str, ...]:
        """Return the columns that follow from the item; ``n_ids`` are by column."""
        item = item_column(n_ids, self.names)
        return tuple(
            other
            for (owner, other), (n_repeated, n_same) in self._counts.items()
            if owner == item and n_repeated >= LEAST_ITEMS and n_same >= ALMOST_ALL * n_repeated
        )
