"""Single values that JSON does not have, as JSON and back: dates, numpy's numbers, decimals."""

from __future__ import annotations

import base64
import datetime as dt
import functools
import uuid
import zoneinfo
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

TIME_UNITS = ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns")
PANDAS_UNITS = ("s", "ms", "us", "ns")
NUMBER_TYPES = {
    name: getattr(np, name)
    for name in (
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64"),
    )
}
FLOATS = ("nan", "inf", "-inf")


class NotPlainError(TypeError):
    """A value that is none of the closed list."""


def check_type(value: object, *types: type, what: str) -> Any:
    """Return ``value`` if its type is exactly one of ``types``, else raise ValueError."""
    if type(value) not in types:
        names = " or ".join(its.__name__ for its in types)
        raise ValueError(f"{what} must be {names}, got {value!r:.60}.")
    return value


def check_in(value: Any, choices: Any, *, what: str) -> Any:
    """Return ``value`` if it is one of ``choices``, else raise ValueError."""
    if type(value) is not str or value not in choices:
        raise ValueError(f"{what} must be one of {', '.join(choices)}, got {value!r:.60}.")
    return value


def write_zone(zone: dt.tzinfo | None) -> Json:
    """Write a time zone: its name, or a fixed offset in microseconds."""
    if zone is None:
        return None
    name = getattr(zone, "key", None) or getattr(zone, "zone", None)  # zoneinfo's, pytz'
    if type(name) is str and name in _zone_names():
        return name
    if type(zone) is dt.timezone:
        return zone.utcoffset(None) // dt.timedelta(microseconds=1)
    raise NotPlainError(f"a time zone of type {type(zone).__name__}")


def read_zone(zone: Json) -> dt.timezone | str:
    """Read what :func:`write_zone` wrote: a fixed offset, or the name of a known zone."""
    if type(zone) is int:
        return dt.timezone(dt.timedelta(microseconds=zone))
    if type(zone) is not str or zone not in _zone_names():
        raise ValueError(f"this machine has no time zone {zone!r:.60}. Install tzdata.")
    return zone


@functools.cache
def _zone_names() -> set[str]:
    """Names that may be looked up: any other could name a file or a module."""
    return zoneinfo.available_timezones()


def _write_datetime(value: dt.datetime) -> Json:
    return [value.replace(tzinfo=None).isoformat(), write_zone(value.tzinfo), value.fold]


def _read_datetime(node: Json) -> dt.datetime:
    text, zone, fold = fields(node, 3)
    value = dt.datetime.fromisoformat(check_type(text, str, what="a date and time"))
    if value.tzinfo is not None:
        raise ValueError("a date and time must have its zone apart.")
    its_zone: dt.tzinfo | str | None = None if zone is None else read_zone(zone)
    if isinstance(its_zone, str):
        its_zone = zoneinfo.ZoneInfo(its_zone)
    return value.replace(tzinfo=its_zone, fold=check_type(fold, int, what="fold"))


def _write_timestamp(value: pd.Timestamp) -> Json:
    return [value.asm8.astype("int64").item(), value.unit, write_zone(value.tzinfo)]


def _read_timestamp(node: Json) -> pd.Timestamp:
    ticks, unit, zone = fields(node, 3)
    check_in(unit, PANDAS_UNITS, what="a unit of time")
    stamp = pd.Timestamp(np.datetime64(check_type(ticks, int, what="a time"), unit))
    return stamp if zone is None else stamp.tz_localize("UTC").tz_convert(read_zone(zone))


def _write_duration(value: pd.Timedelta) -> Json:
    return [value.asm8.astype("int64").item(), value.unit]


def _read_duration(node: Json) -> pd.Timedelta:
    ticks, unit = fields(node, 2)
    check_in(unit, PANDAS_UNITS, what="a unit of time")
    return pd.Timedelta(np.timedelta64(check_type(ticks, int, what="a duration"), unit))


def _write_time(value: dt.time) -> Json:
    if value.tzinfo is not None:
        raise NotPlainError("a time of day with a zone")
    return value.isoformat()


def _write_timedelta(value: dt.timedelta) -> Json:
    return value // dt.timedelta(microseconds=1)


def _read_timedelta(node: Json) -> dt.timedelta:
    return dt.timedelta(microseconds=check_type(node, int, what="a duration"))


