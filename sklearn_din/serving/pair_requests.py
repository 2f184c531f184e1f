"""How the numbers of pairs compare with those of the list that is ranked for a user."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction

import numpy as np
import pandas as pd

from sklearn_din.encoding.cells import as_numbers
from sklearn_din.encoding.number import NumberColumn
from sklearn_din.encoding.profile import LEAST_DECILES
from sklearn_din.features.request_columns import NEUTRAL, compare_within, neutral_numbers
from sklearn_din.features.schema import Schema
from sklearn_din.utils.warnings import warn_once

LONGER = 10  # times as many rows as the requests of the training rows


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
        shares = [numbers[f.name].profile.bins for f in self._fields if f.what == "share"]
        self._n_rows = max(map(count_rows, shares), default=0)
        self._numbers = {
            name: as_numbers(candidates[name], name=f"candidates[{name!r}]")
            for name in {field.of[0] for field in self._fields}
            if name in candidates
        }

    def compare(
        self, users: np.ndarray, candidates: np.ndarray, levels: Callable[..., dict] | None
    ) -> dict[str, np.ndarray]:
        """Return the compared columns of pairs, all those of each user: (n_pairs,) float64 each."""
        n_rows = int(np.bincount(users - users.min(initial=0)).max(initial=0))
        if 0 < LONGER * self._n_rows < n_rows:
            warn_once(
                f"a list of {n_rows} candidates is ranked by comparisons (attach_request) that "
                f"were learnt from requests of {self._n_rows} rows or fewer: its order holds, its "
                "probabilities may not. Rank fewer (only=, shortlist=), or use the order alone."
            )
        made = {} if levels is None else levels(users, candidates)
        made = made | {name: numbers[candidates] for name, numbers in self._numbers.items()}
        compared = {
            name: compare_within(made.get(name, np.zeros(len(users))), users)
            for name in {field.of[0] for field in self._fields}
        }
        return {field.name: compared[field.of[0]][field.what] for field in self._fields}


def count_rows(shares: np.ndarray) -> int:
    """Return the number of rows of long requests at fit, from the deciles of ``NAME_share``.

    Of n rows, the shares are multiples of 1 / (n - 1), or of half of it where values are equal: the
    largest denominator is n - 1 or more. 0 where most rows are neutral, such as rows alone.
    """
    compared = shares[shares != NEUTRAL["share"]]
    if len(compared) < LEAST_DECILES:
        return 0
    return 1 + max(Fraction(share).limit_denominator(10**6).denominator for share in compared)
