"""Consistency of the clocks of two tables: different units, coarser granularity, or one early."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sklearn_din.logs.timeline import Timeline
from sklearn_din.utils.keys import NO_KEY, Keys, join_hashes
from sklearn_din.utils.label_waits import describe_span
from sklearn_din.utils.validation import (
    UNITS_PER_SECOND,
    check_times,
    datetime_index,
    spread,
    unit_ratio,
    unix_unit,
)
from sklearn_din.utils.warnings import ADVICE_FROM, log_once

MANY_ROWS = 20
TWINS = 5  # rows told before one, that are looked at
EARLY = 0.4  # of the rows that have any of them
FEW = 0.05  # of all rows
CHECKED_ROWS = 10_000
GRAINS = {"days": (86_400, "D"), "hours": (3_600, "h"), "minutes": (60, "min")}
YEAR = 365.25 * 86_400
UNTOLD = 10.0  # times as old as nearly all were
NEARLY_ALL = 0.95  # of the rows told
JUST_AFTER = 1.0  # seconds behind a whole minute, hour or day: the moment after its last event


def note_clocks(
    impressions: pd.Series,
    events: pd.Series,
    names: tuple[str, str] = ("impressions", "events"),
) -> str | None:
    """Return what to say of two columns of times that are compared, if anything.

    Events of a coarser grain, or in a unit whose numbers are smaller, lie before impressions that
    they came with, so that a click is in its own history. ``names`` are those of the two; what is
    called X gets the unit of what is not.

    >>> days = pd.Series(pd.date_range("2024-01-01", periods=20))
    >>> note_clocks(days + pd.Timedelta("7h"), days)[:53]
    'the times of events are whole days, those of impressi'
    """
    shown, log = spread(impressions, CHECKED_ROWS), spread(events, CHECKED_ROWS)
    if min(len(shown), len(log)) < MANY_ROWS:
        return None
    units = unix_unit(shown), unix_unit(log)
    if None not in units and units[0] != units[1]:
        factors = [UNITS_PER_SECOND[str(unit)] for unit in units]
        table = names[factors[0] > factors[1]]
        change = f"* {max(factors) // min(factors)}"
        if "X" in names and table != "X":
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
        is_whole = shown % n_seconds <= JUST_AFTER
        if len(np.unique(log)) < 2 or is_whole.mean() > 0.5:
            return None
        floored = f".dt.floor({letter!r})" if is_date else f" // {n_seconds} * {n_seconds}"
        rows = "the impressions" if names[0] == "impressions" else names[0]
        advice = f"Floor {rows} as well, {names[0]}[{time!r}]{floored}."
        if names[1] == "X":
            advice = "Give each row the time at which it was shown."
        return (
            f"the times of {names[1]} are whole {grain}, those of {names[0]} are not: what "
            "happened later in the same one counts as the past, and so does the impression's own "
            f"click. {advice}"
        )
    return None


def note_early(
    shown: pd.DataFrame, told: pd.DataFrame, keys: Sequence[str], time: str, name: str
) -> str | None:
    """Return what to say where labels were told at times shortly before those of their own rows.

    Then most rows that have an equal one before them have one exactly so long before them, and
    hardly any has one at its own time, as rows have of people who come back or try again, or that
    were logged twice.

    told : rows whose label was known at once
    name : of the column of times, to its user
    """
    some = spread(shown[shown[time] <= told[time].max()], CHECKED_ROWS)
    for key in keys:
        told = told[told[key].astype(object).isin(some[key].astype(object))]
    some, told = (
        rows[[time]].assign(key=join_hashes([Keys.read(rows[key]).hashes for key in keys]))
        for rows in (some, told)
    )
    told = told[told["key"] != NO_KEY]
    if min(len(some), len(told)) < MANY_ROWS:
        return None
    timeline = Timeline(told, key="key", time=time)
    past, (clock, now) = timeline.past(some), timeline.relative_times(some)
    before = past.end[:, None] - 1 - np.arange(TWINS)
    lags = np.where(before >= past.begin[:, None], now[:, None] - clock[before], np.nan).round(3)
    values, n_of = np.unique(lags[~np.isnan(lags)], return_counts=True)
    n, n_earlier = n_of.max(initial=0), (~np.isnan(lags[:, 0])).sum()
    n_own = timeline.holds(some).sum()
    if n < max(MANY_ROWS, EARLY * n_earlier, FEW * len(some), n_own / FEW):
        return None
    lag = values[n_of.argmax()]
    if lag * MANY_ROWS > now.max() - now.min():
        return None
    by = f"{lag:g}" if timeline.unit is None else f"pd.Timedelta({lag:g}, 's')"
    return (
        f"{n} of {len(some)} rows have one of the same user and columns that was told {by} before "
        f"them, and {n_own} one at their own time: that clock is early, so that what came of each "
        f"row counts as its past. Add {by} to {name!r} of what is told."
    )


def note_far(times: pd.Series, events: pd.Series) -> str | None:
    """Return what to say of times that are decades away from those of events."""
    unit = unix_unit(spread(events, CHECKED_ROWS))
    own, log = _seconds(times, unit), _seconds(events, unit)
    if own is None or log is None or not len(log):
        return None
    is_far = np.abs(own - np.median(log)) > 20 * YEAR
    if not is_far.any():
        return None
    return (
        f"{is_far.sum()} rows are decades away from all others, such as one of "
        f"{times.iloc[int(is_far.argmax())]}: such a row counts for all later ones, or for none. "
        "Leave it out, or give it its own time."
    )


def note_untold(
    asked: pd.Series,
    times: np.ndarray,
    known: np.ndarray,
    unit: str | None,
    users: Sequence[pd.Series | np.ndarray],
    *,
    what: str,
) -> None:
    """Log where most rows are asked ``UNTOLD`` times as long after what is known of their users.

    As long as it was when nearly all rows told of these users were asked. A memory that is told
    each day knows nearly what is known now; one that is told nothing more may be worse than none.
    Of rows and memories with ages like those that were logged, nothing is logged again.

    times, known : (n_rows,), when each row told was, and from when on it counts, in this unit
    users : of the rows asked and of those told, hashes or what is hashed where rows are late
    what : which part of the memory, so that another one is logged again
    """
    if len(asked) < MANY_ROWS or len(known) < ADVICE_FROM:
        return
    moments, own_unit, _ = check_times(asked, name=f"X[{asked.name!r}]", unit=unit)
    now = moments / unit_ratio(own_unit, unit)
    if np.median(now) <= known.max():
        return
    asking, own_users = (u if isinstance(u, np.ndarray) else Keys.read(u).hashes for u in users)
    told = pd.DataFrame({"user": own_users, "time": times, "known": known})
    told = told[np.isin(own_users, asking, kind="sort")].astype({"time": float, "known": float})
    ages = [_newest_ages(f, told) for f in (told, pd.DataFrame({"user": asking, "time": now}))]
    if min(map(len, ages)) < MANY_ROWS:
        return
    shares = (NEARLY_ALL, 0.5)
    then, here = (float(a.quantile(s, "lower")) for a, s in zip(ages, shares, strict=True))
    if here > UNTOLD * then:
        log_once(
            f"{what} were up to {describe_span(then, unit)} old in nearly all rows that were told "
            f"of these users, and are {describe_span(here, unit)} old in most of these, up to "
            f"{asked.max()}: remember(model, X, y) tells what came since. If nobody will, compare "
            f"a builder without {what}.",
            *np.round(np.log2([then, here])),
        )


def _newest_ages(rows: pd.DataFrame, told: pd.DataFrame) -> pd.Series:
    """Return how old the newest known row of the same user was, of rows that have one."""
    rows, known = rows[["user", "time"]].sort_values("time"), told[["user", "known"]]
    known = known.sort_values("known").assign(time=lambda own: own["known"])
    joined = pd.merge_asof(rows, known, on="time", by="user", allow_exact_matches=False)
    return (joined["time"] - joined["known"]).dropna()


def _seconds(times: pd.Series, unit: str | None) -> np.ndarray | None:
    """Return times as seconds of the clock on the wall; None for numbers of no known unit."""
    if getattr(times.dtype, "kind", None) == "M":
        stamps = datetime_index(times).tz_localize(None)
        return stamps.asi8 / UNITS_PER_SECOND[stamps.unit]
    return None if unit is None else times.to_numpy(np.float64) / UNITS_PER_SECOND[unit]


def same_rows(impressions: pd.DataFrame, events: pd.DataFrame, columns: Sequence[str]) -> bool:
    """Return whether two frames agree row by row in these columns."""
    if impressions is events:
        return True
    if len(impressions) != len(events):
        return False
    pairs = [(impressions[column].array, events[column].array) for column in columns]
    return all(ours.dtype == theirs.dtype and ours.equals(theirs) for ours, theirs in pairs)
