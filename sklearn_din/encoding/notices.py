"""Warnings about columns with a surprising interpretation, or ids that match nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sklearn_din.encoding.facts import LIST
from sklearn_din.encoding.scaling import LINEAR
from sklearn_din.encoding.table import is_history_name
from sklearn_din.encoding.vocabulary import Occurrences, kind_of_ids
from sklearn_din.logs.windows import WindowArray
from sklearn_din.utils.spelling import find_respelling
from sklearn_din.utils.validation import note_two_kinds, spread, unix_unit
from sklearn_din.utils.warnings import agree, log_once, warn_of, warn_user

if TYPE_CHECKING:
    from sklearn_din.encoding.number import NumberStatistics
    from sklearn_din.encoding.table_columns import TableColumns

MANY_ROWS = 100
NEARLY_ALL = 0.9
FEW_VALUES = 20  # so few distinct integers may be in another column by chance
FEW_SHARED = 0.03  # of the ids: so few may be equal by chance
FEW_KINDS = 3  # distinct values, of which fewer tell nothing
FEW_COUNTS = 12  # fewer integers are kinds, such as the days of a week
GAPS = 2  # of integers that count: at least every other one is there
FEW_NEW = 0.2  # of the ids late in training: so few are new that all new ones are suspect
SEEN_VALUES = 1000  # distinct values that are looked at
Pairs = Sequence[tuple[str, str]]  # histories and their candidates


@dataclass(frozen=True)
class TrainingRows:
    """What notices are made of; little is said of columns that the user names."""

    columns: TableColumns
    notices: Sequence[str]
    counts: Mapping[str, Occurrences]
    dtypes: Mapping[str, Any]
    n_rows: int
    ids: Collection[str]
    numbers: Collection[str]
    histories: Collection[str]


def warn_of_training_rows(rows: TrainingRows) -> None:
    """Warn of columns that are taken differently from how they look, unless they are named."""
    columns, counts = rows.columns, rows.counts
    pairs = [(h, c) for b in columns.behaviours for h, c in b.candidate_of.items() if c is not None]
    free = [name for name in columns.categorical if name not in rows.ids]
    warn_of(unpaired_histories(rows), once=True)
    warn_of(
        [
            *rows.notices,
            *note_unshared(pairs, counts),
            *odd_ids(rows, [name for name in free if name not in columns.candidates]),
            *(note_two_kinds(counts[name].values, name=f"X[{name!r}]") for name in counts),
        ]
    )


def note_owners(frame: pd.DataFrame, user: str | None) -> str | None:
    """Return what to say where a HistoryBuilder has attached the past of other users than these."""
    logs = [c.array.log for _, c in frame.items() if isinstance(c.array, WindowArray)]
    owners = [*dict.fromkeys(log.owner for log in logs if log.owner is not None)]
    if user is None or not owners or user in owners:
        return None
    return (
        f"HistoryBuilder(user={owners[0]!r}) attached histories and levels of each {owners[0]!r}, "
        f"and the encoder takes each {user!r} for a user: item neighbours and levels count others "
        f"than histories do. Name one column in both, HistorySequenceEncoder(user={owners[0]!r})."
    )


def log_roles(rows: TrainingRows, statistics: Mapping[str, NumberStatistics]) -> None:
    """Log which columns that are not named may be of another kind than they are taken for."""
    columns, named = rows.columns, {*rows.ids, *rows.numbers}
    unused = [n for n in columns.unused if getattr(rows.dtypes[n], "kind", "") == "M"]
    if unused:
        log_once(
            f"datetimes are not used, here of {', '.join(unused)}. Name the moment of each row "
            "in time=; make numbers of others, such as the hour, X[...].dt.hour, or the days since."
        )
    quantities = []
    for name in columns.categorical:
        values, is_free = rows.counts[name].values, name not in {*named, *columns.candidates}
        is_integer = pd.api.types.is_integer_dtype(rows.dtypes.get(name, object))
        if is_free and is_integer and len(values) >= FEW_COUNTS:
            low, high = int(values.min()), int(values.max())
            quantities += [name] if low >= 0 and high < GAPS * len(values) else []
    if quantities:
        log_once(
            f"{agree(quantities, 'hold')} integers, encoded as ids. Name in numeric what holds "
            "quantities, such as counts and ages."
        )
    guessed = [name for name in columns.numbers if statistics[name].is_guess]
    if guessed:
        log_once(
            f"the numbers of {', '.join(guessed)} never rise within a row and are taken for times "
            f"elapsed, log1p. elapsed={[*guessed]} says that they are, elapsed=[] that they are "
            "quantities, such as prices in order."
        )


def far_numbers(columns: TableColumns) -> list[str]:
    """Return what to say of columns of numbers of which a few lie far from all others."""
    scales = {n: number.scale for n, number in columns.numbers.items() if n not in columns.levels}
    return [
        f"some numbers of {name} are so extreme that all others would look equal: "
        f"those further than {LINEAR * scale.scale:g} from {scale.shift:g} are compressed "
        "logarithmically. Replace errors by NaN; if they are correct, try np.log1p of the column."
        for name, scale in scales.items()
        if scale.has_outliers
    ]


def warn_of_events(totals: Mapping[tuple[str, ...], Counter[str]]) -> None:
    """Warn of behaviours without an event."""
    for names, events in totals.items():
        if not events["held"]:
            warn_user(
                f"every history of {'+'.join(names)} is empty at fit: nothing can be learnt from "
                "it. Do the users of these rows have earlier events?"
            )


def odd_ids(rows: TrainingRows, names: Sequence[str]) -> Iterator[str]:
    """Yield what to say of ids by rule that are times, lists as text or row numbers."""
    for name in names:
        values, n_rows = rows.counts[name].values, rows.n_rows
        is_integer = pd.api.types.is_integer_dtype(rows.dtypes.get(name, object))
        unit = unix_unit(pd.Series(values)) if is_integer and len(values) >= FEW_VALUES else None
        if unit is not None:
            yield (
                f"{name} holds integers that look like times in {unit} since 1970, such as "
                f"{values[0]}, and is encoded as ids. Name it, time={name!r}, if it says when each "
                f"row was, in drop=[{name!r}] to leave it out, in categorical to keep it so."
            )
        elif len(values) and all(LIST.fullmatch(str(text)) for text in values[:FEW_VALUES]):
            yield (
                f"{name} holds lists as text, {values[0]!r:.40}, and is encoded as ids. Read "
                "histories from Parquet, or make lists of the cells."
            )
        elif len(values) > max(MANY_ROWS, NEARLY_ALL * n_rows):
            kind, quantity = "values", ""
            if is_integer:
                kind, quantity = "integers", f"in numeric=[{name!r}] if it is a quantity, "
            yield (
                f"{name} has {len(values)} different {kind} in {n_rows} rows and is "
                f"encoded as ids. Name it in drop=[{name!r}] if it only numbers the rows, "
                f"{quantity}in categorical to keep it as it is."
            )


def unpaired_histories(rows: TrainingRows) -> Iterator[str]:
    """Yield what to say of histories, not named, that are pooled and look made to be compared."""
    bags = [name for b in rows.columns.behaviours if b.is_bag for name in b.histories]
    alone = [name for name in bags if name not in rows.histories]
    likely = {name: _likely_candidate(name, rows) for name in alone}
    lost = [name for name in alone if is_history_name(name) or likely[name] is not None]
    if lost:
        pairs = {name: likely[name] or "..." for name in lost}
        yield (
            f"histories {', '.join(lost)} have no candidate: pooled without attention; name pairs "
            f"in histories={pairs}, or None for those that are to be pooled."
        )


def _likely_candidate(history: str, rows: TrainingRows) -> str | None:
    """Column of ids that holds most of a history's values; of few integers, none is likely."""
    counts, ids = rows.counts, rows.columns.categorical
    values = pd.Index(counts[history].values, dtype=object)
    if len(values) < FEW_VALUES and values.inferred_type != "string":
        return None
    n_known = {name: values.isin(counts[name].values.astype(object)).sum() for name in ids}
    return next((name for name, n in n_known.items() if 2 * n > len(values)), None)


