"""Histories and aggregates of tables that fit no memory: DuckDB sorts them, one pass merges them.

Events and impressions are sorted together by key and time, an impression before the events of its
own time. In that order the events that came before an impression are those already counted: the
pass remembers how many there were, where those of the key began, and the newest of them. A sort by
row number brings the results back into the order of the impressions. Nothing but the sort grows
with the tables, and DuckDB puts on disk what its memory does not hold.
"""

from __future__ import annotations

import uuid
import warnings
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
from sklearn_din._warnings import warn_user
from sklearn_din.features.store import Store, StoreWriter, create_store, open_store
from sklearn_din.large.attached_scan import AttachedScan
from sklearn_din.large.sorting import sort_rows
from sklearn_din.large.stored_log import ColumnWriter, StoredHistories, log_facts
from sklearn_din.large.table import Table, arrow_of_column
from sklearn_din.logs.clocks import note_clocks
from sklearn_din.logs.distinct import note_repeats
from sklearn_din.logs.past_columns import MANY_ROWS, HistoryRequest, all_empty_message
from sklearn_din.logs.running_sums import (
    Aggregate,
    check_aggregates,
    holds_numbers,
    present_numbers,
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

EVENT = 2**62  # added to the row numbers of events, so that impressions of equal time come first
SOME_EVENTS = 200  # whose users are looked at
SORTS_AT_ONCE = 2  # one sort reads the rows of another: each gets half of the memory


def attach_history_by_sql(impressions: Any, events: Any, request: HistoryRequest) -> Any:
    """Attach histories where one of the tables is read by parts.

    The result is of the kind of the impressions; a frame then holds the events inside its windows
    in memory.
    """
    shown, log = _tables(impressions, events)
    request.check(shown.frame, log.frame)
    pair = _Pair(shown, log, [request.user], request.time, max_age=request.max_age)
    heads = [table.head([request.time], present=request.time) for table in (shown, log)]
    clocks = note_clocks(*(head[request.time] for head in heads))
    if clocks is not None:
        warnings.warn(clocks, UserWarning, stacklevel=3)
    columns = [request.user, request.time]
    parent, name = _cache_name(pair, "history", columns, [*columns, *request.columns], request)
    store = _make_once(parent, name, pair, lambda writer: _write_histories(writer, pair, request))
    if store.facts["repeats"] is not None:
        warn_user(store.facts["repeats"])
    reason = store.facts["empty"]
    if reason is not None and not _are_equal(shown, log, columns):
        message = all_empty_message(reason, request.user, request.time)
        warnings.warn(message, UserWarning, stacklevel=3)
    if shown.caller is not None:
        new = StoredHistories(store).columns(request.new_names, range(len(shown)))
        return shown.caller.with_columns(new, types=list_types(log.frame, request.sources))
    return _attach(shown.scan, request.new_names, name, histories=store)


def attach_aggregates_by_sql(
    impressions: Any, events: Any, *, time: str, aggregates: Mapping[str, Aggregate]
) -> Any:
    """Attach aggregates where one of the tables is read by parts.

    The result is of the kind of the impressions.
    """
    shown, log = _tables(impressions, events)
    check_frame(shown.frame, [time], name="impressions")
    check_frame(log.frame, [time], name="events")
    by_key = check_aggregates(aggregates, shown.frame, log.frame)
    pairs = {keys: _Pair(shown, log, keys, time) for keys in by_key}
    keys = [key for group in by_key for key in group]
    columns = [c for group in by_key.values() for c, _ in group.values() if c is not None]
    some_pair = _Pair(shown, log, [], time) if not pairs else next(iter(pairs.values()))
    parent, name = _cache_name(
        some_pair, "aggregates", [*keys, time], [*keys, time, *columns], (time, aggregates)
    )
    parent = None if shown.scan is None else parent

    def write(writer: StoreWriter) -> None:
        for group, statistics in by_key.items():
            _write_aggregates(writer, pairs[group], statistics)

    store = _make_once(parent, name, some_pair, write)
    if shown.caller is not None:
        return shown.caller.with_columns({name: np.array(store[name]) for name in aggregates})
    return _attach(shown.scan, list(aggregates), name, numbers=store)


def _make_once(
    parent: Path | None, name: str, pair: _Pair, write: Callable[[StoreWriter], None]
) -> Store:
    store = open_store(parent, name, memory=pair.memory)
    if store is None:
        with create_store(parent, name, memory=pair.memory) as writer:
            write(writer)
            store = writer.finish()
    return store


def _attach(
    scan: Any,
    names: Sequence[str],
    digest: str,
    *,
    histories: Store | None = None,
    numbers: Store | None = None,
) -> AttachedScan:
    columns = [*scan.columns, *names]
    return AttachedScan(
        scan, range(len(scan)), columns, histories=histories, numbers=numbers, digest=digest
    )


# Tables, their keys and times ---------------------------------------------------------------


def _tables(impressions: Any, events: Any) -> tuple[Table, Table]:
    shown, log = Table(impressions, name="impressions"), Table(events, name="events")
    if shown.scan is None and shown.caller is None:
        raise TypeError(
            "impressions must be a frame or a scan, to which columns are attached, got a query of "
            "DuckDB. Write it to a Parquet file and take scan_parquet of that; events may be a "
            "query."
        )
    return shown, log


class _Pair:
    """Impressions and events that meet by key and time.

    Its kinds, units and ``max_age`` are checked with the first rows.
    """

    def __init__(
        self, shown: Table, log: Table, keys: Sequence[Any], time: Any, *, max_age: Age = None
    ) -> None:
        self.shown, self.log, self.keys, self.time = shown, log, list(keys), time
        self.kinds = [_joint_kind(shown, log, key) for key in self.keys]
        self.memory = min(shown.memory, log.memory)
        if self.keys:  # what is wrong with kinds, units and ages shows in the first rows
            heads = [t.head([*self.keys, time], present=time) for t in (log, shown)]
            head = Timeline(heads[0], keys=self.keys, time=time)
            head.past(heads[1], max_age=max_age)
            self.dtype, self.unit = head.times.dtype, head.unit

    @property
    def sort_memory(self) -> int:
        """Bytes for one sort."""
        return self.memory // SORTS_AT_ONCE

    @property
    def key_fields(self) -> list[pa.Field]:
        """The keys as they are sorted, under names that no column has."""
        types = [pa.large_string() if kind == "text" else pa.int64() for kind in self.kinds]
        return [pa.field(f"key {position}", kind) for position, kind in enumerate(types)]

    @property
    def time_field(self) -> pa.Field:
        """The time as it is sorted: in the unit of the log."""
        return pa.field("time", pa.from_numpy_dtype(self.dtype))

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


def _joint_kind(shown: Table, log: Table, key: Any) -> str | None:
    """Return what a key column of both tables holds: "text" or "numbers"."""
    ours = key_kind(shown.frame[key], name=f"impressions[{key!r}]")
    theirs = key_kind(log.frame[key], name=f"events[{key!r}]")
    if ours and theirs and ours != theirs:
        raise kinds_differ(key, ours, theirs)
    return ours or theirs


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
    if ours is None or theirs is None:  # the rows of a query may be others next time
        return None, f"{name}-{uuid.uuid4().hex}"
    parent = pair.shown.cache_dir or pair.log.cache_dir
    return parent, f"{name}-{digest(ours, theirs, repr(request))[:32]}"


def _are_equal(shown: Table, log: Table, columns: Sequence[Any]) -> bool:
    prints = [table.fingerprint(columns) for table in (shown, log)]
    return len(shown) == len(log) and prints[0] == prints[1] is not None


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


class _Merge:
    """Reads events and impressions, has them sorted together, and goes over them in order.

    Once all was read, ``events`` and ``impressions`` say what was seen of the times, and
    ``keys_meet`` whether some impression has the key of an event; ``n_events`` have a key.
    """

    def __init__(self, pair: _Pair, folder: Path) -> None:
        self._pair, self._folder = pair, folder
        self.events = _TimeReader(pair.log, pair.time, pair.unit)
        self.impressions = _TimeReader(pair.shown, pair.time, pair.unit)
        self.keys_meet, self.n_events = False, 0

    def pieces(
        self,
        of_events: Sequence[pa.Field],
        read_events: Callable[[pd.DataFrame], list[pa.Array]],
        columns: Sequence[Any],
        *,
        of_impressions: Sequence[pa.Field] = (),
        read_impressions: Callable[[np.ndarray, str | None], list[pa.Array]] | None = None,
    ) -> Iterator[_Merged]:
        """Yield all rows in order; every event is read before the first impression.

        Further fields are carried along: ``read_events`` makes those of the events of a part that
        has ``columns``, ``read_impressions`` others of the impressions' times and their unit.
        """
        pair = self._pair
        rank = pa.field("rank", pa.int64())
        schema = pa.schema([*pair.key_fields, pair.time_field, rank, *of_events, *of_impressions])

        def batches() -> Iterator[pa.RecordBatch]:
            for start, part, times in self.events.parts([*pair.keys, *columns]):
                ranks = np.arange(start, start + len(part)) + EVENT
                more = [*read_events(part), *_nulls(of_impressions, len(part))]
                arrays = [*pair.read_keys(part), *_plain(times, ranks), *more]
                batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
                yield batch.filter(all_valid(batch.columns[: len(pair.keys)]))
            for start, part, times in self.impressions.parts(pair.keys):
                unit = self.impressions.unit
                ranks = np.arange(start, start + len(part))
                more = _nulls(of_events, len(part))
                more += read_impressions(times, unit) if read_impressions else []
                arrays = [*pair.read_keys(part), *_plain(pair.edges(times, unit), ranks), *more]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)

        ordered = sort_rows(batches(), schema, memory=pair.sort_memory, folder=self._folder)
        yield from self._walk(ordered)

    def _walk(self, ordered: Iterator[pa.RecordBatch]) -> Iterator[_Merged]:
        n_keys = len(self._pair.keys)
        first_of_key = 0
        previous: tuple | None = None
        was_event = False
        total = len(self._pair.log) + len(self._pair.shown)
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
                rows = np.where(is_event, ranks - EVENT, ranks)
                yield _Merged(batch, is_new, is_event, rows, before, first)
                self.n_events, first_of_key = int(counted[-1]), int(first[-1])
                was_event = is_event[-1]
                previous = tuple(key[-1] for key in keys)
                progress.update(len(batch))


