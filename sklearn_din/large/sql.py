"""Histories and aggregates of tables that fit no memory: DuckDB sorts them, one pass merges them.

Events and impressions are sorted together by key and time, an impression before the events of its
own time. In that order the events that came before an impression are those already counted: the
pass remembers how many there were, where those of the key began, and the newest of them. A sort by
row number brings the results back into the order of the impressions. Nothing but the sort grows
with the tables, and DuckDB puts on disk what its memory does not hold.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from sklearn_din._digests import digest
from sklearn_din._frames import list_types
from sklearn_din._progress import Progress
from sklearn_din._validation import (
    Age,
    check_frame,
    check_keys,
    check_max_age,
    check_times,
    missing_rows,
    missing_times,
    plain_values,
)
from sklearn_din._warnings import warn_of
from sklearn_din.features.store import Store, StoreWriter, create_store, open_store
from sklearn_din.large.attached_scan import AttachedScan
from sklearn_din.large.sorting import sort_rows
from sklearn_din.large.stored_log import ColumnWriter, StoredHistories, log_facts
from sklearn_din.large.table import Table, arrow_of_column
from sklearn_din.logs.clocks import note_clocks
from sklearn_din.logs.distinct import note_repeats
from sklearn_din.logs.past_columns import HistoryRequest, note_all_empty, why_no_past
from sklearn_din.logs.running_sums import (
    Aggregate,
    check_aggregates,
    holds_numbers,
    present_numbers,
    statistic_of,
    sum_by_group,
)
from sklearn_din.logs.timeline import (
    KEY_KINDS,
    Timeline,
    kinds_differ,
    since,
    strict_edges,
    unit_ratio,
    window_edges,
)

_Parts = Iterator[tuple[int, pd.DataFrame, np.ndarray, dict[str, pa.Array]]]  # of _TimeReader, more
EVENT = 2**62  # added to the row numbers of events, so that impressions of equal time come first
SOME_EVENTS = 200  # whose users are looked at
SORTS_AT_ONCE = 2  # one sort reads the rows of another: each gets half of the memory


def attach_history_by_sql(impressions: Any, events: Any, request: HistoryRequest) -> Any:
    """Attach histories where one of the tables is read by parts.

    The result is of the kind of the impressions; a frame then holds the events inside its windows
    in memory.
    """
    shown, log = Table(impressions, name="impressions"), Table(events, name="events")
    request.check(shown.frame, log.frame)
    pair = _Pair(shown, log, [request.user], request.time, max_age=request.max_age)
    heads = [table.head([request.time], present=request.time) for table in (shown, log)]
    clocks = note_clocks(*(head[request.time] for head in heads))
    columns = [request.user, request.time]
    parent, name = _cache_name(pair, "history", columns, [*columns, *request.columns], request)
    store = _make_once(parent, name, pair, lambda writer: _write_histories(writer, pair, request))
    ours, theirs = shown.fingerprint(columns), log.fingerprint(columns)
    is_own_log = ours == theirs and len(shown) == len(log)
    empty = None if is_own_log else note_all_empty(store.facts["empty"], *columns)
    warn_of([clocks, store.facts["repeats"], empty])
    if shown.caller is not None:
        new = StoredHistories(store).columns(request.new_names, range(len(shown)))
        return shown.caller.with_columns(new, types=list_types(log.frame, request.sources))
    scan: Any = shown.scan
    columns, rows = [*scan.columns, *request.new_names], range(len(scan))
    return AttachedScan(scan, rows, columns, histories=store, numbers=None, digest=name)


def attach_aggregates_by_sql(
    impressions: Any, events: Any, *, time: str, aggregates: Mapping[str, Aggregate]
) -> Any:
    """Attach aggregates where one of the tables is read by parts.

    The result is of the kind of the impressions.
    """
    shown, log = Table(impressions, name="impressions"), Table(events, name="events")
    check_frame(shown.frame, [time], name="impressions")
    check_frame(log.frame, [time], name="events")
    by_key = check_aggregates(aggregates, shown.frame, log.frame)
    pair = _Pair(shown, log, [], time)
    keys = [key for group in by_key for key in group]
    columns = [c for group in by_key.values() for c, _ in group.values() if c is not None]
    parent, name = _cache_name(
        pair, "aggregates", [*keys, time], [*keys, time, *columns], (time, aggregates)
    )
    parent = None if shown.scan is None else parent

    def write(writer: StoreWriter) -> None:
        for group, statistics in by_key.items():
            _write_aggregates(writer, _Pair(shown, log, group, time), statistics)

    store = _make_once(parent, name, pair, write)
    if shown.caller is not None:
        return shown.caller.with_columns({name: np.array(store[name]) for name in aggregates})
    scan: Any = shown.scan
    columns, rows = [*scan.columns, *aggregates], range(len(scan))
    return AttachedScan(scan, rows, columns, histories=None, numbers=store, digest=name)


def _make_once(
    parent: Path | None, name: str, pair: _Pair, write: Callable[[StoreWriter], None]
) -> Store:
    store = open_store(parent, name, memory=pair.memory)
    if store is None:
        with create_store(parent, name, memory=pair.memory) as writer:
            write(writer)
            store = writer.finish()
    return store


# Tables, their keys and times ---------------------------------------------------------------


class _Pair:
    """Impressions and events that meet by key and time.

    Its kinds, units and ``max_age`` are checked with the first rows.
    """

    def __init__(
        self, shown: Table, log: Table, keys: Sequence[Any], time: Any, *, max_age: Age = None
    ) -> None:
        self.shown, self.log, self.keys, self.time = shown, log, list(keys), time
        self.kinds: list[str | None] = []  # "text" or "numbers", by key
        for key in self.keys:
            ours = key_kind(shown.frame[key], name=f"impressions[{key!r}]")
            theirs = key_kind(log.frame[key], name=f"events[{key!r}]")
            if ours and theirs and ours != theirs:
                raise kinds_differ(key, ours, theirs)
            self.kinds.append(ours or theirs)
        self.memory = min(shown.memory, log.memory)
        self.sort_memory = self.memory // SORTS_AT_ONCE
        if self.keys:  # what is wrong with kinds, units and ages shows in the first rows
            heads = [t.head([*self.keys, time], present=time) for t in (log, shown)]
            head = Timeline(heads[0], keys=self.keys, time=time)
            head.past(heads[1], max_age=max_age)
            self.dtype, self.unit = head.times.dtype, head.unit
            self.time_field = pa.field("time", pa.from_numpy_dtype(self.dtype))

    def edges(self, times: np.ndarray, unit: str | None) -> np.ndarray:
        """Return times of impressions as they are sorted among those of events."""
        return strict_edges(times, unit, self.dtype, self.unit)

    def read_keys(self, part: pd.DataFrame) -> list[pa.Array]:
        """Return the keys of some rows as they are sorted."""
        return [read_keys(part[key], kind) for key, kind in zip(self.keys, self.kinds, strict=True)]


@dataclass
class _TimeReader:
    """Reads the times of a table part by part; missing ones are counted over all parts.

    Datetimes of a unit coarser than ``unit`` are brought to it.
    """

    table: Table
    time: Any
    unit: str | None
    first: Any = None
    last: Any = None
    n_missing: int = field(default=0, init=False)

    def parts(self, columns: Sequence[Any]) -> Iterator[tuple[int, pd.DataFrame, np.ndarray]]:
        """Yield number of the first row, rows, and times of each part."""
        label = f"{self.table.name}[{self.time!r}]"
        with Progress(f"reading {self.table.name}", len(self.table)) as progress:
            for start, part in self.table.parts([self.time, *columns]):
                self.n_missing += int(missing_rows(part[self.time]).sum())
                if not self.n_missing and len(part):
                    times, self.unit, _ = check_times(part[self.time], name=label, unit=self.unit)
                    first, last = times.min().item(), times.max().item()
                    self.first = first if self.first is None else min(first, self.first)
                    self.last = last if self.last is None else max(last, self.last)
                    yield start, part, times
                progress.update(len(part))
        if self.n_missing:
            raise missing_times(label, self.n_missing)


def key_kind(column: pd.Series, *, name: str) -> str | None:
    """Return whether keys are "text" or "numbers"; None where no value says it."""
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return key_kind(pd.Series(dtype.categories), name=name)
    if isinstance(dtype, pd.ArrowDtype):
        kind = dtype.pyarrow_dtype
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if pa.types.is_null(kind):
            return None
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return "text"
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or kind == pa.bool_()):
            raise _no_keys(name, str(kind))
    if holds_numbers(dtype):
        return "numbers"
    inferred = pd.api.types.infer_dtype(column, skipna=True)
    if inferred in KEY_KINDS or inferred == "empty":
        return KEY_KINDS.get(inferred)
    check_keys(plain_values(column), name=name)
    raise _no_keys(name, inferred)


def _no_keys(name: str, kind: str) -> TypeError:
    return TypeError(
        f"{name} must hold text or numbers where a table is a scan, got values that are {kind}. "
        "Make text of them with astype(str) before they are written."
    )


def read_keys(column: pd.Series, kind: str | None) -> pa.Array:
    """Return keys as text or int64, equal where the keys are; null where one is missing."""
    if kind == "text":
        array = arrow_of_column(column)
        return array.cast(pa.large_string()) if pa.types.is_null(array.type) else array
    is_there = ~missing_rows(column)
    keys = np.zeros(len(column), dtype=np.int64)
    keys[is_there] = _whole_numbers(plain_values(column[is_there].infer_objects()))
    return pa.array(keys, mask=~is_there)


def _whole_numbers(numbers: np.ndarray) -> np.ndarray:
    """Return equal integers for equal numbers, whatever their dtype."""
    if numbers.dtype == object:  # integers too large for int64
        numbers = numbers.astype(np.uint64)
    if numbers.dtype.kind != "f":
        return numbers.astype(np.int64, copy=False)
    # Identifiers that a missing value had made floats are those integers; others are their bits.
    doubles = numbers.astype(np.float64)
    is_whole = (np.floor(doubles) == doubles) & (np.abs(doubles) < 2.0**63)
    whole = np.where(is_whole, doubles, 0).astype(np.int64)
    return np.where(is_whole, whole, doubles.view(np.int64))


def _cache_name(
    pair: _Pair, name: str, shown: Sequence[Any], log: Sequence[Any], request: object
) -> tuple[Path | None, str]:
    """Return the folder for what is made of two tables, and its name: equal for equal content."""
    ours, theirs = pair.shown.fingerprint(shown), pair.log.fingerprint(log)
    parent = pair.shown.cache_dir or pair.log.cache_dir
    return parent, f"{name}-{digest(ours, theirs, repr(request))[:32]}"


# The pass over events and impressions in order ------------------------------------------------


@dataclass
class _Merged:
    """Some rows of events and impressions in order of key and time.

    ``rows`` are row numbers in their own table; ``is_new`` says where another key begins,
    ``before`` how many events of all keys came before each row, ``first`` how many came before the
    first event of its key.
    """

    batch: pa.RecordBatch
    is_new: np.ndarray
    is_event: np.ndarray
    rows: np.ndarray
    before: np.ndarray
    first: np.ndarray

    def shown(self, values: np.ndarray) -> np.ndarray:
        """Return what some values, one per row, are of the impressions."""
        return values[~self.is_event]

    def events(self, name: str) -> pa.Array:
        """Return a column's values of the events."""
        return self.batch.column(name).filter(pa.array(self.is_event))

    def impressions(self, name: str) -> pa.Array:
        """Return a column's values of the impressions."""
        return self.batch.column(name).filter(pa.array(~self.is_event))


