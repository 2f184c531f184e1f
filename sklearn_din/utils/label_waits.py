"""How soon each of two labels is known: of the newest rows, those of one label alone may be."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sklearn_din.utils.validation import missing_rows

RATIO = 1.5  # of the shares known at an age; at 2, made logs keep newest rows that cost .023
LEAST = 0.02  # of a label's rows
ERRORS = 4  # standard errors, which chance reaches at no age
PARTS = 50  # of the mean wait: rows so near are compared, as if they were of one moment
MOSTLY = 0.95  # of the rows that do not say when their label was known: of one label


class LabelWaits(NamedTuple):
    """Up to an age, in the unit of the times, mostly rows of one label are known.

    is_later : (n_rows,) bool, the rows of the other label
    text : a sentence of it
    """

    age: Any
    is_later: np.ndarray
    text: str


def compare_waits(
    times: np.ndarray, known: np.ndarray, y: Any, unit: str | None
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
    if np.ndim(y) == 2:
        each = (compare_waits(times, known, labels, unit) for labels in np.asarray(y).T)
        return max(filter(None, each), key=lambda waits: waits.age, default=None)
    codes, values = pd.factorize(pd.Series(np.asarray(y)), sort=True)
    rows = np.argsort(times, kind="stable")
    rows = rows[codes[rows] >= 0]
    waits, is_one = known - times, codes[rows] == 1
    if len(values) != 2 or not waits[rows].mean() > 0:
        return None
    first = times[rows][np.arange(len(rows)) // 2 * 2]  # at least two rows are compared
    near = (first - first[0]) // (waits[rows].mean() / PARTS)
    block = np.unique(near, return_inverse=True)[1]
    rates = np.bincount(block, is_one) / np.bincount(block)
    weights = np.abs(rates[block] - is_one)  # as Mantel and Haenszel: equal sums of both labels
    total = max(weights[is_one].sum(), 1e-9)
    ages, age = np.unique(waits[rows], return_inverse=True)
    shares = np.array([np.bincount(age, weights * is_own) for is_own in (~is_one, is_one)])
    shares = shares.cumsum(axis=1) / total
    (low, high), mean = np.sort(shares, axis=0), shares.mean(axis=0).clip(0, 1)
    differ = (high > LEAST) & (high > RATIO * low)
    differ &= high - low > ERRORS * np.sqrt(mean * (1 - mean) / total)
    if not differ[:-1].any():
        return None
    last = np.flatnonzero(differ[:-1])[-1]
    order = shares[:, last].argsort()[::-1]  # the label that is known sooner first
    label, other = map(repr, values[order].tolist())
    spans = [*(np.median(waits[codes == n]) for n in order), ages[last + 1]]
    soon, late, age_limit = (describe_span(span, unit) for span in spans)
    text = f"{label} is known after {soon}, {other} after {late}: of rows of the newest {age_limit}"
    text += f" mostly those with {label} are known"
    return LabelWaits(ages[last + 1].item(), codes == order[1], text)


def describe_span(span: float, unit: str | None) -> str:
    """Return a span of time as text, that of datetimes as pandas reads it.

    >>> describe_span(43_200_000, "ms"), describe_span(604_800, "s"), describe_span(0.5, None)
    ('0 days 12:00:00', '7 days', '0.5')
    """
    if unit is None:
        return f"{span:.15g}"
    return str(pd.Timedelta(span, unit)).removesuffix(" 00:00:00")  # type: ignore[arg-type]


def check_known(known: pd.Series, y: Any, *, name: str) -> None:
    """Raise where rows do not say when their label was known; y, if given, tells what to do.

    >>> check_known(pd.Series([2.0, np.nan, np.nan]), [1, 0, 0], name="known")
    Traceback (most recent call last):
    ...
    ValueError: known must say when each label was known, and 2 of 3 are missing. 100% of these ...
    """
    is_missing = missing_rows(known)
    if not is_missing.any():
        return
    given = np.full(len(known), np.nan) if y is None else np.asarray(y)
    labels = pd.Series(given.reshape(len(known), -1)[:, 0])
    shares = labels[is_missing].value_counts(normalize=True)
    advice = "Leave those rows out: what came of them is not known yet."
    if len(shares) and shares.iloc[0] > MOSTLY:
        advice = f"{shares.iloc[0]:.0%} of these have the label {shares.index.tolist()[0]!r}: give "
        advice += "the moment at which that was certain, such as their time + 7 days."
    raise ValueError(
        f"{name} must say when each label was known, and {is_missing.sum()} of {len(known)} are "
        f"missing. {advice}"
    )