def _plain(times: np.ndarray, ranks: np.ndarray) -> list[pa.Array]:
    """Return times, of which -0.0 is 0.0, and ranks as Arrow arrays."""
    return [pa.array(times + 0.0 if times.dtype.kind == "f" else times), pa.array(ranks)]


def _nulls(fields: Sequence[pa.Field], n_rows: int) -> list[pa.Array]:
    return [pa.nulls(n_rows, field.type) for field in fields]


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
    """Write the sorted log, the windows of all impressions, and their anchors."""
    sources = {column: name for name, column in request.sources.items()}
    columns = [ColumnWriter(name, pair.log.frame[column]) for column, name in sources.items()]
    merge = _Merge(pair, writer.folder)
    windows = _windows(merge, pair, request, writer, dict(zip(sources, columns, strict=True)))
    has_past = False
    writer.append("starts", np.empty(0, dtype=np.int64))
    writer.append("lengths", np.empty(0, dtype=np.int32))
    for starts, lengths in _by_row(windows, [pa.int64(), pa.int32()], pair, writer.folder):
        writer.append("starts", starts)
        writer.append("lengths", lengths)
        has_past = has_past or bool(lengths.any())
    for column in columns:
        column.finish(writer)
    writer.facts |= log_facts(
        columns, clock=request.elapsed, token=uuid.uuid4().hex, n_events=merge.n_events
    )
    writer.facts["empty"] = None if has_past else _why_all_empty(pair, merge)