class _Pass:
    """One pass over events and impressions in order, and what it has seen.

    Once it was made, ``events`` and ``impressions`` say what was seen of the times, ``n_events``
    how many events have a key, ``n_keys`` how many keys begin with an impression, and ``keys_meet``
    whether some impression has the key of an event.
    """

    def __init__(self, pair: _Pair) -> None:
        self.pair = pair
        self.events = _TimeReader(pair.log, pair.time, pair.unit)
        self.impressions = _TimeReader(pair.shown, pair.time, pair.unit)
        self.n_events, self.n_keys, self.keys_meet = 0, 0, False

    def merge(
        self, events: _Parts, impressions: _Parts, carried: Sequence[pa.Field], folder: Path
    ) -> Iterator[_Merged]:
        """Yield all rows in order; every event is read before the first impression.

        ``carried`` are the further fields of either table; the other table's are null.
        """
        pair = self.pair
        types = [pa.large_string() if kind == "text" else pa.int64() for kind in pair.kinds]
        keys = [pa.field(f"key {position}", kind) for position, kind in enumerate(types)]
        rank = pa.field("rank", pa.int64())
        schema = pa.schema([*keys, pair.time_field, rank, *carried])

        def batches() -> Iterator[pa.RecordBatch]:
            for offset, rows in ((EVENT, events), (0, impressions)):
                for start, part, times, more in rows:
                    known = dict(zip(schema.names, pair.read_keys(part), strict=False))
                    times = times if offset else pair.edges(times, self.impressions.unit)
                    times = times + 0.0 if times.dtype.kind == "f" else times  # -0.0 is 0.0
                    known["time"] = pa.array(times)
                    known["rank"] = pa.array(np.arange(start, start + len(part)) + offset)
                    known |= more
                    missing = (f for f in carried if f.name not in known)
                    known |= {f.name: pa.nulls(len(part), f.type) for f in missing}
                    arrays = [known[name] for name in schema.names]
                    batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
                    yield batch.filter(all_valid(arrays[: len(keys)])) if offset else batch

        ordered = sort_rows(batches(), schema, memory=pair.sort_memory, folder=folder)
        yield from self._walk(ordered)

    def _walk(self, ordered: Iterator[pa.RecordBatch]) -> Iterator[_Merged]:
        n_keys = len(self.pair.keys)
        first_of_key = 0
        previous: tuple | None = None
        was_event = False
        total = len(self.pair.log) + len(self.pair.shown)
        with Progress("attaching", total) as progress:
            for batch in ordered:
                if len(batch) == 0:
                    continue
                keys = batch.columns[:n_keys]
                is_new = changes(keys, previous)
                ranks = batch.column("rank").to_numpy()
                is_event = ranks >= EVENT
                counted = self.n_events + np.cumsum(is_event)
                before = counted - is_event
                first = np.maximum.accumulate(np.where(is_new, before, first_of_key))
                kinds = np.append(was_event, is_event)
                self.keys_meet |= bool((~is_new & (kinds[1:] != kinds[:-1])).any())
                has_key = all_valid(keys).to_numpy(zero_copy_only=False)
                self.n_keys += int((is_new & ~is_event & has_key).sum())
                rows = np.where(is_event, ranks - EVENT, ranks)
                yield _Merged(batch, is_new, is_event, rows, before, first)
                self.n_events, first_of_key = int(counted[-1]), int(first[-1])
                was_event = is_event[-1]
                previous = tuple(key[-1] for key in keys)
                progress.update(len(batch))


