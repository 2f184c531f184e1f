"""What came of earlier rows: rates so far of users, items and pairs, as of any moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, product
from typing import Any

import numpy as np
import pandas as pd

from sklearn_din.features.level_columns import (
    ONLINE_RATE,
    RATES,
    RECENT,
    name_level,
    statistics_of,
)
from sklearn_din.logs.clocks import CHECKED_ROWS, MANY_ROWS, note_early
from sklearn_din.logs.distinct import find_told, holds_lists
from sklearn_din.logs.online_model import OnlineEstimates, OnlineModel, rate_of
from sklearn_din.logs.timeline import (
    search_in_order,
    since,
    stable_order,
    strict_edges,
)
from sklearn_din.utils.estimator_state import check_array
from sklearn_din.utils.keys import NO_KEY, Keys, join_hashes, kinds_differ, mix_hashes
from sklearn_din.utils.shrinkage import N_SUMS, average_and_prior, changes_of_sums, shrink
from sklearn_din.utils.validation import (
    UNITS_PER_SECOND,
    check_time_kind,
    check_times,
    spread,
    unit_ratio,
)

OF_ROWS = ("times", "known", "values", "replaces")
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


def recent_means(
    sums: np.ndarray, before: np.ndarray, changes: Sequence[tuple[np.ndarray, np.ndarray]] = ()
) -> np.ndarray:
    """Return means of the latest RECENT_ROWS values, or of more where some are of one moment.

    sums : (2, n_moments + 1), how many values come before each moment, and their sum
    before : (n,), how many moments come before each row
    changes : pairs of arrays: after how many moments the recent sum changes; by how much so far
        before each of these changes, and after the last one
    means : (n,), NaN where there is no value

    >>> recent_means(np.array([[0.0, 1.0, 3.0], [0.0, 1.0, 1.0]]), np.array([0, 1, 2]))
    array([       nan, 1.        , 0.33333333])
    """
    end = sums[:, before]
    first = np.searchsorted(sums[0], end[0] - RECENT_ROWS, side="right") - 1
    count, total = end - sums[:, np.maximum(first, 0)]
    for places, so_far in changes:
        total = total + so_far[np.searchsorted(places, before, side="right")]
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


def statistic_of(statistic: str, count: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return one of the statistics, of how many values came before and of their sum."""
    if statistic == "mean":
        return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    return count if statistic == "count" else total


