"""What came of earlier rows: rates so far of users, items and pairs, as of any moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from sklearn_din.features.level_columns import RATES, RECENT
from sklearn_din.logs.distinct import is_repetition
from sklearn_din.logs.timeline import (
    search_in_order,
    since,
    strict_edges,
    time_kind,
)
from sklearn_din.utils.estimator_state import check_array
from sklearn_din.utils.keys import NO_KEY, Keys, join_hashes, kinds_differ, mix_hashes
from sklearn_din.utils.shrinkage import N_SUMS, average_and_prior, changes_of_sums, shrink
from sklearn_din.utils.validation import (
    UNITS_PER_SECOND,
    check_times,
    unit_ratio,
)

RECENT_ROWS = 1_000  # of any key, the latest ones: their mean tells whether rates move
TICK_BITS = 32  # of a place: the number of the key, then that of the moment

Key = tuple[str, ...]


def name_of(key: Key, label: str = "") -> str:
    """Return the name of a key's level, of several labels that of one.

    >>> name_of(("user", "item"), "bought")
    'user_item_bought'
    """
    return "_".join([*key, *([label] if label else [])])


def check_level_names(keys: Sequence[Key], labels: Sequence[str]) -> None:
    """Raise ValueError where levels of two keys, or labels, would have one name."""
    names = [name_of(key, label) for key in (*keys, (RECENT,)) for label in labels]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"levels must have distinct names, got {twice} more than once: those of a pair are "
            f"named by its columns, joined by '_', and {RECENT!r} is the rate of the latest rows. "
            "Rename columns, or leave a level out."
        )


def recent_means(sums: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return means of the latest RECENT_ROWS values, or of more where some are of one moment.

    sums : (2, n_moments + 1), how many values come before each moment, and their sum
    before : (n,), how many moments come before each row
    means : (n,), NaN where there is no value

    >>> recent_means(np.array([[0.0, 1.0, 3.0], [0.0, 1.0, 1.0]]), np.array([0, 1, 2]))
    array([       nan, 1.        , 0.33333333])
    """
    end = sums[:, before]
    first = np.searchsorted(sums[0], end[0] - RECENT_ROWS, side="right") - 1
    count, total = end - sums[:, np.maximum(first, 0)]
    return np.divide(total, count, out=np.full(len(before), np.nan), where=count > 0)


