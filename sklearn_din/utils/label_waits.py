"""How soon each of two labels is known: where one is sooner, the newest rows have that one alone."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from sklearn_din.utils.validation import UNITS_PER_SECOND, missing_rows

RATIO = 1.5  # of the shares known at an age: made logs lose .009 below it, at 2 already .023
LEAST = 0.02  # of a label's rows
ERRORS = 4  # standard errors, which chance reaches at no age
PARTS = 50  # of the mean wait: rows so near are compared, as if they were of one moment
FEW = 3  # rows of a label that would be expected
DURATIONS = {"days": 86_400, "hours": 3_600, "minutes": 60}


class LabelWaits(NamedTuple):
    """Rows younger than ``age``, in the unit of their times, are mostly known by one label.

    is_later : (n_rows,) bool, those of the other label
    text : a sentence of it
    """

    age: Any
    is_later: np.ndarray
    text: str


def compare_waits(
    times: np.ndarray, known: np.ndarray, y: ArrayLike, unit: str | None
) -> LabelWaits | None:
    """Return up to which age rows of one label are known more often; None where at no age.

    This is the largest age at which the share of one label's rows that are known is ``RATIO`` times
    the other's. Rows are compared with those of nearly the same time, so that rates and waits may
    drift together, and labels of each night be known by the next morning. Of several labels, the
    one with the largest age counts; one without two values has none.

    >>> times, y = np.arange(100), np.arange(100) % 2
    >>> compare_waits(times, times + np.where(y, 1, 7), y, None).text
    '1 is known after 1, 0 after 7: of rows of the newest 7 mostly those with 1 are known'
    """
    several = np.asarray(y)
    columns = several.T if several.ndim == 2 else [several]
    each = [_compare(times, known - times, labels, unit) for labels in columns]
    return max(filter(None, each), key=lambda waits: waits.age, default=None)


def _compare(
    times: np.ndarray, waits: np.ndarray, labels: np.ndarray, unit: str | None
) -> LabelWaits | None:
    codes, values = pd.factorize(pd.Series(labels), sort=True)
    rows = np.flatnonzero(codes >= 0)
    rows = rows[np.argsort(times[rows], kind="stable")]
    if len(values) != 2 or not waits[rows].sum() > 0:
        return None
    first = times[rows][np.arange(len(rows)) // 2 * 2]  # two rows at least are compared
    near = (first - first[0]) // (waits[rows].mean() / PARTS)
    _, block = np.unique(near, return_inverse=True)
    rates = np.bincount(block, codes[rows]) / np.bincount(block)
    weights = np.abs(rates[block] - codes[rows])  # as Mantel and Haenszel: equal sums of both
    total = weights[codes[rows] == 1].sum()
    ages, age = np.unique(waits[rows], return_inverse=True)
    shares = np.stack([np.bincount(age, weights * (codes[rows] == n)) for n in (0, 1)])
    shares = shares.cumsum(axis=1) / max(total, 1e-9)
    (low, high), mean = np.sort(shares, axis=0), shares.mean(axis=0).clip(0, 1)
    differ = (high > LEAST) & (high > RATIO * low)
    differ &= high - low > ERRORS * np.sqrt(mean * (1 - mean) / max(total, 1e-9))
    if not differ[:-1].any():
        return None
    last = np.flatnonzero(differ[:-1])[-1]
    sooner, limit = int(shares[:, last].argmax()), ages[last + 1].item()
    usual = [_describe(np.median(waits[codes == n]), unit) for n in (sooner, 1 - sooner)]
    named = [repr(value) for value in values[[sooner, 1 - sooner]].tolist()]
    return LabelWaits(
        limit,
        codes == 1 - sooner,
        f"{named[0]} is known after {usual[0]}, {named[1]} after {usual[1]}: of rows of the newest "
        f"{_describe(limit, unit)} mostly those with {named[0]} are known",
    )


def _describe(span: float, unit: str | None) -> str:
    """Return a span of time in words.

    >>> _describe(43_200_000, "ms"), _describe(0.5, None)
    ('12 hours', '0.5')
    """
    if unit is None:
        return f"{span:g}"
    seconds = span / UNITS_PER_SECOND[unit]
    name, size = next((pair for pair in DURATIONS.items() if seconds >= pair[1]), ("seconds", 1))
    return f"{seconds / size:.3g} {name}"


def advise_on_missing(known: pd.Series, y: ArrayLike | None) -> str | None:
    """Return what to do where rows that do not say when their label was known are of one label.

    >>> advise_on_missing(pd.Series([2.0] * 9 + [np.nan] * 9), [1] * 9 + [0] * 9)[:32]
    '100% of these have the label 0, '
    """
    is_missing = missing_rows(known)
    if np.shape(y)[:1] != (len(known),) or not is_missing.any() or is_missing.all():
        return None
    labels = pd.Series(np.asarray(y).reshape(len(known), -1)[:, 0])
    most = labels[is_missing].mode().tolist()[:1]
    if not most:
        return None
    others = [(labels[rows].dropna() != most[0]).mean() for rows in (is_missing, ~is_missing)]
    n_missing = labels[is_missing].notna().sum()
    if others[0] * RATIO >= others[1] or n_missing * others[1] < FEW:
        return None
    return (
        f"{1 - others[0]:.0%} of these have the label {most[0]!r}, others less often: give the "
        "moment at which that was certain, such as the row's time + 7 days."
    )