def note_unshared(pairs: Pairs, counts: Mapping[str, Occurrences]) -> Iterator[str]:
    """Yield what to say of histories that share hardly any id with their candidate."""
    for pair in pairs:
        columns = sorted(pair, key=lambda name: len(counts[name].values))
        few, many = (counts[name].values for name in columns)
        some = spread(few, SEEN_VALUES)
        if some.dtype != many.dtype:  # text that spells an integer equals it
            some, many = (np.array([*map(str, ids)], dtype=object) for ids in (some, many))
        known = pd.Index(some, dtype=some.dtype).isin(many)
        if len(few) < FEW_VALUES or known.mean() >= FEW_SHARED:
            continue
        respelt = find_respelling(some[~known], many)
        examples = respelt or (*some[:1].tolist(), *many[:1].tolist())
        hint = "" if respelt is None else ", which seem to be the same"
        yield (
            f"{columns[0]} and {columns[1]} share {known.mean():.0%} of their ids, such as "
            f"{examples[0]!r:.40} and {examples[1]!r:.40}{hint}: next to nothing of a history "
            "can match its candidate. Write the ids of both in one way, or name the column "
            "that the history belongs to in histories."
        )


def note_unknown(
    name: str,
    values: np.ndarray,
    known: np.ndarray,
    shares: tuple[float, float],
    *,
    is_item: bool,
    is_compared: bool,
) -> str | None:
    """Return what to say of a column of whose ids far more are unknown than late in training.

    ``values`` are those that were not seen at fit, ``shares`` their fraction now and then. New
    items are no mistake: something is said where most of them would be known in another spelling,
    where neither candidates nor histories (``is_compared``) have known ones, and where a candidate
    or its history (``is_item``) has none at all, although nearly all were known. Of few values, as
    of a category, another spelling alone counts: those of other shops may be new.
    """
    if kind_of_ids(values) != kind_of_ids(known):
        return None  # ids of another kind are said where they are encoded
    is_few = len(values) < FEW_VALUES
    if is_few and (len(values) < FEW_KINDS or len(known) >= FEW_VALUES):
        return None
    pair, (now, then) = find_respelling(spread(values, SEEN_VALUES), known), shares
    if is_few and pair is None:
        return None
    are_strangers = is_item and now == 1 and then <= FEW_NEW
    if pair is None and not is_compared and not are_strangers:
        return None
    at_fit = repr(known[:1].tolist()[0]) if pair is None else f"{pair[1]!r:.40} for {pair[0]!r:.40}"
    how_many = f"no id of {name} is" if now == 1 else f"only {1 - now:.1%} of the ids of {name} are"
    return (
        f"{how_many} known from fit, where they were such as {at_fit:.90}, and "
        f"{then:.0%} were new late in training: all others have the unknown id. Write them as they "
        "were written at fit (upper case, prefixes, leading zeros, spaces, forms of Unicode)."
    )
