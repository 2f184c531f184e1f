"""The times of a file: numbers, or dates whose order of day and month is never a silent guess."""

from __future__ import annotations

import re

import pandas as pd
from pandas.tseries.api import guess_datetime_format

from sklearn_din.command_line.options import TableOptions

DAY_MONTH = re.compile(
    r"(?P<first>\d{1,2})(?P<mark>[/.\-])(?P<second>\d{1,2})(?P=mark)(?P<year>\d{4}|\d{2})\b(?P<rest>.*)"
)
CLOCK = re.compile(
    r"((?P<gap>[ T])\d{1,2}(?P<minutes>:\d\d)(?P<seconds>:\d\d)?(?P<fraction>\.\d+)?"
    r"(?P<space> )?(?P<half>[AaPp][Mm])?)?"
)
ZONE = r":\d\d(?:\.\d+)?\s*(?:Z|[+\-]\d\d(?::?\d\d)?)$"
NUMBER = re.compile(r"[-+]?\d+(\.\d*)?")
LAST_MONTH = 12


def read_times(times: pd.Series, options: TableOptions) -> pd.Series:
    """Times as numbers or datetimes.

    Parameters
    ----------
    times : Series
        Without missing values; its index counts the rows of the file from 0.
    options : TableOptions
        ``time_format`` and ``dayfirst`` are used.

    Raises
    ------
    ValueError
        At the first value that is no time, with its row.
    """
    is_number = pd.api.types.is_numeric_dtype(times.dtype)
    if options.time_format is not None:
        return _by_format(_texts(times, is_number), options.time_format)
    if is_number or getattr(times.dtype, "kind", None) == "M":
        return _refuse_dayfirst(times, times, options)
    texts = _texts(times, is_number)
    if NUMBER.fullmatch(texts.iloc[0]):
        return _refuse_dayfirst(
            _checked(pd.to_numeric(texts, errors="coerce"), texts), texts, options
        )
    if pd.notna(pd.to_datetime(texts.iloc[0], format="ISO8601", errors="coerce")):
        return _refuse_dayfirst(_iso(texts), texts, options)
    return _by_first_value(texts, options)


def _texts(times: pd.Series, is_number: bool) -> pd.Series:
    """Text of each time; 20240131.0, made a float by a missing value, is 20240131."""
    if is_number and (times % 1 == 0).all():
        times = times.astype("int64")
    return times.astype(str).str.strip()


def _refuse_dayfirst(read: pd.Series, texts: pd.Series, options: TableOptions) -> pd.Series:
    if options.dayfirst:
        raise ValueError(
            f"--dayfirst is for times such as 31/01/2024, but {texts.name!r} has {texts.iloc[0]}. "
            "Leave it out."
        )
    return read


def _checked(read: pd.Series, texts: pd.Series, time_format: str = "") -> pd.Series:
    bad = texts[read.isna()]
    if len(bad):
        as_what = f"in the format {time_format}" if time_format else f"such as {texts.iloc[0]!r}"
        raise ValueError(
            f"{texts.name!r} must hold times {as_what}, got {bad.iloc[0]!r} in row "
            f"{bad.index[0] + 1} (below the header), {len(bad)} such rows in all. Correct them, or "
            "give --time-format."
        )
    return read


def _by_format(texts: pd.Series, time_format: str) -> pd.Series:
    zone_of_format = "%z" in time_format
    read = pd.to_datetime(texts, format=time_format, errors="coerce", utc=zone_of_format)
    return _checked(read, texts, time_format)


def _iso(texts: pd.Series) -> pd.Series:
    zoned = texts.str.contains(ZONE)
    read = pd.to_datetime(texts, format="ISO8601", errors="coerce", utc=bool(zoned.any()))
    read = _checked(read, texts)
    if zoned.any() and not zoned.all():
        bare = texts[~zoned]
        raise ValueError(
            f"{texts.name!r} must have a time zone in every row or in none, got "
            f"{bare.iloc[0]!r} in row {bare.index[0] + 1} without one."
        )
    return read


def _by_first_value(texts: pd.Series, options: TableOptions) -> pd.Series:
    """Every time in the format of the first, with the day where all rows allow it."""
    first = texts.iloc[0]
    date = DAY_MONTH.match(first)
    if date is None:
        time_format = guess_datetime_format(first)
        _refuse_dayfirst(texts, texts, options)
    else:
        order = "dm" if options.dayfirst or _day_is_first(texts) else "md"
        time_format = _format_of(date, order)
    if time_format is None:
        raise ValueError(
            f"{texts.name!r} must hold times, got {first!r} in row {texts.index[0] + 1} (below the "
            "header). Correct it, or tell its format with --time-format."
        )
    return _checked(pd.to_datetime(texts, format=time_format, errors="coerce"), texts, time_format)


def _day_is_first(texts: pd.Series) -> bool:
    """Whether some first number is no month; say so where no number tells."""
    is_no_month = texts.str.extract(DAY_MONTH)[["first", "second"]].astype(float) > LAST_MONTH
    if not is_no_month.any(axis=None):
        print(
            f"note: the times of {texts.name!r}, such as {texts.iloc[0]}, could begin with the day "
            "or with the month; they are read with the month first (--dayfirst: the day first)"
        )
    return bool(is_no_month["first"].any() and not is_no_month["second"].any())


def _format_of(date: re.Match[str], order: str) -> str | None:
    """Format of a date of numbers, such as ``%d/%m/%Y``, and of the time of day after it."""
    clock = CLOCK.fullmatch(date["rest"])
    if clock is None:
        return None
    year = "%Y" if len(date["year"]) == 4 else "%y"
    day = date["mark"].join([f"%{order[0]}", f"%{order[1]}", year])
    if not clock["minutes"]:
        return day
    hour = "%I" if clock["half"] else "%H"
    parts = [("seconds", ":%S"), ("fraction", ".%f"), ("space", clock["space"]), ("half", "%p")]
    return f"{day}{clock['gap']}{hour}:%M" + "".join(form for part, form in parts if clock[part])