def _windows(
    merge: _Merge,
    pair: _Pair,
    request: HistoryRequest,
    writer: StoreWriter,
    columns: Mapping[Any, ColumnWriter],
) -> Iterator[Sequence[np.ndarray]]:
    """Write the events, and yield row, start and length of windows, in the order of the sort."""
    clock, has_age = request.elapsed, request.max_age is not None
    some: list[pd.DataFrame] = []
    if clock is not None:
        writer.append("anchors", np.empty(0, dtype=np.float64))

    def read_events(part: pd.DataFrame) -> list[pa.Array]:
        users = (some or [part])[0][request.user].iloc[:SOME_EVENTS]
        some.append(part[part[request.user].isin(users)])
        return [column.encode(part[name]) for name, column in columns.items()]

    def read_impressions(times: np.ndarray, unit: str | None) -> list[pa.Array]:
        if clock is not None:
            anchors, origin = np.zeros(len(times)), merge.events.first
            if origin is not None:
                anchors = since(times, origin * unit_ratio(unit, pair.unit), unit)
            writer.append("anchors", anchors)
        if not has_age:
            return []
        age = check_max_age(request.max_age, unit=unit)
        _, oldest = window_edges(times, unit, age, pair.dtype, pair.unit)
        least = np.iinfo(np.int64).min if pair.dtype.kind == "i" else -np.inf
        return [pa.array(np.full(len(times), least, pair.dtype) if oldest is None else oldest)]

    fields = [pa.field(f"events {c.name}", c.integers) for c in columns.values()]
    oldest = [pa.field("oldest", pa.from_numpy_dtype(pair.dtype))] if has_age else []
    newest = np.empty(0, dtype=pair.dtype)  # times of the last events that were counted
    for piece in merge.pieces(
        fields, read_events, [*columns], of_impressions=oldest, read_impressions=read_impressions
    ):
        times = piece.events("time").to_numpy()
        for column in columns.values():
            column.append(writer, piece.events(f"events {column.name}"))
        if clock is not None and len(times):
            writer.append(f"events {clock}", since(times, merge.events.first, merge.events.unit))
        ends = piece.shown(piece.before)
        starts = np.maximum(piece.shown(piece.first), ends - request.max_length)
        if has_age:
            n_known = int(piece.before[0]) - len(newest)
            newest = np.concatenate([newest, times])
            edges = piece.impressions("oldest").to_numpy()
            starts = n_known + _first_not_older(newest, starts - n_known, ends - n_known, edges)
            newest = newest[max(len(newest) - request.max_length, 0) :]
        lengths = (ends - starts).astype(np.int32)
        yield piece.shown(piece.rows), np.where(lengths > 0, starts, 0), lengths
    names = [request.user, request.time, *columns]
    writer.facts["repeats"] = note_repeats(pd.concat(some), names) if some else None


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


