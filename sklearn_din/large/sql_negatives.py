"""Sampled negatives of a scan: DuckDB counts the items and brings each user's events together."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sklearn_din._progress import Progress
from sklearn_din._validation import check_times, missing_rows, missing_times
from sklearn_din.features.store import create_store
from sklearn_din.large.parquet_files import ParquetFiles, find_files
from sklearn_din.large.parquet_scan import ParquetScan
from sklearn_din.large.sorting import Database, open_database, plain_integers
from sklearn_din.large.sql import key_kind, read_keys
from sklearn_din.large.table import arrow_of_column
from sklearn_din.logs.negative_draws import (
    NegativeDraws,
    cast_items,
    join_times,
    other_kind,
    read_catalogue,
)
from sklearn_din.logs.other_items import (
    Arrivals,
    ItemVersions,
    NegativesRequest,
    missing_ids,
    number_ids,
)
from sklearn_din.logs.sampling_notices import warn_of_leaks
from sklearn_din.logs.windows import WindowDtype
from sklearn_din.tables.scan import Scan

CHECKED_ROWS = 100_000  # of the first part: which columns are the item's
FAR = 2**62  # later than any time; exact as a float
WRITES_IN_MEMORY = 16  # what is written at once takes one sixteenth of the memory allowed
ITEMS = """
create table items as select *, row_number() over (order by launch nulls last, item) - 1 as code
from (
    select item, count(*) filter (row >= 0) as n_events, min(time) filter (row >= 0) as first,
        min(time) filter (row >= {first_row}) as launch, count(*) - n_events as n_listed
    from events group by item
)
"""
LAST_ROWS = "select code, max(row) as row, 0 as time from events join items using (item)"
LAST_ROWS += " group by code order by code"
CHANGES = """
select code, time, row from (
    select item, time, row, ({changed}) as is_new
    from events window of_item as (partition by item order by time, row)
) join items using (item) where is_new order by code, time, row
"""
IN_ORDER = """
select count(*) filter (is_new) over (rows unbounded preceding) as owner, row, code, time from (
    select row, code, time, {key} is distinct from lag({key}) over () as is_new from (
        select * from events join items using (item) where row >= 0 order by {key}, row
    )
)
"""


def sample_negatives_by_sql(
    events: Scan,
    request: NegativesRequest,
    random_state: int | np.random.RandomState | None,
    catalogue: Any = None,
) -> tuple[ParquetScan, np.ndarray]:
    """Follow each event of a scan with negatives, as :func:`sample_negatives` does in memory.

    The catalogue is in memory: the item columns of each item's last row, with a time those of each
    row in which they changed. Sorted by user and row, each user's events stand together, and the
    items that the user does not have are drawn as in memory: the draws depend on the seed and the
    rows alone, whatever ``memory`` is. Without a user column each item owns its own events. Rows of
    ``catalogue`` have negative numbers: an item's newest row is an event's, where both are. The
    impressions lie in a file that is removed with them; labels are int8.
    """
    histories = [name for name, kind in events.dtypes.items() if isinstance(kind, WindowDtype)]
    if histories:
        raise ValueError(
            f"events must be without history columns, got {histories}. Call sample_negatives "
            "first, and attach_history to what it gives."
        )
    listed = None
    if catalogue is not None:
        listed = _list_items(read_catalogue(catalogue, request), events, request)
    with create_store(events.cache_dir, "negatives", memory=events.memory) as writer:
        draws = writer.allocate("draws", (len(events), request.n_negatives), np.int32)
        rows = _draw(events, listed, request, draws, random_state, writer.folder)
        path = writer.folder / "impressions.parquet"
        with writer.disk_errors():
            _write(path, events, _read_items(events, listed, request, rows), draws, request)
        owned = writer.folder.parent / f"negatives-{uuid.uuid4().hex}.parquet"
        path.replace(owned)
    filesystem, files = find_files(owned)
    table = ParquetFiles(filesystem, files, owned=owned)
    impressions = ParquetScan(
        table,
        range(table.n_rows),
        events.columns,
        target=None,
        memory=events.memory,
        cache_dir=events.cache_dir,
    )
    y = np.zeros((len(events), 1 + request.n_negatives), dtype=np.int8)
    y[:, 0] = 1
    return impressions, y.ravel()


def _draw(
    events: Scan,
    listed: pd.DataFrame | None,
    request: NegativesRequest,
    draws: np.ndarray,
    random_state: int | np.random.RandomState | None,
    folder: Path,
) -> np.ndarray:
    """Fill in the version of an item that is drawn for each row; return the row of each version.

    A version is an item's last row, with a time each one in which its columns changed.
    """
    names = [*request.following, *request.keys, *request.timed]
    empty, user = _empty(events, names), request.user
    kind = None if user is None else key_kind(empty[user], name=f"events[{user!r}]")
    schema = _select(empty, 0, request, kind).schema
    with open_database(memory=events.memory, folder=folder) as database:
        database.register("rows", _read(events, listed, request, kind, schema), schema)
        database.run("create table events as select * from rows")
        is_known = request.catalogue_time is not None
        first_row = -len(listed) if is_known and listed is not None else 0
        database.run(ITEMS.format(first_row=first_row))
        changed = pa.Table.from_batches(database.read(_query_of_versions(request)))
        sampler = NegativeDraws(
            request,
            _read_arrivals(database, events, listed, request),
            ItemVersions(changed["code"].to_numpy(), changed["time"].to_numpy()),
            random_state,
            lambda row: events[row : row + 1][request.user or request.item].tolist()[0],
        )
        key = "code" if request.user is None else "owner"
        for part in _whole_owners(database.read(IN_ORDER.format(key=key))):
            owners, rows, items, times = (column.to_numpy() for column in part.columns)
            draws[rows] = sampler.draw(owners - owners[0], rows, items, times)
    sampler.warn(lambda: _read_head(events, request))
    return changed["row"].to_numpy()


def _empty(events: Scan, names: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series([], dtype=events.all_dtypes[name]) for name in names})


def _list_items(listed: pd.DataFrame, events: Scan, request: NegativesRequest) -> pd.DataFrame:
    """Return a catalogue with the types of the events, and its launches as their times."""
    own = _arrow(_empty(events, request.following)).schema
    rows = cast_items(listed, own).to_pandas(types_mapper=pd.ArrowDtype)
    if request.catalogue_time is not None:
        times = events[:1][request.time]
        launches = join_times(listed, times, request)[: len(rows)]
        rows[request.time] = launches.astype(times.dtype)
    return rows


def _read_arrivals(
    database: Database, events: Scan, listed: pd.DataFrame | None, request: NegativesRequest
) -> Arrivals:
    items = pa.Table.from_batches(
        database.read("select n_events, first, launch, n_listed from items order by code")
    )
    n_events, n_listed = items["n_events"].to_numpy(), items["n_listed"].to_numpy()
    if listed is not None and not (n_events * n_listed).any():
        clicked = events[:1][request.item].tolist()[0]
        raise other_kind(request.item, listed[request.item].tolist()[0], clicked)
    first, launch = (items[name].fill_null(FAR).to_numpy() for name in ("first", "launch"))
    in_order, n_before = np.unique(first), np.zeros(len(first) + 1, dtype=np.int64)
    for batch in database.read("select time from events where row >= 0"):
        places = np.searchsorted(in_order, batch["time"].to_numpy(), side="right")
        n_before += np.bincount(places, minlength=len(n_before))
    before = np.cumsum(n_before)[np.searchsorted(in_order, first)] / len(events)
    return Arrivals(n_events, first, before, launch)


def _query_of_versions(request: NegativesRequest) -> str:
    if request.time is None:
        return LAST_ROWS
    changed = ["lag(row) over of_item is null"]
    for number in range(len(request.item_columns)):
        changed.append(f"c{number} is distinct from lag(c{number}) over of_item")
    return CHANGES.format(changed=" or ".join(changed))


def _select(
    part: pd.DataFrame, start: int, request: NegativesRequest, kind: str | None
) -> pa.RecordBatch:
    """Return what DuckDB gets of some events, of which ``start`` is the first."""
    columns: dict[str, Any] = {"item": plain_integers(arrow_of_column(part[request.item]))}
    columns["row"] = np.arange(start, start + len(part))
    user, time = request.user, request.time  # which a catalogue may lack
    columns["time"] = np.full(len(part), -FAR if start < 0 else 0)
    if time is not None:
        for number, name in enumerate(request.item_columns):
            columns[f"c{number}"] = plain_integers(arrow_of_column(part[name]))
    if time in part:
        columns["time"] = check_times(part[time], name=f"events[{time!r}]")[0]
    if user is not None:
        columns["owner"] = read_keys(part[user], kind) if user in part else pa.nulls(len(part))
    return pa.RecordBatch.from_pydict(columns)


def _read(
    events: Scan,
    listed: pd.DataFrame | None,
    request: NegativesRequest,
    kind: str | None,
    schema: pa.Schema,
) -> Iterator[pa.RecordBatch]:
    """Yield what DuckDB needs of a catalogue, whose rows have negative numbers, and of all events.

    Missing values are counted over all parts.
    """
    _warn(_read_head(events, request), request)
    if listed is not None:
        batch = _select(listed, -len(listed), request, kind)
        yield from pa.Table.from_batches([batch]).cast(schema).to_batches()
    changing = request.item_columns if request.timed else []
    missing = dict.fromkeys([*request.keys, *request.timed], 0)
    with Progress("reading events", len(events)) as progress:
        for start, part in events.parts([*dict.fromkeys([*missing, *changing])]):
            for name in missing:
                missing[name] += int(missing_rows(part[name]).sum())
            if not any(missing.values()):
                yield _select(part, start, request, kind)
            progress.update(len(part))
    for name, number in missing.items():
        if number and name in request.keys:
            raise missing_ids(name, number)
        if number:
            raise missing_times(f"events[{name!r}]", number)


def _whole_owners(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield events so that all those of an owner come at once."""
    rest: list[pa.RecordBatch] = []
    for batch in batches:
        whole = pa.Table.from_batches([*rest, batch])
        owners = whole["owner"].to_numpy()
        begins_last = int(np.searchsorted(owners, owners[-1]))
        if begins_last:
            yield whole[:begins_last]
        rest = whole[begins_last:].to_batches()
    yield pa.Table.from_batches(rest)


