"""Data leakage checks: the row's own click in its history, a column that is the label."""

from collections.abc import Iterator
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score

from sklearn_din.features.encoded import EncodedFeatures, find_missing_numbers
from sklearn_din.features.identities import ids_to_look_up
from sklearn_din.features.ragged import Ragged
from sklearn_din.features.schema import FIRST_KNOWN_ID, Behaviour
from sklearn_din.training.label_means import find_label_means
from sklearn_din.training.own_counts import find_own_counts
from sklearn_din.training.repeated_rows import find_repeated_rows
from sklearn_din.training.wrong_histories import (
    find_clocks_of_some,
    find_guests,
    find_wrong_end,
    find_wrong_rows,
)
from sklearn_din.utils.parallel import map_in_parallel
from sklearn_din.utils.warnings import Finding, warn_user

CHECKED_ROWS = 10_000  # of each label: fractions are then accurate to about .01
MIN_ROWS = 50
OWN_CLICKS = 0.5  # fraction of clicked rows explained only by the row's own click
LIFT = 5  # ratio to the rate in other rows
FEW_OWN_CLICKS = 0.25  # sufficient if histories and other rows rarely repeat an item
HIGH_LIFT = 10
MANY_REPEATS = 0.5  # of the events: beyond, own clicks look like repeat consumption
NEWEST = 2  # events, which users repeat less often: own clicks are visible among these
LABEL_ROWS = 200
LABEL_AUC = 0.999
FEW_ROWS = 12  # of either label: fewer may be separated by chance
CAME_UP_AUC = 0.65
EXPECTED_CLICKS = 5  # of an item, as often as it was shown: none at all is no accident
NEVER_CLICKED = 0.8  # of the rows without a click
OF_COLUMNS = ("counts of the own row", "means of the label")  # said where nothing else is


def warn_of_leaks(X: EncodedFeatures, clicks: np.ndarray) -> None:
    """Warn where impressions hold what is known only after the click, or another row's past."""
    columns = set[str]()
    found = map_in_parallel(lambda find: list(find(X, clicks)), [*CHECKS.values()])
    for finding in chain.from_iterable(found):
        if finding.name not in OF_COLUMNS or finding.column not in columns:
            warn_user(finding.message)
        columns.add(finding.column)


def _find_own_clicks(X: EncodedFeatures, clicks: np.ndarray) -> Iterator[Finding]:
    rows = _some_of_both(clicks)
    shown, is_click, n_found = X[rows], clicks[rows] == 1, 0
    for behaviour in X.schema.behaviours if len(rows) else ():
        for n_events in (behaviour.max_length, NEWEST) if not behaviour.is_bag else ():
            repeats = measure_repeats(shown, behaviour, is_click, n_events=n_events)
            if repeats is not None and repeats.is_leak:
                yield repeats.finding(behaviour)
                n_found += 1
                break
    if not n_found:
        yield from filter(None, [find_clocks_of_some(X, clicks == 1)])


def _find_labels(X: EncodedFeatures, clicks: np.ndarray) -> Iterator[Finding]:
    rows = _some_of_both(clicks)
    shown, is_click = X[rows], clicks[rows] == 1
    for name, auc in _single_aucs(shown, is_click).items():
        if auc >= LABEL_AUC or _splits_labels(shown, name, is_click):
            yield Finding(
                "columns that are the label",
                f"{name} alone tells clicked rows from others with an AUC of {auc:.4f}: it is the "
                "label, a mean of it that counts the row itself, or known only after the click.",
                f"In that case drop the column, HistorySequenceEncoder(drop=[{name!r}]); "
                "attach_aggregates computes means of earlier rows only.",
                name,
            )


def _find_first_clicks(X: EncodedFeatures, clicks: np.ndarray) -> Iterator[Finding]:
    if min((clicks == 0).sum(), (clicks == 1).sum()) < MIN_ROWS:
        return
    names = dict.fromkeys(name for b in X.schema.behaviours for name in b.candidates)
    single = [name for name in names if name in X.schema.names("categorical")]
    findings = (_find_first_clicks_of(X, name, clicks) for name in single)
    yield from islice(filter(None, findings), 1)


def _find_wrong_rows(X: EncodedFeatures, clicks: np.ndarray) -> Iterator[Finding]:
    finding = find_wrong_rows(X)
    if finding is None and len(clicks):
        finding = find_wrong_end(X, clicks == 1)
    yield from filter(None, [finding])


