"""Rankings with less repetition: maximal marginal relevance."""

from collections.abc import Mapping
from numbers import Real
from typing import NamedTuple

import numpy as np
import pandas as pd

from sklearn_din.encoding.cells import factorize
from sklearn_din.utils.validation import check_frame


class Diversity(NamedTuple):
    """Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998) by one attribute.

    The greedy choice takes a user's best candidate of each value before the others of that value,
    so that ``repeats`` (:func:`rank_candidates`) is 0 for it and 1 for them whatever else is in the
    list: sorting gives the same.
    """

    codes: np.ndarray  # (n_candidates,): the value of each candidate, -1 where missing
    weight: float

    def reorder(
        self, rows: np.ndarray, positions: np.ndarray, scores: np.ndarray, values: np.ndarray
    ) -> np.ndarray:
        """Return numbers that order each user's pairs by MMR when the largest is first: (n_pairs,).

        ``rows`` are users, ascending, ``positions`` candidates; ``scores`` decide ties, and
        ``values``, scaled to [0, 1] by user, are the relevance.
        """
        by_score = np.lexsort((-scores, rows))
        values = values[by_score].astype(np.float64)
        least = values[np.searchsorted(rows, rows, side="right") - 1]
        span = values[np.searchsorted(rows, rows)] - least
        relevance = np.divide(values - least, span, out=np.zeros_like(values), where=span > 0)
        codes = self.codes[positions[by_score]]
        repeats = pd.DataFrame({"row": rows, "code": codes}).duplicated().to_numpy() & (codes >= 0)
        marginal = (1 - self.weight) * relevance - self.weight * repeats
        order = np.empty(len(rows), dtype=np.int64)
        order[by_score[np.lexsort((-marginal, rows))]] = -np.arange(len(rows))
        return order


def check_diversify(diversify: object, candidates: pd.DataFrame, by: str | None) -> Diversity:
    """Return what ``diversify`` of a ranking asks for, or raise."""
    if not isinstance(diversify, Mapping) or len(diversify) != 1:
        raise ValueError(
            "diversify must be a dict of one column of candidates and its weight, such as "
            f"{{'category': 0.3}}, got {diversify!r}."
        )
    if by is not None:
        raise ValueError(
            "diversify weighs repetition against the Pipeline's probability, got "
            f"by={by!r} too. Leave one of them out."
        )
    ((column, weight),) = diversify.items()
    check_frame(candidates, [column], name="candidates")
    if isinstance(weight, bool) or not isinstance(weight, Real) or not 0 <= float(weight) <= 1:
        raise ValueError(
            f"diversify must give {column!r} a weight from 0 (the ranking by probability) to 1 "
            f"(each value once before any is repeated), got {weight!r}."
        )
    codes, _ = factorize(candidates[column], name=f"candidates[{column!r}]")
    return Diversity(codes, float(weight))
