"""Warnings about what would reveal sampled negatives, once per call.

Columns of the item that are not named as such, or of the user that are; items shown before their
launch or with later values, or that no other user has; repeated pairs.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from sklearn_din.logs.distinct import value_codes
from sklearn_din.logs.other_items import Arrivals, NegativesRequest, number_as_they_come, number_ids
from sklearn_din.utils.validation import missing_rows, spread, time_values, unix_unit
from sklearn_din.utils.warnings import ADVICE_FROM, agree, log_once, warn_user

MIN_OWNERS = 5  # items (or users) that must have several rows
MIN_SURPRISE = 14.0  # natural logarithm of a million
COMPARED_ROWS = 20_000  # shares are then exact to half a per cent
MOSTLY = 0.85  # of rows that are nearer to their own item; half is chance
MANY_ROWS = 100
MANY = 0.1  # of the events that repeat a pair, or whose item has another value later
TELLING = 0.6  # AUC of a fact that negatives alone have, or clicks alone
LATE = 0.05  # of the log, before first events beyond chance: items are launched
TIME_NAMES = {"time", "timestamp", "ts", "date", "datetime", "event_time", "created_at"}


def warn_of_leaks(
    events: pd.DataFrame, request: NegativesRequest, items: np.ndarray, owners: np.ndarray | None
) -> None:
    """Warn of everything that would reveal the negatives; items and owners are codes."""
    column = _find_times(events) if request.time is None else request.time
    times = None if column is None else time_ranks(events[column])
    _warn_of_misplaced_columns(events, replace(request, time=column), items, owners, times)
    repeated = 0.0 if owners is None else share_of_repeats(pd.Series(owners), pd.Series(items))
    if repeated >= MANY:
        warn_user(
            f"{repeated:.0%} of the events repeat a pair of {request.user!r} and {request.item!r}: "
            f"with user={request.user!r} an item that the user has is never a negative, so a model "
            "learns that whatever is in the history is clicked. Pass user=None."
        )
    if request.time is None and times is not None:
        _warn_of_early_items(number_as_they_come(items, times)[0], request, column)


def time_ranks(times: pd.Series) -> np.ndarray:
    """Return the ranks of times from 1, equal for equal times."""
    return pd.Series(time_values(times)).rank(method="dense").to_numpy(np.int64)


def _find_times(events: pd.DataFrame) -> str | None:
    """Column that orders the events: one of datetimes, or of numbers that are or are called times.

    >>> _find_times(pd.DataFrame({"item": [7, 8], "time": [1, 2]}))
    'time'
    """
    for name, column in events.items():
        kind = getattr(column.dtype, "kind", "O")
        is_date = kind == "M"
        if kind in "iuf":
            is_date = str(name).lower() in TIME_NAMES or unix_unit(column) is not None
        if is_date and not missing_rows(column).any():
            return name  # type: ignore[return-value]
    return None


def choose_pools(request: NegativesRequest, arrivals: Arrivals) -> str:
    """Return the pool of negatives, "all", "launched" or "alike"; warn if "all" come too early."""
    is_known, is_launched = request.catalogue_time is not None, request.launched
    if is_launched == "auto":
        is_launched = is_known if request.has_catalogue else _ask_log(arrivals)
    if is_launched:
        return "launched" if is_known else "alike"
    _warn_of_early_items(arrivals, request, request.time)
    return "all"


def _ask_log(arrivals: Arrivals) -> bool:
    """Decide from the log whether items were launched over time, or cannot be judged; log it.

    Of an item that was always there, the first of m events lies near 1 / (m + 1) of the log.
    """
    n_events, before = arrivals.n_events, arrivals.before
    several = n_events > 1
    late = ((before - 1 / (n_events + 1)) * several).sum() / max(int(several.sum()), 1)
    is_rare = 1 / n_events.mean() - before.mean() > LATE
    reason = "items seem to have been there from the beginning of the log"
    if late > LATE:
        reason = f"items seem to be launched over time (first events come {late:.0%} of it late)"
    elif is_rare:
        reason = "most items have too few events to tell when they were launched"
    drawn, other = "from all items", "launched=True draws from those with an event by then"
    if is_rare or late > LATE:
        drawn = "from items with an event before it, where the clicked item had one"
        other = "launched=False draws from all"
    if n_events.sum() >= ADVICE_FROM:
        log_once(
            f"sample_negatives: {reason}, so the negatives of an event are drawn {drawn}. {other}; "
            "catalogue_time= says when each was launched."
        )
    return bool(is_rare or late > LATE)


def _warn_of_early_items(arrivals: Arrivals, request: NegativesRequest, column: str | None) -> None:
    """Warn where negatives of all items would come too early: beyond clicks, and beyond chance."""
    n_events = arrivals.n_events
    weights = n_events if request.strategy == "popularity" else np.ones_like(n_events)
    early, by_chance = np.average([arrivals.before, 1 / (n_events + 1)], axis=1, weights=weights)
    first = (n_events > 0).sum() / n_events.sum()
    auc = 0.5 + (early - max(first, by_chance)) / 2
    advice = "catalogue_time=" if request.has_catalogue else "launched=True"
    advice = f"time={column!r}" if request.time is None else advice
    if n_events.sum() >= MANY_ROWS and auc >= TELLING:
        warn_user(
            f"{early:.0%} of the negatives would show an item before its first event, by "
            f"{column!r}, and only {first:.0%} of the clicks are a first event: this alone "
            f"separates them (AUC {auc:.2f}). Pass {advice} to draw only items that had appeared "
            "by then."
        )


def warn_of_items_of_one_user(
    request: NegativesRequest, n_events: np.ndarray, n_owners: np.ndarray, weights: np.ndarray
) -> None:
    """Warn where more clicks are of items that nobody else has than negatives, by their weights."""
    is_lone = (n_events if request.user is None else n_owners) == 1
    alone = n_events[is_lone].sum() / n_events.sum()
    unknown = np.average(n_events == 0, weights=weights)
    auc = 0.5 + (alone - unknown) / 2
    if n_events.sum() >= ADVICE_FROM and auc >= TELLING:
        advice = "Pass time=, trust" if request.time is None else "Trust"
        warn_user(
            f"{alone:.0%} of the events are of items that nobody else has, and {unknown:.0%} of "
            f"the negatives: if rows are split by user or at random, this alone separates them "
            f"(AUC {auc:.2f}). {advice} only scores of splits by time (TimeSplit), or pass "
            "catalogue= with the items that nobody has."
        )


def warn_of_later_values(
    request: NegativesRequest, read_events: Callable[[], pd.DataFrame], share: float
) -> None:
    """Warn if a fraction of the negatives have values of later times, and these change."""
    if 0.5 + share / 2 < TELLING or not request.item_columns:
        return
    events = read_events()
    repeats = Repeats(number_ids(events, request.item)[0])
    changing = [n for n in request.item_columns if repeats.count_changes(events[n]) > MANY]
    if changing and len(events) >= MANY_ROWS:
        warn_user(
            f"{share:.0%} of the negatives are of items without an event so far and take the "
            f"values of their first one, although {changing} change over time: a value from the "
            "future gives a negative away. Pass catalogue= with catalogue_time=: a row for each "
            "value and the time from which it holds."
        )


def share_of_repeats(owners: pd.Series, items: pd.Series) -> float:
    """Return the fraction of events that repeat a pair of user and item; 0 for few events."""
    if len(items) < MANY_ROWS:
        return 0.0
    return float(pd.DataFrame({"owner": owners, "item": items}).duplicated().mean())


class Repeats:
    """Rows of owners with several rows, each paired with the owner's last row.

    A column belongs to its owner where the two rows always agree, missing values aside, and chance
    is no explanation: with the column's shares, so many agreements are less probable than one in a
    million. A row with the partner (code) of the owner's last row proves nothing and is left out.
    """

    def __init__(self, owners: np.ndarray, partners: np.ndarray | None = None) -> None:
        last_row = np.empty(owners.max() + 1, dtype=np.int64)
        last_row[owners] = np.arange(len(owners))  # of repeated indices numpy keeps the last
        last = last_row[owners]
        is_repeat = last != np.arange(len(owners))
        if partners is not None:
            is_repeat &= partners != partners[last]
        rows = spread(np.flatnonzero(is_repeat), COMPARED_ROWS)
        if len(np.unique(last[rows])) < MIN_OWNERS:
            rows = rows[:0]
        self.rows, self.last = rows, last[rows]

    def owns(self, column: pd.Series) -> bool:
        """Return whether the column has one value for each owner, beyond chance."""
        pairs = self._pairs(column)
        is_missing = pairs == 0
        if (is_missing[0] != is_missing[1]).any():
            pairs = pairs[:, ~is_missing.any(axis=0)]
        ours, theirs = pairs
        if len(ours) == 0 or (ours != theirs).any():
            return False
        shares = np.bincount(ours) / len(ours)
        return bool(-np.log(shares[ours]).sum() >= MIN_SURPRISE)

    def count_changes(self, column: pd.Series) -> float:
        """Return the fraction of rows whose value differs from the owner's last row."""
        ours, theirs = self._pairs(column)
        return float((ours != theirs).mean()) if len(ours) else 0.0

    def _pairs(self, column: pd.Series) -> np.ndarray:
        """Codes of the values in repeated rows, and in the last rows of their owners."""
        return value_codes(column.iloc[np.concatenate([self.rows, self.last])]).reshape(2, -1)