@dataclass
class Call:
    """Rows that are told in several parts as if in one call.

    newest : labels that replace others count from this moment on, at the earliest
    n_equal : how many rows were told so far, by their hash
    """

    newest: float
    n_equal: Counter[int] = field(default_factory=Counter)


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

    A row counts strictly after the moment at which its label was known. One that is told again,
    with another label, is a further row here, by which levels change from its own moment on: those
    of earlier moments stay. A memory never changes: :meth:`append` returns another one.

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
    replaces : ndarray of shape (n_rows,), int64
        Of a row that was told again, the number of its first telling; -1 of that.
    unit : str or None
        Unit of the times; None for numbers.
    zoned : bool
        Whether they have a zone.
    has_recent : bool
        Whether the rate of the latest rows is a level.
    online : OnlineModel or None
        The online model, whose rate is a level, too; None without one.
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
    replaces: np.ndarray
    unit: str | None = None
    zoned: bool = False
    has_recent: bool = True
    online: OnlineModel | None = None

    @classmethod
    def empty(
        cls,
        columns: Sequence[str],
        keys: Sequence[Key],
        labels: Sequence[str],
        *,
        of_clicks: bool,
        has_recent: bool = True,
    ) -> RowMemory:
        """Return a memory of no row."""
        check_level_names(keys, labels)
        hashes, values = np.empty((len(columns), 0), np.uint64), np.empty((0, len(labels)))
        none, kinds = np.empty(0, dtype=np.int64), dict.fromkeys(columns, "")
        named = tuple(columns), tuple(keys), tuple(labels)
        arrays = hashes, none, none, values, none
        return cls(*named, of_clicks, kinds, *arrays, has_recent=has_recent)

    @property
    def names(self) -> list[str]:
        """Names of the columns of levels, in their order."""
        levels = [self.columns_of(key, label) for key in self.keys for label in self.labels]
        recent = [self.columns_of((RECENT,), label)[0] for label in self.labels]
        online = [] if self.online is None else [ONLINE_RATE]
        return [*chain(*levels), *(recent * self.has_recent), *online]

    def columns_of(self, key: Key, label: str) -> list[str]:
        """Return the names of a key's level of a label: rate or mean, count and time elapsed."""
        return [*name_level(name_of(key, label), RATES[not self.of_clicks]).values()]

    def append(
        self,
        frame: pd.DataFrame,
        time: str,
        values: np.ndarray,
        *,
        known: str | None = None,
        call: Call | None = None,
        source: str = "X",
    ) -> tuple[RowMemory, np.ndarray]:
        """Return a memory with further rows, and which row here each of them replaces, -1 if none.

        The k-th of equal rows is the k-th of those here, and its labels replace that one's where
        they are not missing: from when they were known on, without ``known`` from the newest moment
        of all on.

        values : (n_rows, n_labels), NaN where a label is missing
        call : of which these rows are the next ones; None: of their own
        source : what messages call the frame
        before : (n_rows,), the number of the row's last telling
        """
        memory, (times, moments) = self._align([frame[time], frame[known or time]], source)
        read = [self._read(column, frame[column], source) for column in self.columns]
        kinds = {c: self.kinds[c] or kind for c, (_, kind) in zip(self.columns, read, strict=True)}
        batch = replace(
            memory,
            kinds=kinds,
            hashes=np.array([own for own, _ in read], np.uint64).reshape(len(read), len(times)),
            times=times,
            known=moments,
            values=values,
            replaces=np.full(len(times), -1),
        )
        before = memory._find_told(batch, None if call is None else call.n_equal)
        newest = moments  # from when on a label that replaces another one counts
        if known is None and len(moments):
            all_known = memory.known.max(initial=moments.max())
            newest = np.maximum(moments, all_known if call is None else call.newest)
        batch, changes = memory._replace_by(batch, before, newest)
        is_news = changes.any(axis=(1, 2)) | (before < 0)
        hashes, changes = batch.hashes[:, is_news], changes[is_news]
        news: dict[str, Any] = {name: getattr(batch, name)[is_news] for name in OF_ROWS}
        batch = replace(batch, hashes=hashes, **news)
        joined: dict[str, Any] = {
            name: np.concatenate([getattr(memory, name), getattr(batch, name)]) for name in OF_ROWS
        }
        hashes = np.concatenate([memory.hashes, batch.hashes], axis=1)
        newer = replace(batch, hashes=hashes, **joined)
        index = memory.__dict__.get("_index")
        if index is not None and self.of_clicks and index.precedes(batch.known):
            newer.__dict__["_index"] = index.grow(batch, changes)  # else made when it is asked
        online: OnlineEstimates | None = memory.__dict__.get("estimates")
        if online is not None:
            old = before[is_news & (before >= 0)]
            corrects = bool(len(old)) and not np.isnan(memory.values[old, 0]).all()
            if online.can_grow(batch.known, corrects=corrects):
                newer.__dict__["estimates"] = online.grow(newer, len(memory.times))
        return newer, before

    def levels(self, frame: pd.DataFrame, time: str) -> dict[str, np.ndarray]:
        """Return the levels of rows as of their times, by name: (n_rows,) float64 each."""
        hashes = {n: self.hash_column(n, frame[n]) for n in dict.fromkeys(sum(self.keys, ()))}
        moments, levels = self.moments(frame[time]), dict[str, np.ndarray]()
        for key in self.keys:
            levels |= self.levels_of(key, [hashes[name] for name in key], moments)
        return levels | self.recent(moments) | self.online_rate(hashes, moments)

    def hash_column(self, name: str, values: pd.Series, source: str = "X") -> np.ndarray:
        """Return the hashes of a column's values, which must be of the kind that is remembered."""
        return self._read(name, values, source)[0]

    def moments(self, times: pd.Series | None, n_rows: int = 1, source: str = "X") -> Moments:
        """Return moments of rows by their times; without times, the one after all that is known."""
        index = self._index
        if times is None or not len(index.ticks):
            n_rows, next_tick = n_rows if times is None else len(times), 0.0
            if len(index.ticks):
                is_whole = index.ticks.dtype.kind == "i"
                next_tick = index.clock[-1] + is_whole / UNITS_PER_SECOND.get(self.unit or "", 1)
            return Moments(np.full(n_rows, len(index.ticks)), np.full(n_rows, next_tick))
        label = f"{source}[{times.name!r}]"
        own, unit, zoned = check_times(times, name=label, unit=self.unit)
        self._check_times_alike(label, unit, zoned)
        edges = strict_edges(own, unit, index.ticks.dtype, self.unit)
        now = since(own, index.ticks[0].item() * unit_ratio(unit, self.unit), unit)
        return Moments(search_in_order(index.ticks, edges), now)

    def levels_of(
        self, key: Key, hashes: Sequence[np.ndarray], moments: Moments
    ) -> dict[str, np.ndarray]:
        """Return the levels of a key's values as of some moments, by name: (n,) float64 each.

        hashes : of the key's columns
        """
        names = [name for label in self.labels for name in self.columns_of(key, label)]
        statistics = statistics_of(RATES[not self.of_clicks]).values()
        asked = [*product(range(len(self.labels)), statistics)]
        return dict(zip(names, self.statistics(key, hashes, moments, asked), strict=True))

    def statistics(
        self,
        key: Key,
        hashes: Sequence[np.ndarray],
        moments: Moments,
        asked: Sequence[tuple[int, str]],
    ) -> Iterator[np.ndarray]:
        """Yield statistics of labels, by number and name, as of some moments: (n,) float64 each.

        hashes : of the key's columns; "recent_mean" is of all rows
        """
        ticks = moments.ticks
        if key:
            rows = self._index.rows[key]
            sums, latest = rows.find(join_hashes(hashes), ticks)
        for number, what in asked:
            label = slice(2 * number, 2 * number + 2)
            if what == "recent_mean":
                yield recent_means(self._index.sums[label], ticks, self._changes[number])
            elif what == "shrunk_rate":
                yield shrink(sums[label], rows.averages[label, ticks])
            elif what == "elapsed":
                clock, is_known = self._index.clock if len(self.times) else np.zeros(1), latest >= 0
                yield np.where(is_known, moments.now - clock[latest * is_known], np.nan)
            else:
                yield statistic_of(what, *sums[label])

    def recent(self, moments: Moments) -> dict[str, np.ndarray]:
        """Return the mean of each label over the latest rows before some moments, if it counts."""
        if not self.has_recent:
            return {}
        names = [self.columns_of((RECENT,), label)[0] for label in self.labels]
        asked = [(number, "recent_mean") for number in range(len(names))]
        return dict(zip(names, self.statistics((), [], moments, asked), strict=True))

    def online_rate(
        self,
        hashes: Mapping[str, np.ndarray],
        moments: Moments,
        weights: Mapping[Key, np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """Return the rate of the online model as of some moments, if there is one.

        hashes : of the columns of all keys
        weights : those that are there already, as of :meth:`online_weights`
        """
        if self.online is None:
            return {}
        weights = weights or {}
        weights = {**weights, **self.online_weights(hashes, moments, leave_out=weights)}
        return {ONLINE_RATE: rate_of([weights[key] for key in (*self.online.keys, ())])}

    def online_weights(
        self,
        hashes: Mapping[str, np.ndarray],
        moments: Moments,
        *,
        leave_out: Collection[Key] = (),
    ) -> dict[Key, np.ndarray]:
        """Return mean and variance of the online model's weights, (2, n) each, by key.

        The bias has the key ``()``. Keys with a column that has no hashes are left out.
        """
        if self.online is None:
            return {}
        keys = [key for key in (*self.online.keys, ()) if hashes.keys() >= {*key}]
        of_keys = {key: [hashes[name] for name in key] for key in keys if key not in leave_out}
        return self.estimates.weights(of_keys, moments)

    def online_parts(self, frame: pd.DataFrame, time: str) -> dict[Key, np.ndarray]:
        """Return mean and variance of each weight of rows as of their times: (2, n_rows) by key."""
        hashes = {n: self.hash_column(n, frame[n]) for n in dict.fromkeys(sum(self.keys, ()))}
        return self.online_weights(hashes, self.moments(frame[time]))

    def prepare(self) -> None:
        """Compute what the first question needs, and later ones use."""
        self.online_weights({}, self.moments(None))

    def with_online_model(self, user: str) -> RowMemory:
        """Return the memory with an online model, whose options are chosen by its rows."""
        return replace(self, online=OnlineModel.learn(self, user))

    @cached_property
    def estimates(self) -> OnlineEstimates:
        """The online model as of any time."""
        if self.online is None:
            raise ValueError("the memory has no online model.")
        return OnlineEstimates(self, self.online)

    @property
    def label_times(self) -> np.ndarray:
        """The different label times, in ascending order."""
        return self._index.ticks

    def take(self, rows: np.ndarray) -> RowMemory:
        """Return a memory of some rows, which have all their tellings or none."""
        arrays: dict[str, Any] = {name: getattr(self, name)[rows] for name in OF_ROWS}
        place = np.full(len(self.times) + 1, -1)
        place[rows] = np.arange(len(rows))
        arrays["replaces"] = place[arrays["replaces"]]
        return replace(self, hashes=self.hashes[:, rows], **arrays)

    def note_early(self, frame: pd.DataFrame, time: str) -> str | None:
        """Return what to say where these rows' own labels were told before them."""
        if len(frame) < MANY_ROWS:  # no request waits for a look at all that is remembered
            return None
        own, unit, _ = check_times(frame[time], name=f"X[{time!r}]", unit=self.unit)
        ratio = unit_ratio(unit, self.unit)
        rows = np.flatnonzero(own <= ratio * self.times.max()) if len(self.times) else own[:0]
        if len(rows) < MANY_ROWS:  # as of requests for now
            return None
        at_once = self.take(np.flatnonzero((self.replaces < 0) & (self.known == self.times)))
        told = at_once.times * ratio
        rows, kind = spread(rows, CHECKED_ROWS), f"datetime64[{unit}]" if unit else told.dtype
        hashes = [self.hash_column(name, frame[name].iloc[rows]) for name in self.columns]
        shown, remembered = (
            pd.DataFrame({"key": mix_hashes(of), "time": times.astype(kind)})
            for of, times in ((hashes, own[rows]), ([*at_once.hashes], told))
        )
        return note_early(shown, remembered, ["key"], "time", time)

    def check(self) -> None:
        """Raise ValueError where the parts do not fit each other."""
        n, what = len(self.times), "remembered rows"
        check_array(self.hashes, dtype=np.uint64, shape=(len(self.columns), n), what=what)
        shape = n, len(self.labels)
        check_array(self.values, dtype=np.float64, shape=shape, what=what, missing="allowed")
        kind = np.float64 if self.times.dtype == np.float64 else np.int64
        for times in (self.times, self.known):
            check_array(times, dtype=kind, shape=(n,), what=what)
        check_array(self.replaces, dtype=np.int64, shape=(n,), what=what)
        again = np.flatnonzero(self.replaces >= 0)
        first = self.replaces[again]
        is_right = (first < again) & (self.replaces[np.minimum(first, n - 1)] == -1)
        if not is_right.all() or (self.replaces < -1).any():
            raise ValueError("remembered rows must replace earlier ones.")
        if self.kinds.keys() != {*self.columns} or {*sum(self.keys, ())} - {*self.columns}:
            raise ValueError("keys must be made of the columns that are remembered.")
        if self.online is not None and not {*self.online.keys} <= {*self.keys}:
            raise ValueError("keys of the online model must be keys of the memory.")

    @cached_property
    def _index(self) -> _Index:
        n_sums = 2 * len(self.labels)
        none = _Index(
            self.keys, self.columns, self.times[:0], np.zeros((n_sums, 1)), np.empty(0), {}
        )
        rows, is_again = self._told_again
        changes = _count_and_sum(self.values)
        changes[rows[is_again]] -= _count_and_sum(self.values[np.append(-1, rows)[:-1][is_again]])
        return none.grow(self, changes)

    def _read(self, name: str, values: pd.Series, source: str) -> tuple[np.ndarray, str]:
        """Return hashes of a column's values, and what kind they are."""
        if name not in {column for key in self.keys for column in key} and holds_lists(values):
            values = values.map(lambda own: str(np.asarray(own).tolist()), na_action="ignore")
        keys = Keys.read(values, name=f"{source}[{name!r}]")
        kind, remembered = keys.kind or "", self.kinds[name]
        if kind and remembered and kind != remembered:
            raise kinds_differ(name, kind, remembered)
        return keys.hashes, kind

    def _align(
        self, columns: Sequence[pd.Series], source: str
    ) -> tuple[RowMemory, list[np.ndarray]]:
        """Return the memory and columns of times in one unit, the finest, and of one dtype."""
        labels = [f"{source}[{column.name!r}]" for column in columns]
        pairs = zip(columns, labels, strict=True)
        read = [check_times(column, name=label, unit=self.unit) for column, label in pairs]
        for label, (_, unit, zoned) in zip(labels, read, strict=True):
            self._check_times_alike(label, unit, zoned)
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

    def _check_times_alike(self, label: str, unit: str | None, zoned: bool) -> None:
        if len(self.times):
            kinds = (unit, zoned), (self.unit, self.zoned)
            check_time_kind(label, *kinds, like="the rows that are remembered")

    def _find_told(self, batch: RowMemory, n_equal: Counter[int] | None) -> np.ndarray:
        """Return the last telling of the row that each one of a batch is here, -1 if none.

        n_equal : rows that come before those of the batch, by hash; these are added
        """
        if not len(batch.times) or (n_equal is None and not len(self.times)):
            return np.full(len(batch.times), -1)
        is_near = (self.times >= batch.times.min()) & (self.times <= batch.times.max())
        near = np.flatnonzero(is_near & (self.replaces < 0))
        some = self.take(near), batch
        own, new = (mix_hashes([*rows.hashes, rows.times.view(np.uint64)]) for rows in some)
        codes, values = pd.factorize(np.append(own, new))
        earlier = np.array([n_equal[value] for value in values.tolist()]) if n_equal else 0
        if n_equal is not None:
            n_equal.update(new.tolist())
        place = find_told(codes, len(near), earlier)
        last, again = np.arange(len(self.times) + 1), np.flatnonzero(self.replaces >= 0)
        last[-1], last[self.replaces[again]] = -1, again  # of several the last one
        return last[np.append(near, -1)[place]]

    def _replace_by(
        self, batch: RowMemory, before: np.ndarray, newest: np.ndarray
    ) -> tuple[RowMemory, np.ndarray]:
        """Return a batch with what it keeps of the rows that it replaces, and how it changes sums.

        changes : (n_rows, n_labels, 2), of how many values there are, and of their sum
        """
        again = np.flatnonzero(before >= 0)
        old = before[again]
        values, known, replaces = batch.values.copy(), batch.known.copy(), batch.replaces.copy()
        values[again] = np.where(np.isnan(values[again]), self.values[old], values[again])
        known[again] = np.maximum(newest[again], self.known[old])
        replaces[again] = np.where(self.replaces[old] < 0, old, self.replaces[old])
        changes = _count_and_sum(values)
        changes[again] -= _count_and_sum(self.values[old])
        return replace(batch, values=values, known=known, replaces=replaces), changes

    @cached_property
    def _told_again(self) -> tuple[np.ndarray, np.ndarray]:
        """All tellings of rows that were told more than once, row by row; which are repeats."""
        again = np.flatnonzero(self.replaces >= 0)
        rows = np.append(np.unique(self.replaces[again]), again)
        first = np.where(self.replaces[rows] < 0, rows, self.replaces[rows])
        rows = rows[np.lexsort((rows, first))]
        return rows, self.replaces[rows] >= 0

    @cached_property
    def _changes(self) -> list[list[tuple[np.ndarray, np.ndarray]]]:
        """Of each label, the changes for :func:`recent_means`.

        Each repeat adds its difference from its own moment on, while its row is among the latest.
        """
        rows, is_again = self._told_again
        moment, changes = np.searchsorted(self._index.ticks, self.known[rows]), []
        for own, n_values in zip(self.values[rows].T, self._index.sums[::2], strict=True):
            before = np.where(is_again, np.append(np.nan, own)[:-1], np.nan)
            first = np.where(np.isnan(before) & ~np.isnan(own), np.arange(len(rows)), 0)
            by = np.nan_to_num(own - before)
            begin, of_value = moment + 1, moment[np.maximum.accumulate(first)]
            stop = np.searchsorted(n_values, n_values[of_value + 1] + RECENT_ROWS)
            changes.append([_sum_in_turn(begin, by), _sum_in_turn(np.maximum(begin, stop), -by)])
        return changes


def _sum_in_turn(places: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return places in order, and the sums of numbers before each, and of all."""
    order = stable_order(places)
    return places[order], np.append(0.0, np.cumsum(numbers[order]))


def _count_and_sum(values: np.ndarray) -> np.ndarray:
    """Return what labels add to counts and sums: (n_rows, n_labels, 2), zeros of missing ones."""
    is_there = ~np.isnan(values)
    return np.stack([is_there, np.where(is_there, values, 0.0)], axis=2)


@dataclass(frozen=True, eq=False)
class _Index:
    """The moments of a memory in order, and its rows by each key.

    The number of a moment among these is its tick.

    ticks : (n_ticks,), the different moments at which labels were known, in ascending order
    sums : (2 * n_labels, n_ticks + 1), count and sum of each label before each, and of all, of the
        values that were told first
    clock : (n_ticks,) float64, the time since the first one
    """

    keys: tuple[Key, ...]
    columns: tuple[str, ...]
    ticks: np.ndarray
    sums: np.ndarray
    clock: np.ndarray
    rows: Mapping[Key, _RowsOfKey]

    def precedes(self, known: np.ndarray) -> bool:
        """Return whether no moment of the index comes after one of these."""
        return not len(known) or not len(self.ticks) or bool(known.min() >= self.ticks[-1])

    def grow(self, batch: RowMemory, changes: np.ndarray) -> _Index:
        """Return the index with further rows, which :meth:`precedes` allows.

        changes : (n_rows, n_labels, 2), what each row adds to the count and sum of each label
        """
        new, number = np.unique(batch.known, return_inverse=True)
        n_before = len(self.ticks) - bool(len(new) and np.isin(new[:1], self.ticks[-1:]))
        ticks, tick = np.append(self.ticks[:n_before], new), n_before + number
        own = changes.reshape(len(changes), len(self.sums)).T
        in_time = stable_order(number)
        first = np.where(changes[:, :, :1] > 0, changes, 0.0).reshape(own.T.shape).T[:, in_time]
        sums = _sums_at(self.sums[:, -1:], first, number[in_time], np.arange(len(new)))
        columns, rows = dict(zip(self.columns, batch.hashes, strict=True)), {}
        for key in self.keys:
            before = self.rows.get(key) or _RowsOfKey.none(len(own))
            hashes, options = join_hashes([columns[name] for name in key]), (n_before, len(ticks))
            is_further = batch.replaces < 0
            rows[key] = before.grow(
                hashes, tick, own, is_further, *options, of_clicks=batch.of_clicks
            )
        clock = since(new, ticks[:1].item(), batch.unit) if len(ticks) else self.clock
        clock = np.append(self.clock[:n_before], clock)
        sums = np.append(self.sums[:, : n_before + 1], sums, axis=1)
        return replace(self, ticks=ticks, sums=sums, clock=clock, rows=rows)


@dataclass(frozen=True, eq=False)
class _RowsOfKey:
    """Rows that have a key, sorted by it and by moment.

    hashes, codes : (n_keys,), of the key's values in ascending order of their hashes
    places : (n_rows,) int64, the code and the tick of each row, in ascending order
    totals : (2 * n_labels, n_rows), count and sum of each label, up to and with the row: of the
        values that were told last until then
    latest : (n_rows,), the tick of the newest of these that is not told again
    averages : (2 * n_labels, n_ticks + 1), as average_and_prior: the average rate before each
        tick, and how many rows at that rate are added to those of each key
    last : (n_labels, 5), the sums of all rows that the averages follow from
    """

    hashes: np.ndarray
    codes: np.ndarray
    places: np.ndarray
    totals: np.ndarray
    latest: np.ndarray
    averages: np.ndarray
    last: np.ndarray

    @classmethod
    def none(cls, n_sums: int) -> _RowsOfKey:
        """Return those of no row."""
        codes, last = np.empty(0, dtype=np.int64), np.zeros((n_sums // 2, N_SUMS))
        averages = np.concatenate([average_and_prior(sums[:, None]) for sums in last])
        hashes, latest = np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int32)
        return cls(hashes, codes, codes, np.empty((n_sums, 0)), latest, averages, last)

    def find(self, hashes: np.ndarray, ticks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what is known of values as of ticks.

        sums : (2 * n_labels, n), counts and sums of the labels
        latest : (n,), the tick of the latest row, -1 without one
        """
        if not len(self.hashes):
            return self.before(np.full(len(hashes), -1), ticks)
        at = np.minimum(search_in_order(self.hashes, hashes), len(self.hashes) - 1)
        return self.before(np.where(self.hashes[at] == hashes, self.codes[at], -1), ticks)

    def before(self, codes: np.ndarray, ticks: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
        """Return totals and the latest tick of codes before some ticks; without a row zeros, -1."""
        if not len(self.places):
            return np.zeros((len(self.totals), len(codes))), np.full(len(codes), -1)
        last = search_in_order(self.places, (codes << TICK_BITS) + ticks) - 1
        is_there = (last >= 0) & (self.places[last] >> TICK_BITS == codes)
        totals = np.where(is_there, self.totals[:, last], 0.0)
        return totals, np.where(is_there, self.latest[last], -1)

    def grow(
        self,
        hashes: np.ndarray,
        tick: np.ndarray,
        own: np.ndarray,
        is_further: np.ndarray,
        n_before: int,
        n_ticks: int,
        *,
        of_clicks: bool,
    ) -> _RowsOfKey:
        """Return the rows with others, of the last tick or later ones.

        own : (2 * n_labels, n_new), what each adds to the count and sum of each label
        is_further : (n_new,), which are not told again
        n_before : how many ticks none of them has
        """
        has_key = hashes != NO_KEY
        tick, own, is_further = tick[has_key], own[:, has_key], is_further[has_key]
        new, number = np.unique(hashes[has_key], return_inverse=True)
        at, codes = np.searchsorted(self.hashes, new), np.empty(len(new), dtype=np.int64)
        is_known = np.append(self.hashes, NO_KEY)[at] == new
        codes[is_known] = self.codes[at[is_known]]
        codes[~is_known] = len(self.hashes) + np.arange((~is_known).sum())
        code = codes[number]
        order = stable_order((code << TICK_BITS) + tick)
        in_order, groups = own[:, order], code[order]
        places = (groups << TICK_BITS) + tick[order]
        before, latest = self.before(groups, n_ticks)
        totals = np.stack([sum_by_group(numbers, groups) for numbers in in_order]) + before
        newest = np.maximum.accumulate(np.where(is_further[order], places, groups << TICK_BITS))
        latest = np.maximum(newest & ((1 << TICK_BITS) - 1), latest)
        averages, last = self.averages, self.last
        if of_clicks:
            averages, last = self._average(totals, in_order, order, tick, (n_before, n_ticks))
        behind = np.searchsorted(self.places, places, side="right")
        return _RowsOfKey(
            np.insert(self.hashes, at[~is_known], new[~is_known]),
            np.insert(self.codes, at[~is_known], codes[~is_known]),
            np.insert(self.places, behind, places),
            np.insert(self.totals, behind, totals, axis=1),
            np.insert(self.latest, behind, latest),
            averages,
            last,
        )

    def _average(
        self,
        totals: np.ndarray,
        own: np.ndarray,
        order: np.ndarray,
        tick: np.ndarray,
        ticks: tuple[int, int],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return averages before all ticks, new ones last, and the sums that they follow from."""
        new_ticks, in_time = np.arange(*ticks), stable_order(tick)
        averages, last = [], []
        for label, before in enumerate(self.last):
            pair, changes = slice(2 * label, 2 * label + 2), np.empty((N_SUMS, len(order)))
            changes[:, order] = changes_of_sums(totals[pair], own[pair])
            sums = _sums_at(before[:, None], changes[:, in_time], tick[in_time], new_ticks)
            averages.append(average_and_prior(sums))
            last.append(sums[:, -1] if len(new_ticks) else before)
        earlier = self.averages[:, : ticks[0] + 1]
        return np.append(earlier, np.concatenate(averages), axis=1), np.stack(last)


def _sums_at(
    before: np.ndarray, numbers: np.ndarray, ticks: np.ndarray, ends: np.ndarray
) -> np.ndarray:
    """Return sums of numbers up to and with some ticks, of rows in order of time, one by one.

    before : (n_sums, 1), what they begin with; numbers : (n_sums, n_rows); ticks : (n_rows,)
    """
    sums = np.cumsum(np.concatenate([before, numbers], axis=1), axis=1)
    return sums[:, np.searchsorted(ticks, ends, side="right")]