def all_valid(arrays: Sequence[pa.Array]) -> pa.Array:
    """Return where no array is null."""
    valid = arrays[0].is_valid()
    for array in arrays[1:]:
        valid = pc.and_(valid, array.is_valid())
    return valid


def changes(columns: Sequence[pa.Array], previous: tuple | None) -> np.ndarray:
    """Return which rows differ from the row before; a row with a null differs from all.

    ``previous`` is the row before the first one, None where there is none.

    Examples
    --------
    >>> changes([pa.array([7, 7, 8, None, None])], None).tolist()
    [True, False, True, True, True]
    """
    is_new = np.zeros(len(columns[0]), dtype=bool)
    is_new[0] = previous is None
    for position, column in enumerate(columns):
        differs = pc.not_equal(column[1:], column[:-1]).fill_null(True)
        is_new[1:] |= differs.to_numpy(zero_copy_only=False)
        if previous is not None:
            same = pc.equal(column[0], previous[position]).as_py()
            is_new[0] |= not same
    return is_new


def _by_row(
    pieces: Iterator[Sequence[np.ndarray]], kinds: Sequence[pa.DataType], pair: _Pair, folder: Path
) -> Iterator[list[np.ndarray]]:
    """Sort columns by the first of them, the row number; yield the others."""
    schema = pa.schema(
        [(str(position), kind) for position, kind in enumerate([pa.int64(), *kinds])]
    )
    batches = (
        pa.RecordBatch.from_arrays([pa.array(column) for column in piece], schema=schema)
        for piece in pieces
    )
    for batch in sort_rows(batches, schema, memory=pair.sort_memory, folder=folder):
        yield [column.to_numpy() for column in batch.columns[1:]]