def _warn_of_misplaced_columns(
    events: pd.DataFrame,
    request: NegativesRequest,
    items: np.ndarray,
    owners: np.ndarray | None,
    times: np.ndarray | None,
) -> None:
    """Warn of columns of the item that are not named so, or of the user that are."""
    item, user, item_columns = request.item, request.user, request.item_columns
    within_items, by_item = Repeats(items, owners), Triples(items, owners, times)
    by_user = None if owners is None else Triples(owners, items, times)
    leaking, changing = [], []
    for name in [n for n in events if n not in {item, user, request.time, *item_columns}]:
        nearness = by_item.nearness(events[name])
        if within_items.owns(events[name]):
            leaking.append(name)
        elif nearness >= MOSTLY and (by_user is None or by_user.nearness(events[name]) < nearness):
            changing.append(name)
    if leaking or changing:
        named = [*item_columns, *leaking, *changing]
        moment = f" and time={request.time!r}" if changing and request.time is not None else ""
        warn_user(
            f"{agree(leaking + changing, 'depend')} on {item!r}, not in item_columns: a negative "
            "keeps the value of the clicked item, which gives the label away. Pass what "
            f"describes the item, item_columns={named}{moment}."
        )
    if owners is None:
        return
    within_users, columns = Repeats(owners, items), {name: events[name] for name in item_columns}
    users = [name for name, column in columns.items() if within_users.owns(column)]
    personal = [name for name in users if within_items.count_changes(columns[name])]
    if personal:
        warn_user(
            f"of item_columns, {agree(personal, 'hold')} one value for each {user!r} and several "
            f"for one {item!r}: a negative gets another user's value, which gives the label away. "
            "Leave what describes the user out of item_columns."
        )


