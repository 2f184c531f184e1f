"""Constant and scale of answers, read again from those to the latest rows that a memory was told.

Histories and levels go on growing behind a training, and answers drift off as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from scipy.special import expit

MOST_ROWS = 1_000  # the latest ones
PRIOR = 4.0  # so much information on constant and scale, 16 rows of even odds, halves them
CHANCE = 5.0  # chi-squared of both, by chance 2: what is not above it is not taken
MANY_CLICKS = 100  # at the end, with no other label: clicks that were told alone


@dataclass(frozen=True, eq=False)
class LiveAnswers:
    """Log-odds of the latest rows told, as if asked right before each, and what came of them.

    Rows of one user err together: what users agree on is taken, not what rows do, by which
    MovieLens by time would lose .02 (benchmarks/quality-results.md).

    rows : (n_rows, 2 * n_labels) float64, log-odds and then labels, NaN where one is missing
    users : (n_rows,) uint64, hashes
    until : (1,), the latest time of these: answers to later rows alone change
    """

    rows: np.ndarray
    users: np.ndarray
    until: np.ndarray

    def append(self, other: Self) -> Self:
        """Return the latest of these rows and of further ones."""
        rows, users = np.append(self.rows, other.rows, axis=0), np.append(self.users, other.users)
        until = np.maximum(self.until, other.until)
        return replace(self, rows=rows[-MOST_ROWS:], users=users[-MOST_ROWS:], until=until)

    def without(self, users: np.ndarray) -> Self:
        """Return the rows of others than some users, given by their hashes."""
        is_other = ~np.isin(self.users, users)
        return replace(self, rows=self.rows[is_other], users=self.users[is_other])

    @cached_property
    def lines(self) -> np.ndarray:
        """Constants and scales of the labels' log-odds, (2, n_labels): 0 and 1 change nothing."""
        labels = zip(*np.split(self.rows.T, 2), strict=True)
        return np.transpose([_read_line(z, y, self.users) for z, y in labels])

    def move(self, logits: np.ndarray, times: np.ndarray | None) -> np.ndarray:
        """Return log-odds, (n,) or (n, n_labels), with constant and scale where rows are later.

        times : (n,), None: all are later
        """
        constants, scales = self.lines
        given = logits.reshape(len(logits), -1)
        is_later = np.array(True) if times is None else (times > self.until)[:, None]
        moved = np.where(is_later, constants + scales * given, given)
        return moved.reshape(logits.shape).astype(logits.dtype)

    def describe(self) -> str:
        """Return a line of the summary."""
        lines = ", ".join(f"{scale:.3g} z {constant:+.3g}" for constant, scale in self.lines.T)
        return f"log-odds z of rows later than {self.until[0]}: {lines}, by {len(self.rows)} told"

    def check(self) -> None:
        """Raise ValueError where the parts do not fit each other."""
        n_rows = len(self.users)
        if self.rows.shape != (n_rows, 2 * (self.rows.size // max(2 * n_rows, 1))):
            raise ValueError("each row told must have a user, and log-odds and labels.")


def _read_line(logits: np.ndarray, y: np.ndarray, users: np.ndarray) -> tuple[float, float]:
    """Return the constant and the scale that suit labels best, as far as users agree."""
    from scipy.optimize import minimize

    end = np.flatnonzero(y == 0)[-1:].sum() + 1  # behind the last row without a click
    is_read = ~np.isnan(y) & ((np.arange(len(y)) < end) | (len(y) - end < MANY_CLICKS))
    z, y, number = logits[is_read], y[is_read], np.unique(users[is_read], return_inverse=True)[1]
    if not 0 < y.sum() < len(y):
        return 0.0, 1.0
    errors = (y - expit(z)) * np.stack([np.ones(len(z)), z])
    slopes = np.stack([np.bincount(number, own) for own in errors])  # (2, n_users)
    chi_squared = slopes.sum(1) @ np.linalg.pinv(slopes @ slopes.T) @ slopes.sum(1)

    def loss(line: np.ndarray) -> float:
        odds = line[0] + (1 + line[1]) * z
        return float((np.logaddexp(0, odds) - y * odds).sum() + PRIOR / 2 * line @ line)

    share = max(0.0, 1 - CHANCE / max(chi_squared, CHANCE))
    constant, scale = share * minimize(loss, np.zeros(2)).x
    return float(constant), float(1 + scale)
