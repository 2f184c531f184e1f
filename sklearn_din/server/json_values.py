"""JSON values in and out: spelling of ids, dates, missing values."""

import difflib
import json
import math
from collections.abc import Collection, Iterable
from typing import Any

import pandas as pd

Values = dict[str, Any]  # by name: a row, or an answer
LARGEST = 2**63 - 1
MAX_TEXT = 1_000  # characters of a value that is posted, or values of a list
NAMES = {str: "text", int: "integers", float: "numbers with a fraction", bool: "true or false"}


def check_spelling(values: list[Any], known: list[Any], *, name: str) -> None:
    """Raise where values are text and known ones integers, or the other way round.

    >>> check_spelling(["17"], [3, 17], name="items")
    Traceback (most recent call last):
        ...
    ValueError: items must be integers, such as 3, got '17': text. Write them without quotes.
    """
    kind = type(known[0]) if len(known) else None
    if kind not in (str, int):
        return
    for value in values:
        if isinstance(value, int) and abs(value) > LARGEST:
            raise ValueError(f"{name} must be integers of 64 bits, got {value!r:.40}.")
        if type(value) is not kind and value is not None:
            how = "in" if kind is str else "without"
            got = NAMES.get(type(value), type(value).__name__)
            raise ValueError(
                f"{name} must be {NAMES[kind]}, such as {known[0]!r:.40}, got {value!r:.40}: "
                f"{got}. Write them {how} quotes."
            )


def check_value(value: Any, *, name: str) -> None:
    """Raise where a value that is posted is no single one, no flat list of such, or too long."""
    parts = value if isinstance(value, list) else [value]
    for part in parts:
        is_finite = not isinstance(part, float) or math.isfinite(part)
        if not isinstance(part, str | int | float | None) or not is_finite:
            raise ValueError(f"{name} must be one value, or a list of such, got {part!r:.40}.")
        if isinstance(part, int) and abs(part) > LARGEST:
            raise ValueError(f"{name} must be integers of 64 bits, got {part!r:.40}.")
    length = max([len(parts), *(len(part) for part in parts if isinstance(part, str))])
    if length > MAX_TEXT:
        raise ValueError(f"{name} may have {MAX_TEXT:,} characters, got {length:,}.")


def refuse_other_keys(rows: Iterable[Values], names: Collection[str], *, what: str) -> None:
    """Raise where a row has a key that is none of some names."""
    for row in rows:
        other = [name for name in row if name not in names]
        if other:
            close = difflib.get_close_matches(other[0], names, n=1)
            hint = f" Is it {close[0]!r}, misspelt?" if close else ""
            raise ValueError(
                f"{what} may have the keys {list(names)}, got {other[0]!r:.60} too.{hint}"
            )


def check_keys(rows: list[Values], names: list[str], *, what: str) -> None:
    """Raise where a row lacks one of some keys."""
    for row in rows:
        absent = [name for name in names if name not in row]
        if absent:
            raise ValueError(
                f"{what} must have the keys {names}, got none of {absent}. Where a value is not "
                "known, give null."
            )


def read_id(text: str | int, known: Any) -> Any:
    """Return an id that was typed: an integer where a known one is."""
    try:
        return int(text) if isinstance(known, int) and "_" not in str(text) else str(text)
    except ValueError:
        return text


def write(value: Any) -> str:
    """Return a value as text of JSON, the same for equal ones."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def plain(value: Any) -> Any:
    """Return a cell as JSON has it: dates as text, missing values as None.

    >>> plain(pd.Timestamp("2024-01-31 12:00")), plain(float("nan")), plain([pd.NA, 2])
    ('2024-01-31 12:00:00', None, [None, 2])
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if pd.isna(value):
        return None
    return value if isinstance(value, str | int | float) else str(value)
