"""Rates of keys, shrunk toward the average rate by an amount estimated from the data."""

import numpy as np

PRIOR_ROWS = 10.0  # at the average rate, where the rows do not tell how many
LEAST_PRIOR, MOST_PRIOR = 1.0, 1_000.0
N_SUMS = 5


def sums_of_keys(n_rows: np.ndarray, n_ones: np.ndarray) -> np.ndarray:
    """Return what each key, of so many rows and ones, adds to the sums that tell the strength.

    sums : (5, n_keys), float64: 1 where the key has rows, its rows, its ones, squared rows,
        squared ones per row
    """
    n, ones = np.asarray(n_rows, dtype=np.float64), np.asarray(n_ones, dtype=np.float64)
    return np.stack([n > 0, n, ones, n * n, ones * ones / np.maximum(n, 1)])


def changes_of_sums(running: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Return by how much each row changes these sums: (5, n_rows), float64.

    running : (2, n_rows), rows and ones of its key, up to and with the row itself
    own : (2, n_rows), of the row alone; zeros where it has no label
    """
    return sums_of_keys(*running) - sums_of_keys(*(running - own))


def prior_rows(sums: np.ndarray, squares: np.ndarray | None = None) -> np.ndarray:
    """How many rows at the average rate each key's own are added to: what the keys tell.

    The strength of a beta distribution of their rates, by the analysis of variance between and
    within keys (Donner, "A Review of Inference Procedures for the Intraclass Correlation
    Coefficient", 1986): many where the rates are as alike as chance makes them.

    sums : (5, ...), of all keys
    squares : (...), the sum of squared labels; None: of labels that are 0 and 1, the ones
    prior : (...), float64
    """
    n_keys, n, ones, squared_rows, ones_by_row = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (ones_by_row - ones**2 / n) / (n_keys - 1)
        within = ((ones if squares is None else squares) - ones_by_row) / (n - n_keys)
        usual = (n - squared_rows / n) / (n_keys - 1)  # rows of a key
        prior = np.clip(usual * within / (between - within), LEAST_PRIOR, MOST_PRIOR)
    prior = np.where(between <= within, MOST_PRIOR, prior)
    return np.where((n_keys < 2) | (n == n_keys), PRIOR_ROWS, prior)


def average_and_prior(sums: np.ndarray) -> np.ndarray:
    """Return the average rate, NaN without rows, and the rows at it that are added: (2, n)."""
    n_rows, n_ones = sums[1:3]
    average = np.divide(n_ones, n_rows, out=np.full_like(n_rows, np.nan), where=n_rows > 0)
    return np.stack([average, prior_rows(sums)])


def shrink(before: np.ndarray, averages: np.ndarray) -> np.ndarray:
    """Return rates of ones, of each key's rows and ones and of rows at the average rate: (n,)."""
    (n_rows, n_ones), (average, prior) = before, averages
    return (n_ones + prior * average) / (n_rows + prior)
