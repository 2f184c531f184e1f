"""What a click log holds that sampled negatives would give away: said once per call."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from sklearn_din._validation import missing_rows, time_values, unix_unit
from sklearn_din._warnings import warn_user
from sklearn_din.logs.item_columns import note_misplacement
from sklearn_din.logs.other_items import NegativesRequest, number_as_they_come

MANY_ROWS = 100
MANY = 0.1  # of the negatives shown too early, or of the events that repeat a pair
TIME_NAMES = {"time", "timestamp", "ts", "date", "datetime", "event_time", "created_at"}


def warn_of_leaks(
    events: pd.DataFrame,
    request: NegativesRequest,
    items: np.ndarray,
    owners: np.ndarray | None,
) -> None:
    """Warn of all that would tell negatives from clicks.

    ``items`` and ``owners`` are the codes of each row's item and user.
    """
    column = _find_times(events) if request.time is None else request.time
    times = None if column is None else time_ranks(events[column])
    notices = note_misplacement(events, replace(request, time=column), items, owners, times)
    if request.time is None and times is not None:
        notices += _note_early_items(items, times, column)
    if owners is not None:
        notices += _note_repeats(items, owners, request)
    for notice in notices:
        warn_user(notice)


def time_ranks(times: pd.Series) -> np.ndarray:
    """Ranks of times from 1, equal ones alike."""
    return pd.Series(time_values(times)).rank(method="dense").to_numpy(np.int64)


def _find_times(events: pd.DataFrame) -> str | None:
    """Column that orders the events: one of datetimes, or of numbers that are or are called times.

    Examples
    --------
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


def _note_early_items(items: np.ndarray, times: np.ndarray, column: str | None) -> list[str]:
    """Say that many draws would be items of which there is no event yet."""
    _, order, n_up = number_as_they_come(items, times)
    early = 1 - n_up.mean() / len(order)
    if len(items) < MANY_ROWS or early < MANY:
        return []
    return [
        f"{early:.0%} of uniform negatives would show an item before its first event, by "
        f"{column!r}, and no click does: a model learns that what nobody has clicked yet is not "
        f"clicked. Pass time={column!r}, and only items that had come up by then are drawn."
    ]


def _note_repeats(items: np.ndarray, owners: np.ndarray, request: NegativesRequest) -> list[str]:
    """Say that users often come back to items, which then are never their negatives."""
    repeated = share_of_repeats(pd.Series(owners), pd.Series(items))
    if repeated < MANY:
        return []
    user, item = request.user, request.item
    return [
        f"{repeated:.0%} of the events repeat a pair of {user!r} and {item!r}: with user={user!r} "
        "nothing that a user has is ever a negative, so that a model learns that what is in the "
        "history is clicked. Pass user=None, and only the event's own item is ruled out."
    ]


def share_of_repeats(owners: pd.Series, items: pd.Series) -> float:
    """Share of the events that repeat a pair of user and item; 0 of few events."""
    if len(items) < MANY_ROWS:
        return 0.0
    return float(pd.DataFrame({"owner": owners, "item": items}).duplicated().mean())
