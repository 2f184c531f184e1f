"""How the numbers of pairs compare with those of the list that is ranked for a user."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from sklearn_din.encoding.cells import as_numbers
from sklearn_din.encoding.number import NumberColumn
from sklearn_din.features.request_columns import compare_within, neutral_numbers
from sklearn_din.features.schema import Schema


class PairRequests:
    """The columns of ``attach_request``, made of whole lists of candidates.

    ``schema`` and ``numbers``, the columns of numbers, are those of a fitted encoder. Numbers of
    ``candidates`` are compared; those of users are equal in a list, so that nothing differs.
    ``neutral`` says what each column that is made is of a row alone.
    """

    def __init__(
        self, schema: Schema, numbers: Mapping[str, NumberColumn], candidates: pd.DataFrame
    ) -> None:
        self.neutral = neutral_numbers(schema, numbers)
        self._fields = [schema[name] for name in self.neutral]
        self._numbers = {
            name: as_numbers(candidates[name], name=f"candidates[{name!r}]")
            for name in {field.of[0] for field in self._fields}
            if name in candidates
        }

    def compare(
        self, users: np.ndarray, candidates: np.ndarray, levels: Callable[..., dict] | None
    ) -> dict[str, np.ndarray]:
        """Return the compared columns of pairs, all those of each user: (n_pairs,) float64 each."""
        made = {} if levels is None else levels(users, candidates)
        made = made | {name: numbers[candidates] for name, numbers in self._numbers.items()}
        compared = {
            name: compare_within(made.get(name, np.zeros(len(users))), users)
            for name in {field.of[0] for field in self._fields}
        }
        return {field.name: compared[field.of[0]][field.what] for field in self._fields}