def sum_by_group(numbers: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Running sums of numbers, from zero in each group: equal groups follow each other.

    >>> sum_by_group(np.array([1.0, 2.0, -np.inf, 4.0]), np.array([0, 0, 1, 1]))
    array([  1.,   3., -inf, -inf])
    """
    # pandas sums with compensation: large numbers of one group do not round away small ones of
    # another. What follows an infinite number is NaN to it.
    sums = pd.Series(numbers).groupby(groups).cumsum().to_numpy(copy=True)
    for group in np.unique(groups[~np.isfinite(numbers)]):
        sums[groups == group] = np.cumsum(numbers[groups == group])
    return sums


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments that levels are asked for.

    ticks : (n,), how many different moments of the memory come before each
    now : (n,) float64, the time since the memory's first moment, in seconds for datetimes
    """

    ticks: np.ndarray
    now: np.ndarray

    def take(self, rows: np.ndarray) -> Moments:
        """Return the moments of some rows."""
        return Moments(self.ticks[rows], self.now[rows])


@dataclass(frozen=True, eq=False)
class RowMemory:
    """Rows and what came of them, by hashes of their columns: asked for levels, and appended to.

    A row counts strictly after the moment at which its label was known. A memory never changes:
    :meth:`append` returns another one.

    Parameters
    ----------
    columns : tuple of str
        Columns whose values are keys, and tell rows of one moment apart.
    keys : tuple of tuple of str
        Of these columns, each key that has a level: one column, or several together.
    labels : tuple of str
        Names of the labels; of a single one, "".
    of_clicks : bool
        Whether labels are 0 and 1, of which there are shrunk rates; of numbers there are means.
    kinds : mapping of str to str
        Column -> "text", "numbers" or "times"; "" where no value tells.
    hashes : ndarray of shape (n_columns, n_rows), uint64
    times, known : ndarray of shape (n_rows,), int64 or float64
        When each row was, and when its label was known.
    values : ndarray of shape (n_rows, n_labels), float64
        The labels, NaN where one is missing.
    unit : str or None
        Unit of the times; None for numbers.
    zoned : bool
        Whether they have a zone.
    """

    columns: tuple[str, ...]
    keys: tuple[Key, ...]
    labels: tuple[str, ...]
    of_clicks: bool
    kinds: Mapping[str, str]
    hashes: np.ndarray
    times: np.ndarray
    known: np.ndarray
    values: np.ndarray
    unit: str | None = None
    zoned: bool = False

    @classmethod
    def empty(
        cls, columns: Sequence[str], keys: Sequence[Key], labels: Sequence[str], *, of_clicks: bool
    ) -> RowMemory:
        """Return a memory of no row."""
        check_level_names(keys, labels)
        hashes, values = np.empty((len(columns), 0), np.uint64), np.empty((0, len(labels)))
        none, kinds = np.empty(0, dtype=np.int64), dict.fromkeys(columns, "")
        named = tuple(columns), tuple(keys), tuple(labels)
        return cls(*named, of_clicks, kinds, hashes, none, none, values)

    @property
    def rate(self) -> str:
        """What a level is called: a rate, or a mean."""
        return RATES[0] if self.of_clicks else RATES[1]

    @property
    def names(self) -> list[str]:
        """Names of the columns of levels, in their order."""
        names = [name_of(key, label) for key in self.keys for label in self.labels]
        of_keys = [f"{name}_{what}" for name in names for what in (self.rate, "count", "elapsed")]
        return [*of_keys, *(f"{name_of((RECENT,), label)}_{self.rate}" for label in self.labels)]

    def append(
        self, frame: pd.DataFrame, time: str, values: np.ndarray, *, known: str | None = None
    ) -> tuple[RowMemory, int]:
        """Return a memory of further rows, too, and how many of them were remembered already.

        values : (n_rows, n_labels), NaN where a label is missing
        """
        memory, (times, moments) = self._align([frame[time], frame[known or time]])
        read = [self._read(column, frame[column]) for column in self.columns]
        kinds = {c: self.kinds[c] or kind for c, (_, kind) in zip(self.columns, read, strict=True)}
        hashes = np.stack([of_column for of_column, _ in read])
        batch = replace(memory, hashes=hashes, times=times, known=moments, values=values)
        is_known = memory._repeated_by(batch)
        batch = batch._take(~is_known)
        joined = replace(
            memory,
            kinds=kinds,
            hashes=np.concatenate([memory.hashes, batch.hashes], axis=1),
            times=np.concatenate([memory.times, batch.times]),
            known=np.concatenate([memory.known, batch.known]),
            values=np.concatenate([memory.values, batch.values]),
        )
        index = memory.__dict__.get("_index")
        if index is not None and self.of_clicks and index.precedes(batch.known):
            joined.__dict__["_index"] = index.grow(batch)  # else made again when it is asked
        return joined, int(is_known.sum())

    def levels(self, frame: pd.DataFrame, time: str) -> dict[str, np.ndarray]:
        """Return the levels of rows as of their times, by name: (n_rows,) float64 each."""
        hashes = {name: self.hash_column(name, frame[name]) for name in self.columns}
        moments, levels = self.moments(frame[time]), dict[str, np.ndarray]()
        for key in self.keys:
            levels |= self.levels_of(key, join_hashes([hashes[name] for name in key]), moments)
        return levels | self.recent(moments)

    def hash_column(self, name: str, values: pd.Series) -> np.ndarray:
        """Return the hashes of a column's values, which must be of the kind that is remembered."""
        return self._read(name, values)[0]

    def moments(self, times: pd.Series | None, n_rows: int = 1) -> Moments:
        """Return moments of rows by their times; without times, the one after all that is known."""
        index = self._index
        if times is None or not len(index.ticks):
            n_rows, next_tick = n_rows if times is None else len(times), 0.0
            if len(index.ticks):
                is_whole = index.ticks.dtype.kind == "i"
                next_tick = index.clock[-1] + is_whole / UNITS_PER_SECOND.get(self.unit or "", 1)
            return Moments(np.full(n_rows, len(index.ticks)), np.full(n_rows, next_tick))
        own, unit, zoned = check_times(times, name=f"X[{times.name!r}]", unit=self.unit)
        self._check_times_alike(times.name, unit, zoned)
        edges = strict_edges(own, unit, index.ticks.dtype, self.unit)
        now = since(own, index.ticks[0].item() * unit_ratio(unit, self.unit), unit)
        return Moments(search_in_order(index.ticks, edges), now)

    def levels_of(self, key: Key, hashes: np.ndarray, moments: Moments) -> dict[str, np.ndarray]:
        """Return the levels of a key's values as of some moments, by name: (n,) float64 each."""
        rows, levels = self._index.rows[key], dict[str, np.ndarray]()
        sums, latest = rows.find(hashes, moments.ticks)
        clock, is_known = self._index.clock if len(self.times) else np.zeros(1), latest >= 0
        elapsed = np.where(is_known, moments.now - clock[latest * is_known], np.nan)
        for number, label in enumerate(self.labels):
            name, own = name_of(key, label), slice(2 * number, 2 * number + 2)
            count, total = sums[own]
            if self.of_clicks:
                level = shrink(sums[own], rows.told[own, moments.ticks])
            else:
                level = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
            levels |= {f"{name}_{self.rate}": level, f"{name}_count": count}
            levels[f"{name}_elapsed"] = elapsed
        return levels

    def recent(self, moments: Moments) -> dict[str, np.ndarray]:
        """Return the mean of each label over the latest rows before some moments."""
        sums = self._index.sums.reshape(len(self.labels), 2, -1)
        return {
            f"{name_of((RECENT,), label)}_{self.rate}": recent_means(own, moments.ticks)
            for label, own in zip(self.labels, sums, strict=True)
        }

    def check(self) -> None:
        """Raise ValueError where the parts do not fit each other."""
        n, what = len(self.times), "remembered rows"
        check_array(self.hashes, dtype=np.uint64, shape=(len(self.columns), n), what=what)
        shape = n, len(self.labels)
        check_array(self.values, dtype=np.float64, shape=shape, what=what, missing="allowed")
        kind = np.float64 if self.times.dtype == np.float64 else np.int64
        for times in (self.times, self.known):
            check_array(times, dtype=kind, shape=(n,), what=what)
        if self.kinds.keys() != {*self.columns} or {*sum(self.keys, ())} - {*self.columns}:
            raise ValueError("keys must be made of the columns that are remembered.")

    @cached_property
    def _index(self) -> _Index:
        n_sums = 2 * len(self.labels)
        none = _Index(
            self.keys, self.columns, self.times[:0], np.zeros((n_sums, 1)), np.empty(0), {}
        )
        return none.grow(self)

    def _read(self, name: str, values: pd.Series) -> tuple[np.ndarray, str]:
        """Return hashes of a column's values, and what kind they are."""
        keys = Keys.read(values, name=f"X[{name!r}]")
        kind, remembered = keys.kind or "", self.kinds[name]
        if kind and remembered and kind != remembered:
            raise kinds_differ(name, kind, remembered)
        return keys.hashes, kind

    def _align(self, columns: Sequence[pd.Series]) -> tuple[RowMemory, list[np.ndarray]]:
        """Return the memory and columns of times in one unit, the finest, and of one dtype."""
        read = [check_times(c, name=f"X[{c.name!r}]", unit=self.unit) for c in columns]
        for column, (_, unit, zoned) in zip(columns, read, strict=True):
            self._check_times_alike(column.name, unit, zoned)
        finest = max((unit for _, unit, _ in read), key=lambda unit: unit_ratio(unit, "s"))
        given = [times * unit_ratio(finest, unit) for times, unit, _ in read]
        ratio = unit_ratio(finest, self.unit) if len(self.times) else 1
        arrays = [*given, self.times * ratio, self.known * ratio]
        if any(times.dtype.kind == "f" for times in arrays):
            arrays = [times + 0.0 for times in arrays]  # -0.0 is 0.0
        memory, (times, known) = self, arrays[2:]
        if ratio != 1 or times.dtype != self.times.dtype or not len(times):
            memory = replace(self, times=times, known=known, unit=finest, zoned=read[0][2])
        return memory, arrays[:2]

    def _check_times_alike(self, name: Any, unit: str | None, zoned: bool) -> None:
        fitted, given = time_kind(self.unit, self.zoned), time_kind(unit, zoned)
        if len(self.times) and fitted != given:
            raise TypeError(
                f"X[{name!r}] must hold {fitted}, as the rows that are remembered, got {given}. "
                "Use pd.to_datetime, or tz_localize / tz_convert."
            )

    def _repeated_by(self, batch: RowMemory) -> np.ndarray:
        """Return which rows of a batch repeat a remembered one; of its copies, as many as are."""
        if not len(batch.times):
            return np.zeros(0, dtype=bool)
        lowest, highest = batch.times.min(), batch.times.max()
        shared = self._take(np.flatnonzero((self.times >= lowest) & (self.times <= highest)))
        hashes = [mix_hashes([*own.hashes, own.times.view(np.uint64)]) for own in (shared, batch)]
        return is_repetition(pd.factorize(np.concatenate(hashes))[0], len(shared.times))

    def _take(self, rows: np.ndarray) -> RowMemory:
        arrays = {name: getattr(self, name)[rows] for name in ("times", "known", "values")}
        return replace(self, hashes=self.hashes[:, rows], **arrays)


@dataclass(frozen=True, eq=False)
class _Index:
    """The moments of a memory in order, and its rows by each key.

    ticks : (n_ticks,), the different moments at which labels were known, in ascending order
    sums : (2 * n_labels, n_ticks + 1), count and sum of each label before each, and of all
    clock : (n_ticks,) float64, the time since the first one
    """

    keys: tuple[Key, ...]
    columns: tuple[str, ...]
    ticks: np.ndarray
    sums: np.ndarray
    clock: np.ndarray
    rows: Mapping[Key, _RowsOfKey]

    def precedes(self, known: np.ndarray) -> bool:
        """Return whether all these moments come after those of the index."""
        return not len(known) or not len(self.ticks) or bool(known.min() > self.ticks[-1])

    def grow(self, batch: RowMemory) -> _Index:
        """Return the index with further rows, which come after all others."""
        new, number = np.unique(batch.known, return_inverse=True)
        ticks, tick = np.concatenate([self.ticks, new]), len(self.ticks) + number
        is_there = ~np.isnan(batch.values)
        own = np.stack([is_there, np.where(is_there, batch.values, 0.0)], axis=2)
        own = own.reshape(len(own), len(self.sums)).T  # count and value of each label
        in_time = np.argsort(number, kind="stable")
        sums = _sums_at(self.sums[:, -1:], own[:, in_time], number[in_time], np.arange(len(new)))
        columns, rows = dict(zip(self.columns, batch.hashes, strict=True)), {}
        for key in self.keys:
            before = self.rows.get(key) or _RowsOfKey.none(len(own))
            hashes = join_hashes([columns[name] for name in key])
            rows[key] = before.grow(hashes, tick, own, len(ticks), of_clicks=batch.of_clicks)
        clock = since(new, ticks[:1].item(), batch.unit) if len(ticks) else self.clock
        clock = np.concatenate([self.clock, clock])
        return replace(
            self, ticks=ticks, sums=np.append(self.sums, sums, axis=1), clock=clock, rows=rows
        )


@dataclass(frozen=True, eq=False)
class _RowsOfKey:
    """Rows that have a key, sorted by it and by moment.

    hashes, codes : (n_keys,), of the key's values in ascending order of their hashes
    places : (n_rows,) int64, the code and the tick of each row, in ascending order
    totals : (2 * n_labels, n_rows), count and sum of each label, up to and with the row
    told : (2 * n_labels, n_ticks + 1), the average rate of all values before each tick, and how
        many rows at it are added to each value's own
    last : (n_labels, 5), the sums that tell this, of all rows
    """

    hashes: np.ndarray
    codes: np.ndarray
    places: np.ndarray
    totals: np.ndarray
    told: np.ndarray
    last: np.ndarray

    @classmethod
    def none(cls, n_sums: int) -> _RowsOfKey:
        """Return those of no row."""
        codes, last = np.empty(0, dtype=np.int64), np.zeros((n_sums // 2, N_SUMS))
        told = np.concatenate([average_and_prior(sums[:, None]) for sums in last])
        hashes = np.empty(0, dtype=np.uint64)
        return cls(hashes, codes, codes, np.empty((n_sums, 0)), told, last)

    def find(self, hashes: np.ndarray, ticks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what is known of values as of ticks.

        sums : (2 * n_labels, n), counts and sums of the labels
        latest : (n,), the tick of the latest row, -1 without one
        """
        if not len(self.hashes):
            return np.zeros((len(self.totals), len(hashes))), np.full(len(hashes), -1)
        at = np.minimum(search_in_order(self.hashes, hashes), len(self.hashes) - 1)
        code = self.codes[at]
        last = search_in_order(self.places, (code << TICK_BITS) + ticks) - 1
        places = self.places[last]
        is_known = (self.hashes[at] == hashes) & (last >= 0) & (places >> TICK_BITS == code)
        latest = np.where(is_known, places & ((1 << TICK_BITS) - 1), -1)
        return np.where(is_known, self.totals[:, last], 0.0), latest

    def grow(
        self,
        hashes: np.ndarray,
        tick: np.ndarray,
        own: np.ndarray,
        n_ticks: int,
        *,
        of_clicks: bool,
    ) -> _RowsOfKey:
        """Return the rows with further ones, of later ticks.

        own : (2 * n_labels, n_new), count and value of each label
        """
        has_key = hashes != NO_KEY
        tick, own = tick[has_key], own[:, has_key]
        new, number = np.unique(hashes[has_key], return_inverse=True)
        at, codes = np.searchsorted(self.hashes, new), np.empty(len(new), dtype=np.int64)
        is_known = np.append(self.hashes, NO_KEY)[at] == new
        codes[is_known] = self.codes[at[is_known]]
        codes[~is_known] = len(self.hashes) + np.arange((~is_known).sum())
        code = codes[number]
        order = np.argsort((code << TICK_BITS) + tick, kind="stable")
        in_order, groups = own[:, order], code[order]
        totals = np.stack([sum_by_group(numbers, groups) for numbers in in_order])
        totals += self.find_last(groups)
        told, last = self.told, self.last
        if of_clicks:
            told, last = self._tell(totals, in_order, order, tick, n_ticks)
        places = (groups << TICK_BITS) + tick[order]
        behind = np.searchsorted(self.places, places)
        return _RowsOfKey(
            np.insert(self.hashes, at[~is_known], new[~is_known]),
            np.insert(self.codes, at[~is_known], codes[~is_known]),
            np.insert(self.places, behind, places),
            np.insert(self.totals, behind, totals, axis=1),
            told,
            last,
        )

    def find_last(self, codes: np.ndarray) -> np.ndarray:
        """Return counts and sums of the last row of each code, zeros where there is none."""
        last = np.searchsorted(self.places, (codes + 1) << TICK_BITS) - 1
        is_there = np.append(self.places, -1)[last] >> TICK_BITS == codes
        return np.where(is_there, np.pad(self.totals, ((0, 0), (0, 1)))[:, last], 0.0)

    def _tell(
        self,
        totals: np.ndarray,
        own: np.ndarray,
        order: np.ndarray,
        tick: np.ndarray,
        n_ticks: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return average rates and rows added before each tick, and the sums that tell them."""
        new_ticks, in_time = (
            np.arange(self.told.shape[1] - 1, n_ticks),
            np.argsort(tick, kind="stable"),
        )
        told, last = [], []
        for label, before in enumerate(self.last):
            pair, changes = slice(2 * label, 2 * label + 2), np.empty((N_SUMS, len(order)))
            changes[:, order] = changes_of_sums(totals[pair], own[pair])
            sums = _sums_at(before[:, None], changes[:, in_time], tick[in_time], new_ticks)
            told.append(average_and_prior(sums))
            last.append(sums[:, -1] if len(new_ticks) else before)
        return np.append(self.told, np.concatenate(told), axis=1), np.stack(last)


def _sums_at(
    before: np.ndarray, numbers: np.ndarray, ticks: np.ndarray, ends: np.ndarray
) -> np.ndarray:
    """Return sums of numbers up to and with some ticks, of rows in order of time, one by one.

    before : (n_sums, 1), what they begin with; numbers : (n_sums, n_rows); ticks : (n_rows,)
    """
    sums = np.cumsum(np.concatenate([before, numbers], axis=1), axis=1)
    return sums[:, np.searchsorted(ticks, ends, side="right")]
