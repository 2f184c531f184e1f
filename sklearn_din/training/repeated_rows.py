"""Rows that were logged twice, at one moment or moments apart: one tells the other's label."""

from collections.abc import Iterator

import numpy as np

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import UNKNOWN_ID
from sklearn_din.training.wrong_histories import rows_of_some_users
from sklearn_din.utils.warnings import Finding

PAIRED = 0.5  # of the clicks, at least
SELDOM = 0.1  # of the impressions without a click two are of one moment
SOON = 0.1  # of a usual step from one row of a user to the next
USUAL = 0.75  # quantile of the steps: of rows logged twice half of them are short
MIN_PAIRS = 50
LEAST_SHARE = 0.02  # of the rows
FEW_ONES = 12  # pairs of ones
AGREE = 0.8  # correlation of labels; of one user's verdicts on one item at two times about .3


def find_repeated_rows(X: EncodedFeatures, clicks: np.ndarray) -> Iterator[Finding]:
    """Yield a finding where rows repeat, label and all, one of the same user and item before."""
    item = X.schema.item
    if X.users is None or X.times is None or not item:
        return
    rows, users = rows_of_some_users(X.users)
    if len(rows) < 2 * MIN_PAIRS:
        return
    times, ids = np.asarray(X.times)[rows], X.columns[item][rows]
    times = times.astype(np.int64) if times.dtype.kind == "M" else times
    order = np.lexsort((times, ids, users))
    first, second = order[:-1], order[1:]
    gaps = times[second] - times[first]
    is_same = (users[first] == users[second]) & (ids[first] == ids[second])
    is_same &= ids[first] != UNKNOWN_ID  # rows without an item show different things
    groups = np.append(0, np.cumsum(~(is_same & (gaps == 0))))
    yield from _find_pairs(groups, clicks[rows[order]] == 1, item)
    by_user = np.lexsort((times, users))
    steps = np.diff(times[by_user])[users[by_user][1:] == users[by_user][:-1]]
    steps = steps[steps > 0]
    if not len(steps):
        return
    is_soon = is_same & (gaps > 0) & (gaps <= SOON * np.quantile(steps, USUAL))
    before, after = (clicks[rows[part[is_soon]]] == 1 for part in (first, second))
    ones = int((before & after).sum())
    share = len(before) / len(rows)
    if len(before) < MIN_PAIRS or share < LEAST_SHARE or ones < FEW_ONES or before.all():
        return
    if after.all() or np.corrcoef(before, after)[0, 1] < AGREE:
        return
    yield Finding(
        "rows logged twice",
        f"{share:.0%} of the rows repeat a row of the same user and {item} from moments before, "
        f"and {(before == after).mean():.0%} of them have its label: rows seem to be logged twice, "
        "so that one of them tells the label of the other.",
        "Keep the first of such rows, before attach_history and any split.",
    )


def _find_pairs(groups: np.ndarray, is_click: np.ndarray, item: str) -> Iterator[Finding]:
    """Yield a finding where an impression and its click are two rows.

    Where items are shown twice at a moment, as of a day, they are without a click, too.

    groups : (n_rows,), numbers of user, item and moment
    """
    n_rows, n_clicks = np.bincount(groups), np.bincount(groups, is_click)
    n_pairs, has_click = int(((n_rows == 2) & (n_clicks == 1)).sum()), n_clicks > 0
    n_twice = ((n_rows > 1) & ~has_click).sum()
    if n_pairs < max(MIN_PAIRS, PAIRED * has_click.sum()) or n_twice > SELDOM * (~has_click).sum():
        return
    yield Finding(
        "rows logged twice",
        f"{n_pairs} of {has_click.sum()} clicks have a row without a click beside them, of the "
        f"same user, {item} and time: an impression and its click are two rows, so that rates and "
        "probabilities count each click as one of two.",
        f"Keep the click: rows.sort_values(label).drop_duplicates([user, time, {item!r}], "
        "keep='last').",
    )
