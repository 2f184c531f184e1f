"""How the numbers of pairs compare with those of the list that is ranked for a user."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import pandas as pd

from sklearn_din.encoding.cells import as_numbers
from sklearn_din.features.request_columns import compare_within, find_compared, neutral_columns


class PairRequests:
    """The columns of ``attach_request``, made of whole lists of candidates.

    Parameters
    ----------
    names : collection of str
        Columns that a model was fitted on.
    candidates : DataFrame of shape (n_candidates, ...)
        Whose numbers are compared; those of users are equal in a list, so that nothing differs.

    Attributes
    ----------
    neutral : dict of str to float
        What each column that is made is of a row alone.
    """

    def __init__(self, names: Collection[str], candidates: pd.DataFrame) -> None:
        self._columns = find_compared(names)
        self.neutral = neutral_columns(names)
        self._numbers = {
            name: as_numbers(candidates[name], name=f"candidates[{name!r}]")
            for name in self._columns
            if name in candidates
        }

    def compare(
        self, users: np.ndarray, candidates: np.ndarray, levels: Callable[..., dict] | None
    ) -> dict[str, np.ndarray]:
        """Return the columns of pairs, all those of each user: (n_pairs,) float64 each.

        levels : a function of both, where a memory makes levels of pairs
        """
        made = {} if levels is None else levels(users, candidates)
        columns: dict[str, np.ndarray] = {}
        for name, names in self._columns.items():
            numbers = made.get(name, np.zeros(len(users)))
            if name in self._numbers:
                numbers = self._numbers[name][candidates]
            columns |= zip(names, compare_within(numbers, users), strict=True)
        return columns
