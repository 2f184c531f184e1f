"""Running counts and means of the label that include the row itself."""

from collections.abc import Iterator

import numpy as np
from scipy.stats import rankdata

from sklearn_din.features.encoded import EncodedFeatures, find_missing_numbers
from sklearn_din.features.schema import FIRST_KNOWN_ID
from sklearn_din.training.label_means import number_keys
from sklearn_din.utils.spans import pairs_in_turn
from sklearn_din.utils.validation import spread
from sklearn_din.utils.warnings import Finding

CHECKED_ROWS = 100_000  # the newest
MIN_PAIRS = 1_000
MOST_PAIRS = 20_000
FEW_PAIRS = 2_000  # whose AUC says whether the others are worth a look
MIN_LABELS = 50  # of either kind
MUCH = 0.3  # of an AUC above or below a half, with the row's own label
LITTLE = 0.4  # of that, with the label before; of a price or a score all of it


def find_own_counts(X: EncodedFeatures, clicks: np.ndarray) -> Iterator[Finding]:
    """Yield a finding for each column that counts the row's own label among earlier ones.

    Since the row before of the same user, item or pair, it changes with the row's own label and not
    with the label before; an honest count does the reverse, a score or a price falls after a click.
    """
    if X.times is None or len(X) <= MIN_PAIRS:
        return
    times = np.asarray(X.times)
    n_early = max(len(X) - CHECKED_ROWS, 0)
    rows = np.sort(np.argpartition(times, n_early)[n_early:]) if n_early else np.arange(len(X))
    pairs = []
    for what, codes in number_keys(X, rows).items():
        earlier, later = (spread(part, MOST_PAIRS) for part in pairs_in_turn(codes, times[rows]))
        own, before = clicks[rows[later]] == 1, clicks[rows[earlier]] == 1
        counts = [n for is_one in (own, before) for n in (is_one.sum(), (~is_one).sum())]
        if len(later) >= MIN_PAIRS and min(counts) >= MIN_LABELS:
            pairs.append((what, rows[earlier], rows[later], own, before))
    for name in X.schema.names("numeric", "categorical"):
        if X.schema[name].candidate:
            continue
        for what, earlier, later, own, before in pairs:
            aucs = _aucs_of_change(X, name, earlier, later, own, before)
            if aucs is not None:
                yield _describe(name, what, *aucs)
                break


def _aucs_of_change(
    X: EncodedFeatures,
    name: str,
    earlier: np.ndarray,
    later: np.ndarray,
    own: np.ndarray,
    before: np.ndarray,
) -> tuple[float, float] | None:
    """Return the AUCs with the own label and the one before, if they are those of an own count."""
    values, missing = X.columns[name], find_missing_numbers(X, name)
    for few in (slice(None, None, -(-len(later) // FEW_PAIRS)), slice(None)):
        first, second = values[earlier[few]], values[later[few]]
        is_there = ~(missing[earlier[few]] | missing[later[few]])
        if X.schema[name].has_ids:  # in the order of their values
            is_there = (first >= FIRST_KNOWN_ID) & (second >= FIRST_KNOWN_ID)
        ranks = rankdata((second - first)[is_there])
        mine, theirs = (_auc(ranks, label[few][is_there]) for label in (own, before))
        excess = abs(mine - 0.5)
        if not excess >= MUCH or abs(theirs - 0.5) > LITTLE * excess:
            return None
    return (mine, theirs) if len(ranks) >= MIN_PAIRS else None


def _auc(ranks: np.ndarray, is_one: np.ndarray) -> float:
    n_ones, n_zeros = int(is_one.sum()), int((~is_one).sum())
    if not n_ones or not n_zeros:
        return float("nan")
    return float((ranks[is_one].sum() - n_ones * (n_ones + 1) / 2) / (n_ones * n_zeros))


def _describe(name: str, what: str, own: float, before: float) -> Finding:
    return Finding(
        "counts of the own row",
        f"{name} changes with the row's own label (AUC {own:.2f} of the change since the row "
        f"before of the same {what}), and not with the label before ({before:.2f}): it seems to be "
        "a running count or mean that includes the row itself.",
        "Count strictly earlier rows: attach_aggregates does, and in pandas a shift() before "
        f"cumsum() or expanding(); or leave it out: HistorySequenceEncoder(drop=[{name!r}]).",
        name,
    )