# Histories ----------------------------------------------------------------------------------


def _write_histories(writer: StoreWriter, pair: _Pair, request: HistoryRequest) -> None:
    """Write the sorted log, the windows of all impressions, and the times of their rows."""
    columns = {c: ColumnWriter(name, pair.log.frame[c]) for name, c in request.sources.items()}
    writer.append("starts", np.empty(0, dtype=np.int64))
    writer.append("lengths", np.empty(0, dtype=np.int32))
    if request.elapsed is not None:
        writer.append("row_times", np.empty(0, dtype=np.float64))
    seen, some = _Pass(pair), list[pd.DataFrame]()
    windows = _windows(seen, request, writer, columns, some)
    has_past = False
    for starts, lengths in _by_row(windows, [pa.int64(), pa.int32()], pair, writer.folder):
        writer.append("starts", starts)
        writer.append("lengths", lengths)
        has_past = has_past or bool(lengths.any())
    for column in columns.values():
        column.finish(writer)
    writer.facts |= log_facts(
        [*columns.values()], clock=request.elapsed, token=uuid.uuid4().hex, n_events=seen.n_events
    )
    writer.facts["empty"] = None if has_past else _why_all_empty(seen)
    names = [request.user, request.time, *columns]
    writer.facts["repeats"] = note_repeats(pd.concat(some), names) if some else None