class Triples:
    """Rows, each with another row of its owner and a row of another owner at that time.

    A column that follows its owner is nearer in the second, the owner's next row, than in the
    third, its neighbour in time. A second row of the same partner, or a third of the owner, proves
    nothing.
    """

    def __init__(
        self, owners: np.ndarray, partners: np.ndarray | None, times: np.ndarray | None
    ) -> None:
        n_rows = len(owners)
        in_time = np.arange(n_rows) if times is None else np.argsort(times, kind="stable")
        by_owner = in_time[np.argsort(owners[in_time], kind="stable")]
        following = np.empty(n_rows, dtype=np.int64)
        following[in_time] = np.roll(in_time, 1)
        rows, same = by_owner[:-1], by_owner[1:]
        other = following[same]
        is_one = (owners[rows] == owners[same]) & (owners[other] != owners[rows])
        if partners is not None:
            is_one &= partners[rows] != partners[same]
        chosen = spread(np.flatnonzero(is_one), COMPARED_ROWS)
        if len(np.unique(owners[rows[chosen]])) < MIN_OWNERS:
            chosen = chosen[:0]
        self.rows, self.same, self.other = rows[chosen], same[chosen], other[chosen]
        self.has_partners = partners is not None

    def nearness(self, column: pd.Series) -> float:
        """Return the fraction of rows nearer to the owner's other row, ignoring ties.

        Nothing (0) where too few are; half is chance. Numbers are as near as their ranks, and count
        where they change; all else where it is equal, if partners are known.
        """
        if len(self.rows) == 0 or not pd.api.types.is_hashable(column.iloc[self.rows[0]]):
            return 0.0
        n_rows = len(self.rows)
        values = column.iloc[np.concatenate([self.rows, self.same, self.other])]
        is_number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        is_number |= getattr(values.dtype, "kind", None) == "M"
        if is_number:
            ranks = values.rank(method="average", na_option="keep").to_numpy(float, na_value=np.nan)
            mine, same, other = ranks.reshape(3, n_rows)
            near, far = np.abs(mine - same), np.abs(mine - other)
            near[near == 0] = np.nan
        elif not self.has_partners:
            return 0.0
        else:
            mine, same, other = value_codes(values).reshape(3, n_rows)
            near, far = mine != same, mine != other
        nearer, farther = int((near < far).sum()), int((near > far).sum())
        return nearer / (nearer + farther) if nearer + farther >= MANY_ROWS else 0.0
