"""Consistency of the clocks of two tables: different units, or coarser granularity."""

import numpy as np
import pandas as pd

from sklearn_din.utils.validation import UNITS_PER_SECOND, datetime_index, spread, unix_unit

MANY_ROWS = 20
CHECKED_ROWS = 10_000
GRAINS = {"days": (86_400, "D"), "hours": (3_600, "h"), "minutes": (60, "min")}
YEAR = 365.25 * 86_400
HOUR = 3_600
JUST_AFTER = 1.0  # seconds behind a whole hour or day: the moment after its last event


def note_clocks(
    impressions: pd.Series, events: pd.Series, *, are_of_fit: bool = False
) -> str | None:
    """Return what to say of two columns of times that are compared, if anything.

    Events of a coarser grain, or in a unit whose numbers are smaller, lie before impressions that
    they came with, so that a click is in its own history. Events that ``are_of_fit`` stay as they
    are: what is called X gets their unit.

    >>> days = pd.Series(pd.date_range("2024-01-01", periods=20))
    >>> note_clocks(days + pd.Timedelta("7h"), days)[:53]
    'the times of events are whole days, those of impressi'
    """
    names = ("X", "the events of fit") if are_of_fit else ("impressions", "events")
    shown, log = spread(impressions, CHECKED_ROWS), spread(events, CHECKED_ROWS)
    if min(len(shown), len(log)) < MANY_ROWS:
        return None
    units = unix_unit(shown), unix_unit(log)
    if None not in units and units[0] != units[1]:
        factors = [UNITS_PER_SECOND[str(unit)] for unit in units]
        table = names[factors[0] > factors[1]]
        change = f"* {max(factors) // min(factors)}"
        if table == names[1] and are_of_fit:
            table, change = "X", change.replace("*", "//")
        return (
            f"the times of {names[0]} look like {units[0]} since 1970 and those of {names[1]} like "
            f"{units[1]}: compared as they are, all events are past, or none is. Give both one "
            f"unit, {table}[{events.name!r}] {change}."
        )
    ours, theirs = _seconds(shown, units[0]), _seconds(log, units[1])
    if ours is None or theirs is None:
        return None
    middle, other = float(np.median(ours)), float(np.median(theirs))
    are_several = min(len(np.unique(times)) for times in (ours, theirs)) > 1  # no single bad date
    if are_several and min(middle, other) < 2 * YEAR and max(middle, other) > 20 * YEAR:
        return (
            f"the times of {names[middle > other]} are about 1970 and the others are not: was "
            "their unit misread? Give it, pd.to_datetime(numbers, unit='s') or unit='ms'."
        )
    return _note_grain(ours, theirs, impressions.name, names, is_date=units[0] is None)


def _note_grain(
    shown: np.ndarray, log: np.ndarray, time: object, names: tuple[str, str], *, is_date: bool
) -> str | None:
    """Return what to say of events in whole days, hours or minutes."""
    for grain, (n_seconds, letter) in GRAINS.items():
        if (log % n_seconds).any():
            continue
        is_whole = shown % n_seconds <= (JUST_AFTER if n_seconds >= HOUR else 0.0)
        if len(np.unique(log)) < 2 or is_whole.mean() > 0.5:
            return None
        floored = f".dt.floor({letter!r})" if is_date else f" // {n_seconds} * {n_seconds}"
        rows = "the impressions" if names[0] == "impressions" else names[0]
        return (
            f"the times of {names[1]} are whole {grain}, those of {names[0]} are not: what "
            "happened later in the same one counts as the past, and so does the impression's own "
            f"click. Floor {rows} as well, {names[0]}[{time!r}]{floored}."
        )
    return None


def _seconds(times: pd.Series, unit: str | None) -> np.ndarray | None:
    """Return times as seconds of the clock on the wall; None for numbers of no known unit."""
    if getattr(times.dtype, "kind", None) == "M":
        stamps = datetime_index(times).tz_localize(None)
        return stamps.asi8 / UNITS_PER_SECOND[stamps.unit]
    return None if unit is None else times.to_numpy(np.float64) / UNITS_PER_SECOND[unit]
