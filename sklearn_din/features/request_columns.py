"""Columns that compare a row with the other rows of its request: their names and numbers."""

from collections.abc import Collection

import numpy as np

from sklearn_din.features.schema import Meaning, Schema

MOST_SPREADS = 3.0  # by which a row of a long list may differ from the mean
NEUTRAL = {"share": 0.5, "to_mean": 0.0, "is_best": 0.0}  # of a row alone


def name_columns(name: str) -> dict[str, str]:
    """Return the names of the columns that compare the values of one.

    >>> name_columns("price")
    {'share': 'price_share', 'to_mean': 'price_to_mean', 'is_best': 'price_is_best'}
    """
    return {what: f"{name}_{what}" for what in NEUTRAL}


def find_compared(names: Collection[str]) -> dict[str, Meaning]:
    """Return which columns of a frame compare rows of a request: those where all three are there.

    >>> find_compared(["price_share", "price_to_mean", "price_is_best"])["price_share"]
    ('share', ('price',))
    """
    bases = [name.removesuffix("_share") for name in names if name.endswith("_share")]
    known = {*names}
    found = {base: name_columns(base) for base in bases}
    return {
        name: (what, (base,))
        for base, columns in found.items()
        if {*columns.values()} <= known
        for what, name in columns.items()
    }


def neutral_numbers(schema: Schema, names: Collection[str]) -> dict[str, float]:
    """Return what those of some columns that compare rows of a request are of a row alone.

    >>> from sklearn_din.features.schema import Field
    >>> price = Field("price_share", "numeric", what="share", of=("price",))
    >>> neutral_numbers(Schema((Field("price", "numeric"), price)), ["price", "price_share"])
    {'price_share': 0.5}
    """
    compared = (f for f in schema.fields if f.what in NEUTRAL and f.name in names)
    return {field.name: NEUTRAL[field.what] for field in compared}


def compare_within(values: np.ndarray, requests: np.ndarray) -> dict[str, np.ndarray]:
    """Return how each value compares with the others of its request: (n_rows,) each.

    - ``share``: which fraction of the others is smaller, those equal to it by half; 0 to 1
    - ``to_mean``: the difference to the mean of the request, in standard deviations, at most 3
    - ``is_best``: 1 for the largest value, -1 for the smallest, 0 for others

    None of them has a unit or grows with the number of rows. Where nothing can be compared, as of
    one row, of equal values, and of a value that is missing or infinite, they are ``NEUTRAL``.

    Parameters
    ----------
    values : ndarray of shape (n_rows,), float64
    requests : ndarray of shape (n_rows,), integers
        Equal for the rows of one request.

    >>> price, shelf = np.array([2.0, 3.0, 7.0, 5.0]), np.array([0, 0, 0, 1])
    >>> columns = compare_within(price, shelf)
    >>> columns["share"].tolist(), columns["to_mean"].round(2).tolist()
    ([0.0, 0.5, 1.0, 0.5], [-0.93, -0.46, 1.39, 0.0])
    """
    result = {what: np.full(len(values), neutral) for what, neutral in NEUTRAL.items()}
    rows = np.flatnonzero(np.isfinite(values))
    rows = rows[np.lexsort((values[rows], requests[rows]))]
    if not len(rows):
        return result
    own, request = values[rows], requests[rows]
    starts = np.flatnonzero(np.append(True, request[1:] != request[:-1]))
    sizes = np.diff(np.append(starts, len(rows)))
    first = np.repeat(starts, sizes)
    least, most = own[starts], own[starts + sizes - 1]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        extent = np.repeat(most / 2 - least / 2, sizes)  # halves: it has no overflow
        placed = (own / 2 - np.repeat(least, sizes) / 2) / extent  # from 0 to 1
        mean = np.repeat(np.add.reduceat(placed, starts) / sizes, sizes)
        spread = np.repeat(np.sqrt(np.add.reduceat((placed - mean) ** 2, starts) / sizes), sizes)
        to_mean = np.clip((placed - mean) / spread, -MOST_SPREADS, MOST_SPREADS)
    is_new = np.append(True, (own[1:] != own[:-1]) | (request[1:] != request[:-1]))
    equals = np.flatnonzero(is_new)
    n_equal = np.diff(np.append(equals, len(rows)))
    n_smaller = np.repeat(equals, n_equal) - first
    others = np.repeat(sizes, sizes) - 1
    share = (n_smaller + (np.repeat(n_equal, n_equal) - 1) / 2) / np.maximum(others, 1)
    is_best = (own == np.repeat(most, sizes)) * 1.0 - (own == np.repeat(least, sizes))
    differs = extent > 0
    for column, numbers in zip(result.values(), (share, to_mean, is_best), strict=True):
        column[rows[differs]] = numbers[differs]
    return result