def _read_items(
    events: Scan, listed: pd.DataFrame | None, request: NegativesRequest, version_rows: np.ndarray
) -> pa.Table:
    """Return the item columns of each version; those of a catalogue have negative rows."""
    is_listed = version_rows < 0
    rows, positions = events.narrow(request.following)[version_rows[~is_listed]].in_file_order()
    places = np.arange(len(rows)) if positions is None else np.argsort(positions)
    parts = [_arrow(part) for _, part in rows.parts()]
    if listed is not None:
        more = _arrow(listed[request.following].iloc[version_rows[is_listed]])  # -1: the last one
        places = np.append(np.arange(len(more)), len(more) + places)
        parts = [more, *(part.cast(more.schema) for part in parts)]
    order = np.empty_like(places)
    order[np.argsort(~is_listed, kind="stable")] = places
    return pa.concat_tables(parts).take(pa.array(order))


def _write(
    path: Path, events: Scan, items: pa.Table, draws: np.ndarray, request: NegativesRequest
) -> None:
    schema, n_shown = None, 1 + request.n_negatives
    with Progress("writing impressions", len(events) * n_shown) as progress, ExitStack() as files:
        for start, part in events.parts():
            table = _arrow(part)
            per_event = max(table.nbytes / max(len(table), 1), 1.0) * n_shown
            size = max(int(events.memory / WRITES_IN_MEMORY / per_event), 1)
            for first in range(0, len(table), size):
                piece = table.slice(first, size)
                drawn = draws[start + first : start + first + len(piece)]
                shown = _impressions(piece, items, drawn, request.following)
                if schema is None:
                    schema = shown.schema
                    writer = files.enter_context(pq.ParquetWriter(path, schema))
                writer.write_table(shown)
                progress.update(len(shown))


