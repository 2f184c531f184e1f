"""Columns that are means of the label over all rows, those to be predicted among them."""

from collections.abc import Iterator

import numpy as np

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.identities import ids_to_look_up
from sklearn_din.features.schema import FIRST_KNOWN_ID
from sklearn_din.utils.blas import one_thread_of_blas
from sklearn_din.utils.keys import Keys
from sklearn_din.utils.warnings import Finding

CHECKED_ROWS = 200_000
MIN_GROUPS = 20
MIN_ROWS = 5  # of a group
MIN_ROWS_OF_PAIR = 2
SAME = 0.5  # of a column's deviation, within groups: a mean has one value for each
MOST_SCATTER = 0.5  # of what coins have; means over all rows have .36 at most, honest columns .96
LEAST_Z = -5.0
BY_DESIGN = 0.8  # without any column: so many clicks of a group were drawn, such as one in three
DEGREE = 3  # of the polynomial that makes a column a chance
LEAST_CHANCE = 1e-3
LEAST_VARIANCE = 0.2  # of a group's clicks: with less, scatter is no chi-squared


def find_label_means(X: EncodedFeatures, clicks: np.ndarray) -> Iterator[Finding]:
    """Yield a finding for each column of numbers that is a mean of the label over all rows.

    Clicks of a group, such as a user, scatter around what an honest column lets expect of it as
    coins do. A mean that counts the rows themselves leaves less: sums of ``(clicks - expected)^2 /
    variance`` over groups are far below their number; and it has one value in each group, as
    running counts have not.
    """
    rows = np.arange(0, len(X), -(-len(X) // CHECKED_ROWS)) if len(X) else np.arange(0)
    names = [name for name in X.schema.names("numeric") if not X.schema[name].candidate]
    names = [name for name in names if len(np.unique(X.columns[name][rows])) >= MIN_GROUPS]
    clicks = (clicks[rows] == 1).astype(np.float64)
    if not names or not 0 < clicks.mean() < 1:
        return
    average = np.full(len(rows), clicks.mean())
    groups = {
        what: codes
        for what, codes in _groups(X, rows).items()
        if _scatter(codes, clicks, average)[0] >= BY_DESIGN
    }
    for name in names:
        numbers = X.columns[name][rows].astype(np.float64)
        chance = _chance(numbers, clicks)
        for what, codes in groups.items():
            if _deviation_within(codes, numbers) > SAME:
                continue
            scatter, z = _scatter(codes, clicks, chance)
            if scatter < MOST_SCATTER and z < LEAST_Z:
                yield Finding(
                    "means of the label",
                    f"{name} predicts how often each {what} was clicked more closely than chance "
                    f"allows (what is left varies {scatter:.2f} times as much as coin tosses): "
                    "it seems to be a mean of the label over all rows, including those to be "
                    "predicted.",
                    "Compute it from earlier rows only, with attach_aggregates, or leave it out: "
                    f"HistorySequenceEncoder(drop=[{name!r}]).",
                    name,
                )
                break


def number_keys(X: EncodedFeatures, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return users, columns of ids, and pairs of both as codes from 0; -1: missing, unknown."""
    codes: dict[str, np.ndarray] = {}
    for name in X.schema.names("categorical"):
        ids = ids_to_look_up(X.columns[name][rows])
        codes[name] = np.where(ids >= FIRST_KNOWN_ID, ids, -1).astype(np.int64)
    if X.users is not None:
        users = Keys.of_users(X.users[rows], len(rows)).codes
        pairs = {
            f"pair of user and {name}": np.where(
                (users < 0) | (ids < 0), -1, users * (ids.max(initial=0) + 1) + ids
            )
            for name, ids in codes.items()
        }
        codes = {"user": users} | codes | pairs
    return codes


def _groups(X: EncodedFeatures, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return groups of rows by each key, numbered from 0; rows of too small ones are -1."""
    groups = {}
    for what, values in number_keys(X, rows).items():
        _, group, n_rows = np.unique(values, return_inverse=True, return_counts=True)
        is_large = n_rows >= (MIN_ROWS_OF_PAIR if what.startswith("pair") else MIN_ROWS)
        is_large[:1] &= values.min(initial=0) >= 0  # rows without one are no group
        number = np.where(is_large, np.cumsum(is_large) - 1, -1)
        if is_large.sum() >= MIN_GROUPS:
            groups[what] = number[group]
    return groups


def _deviation_within(group: np.ndarray, numbers: np.ndarray) -> float:
    """Return the mean distance of numbers from those of their group over that from the mean."""
    is_there = group >= 0
    group, numbers = group[is_there], numbers[is_there]
    means = np.bincount(group, numbers) / np.maximum(np.bincount(group), 1)
    whole = np.abs(numbers - numbers.mean()).mean()
    return float(np.abs(numbers - means[group]).mean() / whole) if whole else np.inf


@one_thread_of_blas()
def _chance(numbers: np.ndarray, clicks: np.ndarray) -> np.ndarray:
    """Return the chance of a click by a column: a polynomial, which fits no group on its own."""
    scale = numbers.std() or 1.0
    powers = np.vander(np.clip((numbers - numbers.mean()) / scale, -3, 3), DEGREE + 1)
    fitted = powers @ np.linalg.lstsq(powers, clicks, rcond=None)[0]
    return np.clip(fitted, LEAST_CHANCE, 1 - LEAST_CHANCE)


def _scatter(group: np.ndarray, clicks: np.ndarray, chance: np.ndarray) -> tuple[float, float]:
    """Return the scatter of groups' clicks over that of coins, and how far below it is."""
    is_there = group >= 0
    group, rest, p = group[is_there], (clicks - chance)[is_there], chance[is_there]
    variance = np.bincount(group, p * (1 - p))
    is_large = variance >= LEAST_VARIANCE
    if is_large.sum() < MIN_GROUPS:
        return 1.0, 0.0
    squares = np.bincount(group, rest)[is_large] ** 2 / variance[is_large]
    scatter, spread = float(squares.mean()), 2 / (9 * len(squares))
    return scatter, (np.cbrt(scatter) - 1 + spread) / float(np.sqrt(spread))  # Wilson, Hilferty