def write_numpy(value: np.generic) -> dict[str, Json]:
    """Write a scalar of numpy with its type."""
    name = value.dtype.name
    if name in NUMBER_TYPES:
        number = value.item()
        return {"numpy": [name, number if np.isfinite(value) else str(number)]}
    if isinstance(value, np.bool_):
        return {"numpy": ["bool", bool(value)]}
    if isinstance(value, np.str_):
        return {"numpy": ["str", str(value)]}
    if isinstance(value, np.datetime64 | np.timedelta64):
        unit, step = np.datetime_data(value.dtype)
        if step == 1 and unit in TIME_UNITS:
            return {f"{type(value).__name__}": [unit, int(value.astype("int64"))]}
    raise NotPlainError(f"a numpy scalar of type {name}")


def _read_numpy(node: Json) -> np.generic:
    name, value = fields(node, 2)
    if name == "bool":
        return np.bool_(check_type(value, bool, what="a boolean"))
    if name == "str":
        return np.str_(check_type(value, str, what="text"))
    number_type = NUMBER_TYPES[check_in(name, NUMBER_TYPES, what="a type of numbers")]
    if name.startswith("float"):
        if type(value) is str:
            value = float(check_in(value, FLOATS, what="a float"))
        return number_type(check_type(value, float, what="a float"))
    whole = check_type(value, int, what="an integer")
    if not np.iinfo(number_type).min <= whole <= np.iinfo(number_type).max:
        raise ValueError(f"{name} cannot hold {whole}.")
    return number_type(whole)


def _read_ticks(kind: Callable[..., np.generic]) -> Callable[[Json], np.generic]:
    def read(node: Json) -> np.generic:
        unit, ticks = fields(node, 2)
        check_in(unit, TIME_UNITS, what="a unit of time")
        return kind(check_type(ticks, int, what="a time"), unit)

    return read


def fields(node: Json, n_fields: int) -> list[Any]:
    """Return a list of so many items."""
    if type(node) is not list or len(node) != n_fields:
        raise ValueError(f"{n_fields} items were needed, got {node!r:.60}.")
    return node


def objects_of(values: list[Any]) -> np.ndarray:
    """Give a 1-D array of objects, also where they are tuples of one length."""
    return np.fromiter(values, dtype=object, count=len(values))


# Exact type -> tag, and how it is written. Types that are not here (and in plain_state.py) are
# not plain. A new tag raises the protocol of safe files: see serving/saving.py.
WRITERS: dict[type, tuple[str, Callable[[Any], Json]]] = {
    dt.date: ("date", dt.date.isoformat),
    dt.datetime: ("datetime", _write_datetime),
    dt.time: ("time", _write_time),
    dt.timedelta: ("timedelta", _write_timedelta),
    pd.Timestamp: ("Timestamp", _write_timestamp),
    pd.Timedelta: ("Timedelta", _write_duration),
    Decimal: ("Decimal", str),
    uuid.UUID: ("UUID", lambda value: value.hex),
    bytes: ("bytes", lambda value: base64.b64encode(value).decode("ascii")),
    type(pd.NaT): ("missing", lambda value: "NaT"),
    type(pd.NA): ("missing", lambda value: "NA"),
}
MISSING = {"NaT": pd.NaT, "NA": pd.NA}


def _of_text(read: Callable[[str], Any]) -> Callable[[Json], Any]:
    return lambda node: read(check_type(node, str, what="a value"))


READERS: dict[str, Callable[[Json], Any]] = {
    "float": _of_text(lambda text: float(check_in(text, FLOATS, what="a float"))),
    "date": _of_text(dt.date.fromisoformat),
    "datetime": _read_datetime,
    "time": _of_text(dt.time.fromisoformat),
    "timedelta": _read_timedelta,
    "Timestamp": _read_timestamp,
    "Timedelta": _read_duration,
    "Decimal": _of_text(Decimal),
    "UUID": _of_text(uuid.UUID),
    "bytes": _of_text(lambda text: base64.b64decode(text, validate=True)),
    "missing": _of_text(lambda text: MISSING[check_in(text, MISSING, what="a missing value")]),
    "numpy": _read_numpy,
    "datetime64": _read_ticks(np.datetime64),
    "timedelta64": _read_ticks(np.timedelta64),
}