def _why_all_empty(pair: _Pair, merge: _Merge) -> str | None:
    """Return the same as ``past_columns.why_all_empty`` of tables in memory."""
    events, shown = merge.events, merge.impressions
    has_many = len(pair.shown) >= MANY_ROWS and _has_several(pair)
    if not has_many or events.first is None or shown.last is None:
        return None
    if not merge.keys_meet:
        return "users"
    edge = pair.edges(np.array([shown.last]), shown.unit)[0]
    return None if events.first < edge else "times"


def _has_several(pair: _Pair) -> bool:
    seen = pa.array([], type=pair.key_fields[0].type)
    for _, part in pair.shown.parts(pair.keys):
        keys = pair.read_keys(part)[0].drop_null()
        seen = pc.unique(pa.concat_arrays([seen, keys]))[:2]
        if len(seen) > 1:
            return True
    return False


# Aggregates ---------------------------------------------------------------------------------


def _write_aggregates(
    writer: StoreWriter, pair: _Pair, statistics: Mapping[str, tuple[Any, str]]
) -> None:
    """Write all aggregates of one key: name to column and statistic."""
    columns = list(dict.fromkeys(column for column, _ in statistics.values() if column is not None))
    fields = [
        pa.field(f"{what} {position}", pa.float64())
        for position in range(len(columns))
        for what in ("there", "value")
    ]

    def read_events(part: pd.DataFrame) -> list[pa.Array]:
        arrays = (present_numbers(part[column]) for column in columns)
        return [pa.array(array.astype(np.float64)) for both in arrays for array in both]

    for name in statistics:
        writer.append(name, np.empty(0, dtype=np.float64))
    pieces = _Merge(pair, writer.folder).pieces(fields, read_events, columns)
    sums = _running(pieces, columns, statistics)
    kinds = [pa.float64()] * len(statistics)
    for arrays in _by_row(sums, kinds, pair, writer.folder):
        for name, values in zip(statistics, arrays, strict=True):
            writer.append(name, values)


def _running(
    pieces: Iterator[_Merged], columns: Sequence[Any], statistics: Mapping[str, tuple[Any, str]]
) -> Iterator[list[np.ndarray]]:
    """Yield row and aggregates of the impressions, in the order of the sort."""
    carried = dict.fromkeys(
        (f"{what} {position}" for position in range(len(columns)) for what in ("there", "value")),
        0.0,
    )
    for piece in pieces:
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
                continue
            position = columns.index(column)
            count, total = sums[f"there {position}"], sums[f"value {position}"]
            missing = np.full(len(total), np.nan)
            mean = np.divide(total, count, out=missing, where=count > 0)
            arrays.append({"count": count, "sum": total, "mean": mean}[statistic])
        yield arrays
