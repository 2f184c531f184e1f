"""Histories and aggregates of tables larger than memory: DuckDB sorts, one pass merges.

Events and impressions are sorted together by key and time, an impression before the events of the
same time. In this order the events before an impression are those already counted: DuckDB counts
rows as they come, and where those of the key start. Sorting by row number restores the order of
the impressions. Only the sort grows with the tables, and DuckDB spills to disk what does not fit
in memory.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from sklearn_din.features.store import Store, StoreWriter, make_once
from sklearn_din.large.attached_scan import AttachedScan
from sklearn_din.large.sorting import sort_rows
from sklearn_din.large.stored_log import ColumnWriter, StoredHistories, log_facts
from sklearn_din.logs.aggregates import (
    Aggregate,
    Statistic,
    check_aggregates,
    check_zeros_and_ones,
    holds_numbers,
    present_numbers,
    with_known_times,
)
from sklearn_din.logs.attach import HistoryRequest, note_all_empty, why_no_past
from sklearn_din.logs.clocks import note_clocks
from sklearn_din.logs.row_memory import RECENT_ROWS, recent_means, statistic_of, sum_by_group
from sklearn_din.logs.timeline import Timeline, since, window_edges
from sklearn_din.utils.arrow import arrow_of_column, plain_type
from sklearn_din.utils.digests import digest
from sklearn_din.utils.frames import list_types
from sklearn_din.utils.keys import KINDS, kinds_differ
from sklearn_din.utils.progress import show_progress
from sklearn_din.utils.scan import FrameScan, Scan, as_scan
from sklearn_din.utils.shrinkage import N_SUMS, average_and_prior, changes_of_sums, shrink
from sklearn_din.utils.validation import (
    Age,
    check_frame,
    check_keys,
    check_max_age,
    check_times,
    missing_rows,
    missing_times,
    plain_values,
    unit_ratio,
)
from sklearn_din.utils.warnings import warn_of

_Read = Callable[[pd.DataFrame, np.ndarray], dict[str, pa.Array]]  # further columns of some rows
EVENT = 2**62  # added to the row numbers of events, so that impressions of equal time come first
SORTS_AT_ONCE = 2  # one sort reads the rows of another: each gets half of the memory
MERGED = """
with ordered as (
    select *, rank >= {event} as is_event from rows
    where rank < {event} or ({has_keys}) order by all
), counted as (
    select *, {is_new} as is_new,
        count(*) filter (is_event) over (rows unbounded preceding) - is_event::bigint as before
    from ordered
)
select * {without_keys},
    coalesce(max(before) filter (is_new) over (rows unbounded preceding), 0) as first
from counted
"""  # "before": events before a row, "first": events before the first one of its key


def attach_history_by_sql(impressions: Any, events: Any, request: HistoryRequest) -> Any:
    """Attach histories if one of the tables is a scan; the result is of the impressions' kind."""
    shown, log = as_scan(impressions, name="impressions"), as_scan(events, name="events")
    request.check(shown.frame, log.frame)
    user, time = columns = [request.user, request.time]
    merge = _Merge(shown, log, [user], time, max_age=request.max_age)
    clocks = note_clocks(merge.heads[1][time], merge.heads[0][time])
    ours, theirs = (table.narrow(columns).fingerprint() for table in (shown, log))
    made_of = ours, log.narrow([*columns, *request.columns]).fingerprint(), repr(request)
    store = _make_once(
        shown, log, "history", made_of, lambda writer: _write_histories(writer, merge, request)
    )
    is_own_log = ours == theirs and len(shown) == len(log)
    empty = None if is_own_log else note_all_empty(store.facts["empty"], user, time)
    warn_of([clocks, empty])
    if not isinstance(shown, FrameScan):
        return AttachedScan.on(shown, request.new_names, store)
    new = StoredHistories(store).columns(request.new_names, range(len(shown)))
    return shown.caller.with_columns(new, types=list_types(log.frame, request.sources))


