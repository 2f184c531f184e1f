"""Columns that say what was known of a key at each row's moment: their names, made and read."""

import re
from collections.abc import Collection

from sklearn_din.features.schema import LEVELS, Meaning

RATES = tuple(what for what, level in LEVELS.items() if level.form == "rate")
RECENT = "recent"  # of the latest rows, whatever their keys
ONLINE_RATE = "online_rate"  # of the online model of a memory, from all keys together
AGE = "outcome_age"  # of an event of a history, since its outcome was known


def statistics_of(rate: str) -> dict[str, str]:
    """Return the levels of labels that have rates or means, and the statistic of each."""
    return {n: own.statistic for n, own in LEVELS.items() if n == rate or n not in RATES}


def name_level(key: str, rate: str) -> dict[str, str]:
    """Return the names of a level's columns: its rate or mean, of how many rows, and how old.

    >>> name_level("user", "mean")
    {'mean': 'user_mean', 'count': 'user_count', 'elapsed': 'user_elapsed'}
    """
    return {what: f"{key}_{what}" for what in statistics_of(rate)}


def find_levels(names: Collection[str]) -> dict[str, Meaning]:
    """Return what levels there are among a frame's columns: those of which all three are there.

    Others whose names end so are "running": made by hand, they move on with each row as levels do.
    Beside levels, ``online_rate`` is the offset of a network's logit, from all their keys.
    A key is the columns that its name is made of. Of several labels it ends in one of them, which
    the rates of the latest rows name, too.

    >>> names = ["user_id", "item", "user_id_item_rate", "user_id_item_count"]
    >>> find_levels([*names, "user_id_item_elapsed", "price_mean"])["user_id_item_count"]
    ('count', ('user_id', 'item'))
    """
    known, ends = {*names}, [(name, *name.rpartition("_")[::2]) for name in names]
    running: dict[str, Meaning] = {n: ("running", ()) for n, _, what in ends if what in LEVELS}
    rates = [own for own in ends if own[2] in RATES]
    levels = {key: what for _, key, what in rates if {*name_level(key, what).values()} <= known}
    if not levels:
        return running
    recent = [own for own in rates if own[0].startswith(f"{RECENT}_") and own[1] not in levels]
    found = running | {name: (what, ()) for name, _, what in recent}
    labels = sorted((key.removeprefix(RECENT) for _, key, _ in recent), key=len)
    longest_first = sorted(filter(None, names), key=len, reverse=True)
    column = re.compile(rf"(?<![^_])({'|'.join(map(re.escape, longest_first))})(?:_|$)")
    for key, what in levels.items():
        label = next((own for own in reversed(labels) if key.endswith(own)), "")
        of = tuple(filter(None, column.split(key.removesuffix(label))))
        found |= {name: (own, of) for own, name in name_level(key, what).items()}
    if ONLINE_RATE in known and ONLINE_RATE.removesuffix("_rate") not in levels:
        columns = dict.fromkeys(name for _, of in found.values() for name in of if name in known)
        found[ONLINE_RATE] = ("offset", tuple(columns))
    return found
