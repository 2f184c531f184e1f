"""Histories that cannot be their rows' past: on other rows, or by a clock that is off for some."""

import numpy as np

from sklearn_din.features.encoded import EncodedFeatures
from sklearn_din.features.identities import ids_to_look_up
from sklearn_din.features.ragged import Ragged
from sklearn_din.features.schema import FIRST_KNOWN_ID, Behaviour
from sklearn_din.utils.keys import Keys
from sklearn_din.utils.spans import Spans, pairs_in_turn
from sklearn_din.utils.validation import spread
from sklearn_din.utils.warnings import Finding

CHECKED_PAIRS = 5_000  # rows of one user, one after the other
MIN_PAIRS = 50
WRONG_ROWS = 0.4  # of the pairs; a random half of the events gives .36
REVERSED = 0.8  # of the pairs in which new events stand at one end alone
CHECKED_ROWS = 100_000  # of some users, all of theirs
NEWEST = 2  # events, among which a click stands whose own clock was late
MIN_CLICKS = 3  # of a user
OWN_CLICKS = 0.8  # of a user's clicks
MIN_ENDS = 20  # clicks that should enter a history, and as many that did while it was short
MOST = 0.8  # of those that entered one
GUESTS = 0.2  # of the rows
TIMES_THE_NEXT = 10
MIN_USERS = 20
OFF_USERS = 0.1  # of the users with so many clicks; where no clock is off, .07 at most
RARER = 2, 4  # times among the user's other rows and events
MIN_OFF_USERS = 8