CHECKS = {
    "own clicks in histories": _find_own_clicks,
    "histories on their rows": _find_wrong_rows,
    "columns that are the label": _find_labels,
    "counts of the own row": find_own_counts,
    "means of the label": find_label_means,
    "clicks before": _find_first_clicks,
    "rows logged twice": find_repeated_rows,
    "guests": lambda X, clicks: filter(None, [find_guests(X)]),
}


def _some_of_both(clicks: np.ndarray) -> np.ndarray:
    """Return clicked rows, and others, in their order, as files are read; none where few are."""
    by_label = [np.flatnonzero(clicks == label) for label in (0, 1)]
    if min(map(len, by_label)) < MIN_ROWS:
        return np.empty(0, dtype=np.int64)
    chosen = [rows[:: -(-len(rows) // CHECKED_ROWS)] for rows in by_label]
    return np.sort(np.concatenate(chosen))


class RepeatShares(NamedTuple):
    """Fractions of rows, clicked and others, whose candidate is in their history.

    ``events`` is how often the newest event of a clicked row's history is among the earlier ones:
    about as often as the candidate, for users who come back, in a log that holds the past alone.
    """

    clicked: float
    others: float
    events: float
    n_events: int = 0

    @property
    def is_leak(self) -> bool:
        """Return whether histories seem to hold the row's own click."""
        if self.events > MANY_REPEATS:
            return False
        unexplained = (self.clicked - self.events) / (1 - self.events)
        if unexplained >= OWN_CLICKS and self.clicked >= LIFT * self.others:
            return True
        never = HIGH_LIFT * max(self.others, self.events) <= self.clicked
        return unexplained >= FEW_OWN_CLICKS and never

    def finding(self, behaviour: Behaviour) -> Finding:
        """Return what was found, and its usual cause."""
        return Finding(
            "own clicks in histories",
            f"the candidate is among the newest {self.n_events} events of "
            f"{'+'.join(behaviour.histories)} in {self.clicked:.0%} of the clicked rows and "
            f"{self.others:.0%} of the others, while {self.events:.0%} of the events repeat an "
            "earlier one: histories seem to hold the row's own click.",
            "Usual causes: the times of impressions and events differ in grain (days against "
            "seconds), unit (ms against s), zone (UTC against local) or clock, or histories were "
            "made by hand. Give both tables times of one clock before attach_history, floored to "
            "the coarser grain.",
        )


def measure_repeats(
    X: EncodedFeatures, behaviour: Behaviour, is_click: np.ndarray, *, n_events: int
) -> RepeatShares | None:
    """Compare candidates with the newest events of their histories, by all attributes.

    The newest event itself is compared with as many events before it. None where too few rows tell.
    """
    if not {*behaviour.candidates} & {*X.schema.names("categorical")}:  # only lists
        return None
    ragged = X.behaviours[behaviour.histories]
    ragged = Ragged(ragged.columns, ragged.spans.newest(n_events + 1))
    lengths, index = ragged.spans.lengths, ragged.spans.index()
    row = np.repeat(np.arange(len(X)), lengths)
    ends = np.cumsum(lengths)
    newest = ends[row] - 1
    is_candidate = np.ones(len(row), dtype=bool)
    is_newest, is_known = is_candidate.copy(), lengths > 1
    for history, candidate in behaviour.candidate_of.items():
        if candidate is None or X.schema[candidate].holds_lists:
            continue
        events, ids = ragged.flat(history, index), X.columns[candidate]
        is_candidate &= events == ids[row]
        is_newest &= events == events[newest]
        is_known &= ids >= FIRST_KNOWN_ID
    is_newest[(ends - 1)[lengths > 0]] = False  # an event does not repeat itself
    is_candidate[(ends - lengths)[lengths > 0]] = False  # drop one event here too
    holds, repeats = (
        np.bincount(row, weights=same, minlength=len(X)) > 0 for same in (is_candidate, is_newest)
    )
    clicked, others = is_known & is_click, is_known & ~is_click
    if min(clicked.sum(), others.sum()) < MIN_ROWS:
        return None
    of_clicked, of_others = holds[clicked].mean(), holds[others].mean()
    return RepeatShares(of_clicked, of_others, repeats[clicked].mean(), n_events)


def _find_first_clicks_of(X: EncodedFeatures, name: str, clicks: np.ndarray) -> Finding | None:
    """Check whether it tells the labels that the candidate had been clicked by anybody before.

    Popularity explains some of it: of m clicks in a candidate's life, another row lies behind the
    first one with a chance of m / (m + 1).
    """
    ids, is_click = X.columns[name], clicks == 1
    rows = np.flatnonzero((ids >= FIRST_KNOWN_ID) & (is_click | (clicks == 0)))
    ids, is_click = ids[rows], is_click[rows]
    if min(is_click.sum(), (~is_click).sum()) < LABEL_ROWS:
        return None
    n_shown = np.bincount(ids)
    n_clicked = np.bincount(ids[is_click], minlength=len(n_shown))
    is_rejected = (n_clicked == 0) & (n_shown * is_click.mean() >= EXPECTED_CLICKS)
    share = n_shown[is_rejected].sum() / (~is_click).sum()
    is_own = (n_clicked == n_shown) & (n_shown * (1 - is_click.mean()) >= EXPECTED_CLICKS)
    if min(share, n_shown[is_own].sum() / is_click.sum()) >= NEVER_CLICKED:
        return Finding(
            "clicks before",
            f"most rows show a value of {name} that is always clicked, or never: it tells the "
            "label, as stars do of which the label is made.",
            f"Leave {name} out of the rows to predict; HistoryBuilder(outcomes=[{name!r}]) keeps "
            "it in histories. If the others were drawn, draw them with sample_negatives.",
        )
    if share >= NEVER_CLICKED:
        return Finding(
            "clicks before",
            f"{share:.0%} of the rows without a click show a value of {name} that nobody ever "
            "clicked: this alone separates them, and a model learns which ones those are.",
            "If they were drawn, draw them with sample_negatives, from what is clicked at all.",
        )
    if X.times is None or (X.times != X.times).any():
        return None
    times = X.times[rows]
    first = np.full(len(n_shown), times.max())
    np.minimum.at(first, ids[is_click], times[is_click])
    n_clicks = n_clicked[ids[~is_click]]
    came_up = first[ids] < times
    clicked, others = came_up[is_click].mean(), came_up[~is_click].mean()
    early = min(clicked, (n_clicks / (n_clicks + 1)).mean()) - others
    auc = 0.5 + max(others - clicked, early) / 2
    if auc < CAME_UP_AUC:
        return None
    return Finding(
        "clicks before",
        f"{clicked:.0%} of the clicked rows and {others:.0%} of the others show a value of {name} "
        f"that was clicked before: this alone separates them (AUC {auc:.2f}), and a model learns "
        f"that what nobody has clicked yet is{' not' if early > 0 else ''} clicked.",
        "If the others were drawn, draw them with sample_negatives(time=...), and with its "
        "catalogue= where many items are clicked once.",
    )


def _single_aucs(X: EncodedFeatures, is_click: np.ndarray) -> dict[str, float]:
    """Return the AUC of each column alone, in its better direction; of ids, by rates of other rows.

    Candidates are left out: what is clicked more is what they are for. The AUC of rows that have a
    value counts too, and that a number is missing counts as the number's.
    """
    candidates = {name for behaviour in X.schema.behaviours for name in behaviour.candidates}
    half = np.random.RandomState(0).random_sample(len(X)) < 0.5
    if len(X) < LABEL_ROWS or is_click[half].all() or not is_click[half].any():
        return {}
    aucs: dict[str, float] = {}
    for name in X.schema.names("categorical", "numeric"):
        field, values = X.schema[name], X.columns[name]
        column = field.of[0] if field.what == "missing" else name
        if column in candidates:
            continue
        if field.has_ids:
            values = ids_to_look_up(values)
            is_there = values >= FIRST_KNOWN_ID
            sums = np.bincount(values[~half], weights=is_click[~half], minlength=field.n_ids)
            counts = np.bincount(values[~half], minlength=field.n_ids)
            rates = np.where(counts > 0, sums / np.maximum(counts, 1), is_click[~half].mean())
            rows, values = half, rates[values]
        else:
            rows, is_there = np.ones_like(half), ~find_missing_numbers(X, name)
        for chosen in (rows, rows & is_there):
            if min(is_click[chosen].sum(), (~is_click[chosen]).sum()) >= FEW_ROWS:
                auc = roc_auc_score(is_click[chosen], values[chosen])
                aucs[column] = max(aucs.get(column, 0.5), auc, 1 - auc)
    return aucs


def _splits_labels(X: EncodedFeatures, name: str, is_click: np.ndarray) -> bool:
    """Return whether most rows of either label hold numbers that only such rows hold."""
    if X.schema[name].has_ids:
        return False
    _, number = np.unique(X.columns[name], return_inverse=True)
    n_rows, n_clicked = np.bincount(number), np.bincount(number, weights=is_click)
    n_rows[n_rows < MIN_ROWS] = 0
    clicked, others = n_rows[n_clicked == n_rows].sum(), n_rows[n_clicked == 0].sum()
    return bool(min(clicked / is_click.sum(), others / (~is_click).sum()) >= OWN_CLICKS)