def attach_aggregates_by_sql(
    impressions: Any,
    events: Any,
    time: str,
    aggregates: Mapping[str, Aggregate],
    known: str | None,
) -> Any:
    """Attach aggregates if one of the tables is a scan; the result is of the impressions' kind."""
    shown, log = as_scan(impressions, name="impressions"), as_scan(events, name="events")
    by_key = check_aggregates(aggregates, time, shown.frame, log.frame)
    columns = [time, *(key for group in by_key for key in group)]
    check_frame(log.frame, [] if known is None else [known], name="events")
    numbers = [] if known is None else [known]
    numbers += [c for group in by_key.values() for c, _ in group.values() if c is not None]
    made_of = shown.narrow(columns).fingerprint(), log.narrow([*columns, *numbers]).fingerprint()

    def write(writer: StoreWriter) -> None:
        for keys, statistics in by_key.items():
            alone = [name for name, what in statistics.items() if what[1] in ALONE]
            others = [name for name in statistics if name not in alone]
            for names in filter(None, [others, *([name] for name in alone)]):
                merge = _Merge(shown, log, keys, time, known=known)
                _write_aggregates(writer, merge, {name: statistics[name] for name in names})

    events_head, shown_head = _Merge(shown, log, [], time, known=known).heads
    warn_of([note_clocks(shown_head[time], events_head[time])])
    store = _make_once(shown, log, "aggregates", (*made_of, repr((time, known, aggregates))), write)
    if not isinstance(shown, FrameScan):
        return AttachedScan.on(shown, [*aggregates], store)
    return shown.caller.with_columns({name: np.array(store[name]) for name in aggregates})


def _make_once(
    shown: Scan,
    log: Scan,
    kind: str,
    made_of: Sequence[str],
    write: Callable[[StoreWriter], None],
) -> Store:
    """Return the store of what is made of two tables; a ``cache_dir`` keeps it by its content."""
    parent, name = shown.cache_dir or log.cache_dir, f"{kind}-{digest(*made_of)[:32]}"
    return make_once(parent, name, write, memory=min(shown.memory, log.memory))


# Keys ---------------------------------------------------------------------------------------


def key_kind(column: pd.Series, *, name: str) -> str | None:
    """Return whether keys are "text" or "numbers"; None without values."""
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return key_kind(pd.Series(dtype.categories), name=name)
    if isinstance(dtype, pd.ArrowDtype):
        kind = plain_type(dtype.pyarrow_dtype)
        if pa.types.is_null(kind) or pa.types.is_string(kind):
            return "text" if pa.types.is_string(kind) else None
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or kind == pa.bool_()):
            raise _no_keys(name, str(kind))
    if holds_numbers(dtype):
        return "numbers"
    inferred = pd.api.types.infer_dtype(column, skipna=True)
    if inferred in KINDS or inferred == "empty":
        return KINDS.get(inferred)
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
        return arrow_of_column(column).cast(pa.large_string())
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


# The pass over events and impressions in order ------------------------------------------------


