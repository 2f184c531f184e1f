"""Profile of the training rows, column by column, and the distance of other rows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from sklearn_din.features.schema import UNKNOWN_ID
from sklearn_din.utils.estimator_state import check_array

FREQUENT_IDS = 19  # each has a bin of its own, all others share one
DECILES = np.arange(1, 10) / 10
SAMPLED_ROWS = 2_000
COMPARED_ROWS = 500
LEAST_NUMBERS = 100  # with fewer, nothing is said of a unit
MEDIAN = 4  # of nine deciles
LEAST_DECILES = 5  # different ones
LEAST_FACTOR = 20.0
SPREAD_OF_FACTORS = 2.0
IDS = ("categorical", "list", "history", "list_history")
HAS = {
    "unknown": IDS,
    "missing": (*IDS, "numeric", "numeric_history"),
    "empty": ("history", "list_history", "numeric_history"),
    "length": ("history",),
    "beyond": ("numeric",),
}
REPORTED = ["column", "kind", *(what + at for what in HAS for at in ("", "_at_fit")), "shift"]


@dataclass(frozen=True)
class ColumnProfile:
    """Counts of one column of some rows.

    ``rows`` of which ``empty`` have no event; ``cells`` are the rows, or the events of a history;
    of these some are ``missing`` or ``unknown``, and the others fall into bins, numbers ``beyond``
    their ``ends`` too. ``bins`` are the most frequent ids of the training rows (the last bin is all
    other known ids), or the deciles of their numbers (between two deciles is a bin, and each decile
    is one: numbers such as 0 may be most of a column).

    >>> at_fit = ColumnProfile.of_sample(np.arange(1.0, 101.0))
    >>> later = at_fit.of_numbers(np.arange(1.0, 101.0) * 365)
    >>> round(at_fit.shift_to(at_fit), 3), round(at_fit.shift_to(later), 1)
    (0.0, 4.1)
    """

    bins: np.ndarray
    in_bins: np.ndarray
    rows: float = 0.0
    empty: float = 0.0
    cells: float = 0.0
    missing: float = 0.0
    unknown: float = 0.0
    beyond: float = 0.0
    ends: tuple[float, ...] = ()

    @classmethod
    def of_ids_at_fit(cls, ids: np.ndarray, counts: np.ndarray, *, missing: float) -> ColumnProfile:
        """Profile the training rows: their distinct ids, and how often each counts."""
        known = np.flatnonzero(ids > UNKNOWN_ID)
        frequent = ids[known[np.argsort(-counts[known], kind="stable")[:FREQUENT_IDS]]]
        nothing = cls(frequent.astype(np.int32), np.zeros(len(frequent) + 1))
        return nothing.of_ids(ids, counts, missing=missing)

    @classmethod
    def of_sample(cls, numbers: np.ndarray, ends: tuple[float, ...] = ()) -> ColumnProfile:
        """Profile the training rows by a sample of their numbers, and where these end."""
        present = numbers[~np.isnan(numbers)]
        bins = _deciles(present) if len(present) else np.empty(0)
        return cls(bins, np.zeros(2 * len(bins) + 1), ends=ends).of_numbers(numbers)

    def of_ids(self, ids: np.ndarray, counts: np.ndarray, *, missing: float) -> ColumnProfile:
        """Profile other rows in the bins of this one."""
        is_known, n_bins = ids > UNKNOWN_ID, len(self.in_bins)
        bin_of = np.full(max(ids.max(initial=0), self.bins.max(initial=0)) + 1, n_bins - 1)
        bin_of[self.bins] = np.arange(len(self.bins))
        places = bin_of[ids[is_known]]
        # Of nothing, numpy makes integers.
        in_bins = np.bincount(places, counts[is_known], n_bins).astype(np.float64)
        return ColumnProfile(
            self.bins,
            in_bins,
            cells=float(counts.sum()) + missing,
            missing=float(missing),
            unknown=float(counts[~is_known].sum()),
        )

    def of_numbers(self, numbers: np.ndarray) -> ColumnProfile:
        """Profile other rows in the bins of this one; missing numbers are NaN."""
        present = numbers[~np.isnan(numbers)]
        places = np.searchsorted(self.bins, present, "left")
        places += np.searchsorted(self.bins, present, "right")
        in_bins = np.bincount(places, minlength=len(self.in_bins)).astype(np.float64)
        n_cells, n_missing = float(len(numbers)), float(len(numbers) - len(present))
        counts = {"cells": n_cells, "missing": n_missing, "beyond": float(len(self._far(present)))}
        return ColumnProfile(self.bins, in_bins, ends=self.ends, **counts)

    def _far(self, present: np.ndarray) -> np.ndarray:
        """Return the numbers beyond the ends."""
        low, high = self.ends or (-np.inf, np.inf)
        return present[(present < low) | (present > high)]

    def is_far(self, numbers: np.ndarray) -> bool:
        """Return whether most of some numbers are beyond the ends, and not those of one user."""
        present = numbers[~np.isnan(numbers)]
        far = self._far(present)
        return 2 * len(far) > len(present) and len(np.unique(far)) >= LEAST_DECILES

    def with_rows(self, n_rows: int, n_empty: int) -> ColumnProfile:
        """Return the same with the number of rows behind it, and how many have no event."""
        return replace(self, rows=float(n_rows), empty=float(n_empty))

    def plus(self, other: ColumnProfile) -> ColumnProfile:
        """Add the counts of other rows in the same bins."""
        names = [field.name for field in fields(self) if field.name not in ("bins", "ends")]
        return replace(self, **{n: getattr(self, n) + getattr(other, n) for n in names})

    def shift_to(self, other: ColumnProfile) -> float:
        """Return the population stability index; NaN where one of both has nothing in its bins.

        The sum of ``(p - q) log(p / q)`` over the bins, where p and q are the fractions of the two
        with half a value added to each bin.
        """
        if not self.in_bins.sum() or not other.in_bins.sum():
            return float("nan")
        p, q = (
            (profile.in_bins + 0.5) / (profile.in_bins + 0.5).sum() for profile in (self, other)
        )
        return float(((p - q) * np.log(p / q)).sum())

    def fraction(self, name: str) -> float:
        """Return ``empty`` per row, or ``missing`` or ``unknown`` per cell; NaN of nothing.

        The "length" of a history is its cells per row.
        """
        if name == "beyond" and not self.ends:
            return float("nan")
        whole = self.rows if name in ("empty", "length") else self.cells
        part = self.cells if name == "length" else getattr(self, name)
        return float(part / whole) if whole else float("nan")

    def find_factor(self, numbers: np.ndarray) -> float | None:
        """Return how many times larger other numbers are than those at fit, if a unit has changed.

        It has where their deciles are all about the same multiple, or fraction, of those at fit. A
        single user's numbers are not, nor a few: then, None.
        """
        present = numbers[~np.isnan(numbers)]
        if len(present) < LEAST_NUMBERS or not len(self.bins):
            return None
        deciles = _deciles(present)
        median = self.bins[MEDIAN]
        if median and 1 / LEAST_FACTOR < deciles[MEDIAN] / median < LEAST_FACTOR:
            return None
        is_compared = (self.bins != 0) & (deciles != 0)
        before, now = self.bins[is_compared], deciles[is_compared]
        if min(len(np.unique(before)), len(np.unique(now))) < LEAST_DECILES:
            return None
        factors = now / before
        factor = float(np.median(factors))
        if factor <= 0 or max(factor, 1 / factor) < LEAST_FACTOR:
            return None
        near = (factors > factor / SPREAD_OF_FACTORS) & (factors < factor * SPREAD_OF_FACTORS)
        return factor if near.all() else None

    def check(self) -> None:
        """Raise ValueError where this cannot be a profile."""
        dtype = np.int32 if self.bins.dtype == np.int32 else np.float64
        check_array(self.bins, dtype=dtype, shape=(self.bins.size,), what="bins")
        n_bins = self.bins.size + 1 if dtype == np.int32 else 2 * self.bins.size + 1
        what = "counts by bin"
        check_array(self.in_bins, dtype="float64", shape=(n_bins,), what=what, least=0)
        for name in ("rows", "empty", "cells", "missing", "unknown", "beyond"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"a profile's {name} must be a count, got {getattr(self, name)}.")
        if len(self.ends) not in (0, 2):
            raise ValueError(f"a profile's ends must be two or none, got {self.ends!r:.60}.")


def compare_profiles(
    kinds: Mapping[str, str], at_fit: Mapping[str, ColumnProfile], now: Mapping[str, ColumnProfile]
) -> pd.DataFrame:
    """Return a table comparing later rows with the training rows, for columns in ``kinds``."""
    rows = []
    for name, kind in kinds.items():
        row: dict[str, Any] = {"column": name, "kind": kind}
        for what, kinds_with in HAS.items():
            has_it = kind in kinds_with
            for suffix, profile in (("", now[name]), ("_at_fit", at_fit[name])):
                row[what + suffix] = profile.fraction(what) if has_it else np.nan
        rows.append(row | {"shift": at_fit[name].shift_to(now[name])})
    return pd.DataFrame(rows, columns=REPORTED).set_index("column")


def note_far_numbers(name: str, at_fit: ColumnProfile, numbers: np.ndarray) -> str | None:
    """Return what to say of numbers that are a multiple of those at fit, or beyond their ends."""
    if factor := at_fit.find_factor(numbers):
        times = int(float(f"{max(factor, 1 / factor):.1g}"))  # one digit: one sentence for all rows
        size = "larger" if factor > 1 else "smaller"
        seen = f"{name} is throughout some {times} times {size} than in the rows of fit"
    elif at_fit.is_far(numbers):
        ends = "less than {:.3g} or more than {:.3g}".format(*at_fit.ends)
        seen = f"most numbers of {name} are far beyond those of fit ({ends}), and read as their end"
    else:
        return None
    return (
        f"{seen}: has its unit changed (seconds and days, cents), or does it grow? Give it the "
        "unit of fit, or fit again; encoder.report(X) compares every column."
    )


def _deciles(numbers: np.ndarray) -> np.ndarray:
    """Return the nine deciles, each one of the numbers."""
    places = np.ceil(DECILES * len(numbers)).astype(np.intp) - 1
    return np.sort(numbers)[places].astype(np.float64)