def _read_events(
    seen: _Pass, user: Any, columns: Mapping[Any, ColumnWriter], some: list[pd.DataFrame]
) -> _Parts:
    """Yield events as integers; all those of some users are gathered."""
    for start, part, times in seen.events.parts([*seen.pair.keys, *columns]):
        users = (some or [part])[0][user].iloc[:SOME_EVENTS]
        some.append(part[part[user].isin(users)])
        arrays = {f"events {c.name}": c.encode(part[name]) for name, c in columns.items()}
        yield start, part, times, arrays


def _read_impressions(seen: _Pass, request: HistoryRequest, writer: StoreWriter) -> _Parts:
    """Yield impressions with the oldest time of their past, and write the times of those."""
    pair, events = seen.pair, seen.events
    for start, part, times in seen.impressions.parts(pair.keys):
        unit, more = seen.impressions.unit, {}
        if request.elapsed is not None:
            origin = None if events.first is None else events.first * unit_ratio(unit, pair.unit)
            row_times = np.zeros(len(times)) if origin is None else since(times, origin, unit)
            writer.append("row_times", row_times)
        if request.has_age:
            age = check_max_age(request.max_age, unit=unit)
            _, oldest = window_edges(times, unit, age, pair.dtype, pair.unit)
            more["oldest"] = pa.array(oldest)
        yield start, part, times, more


def _windows(
    seen: _Pass,
    request: HistoryRequest,
    writer: StoreWriter,
    columns: Mapping[Any, ColumnWriter],
    some: list[pd.DataFrame],
) -> Iterator[Sequence[np.ndarray]]:
    """Write the events, and yield row, start and length of windows, in the order of the sort."""
    events = _read_events(seen, request.user, columns, some)
    fields = [pa.field(f"events {c.name}", c.integers) for c in columns.values()]
    fields += [seen.pair.time_field.with_name("oldest")] if request.has_age else []
    newest = np.empty(0, dtype=seen.pair.dtype)  # times of the last events that were counted
    impressions = _read_impressions(seen, request, writer)
    for piece in seen.merge(events, impressions, fields, writer.folder):
        times = piece.events("time").to_numpy()
        for column in columns.values():
            column.append(writer, piece.events(f"events {column.name}"))
        if request.elapsed is not None and len(times):
            clock = since(times, seen.events.first, seen.events.unit)
            writer.append(f"events {request.elapsed}", clock)
        ends = piece.shown(piece.before)
        starts = piece.shown(piece.first)
        if request.has_age:
            starts = np.maximum(starts, ends - request.max_length)
            n_known = int(piece.before[0]) - len(newest)
            newest = np.concatenate([newest, times])
            edges = piece.impressions("oldest").to_numpy()
            starts = n_known + _first_not_older(newest, starts - n_known, ends - n_known, edges)
            newest = newest[max(len(newest) - request.max_length, 0) :]
        yield piece.shown(piece.rows), *request.cut(starts, ends)