def _impressions(
    events: pa.Table, catalogue: pa.Table, drawn: np.ndarray, following: Sequence[str]
) -> pa.Table:
    """Return each event followed by its negatives, which have the columns of their own item."""
    n_events, n_negatives = drawn.shape
    positions = np.arange(n_events)
    rows = pa.array(np.repeat(positions, 1 + n_negatives))
    negatives = n_events + np.arange(drawn.size).reshape(drawn.shape)
    sources = pa.array(np.column_stack([positions, negatives]).ravel())
    items = catalogue.take(pa.array(drawn.ravel()))
    columns = []
    for name in events.column_names:
        column = events.column(name)
        if name not in following:
            columns.append(column.take(rows))
            continue
        both = pa.chunked_array([*column.chunks, *items.column(name).chunks], type=column.type)
        columns.append(both.combine_chunks().take(sources))
    return pa.table(columns, names=events.column_names)


def _arrow(rows: pd.DataFrame) -> pa.Table:
    arrays = [pa.chunked_array(pa.array(rows[name].array)) for name in rows.columns]
    return pa.table(arrays, names=list(rows.columns))


def _read_head(events: Scan, request: NegativesRequest) -> pd.DataFrame:
    """Return the first rows that lack nothing."""
    head = next(part for _, part in events[:CHECKED_ROWS].parts())
    names = [*request.keys, *request.timed]
    return head[~np.any([missing_rows(head[name]) for name in names], axis=0)]


def _warn(head: pd.DataFrame, request: NegativesRequest) -> None:
    """Judge by the first rows what would give negatives away."""
    if len(head) == 0:
        return
    owners = None if request.user is None else number_ids(head, request.user)[0]
    warn_of_leaks(head, request, number_ids(head, request.item)[0], owners)