def find_wrong_rows(X: EncodedFeatures) -> Finding | None:
    """Check that histories grow along each user's rows, with new events last.

    The newest event of the earlier row stands in the later one, unless that is full, and the later
    one is no proper beginning of the earlier one.
    """
    earlier, later = _pairs_of_rows(X)
    for behaviour in X.schema.behaviours:
        name = _longest_vocabulary(X, behaviour)
        if name is None or behaviour.is_bag:  # lists of a row, such as tags, need not grow
            continue
        ragged = X.behaviours[behaviour.histories]
        first, second = ragged.spans.take(earlier), ragged.spans.take(later)
        both = np.flatnonzero((first.lengths > 0) & (second.lengths > 0))
        if len(both) < MIN_PAIRS:
            continue
        both = both[:: -(-len(both) // CHECKED_PAIRS)]
        first, second = first.take(both), second.take(both)
        events = ragged.columns[name]
        newest = events[first.starts + first.lengths - 1]
        pair = np.repeat(np.arange(len(both)), second.lengths)
        is_held = np.bincount(pair, events[second.index()] == newest[pair], len(both)) > 0
        is_full = second.lengths >= min(behaviour.max_length, ragged.spans.lengths.max())
        grows = events, first.take(~is_full), second.take(~is_full)
        finding = _judge_pairs(name, ~is_held[~is_full], *grows)
        if finding is not None:
            return finding
    return None


def _judge_pairs(
    name: str, is_lost: np.ndarray, events: np.ndarray, first: Spans, second: Spans
) -> Finding | None:
    """Judge pairs of histories, of which some have lost the first one's newest event."""
    is_wrong = is_lost | _are_parts(events, second, first)
    begins, ends = (_are_parts(events, first, second, at_end=end) for end in (False, True))
    is_turned = ends[begins != ends]
    if len(is_wrong) >= MIN_PAIRS and is_wrong.mean() >= WRONG_ROWS:
        verdict = (
            f"in {is_wrong.mean():.0%} of the pairs of rows of one user, the later history of "
            f"{name} does not continue the earlier one: histories seem to be attached to the "
            "wrong rows."
        )
        advice = (
            "Attach them with attach_history, or join them by a key, not by position: .values "
            "after a sort, or a merge that changes the order, moves them to other rows."
        )
    elif len(is_turned) >= MIN_PAIRS and is_turned.mean() >= REVERSED:
        verdict = f"new events of {name} stand before the older ones: are they newest first?"
        advice = f"Turn every attribute of the events, [cell[::-1] for cell in X[{name!r}]]."
    else:
        return None
    return Finding("histories on their rows", verdict, advice)


def find_wrong_end(X: EncodedFeatures, is_click: np.ndarray) -> Finding | None:
    """Check that clicks enter full histories, if they enter those that are not full."""
    earlier, later = _pairs_of_rows(X)
    earlier, later = (rows[is_click[earlier]] for rows in (earlier, later))
    for behaviour in X.schema.behaviours:
        name = _longest_vocabulary(X, behaviour)
        candidate = behaviour.candidate_of.get(name or "")
        if name is None or candidate is None or len(earlier) < MIN_ENDS:
            continue
        ragged = X.behaviours[behaviour.histories]
        longest = int(ragged.spans.lengths.max())
        first, second = (
            Ragged(ragged.columns, ragged.spans.take(rows)) for rows in (earlier, later)
        )
        shown = ids_to_look_up(X.columns[candidate][earlier])
        is_new = (shown >= FIRST_KNOWN_ID) & ~_holds(first, name, shown, longest)
        enters, is_full = _holds(second, name, shown, longest), first.spans.lengths == longest
        early, late = is_new & ~is_full, is_new & is_full
        if min(early.sum(), late.sum()) < MIN_ENDS or enters[early].mean() < MOST:
            continue
        spans = first.spans.take(late), second.spans.take(late)
        events = (ragged.columns[name][part.index()] for part in spans)
        if not enters[late].any() and np.array_equal(*events):
            return Finding(
                "histories on their rows",
                f"clicks enter histories of {name} until these hold {longest} events, and none "
                "later: they seem to keep the oldest events.",
                f"Keep the newest, attach_history(..., max_length={longest}), or cell[-{longest}:] "
                "in place of the first ones.",
            )
    return None


def find_guests(X: EncodedFeatures) -> Finding | None:
    """Check whether one user has so many rows that they must be of many people."""
    if X.users is None or len(X) < CHECKED_PAIRS // MIN_PAIRS:
        return None
    users = spread(np.asarray(X.users), CHECKED_ROWS)
    keys = Keys.of_users(users, len(users))
    n_rows = np.bincount(keys.codes[keys.codes >= 0], minlength=2)
    most = int(n_rows.argmax())
    others = np.delete(n_rows, most).max()
    is_one = n_rows[most] > GUESTS * len(users) and n_rows[most] >= TIMES_THE_NEXT * others
    if len(keys.values) < MIN_USERS or not is_one:
        return None
    who = "one user" if keys.are_hashes else f"user {keys.values[[most]].tolist()[0]!r:.40}"
    return Finding(
        "guests",
        f"{who} has {n_rows[most] / len(users):.0%} of the rows, more than ten times as many as "
        "any other: are these guests, whose rows share one history?",
        "Give them a missing user (None, NaN) in both tables, before attach_history: their "
        "histories are empty then; or a user per session.",
    )


def find_clocks_of_some(X: EncodedFeatures, is_click: np.ndarray) -> Finding | None:
    """Check whether some users' own clicks are in their histories, where most users' are not."""
    if X.users is None:
        return None
    rows, users = rows_of_some_users(X.users)
    some, clicked = X[rows], is_click[rows]
    n_users = int(users.max(initial=-1)) + 1
    for behaviour in X.schema.behaviours:
        name = _longest_vocabulary(X, behaviour)
        candidate = behaviour.candidate_of.get(name or "")
        if name is None or candidate is None:
            continue
        ragged, shown = some.behaviours[behaviour.histories], some.columns[candidate]
        is_known = (ragged.spans.lengths > NEWEST) & (ids_to_look_up(shown) >= FIRST_KNOWN_ID)

        clicks, others = is_known & clicked, is_known & ~clicked
        n_clicks = np.bincount(users[clicks], minlength=n_users)

        def share(chosen: np.ndarray, what: np.ndarray) -> np.ndarray:
            counts = np.bincount(users[chosen], minlength=n_users)
            return np.bincount(users[chosen], what[chosen], n_users) / np.maximum(counts, 1)

        for n_events, rarer in zip((NEWEST, behaviour.max_length), RARER, strict=True):
            is_own = _holds(ragged, name, shown, n_events)
            own, repeats = share(clicks, is_own), share(clicks, _repeats(ragged, name, n_events))
            is_off = (n_clicks >= MIN_CLICKS) & (own >= OWN_CLICKS)
            is_off &= np.maximum(share(others, is_own), repeats) < own / rarer
            fraction = is_off.sum() / max(int((n_clicks >= MIN_CLICKS).sum()), 1)
            if is_off.sum() >= MIN_OFF_USERS and fraction >= OFF_USERS:
                return Finding(
                    "clocks of some users",
                    f"for {fraction:.0%} of the users, the clicked item is already among the "
                    f"newest {n_events} events of {name}; for the others it is not. Their events "
                    "and impressions seem to follow different clocks (zone, device or source).",
                    "Convert the times of both tables to one clock before attach_history, or leave "
                    "these users out.",
                )
    return None


def _pairs_of_rows(X: EncodedFeatures) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of one user that follow each other at different times."""
    if X.users is None or X.times is None:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    rows, users = rows_of_some_users(X.users)
    earlier, later = pairs_in_turn(users, np.asarray(X.times)[rows])
    return rows[earlier], rows[later]


def rows_of_some_users(users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all rows of so many users that they are not too many, and the users as codes."""
    codes = Keys.of_users(users, len(users)).codes
    n_rows = np.cumsum(np.bincount(codes[codes >= 0], minlength=1))
    n_users = max(int(np.searchsorted(n_rows, CHECKED_ROWS, side="right")), 1)
    rows = np.flatnonzero((codes >= 0) & (codes < n_users))
    return rows, codes[rows]


def _longest_vocabulary(X: EncodedFeatures, behaviour: Behaviour) -> str | None:
    """Return the history of single ids with the most of them."""
    single = [name for name in behaviour.histories if not X.schema[name].holds_lists]
    return max(single, key=lambda name: X.schema[name].n_ids, default=None)


def _holds(
    ragged: Ragged, name: str, ids: np.ndarray, n_events: int, *, n_skipped: int = 0
) -> np.ndarray:
    """Return whether each row's id is among its newest events, after those that are skipped."""
    spans, n_rows = ragged.spans, len(ids)
    lengths = np.maximum(spans.lengths - n_skipped, 0)
    newest = Spans(spans.starts, lengths).newest(n_events)
    row = np.repeat(np.arange(n_rows), newest.lengths)
    return np.bincount(row, ragged.columns[name][newest.index()] == ids[row], n_rows) > 0


def _repeats(ragged: Ragged, name: str, n_events: int) -> np.ndarray:
    """Return whether each row's newest event is among so many events before it."""
    spans, events = ragged.spans, ragged.columns[name]
    if not len(events):
        return np.zeros(len(spans), dtype=bool)
    newest = events[np.where(spans.lengths > 0, spans.starts + spans.lengths - 1, 0)]
    return _holds(ragged, name, newest, n_events, n_skipped=1)


def _are_parts(
    events: np.ndarray, shorter: Spans, longer: Spans, *, at_end: bool = False
) -> np.ndarray:
    """Return whether the first windows are proper beginnings, or ends, of the second ones."""
    lengths = np.minimum(shorter.lengths, longer.lengths)
    pair = np.repeat(np.arange(len(lengths)), lengths)
    mine, theirs = (
        events[Spans(spans.starts + at_end * (spans.lengths - lengths), lengths).index()]
        for spans in (shorter, longer)
    )
    differs = np.bincount(pair, mine != theirs, len(lengths)) > 0
    return (shorter.lengths < longer.lengths) & ~differs
