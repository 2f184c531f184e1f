"""Columns that say what was known of a key at each row's moment, recognized by their names."""

from collections.abc import Collection
from typing import NamedTuple

RATES = ("rate", "mean")  # of clicks, and of other numbers
RUNNING = (*RATES, "count", "elapsed")  # how names end of numbers that move on with each row
RECENT = "recent"  # of the latest rows, whatever their keys


class LevelColumns(NamedTuple):
    """Names of the three columns of one key: its rate or mean so far, of how many rows, how old."""

    rate: str
    n_rows: str
    elapsed: str


def find_levels(names: Collection[str]) -> dict[str, LevelColumns]:
    """Return the keys of which all three columns are among these names.

    >>> find_levels(["user_rate", "user_count", "user_elapsed", "price_mean"])
    {'user': LevelColumns(rate='user_rate', n_rows='user_count', elapsed='user_elapsed')}
    """
    levels = {}
    for name in names:
        key, _, what = name.rpartition("_")
        columns = LevelColumns(name, f"{key}_count", f"{key}_elapsed")
        if what in RATES and {*columns} <= {*names}:
            levels[key] = columns
    return levels


def level_columns(names: Collection[str]) -> set[str]:
    """Return the names of all columns of levels, the rates of the latest rows among them."""
    levels = find_levels(names)
    recent = {n for n in names if n.startswith(f"{RECENT}_") and n.rpartition("_")[2] in RATES}
    return {name for columns in levels.values() for name in columns} | (recent if levels else set())
