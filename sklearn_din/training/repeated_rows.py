"""Rows that were logged twice, moments apart: one of both tells the label of the other."""

from collections.abc import Iterator

import numpy as np

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.schema import FIRST_KNOWN_ID, item_column
from sklearn_din.training.wrong_histories import rows_of_some_users
from sklearn_din.utils.warnings import Finding

SOON = 0.1  # of a usual step from one row of a user to the next
USUAL = 0.75  # quantile of the steps: of rows logged twice half of them are short
MIN_PAIRS = 50
LEAST_SHARE = 0.02  # of the rows
FEW_ONES = 12  # pairs of ones
AGREE = 0.8  # correlation of labels; of one user's verdicts on one item at two times about .3


def find_repeated_rows(X: EncodedFeatures, clicks: np.ndarray) -> Iterator[Finding]:
    """Yield a finding where rows repeat, label and all, one of the same user and item before."""
    names = {name for behaviour in X.schema.behaviours for name in behaviour.candidates}
    single = [name for name in X.schema.names("categorical") if name in names]
    if X.users is None or X.times is None or not single:
        return
    item = item_column({name: X.schema[name].n_ids for name in single}, single)
    rows, users = rows_of_some_users(X.users)
    if item is None or len(rows) < 2 * MIN_PAIRS:
        return
    times, ids = np.asarray(X.times)[rows], X.columns[item][rows]
    times = times.astype(np.int64) if times.dtype.kind == "M" else times
    by_user = np.lexsort((times, users))
    steps = np.diff(times[by_user])[users[by_user][1:] == users[by_user][:-1]]
    steps = steps[steps > 0]
    if not len(steps):
        return
    order = np.lexsort((times, ids, users))
    first, second = order[:-1], order[1:]
    gaps = times[second] - times[first]
    is_soon = (gaps > 0) & (gaps <= SOON * np.quantile(steps, USUAL))
    is_soon &= (users[first] == users[second]) & (ids[first] == ids[second])
    is_soon &= ids[first] >= FIRST_KNOWN_ID
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