class _Merge:
    """Events and impressions that meet by key and time, in one order.

    Once all were read, ``origin`` is the first time of the events, ``is_later`` says whether some
    impression comes after it, ``n_users`` how many keys begin with an impression, and ``keys_meet``
    whether events of one of these follow.
    """

    def __init__(
        self,
        shown: Scan,
        log: Scan,
        keys: Sequence[Any],
        time: Any,
        *,
        max_age: Age = None,
        known: Any = None,
    ) -> None:
        self.shown, self.log, self.keys, self.time = shown, log, list(keys), time
        self.known = known  # column of the events whose times count in place of ``time``
        self.kinds: list[str | None] = []  # "text" or "numbers", by key
        for key in self.keys:
            ours = key_kind(shown.frame[key], name=f"impressions[{key!r}]")
            theirs = key_kind(log.frame[key], name=f"events[{key!r}]")
            if ours and theirs and ours != theirs:
                raise kinds_differ(key, ours, theirs)
            self.kinds.append(ours or theirs)
        self.sort_memory = min(shown.memory, log.memory) // SORTS_AT_ONCE
        of_events = [] if known is None else [known]
        self.heads = [
            log.head([*self.keys, time, *of_events], present=known or time),
            shown.head([*self.keys, time], present=time),
        ]
        self.heads[0] = with_known_times(self.heads[0], time, known, name="events")
        for key in self.keys or [time]:
            head = Timeline(self.heads[0], key=key, time=time)
            head.past(self.heads[1], max_age=max_age)
        self.dtype, self.unit = head.times.dtype, head.unit
        self.shown_unit = head.impression_times(self.heads[1])[1]
        self.age = check_max_age(max_age, unit=self.shown_unit)
        self.origin: Any = None
        self.is_later, self.keys_meet, self.n_users = False, False, 0

    def rows(
        self,
        columns: Sequence[Any],
        read_events: _Read,
        read_impressions: _Read,
        fields: Sequence[pa.Field],
        folder: Path,
    ) -> Iterator[tuple[pa.RecordBatch, np.ndarray, np.ndarray]]:
        """Yield all rows in order, which of them are events, and which begin another key.

        Every event is read, with these columns, before the first impression. What is read of their
        parts are the further ``fields`` of either table; the other table's are null.
        """
        keys = [f"key{position}" for position in range(len(self.keys))]
        kinds = [pa.large_string() if kind == "text" else pa.int64() for kind in self.kinds]
        kind = pa.from_numpy_dtype(self.dtype)
        own = [*zip(keys, kinds, strict=True), ("time", kind), ("rank", pa.int64())]
        schema = pa.schema([*own, *([] if self.age is None else [("oldest", kind)]), *fields])
        query = MERGED.format(
            event=EVENT,
            without_keys=f"exclude ({', '.join(keys)})" if keys else "",
            has_keys=" and ".join(f"{key} is not null" for key in keys) or "true",
            is_new=" or ".join(f"{key} is distinct from lag({key}) over ()" for key in keys)
            or "false",
        )
        events = self._read("events", columns, read_events, schema)
        batches = chain(events, self._read("impressions", [], read_impressions, schema))
        pieces = sort_rows(batches, schema, memory=self.sort_memory, folder=folder, query=query)
        for piece in show_progress(pieces, "attaching", len(self.log) + len(self.shown)):
            names = ("is_event", "is_new", "before", "first")
            arrays = [piece[name].to_numpy(zero_copy_only=False) for name in names]
            is_event, is_new, before, first = arrays
            self.n_users += int((is_new & ~is_event).sum())
            self.keys_meet |= bool((is_event & ~is_new & (before == first)).any())
            yield piece, is_event, is_new

    def row_times(self, times: np.ndarray) -> np.ndarray:
        """Return times of impressions as floats from the first time of the events."""
        if self.origin is None:
            return np.zeros(len(times))
        ratio = unit_ratio(self.shown_unit, self.unit)
        return since(times, self.origin * ratio, self.shown_unit)

    def _read(
        self, which: str, columns: Sequence[Any], read: _Read, schema: pa.Schema
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows as they are sorted, nulls where the other table alone has a column."""
        label, n_missing = f"{which}[{self.time!r}]", 0
        of_events = self.log, self._place_events, self.known
        of_impressions = self.shown, self._place_impressions, None
        table, place, known = of_events if which == "events" else of_impressions
        names = [self.time, *([] if known is None else [known]), *self.keys, *columns]
        for start, part in show_progress(table.parts(names), f"reading {which}", len(table)):
            n_missing += int(missing_rows(part[self.time]).sum())
            if not n_missing and len(part):
                part = with_known_times(part, self.time, known, name=which)
                times = check_times(part[self.time], name=label, unit=self.unit)[0]
                pairs = zip(schema.names, self.keys, self.kinds, strict=False)
                keys = {name: read_keys(part[key], kind) for name, key, kind in pairs}
                arrays = keys | place(times, start) | read(part, times)
                tables = [schema.empty_table(), pa.table(arrays)]
                yield from pa.concat_tables(tables, promote_options="default").to_batches()
        if n_missing:
            raise missing_times(label, n_missing)

    def _place_events(self, times: np.ndarray, start: int) -> dict[str, pa.Array]:
        first = times.min().item()
        self.origin = first if self.origin is None else min(first, self.origin)
        return _placed(times, start + EVENT)

    def _place_impressions(self, times: np.ndarray, start: int) -> dict[str, pa.Array]:
        edges, oldest = window_edges(times, self.shown_unit, self.age, self.dtype, self.unit)
        self.is_later |= self.origin is not None and bool((edges > self.origin).any())
        return _placed(edges, start) | ({} if oldest is None else {"oldest": pa.array(oldest)})


def _placed(times: np.ndarray, start: int) -> dict[str, pa.Array]:
    """Return times and numbers of some rows, by which they are sorted."""
    times = times + 0.0 if times.dtype.kind == "f" else times  # -0.0 is 0.0
    return {"time": pa.array(times), "rank": pa.array(np.arange(start, start + len(times)))}


# Histories ----------------------------------------------------------------------------------


def _write_histories(writer: StoreWriter, merge: _Merge, request: HistoryRequest) -> None:
    """Write the sorted log, the windows of all impressions, and the times of their rows."""
    columns = {c: ColumnWriter(name, merge.log.frame[c]) for name, c in request.sources.items()}
    n_rows = len(merge.shown)
    starts = writer.allocate("starts", (n_rows,), np.int64)
    lengths = writer.allocate("lengths", (n_rows,), np.int32)
    if request.elapsed is not None:
        writer.append("row_times", np.empty(0, dtype=np.float64))
    for rows, *windows in _windows(merge, request, writer, columns):
        starts[rows], lengths[rows] = windows
    for column in columns.values():
        column.finish(writer)
    writer.facts |= log_facts([*columns.values()], clock=request.elapsed)
    writer.facts["empty"] = None
    if not lengths.any() and merge.origin is not None:
        reason = why_no_past(n_rows, merge.n_users, merge.keys_meet, merge.is_later)
        writer.facts["empty"] = reason


def _windows(
    merge: _Merge,
    request: HistoryRequest,
    writer: StoreWriter,
    columns: Mapping[Any, ColumnWriter],
) -> Iterator[Sequence[np.ndarray]]:
    """Write the events, and yield row, start and length of windows, in the order of the sort."""

    def read_events(part: pd.DataFrame, times: np.ndarray) -> dict[str, pa.Array]:
        return {f"events {c.name}": c.encode(part[name]) for name, c in columns.items()}

    def read_impressions(part: pd.DataFrame, times: np.ndarray) -> dict[str, pa.Array]:
        if request.elapsed is not None:
            writer.append("row_times", merge.row_times(times))
        return {}

    fields = [pa.field(f"events {c.name}", c.integers) for c in columns.values()]
    newest = np.empty(0, dtype=merge.dtype)  # times of the last events that were counted
    readers = read_events, read_impressions
    of_events = ["time", *(field.name for field in fields)]
    of_impressions = ["rank", "first", "before", *([] if merge.age is None else ["oldest"])]
    for piece, is_event, _ in merge.rows([*columns], *readers, fields, writer.folder):
        events = piece.select(of_events).filter(pa.array(is_event))
        shown = piece.select(of_impressions).filter(pa.array(~is_event))
        times = events["time"].to_numpy()
        for column in columns.values():
            column.append(writer, events[f"events {column.name}"])
        if request.elapsed is not None and len(times):
            writer.append(f"events {request.elapsed}", since(times, merge.origin, merge.unit))
        starts, ends = shown["first"].to_numpy(), shown["before"].to_numpy()
        if merge.age is not None:
            starts = np.maximum(starts, ends - request.max_length)
            n_known = piece["before"][0].as_py() - len(newest)
            newest = np.concatenate([newest, times])
            edges = shown["oldest"].to_numpy()
            starts = n_known + _first_not_older(newest, starts - n_known, ends - n_known, edges)
            newest = newest[max(len(newest) - request.max_length, 0) :]
        yield shown["rank"].to_numpy(), *request.cut(starts, ends)


def _first_not_older(
    times: np.ndarray, starts: np.ndarray, ends: np.ndarray, oldest: np.ndarray
) -> np.ndarray:
    """Return the position of the first time in each ascending window that is not too old."""
    low, high = starts.copy(), ends.copy()
    while (is_open := low < high).any():
        middle = (low + high) // 2
        is_old = times[np.where(is_open, middle, 0)] < oldest
        low = np.where(is_open & is_old, middle + 1, low)
        high = np.where(is_open & ~is_old, middle, high)
    return low


# Aggregates ---------------------------------------------------------------------------------


def _write_aggregates(
    writer: StoreWriter, merge: _Merge, statistics: Mapping[str, Statistic]
) -> None:
    """Write aggregates of one key, by name their column and statistic: one of ALONE comes alone."""
    written = [writer.allocate(name, (len(merge.shown),), np.float64) for name in statistics]
    column, statistic = next(iter(statistics.values()))
    if statistic in ALONE:
        pieces = ALONE[statistic](merge, column, writer.folder)
    else:
        pieces = _aggregates(merge, [*statistics.values()], writer.folder)
    for rows, *columns in pieces:
        for numbers, values in zip(written, columns, strict=True):
            numbers[rows] = values


def _aggregates(
    merge: _Merge, statistics: Sequence[Statistic], folder: Path
) -> Iterator[Sequence[np.ndarray]]:
    """Yield row and means, sums and counts of the impressions, in the order of the sort."""
    columns = dict.fromkeys(column for column, _ in statistics if column is not None)
    latest = np.array([np.nan])  # the time of the last event of the pieces before
    for piece, is_event, so_far in _running(merge, [*columns], folder):
        shown = ~is_event
        before, first = (piece[name].to_numpy()[shown] for name in ("before", "first"))
        arrays = [piece["rank"].to_numpy()[shown]]
        times = piece["time"].to_numpy()[is_event]
        clock = np.append(latest[-1:], since(times, merge.origin, merge.unit) if len(times) else [])
        for column, statistic in statistics:
            if statistic == "elapsed":
                n_earlier = before - piece["before"][0].as_py()  # in this piece
                events = np.where(before > first, clock[n_earlier], np.nan)
                arrays.append(piece["now"].to_numpy(zero_copy_only=False)[shown] - events)
            elif column is None:
                arrays.append((before - first).astype(np.float64))
            else:
                arrays.append(statistic_of(statistic, *(n[shown] for n in so_far[column])))
        latest = clock
        yield arrays


def _shrunk_rates(merge: _Merge, column: Any, folder: Path) -> Iterator[Sequence[np.ndarray]]:
    """Yield row and shrunk rate of the impressions, in the order of time."""
    schema = {"time": pa.from_numpy_dtype(merge.dtype), "rank": pa.int64()}
    schema = pa.schema(schema | dict.fromkeys(("count", "ones", "own"), pa.float64()))

    def of_keys() -> Iterator[pa.RecordBatch]:
        for piece, _, so_far in _running(merge, [column], folder):
            own = piece["value 0"]
            check_zeros_and_ones(_count_and_sum(own)[1], column)
            arrays = [piece["time"], piece["rank"], *map(pa.array, so_far[column]), own]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    totals, memory = np.zeros((N_SUMS, 1)), merge.sort_memory
    for piece in sort_rows(of_keys(), schema, memory=memory, folder=folder):
        running = np.stack([piece["count"], piece["ones"]])
        changes = changes_of_sums(running, np.stack(_count_and_sum(piece["own"])))
        sums = np.cumsum(np.concatenate([totals, changes], axis=1), axis=1)[:, 1:]
        totals, ranks = sums[:, -1:], piece["rank"].to_numpy()
        yield ranks[ranks < EVENT], shrink(running, average_and_prior(sums))[ranks < EVENT]


def _recent_means(merge: _Merge, column: Any, folder: Path) -> Iterator[Sequence[np.ndarray]]:
    """Yield row and mean of the latest values of any key, in the order of time."""
    name = "value 0"

    def read_numbers(part: pd.DataFrame, times: np.ndarray) -> dict[str, pa.Array]:
        is_there, numbers = present_numbers(part[column])
        return {name: pa.array(numbers, mask=~is_there)}

    latest, moments, so_far = np.empty(0), np.empty((2, 0)), np.zeros((2, 1))
    fields = [pa.field(name, pa.float64())]
    pieces = merge.rows([column], read_numbers, lambda part, times: {}, fields, folder)
    for piece, is_event, _ in pieces:
        times = piece["time"].to_numpy()
        own = np.stack(_count_and_sum(piece[name]))
        so_far = np.cumsum(np.concatenate([so_far[:, -1:], own], axis=1), axis=1)
        is_first = np.append(len(latest) == 0 or latest[-1] != times[0], times[1:] != times[:-1])
        before = moments.shape[1] + np.cumsum(is_first) - 1
        moments = np.append(moments, so_far[:, :-1][:, is_first], axis=1)
        yield piece["rank"].to_numpy()[~is_event], recent_means(moments, before[~is_event])
        oldest = np.searchsorted(moments[0], so_far[0, -1] - RECENT_ROWS, side="right") - 1
        latest, moments = times[-1:], moments[:, max(oldest, 0) :]


ALONE = {"shrunk_rate": _shrunk_rates, "recent_mean": _recent_means}  # passes of their own


def _running(
    merge: _Merge, columns: Sequence[Any], folder: Path
) -> Iterator[tuple[pa.RecordBatch, np.ndarray, dict[Any, list[np.ndarray]]]]:
    """Yield rows in order, which are events, and by column the key's count and sum up to each."""
    names = {column: f"value {n}" for n, column in enumerate(columns)}
    carried = dict.fromkeys(columns, (0.0, 0.0))  # count and sum so far, of the latest key

    def read_numbers(part: pd.DataFrame, times: np.ndarray) -> dict[str, pa.Array]:
        pairs = {name: present_numbers(part[column]) for column, name in names.items()}
        return {name: pa.array(v, mask=~is_there) for name, (is_there, v) in pairs.items()}

    def read_times(part: pd.DataFrame, times: np.ndarray) -> dict[str, pa.Array]:
        return {"now": pa.array(merge.row_times(times))}

    fields = [pa.field(name, pa.float64()) for name in (*names.values(), "now")]
    rows = merge.rows(columns, read_numbers, read_times, fields, folder)
    for piece, is_event, is_new in rows:
        groups, so_far = np.cumsum(is_new), dict[Any, list[np.ndarray]]()
        for column, name in names.items():
            numbers = _count_and_sum(piece[name])  # impressions have none
            if not is_new[0]:  # the key of the piece before
                for own, known in zip(numbers, carried[column], strict=True):
                    own[0] += known
            so_far[column] = [sum_by_group(own, groups) for own in numbers]
            carried[column] = so_far[column][0][-1], so_far[column][1][-1]
        yield piece, is_event, so_far


def _count_and_sum(values: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return what each value adds to how many there are, and to their sum: a null adds nothing."""
    is_there = values.is_valid().to_numpy(zero_copy_only=False)
    return is_there.astype(np.float64), values.fill_null(0.0).to_numpy().copy()