def _first_not_older(
    times: np.ndarray, starts: np.ndarray, ends: np.ndarray, oldest: np.ndarray
) -> np.ndarray:
    """Return where in each window of ascending times the first lies that is not too old.

    Examples
    --------
    >>> _first_not_older(np.array([1, 5, 9]), np.array([0, 0]), np.array([3, 3]), np.array([5, 10]))
    array([1, 3])
    """
    low, high = starts.copy(), ends.copy()
    while (is_open := low < high).any():
        middle = (low + high) // 2
        is_old = times[np.where(is_open, middle, 0)] < oldest
        low = np.where(is_open & is_old, middle + 1, low)
        high = np.where(is_open & ~is_old, middle, high)
    return low


def _why_all_empty(seen: _Pass) -> str | None:
    """Return the same as ``past_columns.why_all_empty`` of tables in memory."""
    events, shown = seen.events, seen.impressions
    if events.first is None or shown.last is None:
        return None
    is_earlier = bool(events.first < seen.pair.edges(np.array([shown.last]), shown.unit)[0])
    n_rows, n_users = len(seen.pair.shown), seen.n_keys
    return why_no_past(n_rows, n_users, users_meet=seen.keys_meet, times_meet=is_earlier)


# Aggregates ---------------------------------------------------------------------------------


def _write_aggregates(
    writer: StoreWriter, pair: _Pair, statistics: Mapping[str, tuple[Any, str]]
) -> None:
    """Write all aggregates of one key: name to column and statistic."""
    for name in statistics:
        writer.append(name, np.empty(0, dtype=np.float64))
    kinds = [pa.float64()] * len(statistics)
    for arrays in _by_row(_running(pair, statistics, writer.folder), kinds, pair, writer.folder):
        for name, values in zip(statistics, arrays, strict=True):
            writer.append(name, values)


def _running(
    pair: _Pair, statistics: Mapping[str, tuple[Any, str]], folder: Path
) -> Iterator[list[np.ndarray]]:
    """Yield row and aggregates of the impressions, in the order of the sort."""
    columns = dict.fromkeys(column for column, _ in statistics.values() if column is not None)
    names = {column: (f"there {n}", f"value {n}") for n, column in enumerate(columns)}
    carried = dict.fromkeys([name for both in names.values() for name in both], 0.0)
    seen = _Pass(pair)

    def read_numbers(part: pd.DataFrame) -> dict[str, pa.Array]:
        arrays = [array for column in columns for array in present_numbers(part[column])]
        return {n: pa.array(a.astype(np.float64)) for n, a in zip(carried, arrays, strict=True)}

    events = ((*rows, read_numbers(rows[1])) for rows in seen.events.parts([*pair.keys, *columns]))
    impressions: _Parts = ((*rows, {}) for rows in seen.impressions.parts(pair.keys))
    fields = [pa.field(name, pa.float64()) for name in carried]
    for piece in seen.merge(events, impressions, fields, folder):
        shown, sums = ~piece.is_event, {}
        groups, n_events = np.cumsum(piece.is_new), np.cumsum(piece.is_event)
        of_events = groups[piece.is_event]
        has_events = piece.before + piece.is_event > piece.first
        for name in carried:
            values = piece.events(name).to_numpy().copy()
            if len(values) and of_events[0] == 0:  # the key of the piece before
                values[0] += carried[name]
            running = sum_by_group(values, of_events)
            so_far = np.where(has_events, np.append(carried[name], running)[n_events], 0.0)
            carried[name], sums[name] = float(so_far[-1]), so_far[shown]
        arrays = [piece.rows[shown]]
        for column, statistic in statistics.values():
            if column is None:
                arrays.append((piece.before - piece.first)[shown].astype(np.float64))
            else:
                arrays.append(statistic_of(statistic, *(sums[name] for name in names[column])))
        yield arrays
