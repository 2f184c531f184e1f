"""Sampled negatives of a scan: DuckDB counts the items and groups events by user."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sklearn_din.features.store import create_store
from sklearn_din.large.sorting import Database, open_database, plain_integers
from sklearn_din.large.sql import key_kind, read_keys
from sklearn_din.logs.negatives import (
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
from sklearn_din.utils.arrow import arrow_of_column
from sklearn_din.utils.progress import show_progress
from sklearn_din.utils.scan import Scan
from sklearn_din.utils.validation import check_times, missing_rows, missing_times

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
    select item, time, row, lag(row) over of_item is null{changed} as is_new
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
) -> tuple[Path, np.ndarray]:
    """Follow each event of a scan with negatives, as :func:`sample_negatives` does in memory.

    The catalogue is in memory: the item columns of each item's last row, with a time those of each
    row in which they changed. Users' events stand together, and the draws depend on the seed and
    the rows alone, not on ``memory``; they are not those of the same frame, whose users are in
    another order. Rows of ``catalogue`` have negative numbers. The impressions lie in a file;
    labels are int8.
    """
    request.check(events.columns, len(events))
    histories = [name for name, kind in events.dtypes.items() if isinstance(kind, WindowDtype)]
    if histories:
        raise ValueError(
            f"events must be without history columns, got {histories}. Call sample_negatives "
            "first, and attach_history to what it gives."
        )
    sampling = _Sampling(events, request, catalogue)
    with create_store(events.cache_dir, "negatives", memory=events.memory) as writer:
        draws = writer.allocate("draws", (len(events), request.n_negatives), np.int32)
        rows = sampling.draw(draws, random_state, writer.folder)
        path = writer.folder / "impressions.parquet"
        with writer.disk_errors():
            sampling.write(path, sampling.read_items(rows), draws)
        owned = writer.folder.parent / f"negatives-{uuid.uuid4().hex}.parquet"
        path.replace(owned)
        n_drawn = int((draws[:, 0] >= 0).sum())
    y = np.zeros((n_drawn, 1 + request.n_negatives), dtype=np.int8)
    y[:, 0] = 1
    return owned, y.ravel()


class _Sampling:
    """Negatives of the events of a scan, and of the items of a catalogue, if there is one."""

    def __init__(self, events: Scan, request: NegativesRequest, catalogue: Any) -> None:
        self._events, self._request = events, request
        self._needed = [*request.keys, *filter(None, [request.time])]  # may lack nothing
        self._empty = events.frame
        user = request.user
        self._kind = None if user is None else key_kind(self._empty[user], name=f"events[{user!r}]")
        self._listed: pd.DataFrame | None = None
        if catalogue is None:
            return
        listed = read_catalogue(catalogue, request)
        own = _arrow(self._empty[request.following]).schema
        self._listed = cast_items(listed, own).to_pandas(types_mapper=pd.ArrowDtype)
        if request.catalogue_time is not None:
            times = events[:1][request.time]
            launches = join_times(listed, times, request)[: len(listed)]
            self._listed[request.time] = launches.astype(times.dtype)

    def draw(
        self, draws: np.ndarray, random_state: int | np.random.RandomState | None, folder: Path
    ) -> np.ndarray:
        """Fill in the version of an item that is drawn for each row; return each version's row."""
        events, request = self._events, self._request
        schema = self._select(self._empty, 0).schema
        with open_database(memory=events.memory, folder=folder) as database:
            database.register("rows", self._read(schema), schema)
            database.connection.execute("create table events as select * from rows")
            listed = None if request.catalogue_time is None else self._listed
            first_row = 0 if listed is None else -len(listed)
            database.connection.execute(ITEMS.format(first_row=first_row))
            columns = [f"c{number}" for number in range(len(request.item_columns))]
            new = "".join(f" or {c} is distinct from lag({c}) over of_item" for c in columns)
            query = LAST_ROWS if request.time is None else CHANGES.format(changed=new)
            changed = pa.Table.from_batches(database.read(query))
            sampler = NegativeDraws(
                request,
                self._read_arrivals(database),
                ItemVersions(changed["code"].to_numpy(), changed["time"].to_numpy()),
                random_state,
                lambda row: events[row : row + 1][request.user or request.item].tolist()[0],
            )
            key = "code" if request.user is None else "owner"
            for part in _whole_owners(database.read(IN_ORDER.format(key=key))):
                owners, rows, items, times = (column.to_numpy() for column in part.columns)
                draws[rows] = sampler.draw(owners - owners[0], rows, items, times)
        sampler.warn(self._read_head)
        return changed["row"].to_numpy()

    def read_items(self, version_rows: np.ndarray) -> pa.Table:
        """Return the item columns of each version; those of a catalogue have negative rows."""
        names, is_listed = self._request.following, version_rows < 0
        rows, positions = self._events.narrow(names)[version_rows[~is_listed]].in_file_order()
        places = np.arange(len(rows)) if positions is None else np.argsort(positions)
        parts = [_arrow(part) for _, part in rows.parts()]
        if self._listed is not None:
            more = _arrow(self._listed[names].iloc[version_rows[is_listed]])  # -1: the last one
            places = np.append(np.arange(len(more)), len(more) + places)
            parts = [more, *(part.cast(more.schema) for part in parts)]
        order = np.empty_like(places)
        order[np.argsort(~is_listed, kind="stable")] = places
        return pa.concat_tables(parts).take(pa.array(order))

    def write(self, path: Path, items: pa.Table, draws: np.ndarray) -> None:
        """Write the impressions to a Parquet file."""
        events, schema, n_shown = self._events, None, 1 + draws.shape[1]
        parts = show_progress(events.parts(), "following events by negatives", len(events))
        with ExitStack() as files:
            for start, part in parts:
                table = _arrow(part)
                per_event = max(table.nbytes / max(len(table), 1), 1.0) * n_shown
                size = max(int(events.memory / WRITES_IN_MEMORY / per_event), 1)
                for first in range(0, len(table), size):
                    piece = table.slice(first, size)
                    drawn = np.array(draws[start + first : start + first + len(piece)])
                    is_drawn = drawn[:, 0] >= 0
                    piece, drawn = piece.filter(pa.array(is_drawn)), drawn[is_drawn]
                    shown = _impressions(piece, items, drawn, self._request.following)
                    if schema is None:
                        schema = shown.schema
                        writer = files.enter_context(pq.ParquetWriter(path, schema))
                    writer.write_table(shown)

    def _read_arrivals(self, database: Database) -> Arrivals:
        """Return when the items came up, by what the database counted."""
        items = pa.Table.from_batches(
            database.read("select n_events, first, launch, n_listed from items order by code")
        )
        n_events, n_listed = items["n_events"].to_numpy(), items["n_listed"].to_numpy()
        if self._listed is not None and not (n_events * n_listed).any():
            item = self._request.item
            pair = self._listed[item].tolist()[0], self._events[:1][item].tolist()[0]
            raise other_kind(item, *pair)
        far = pa.scalar(FAR).cast(items["first"].type, safe=False)
        first, launch = (items[name].fill_null(far).to_numpy() for name in ("first", "launch"))
        in_order, n_before = np.unique(first), np.zeros(len(first) + 1, dtype=np.int64)
        for batch in database.read("select time from events where row >= 0"):
            places = np.searchsorted(in_order, batch["time"].to_numpy(), side="right")
            n_before += np.bincount(places, minlength=len(n_before))
        before = np.cumsum(n_before)[np.searchsorted(in_order, first)] / len(self._events)
        return Arrivals(n_events, first, before, launch)

    def _select(self, part: pd.DataFrame, start: int) -> pa.RecordBatch:
        """Return what DuckDB gets of some events, of which ``start`` is the first."""
        request = self._request
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
            keys = read_keys(part[user], self._kind) if user in part else pa.nulls(len(part))
            columns["owner"] = keys
        return pa.RecordBatch.from_pydict(columns)

    def _read(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Yield the rows for DuckDB: a catalogue, with negative row numbers, and events."""
        request, head = self._request, self._read_head()
        if len(head):  # by which it is judged what would give negatives away
            owners = None if request.user is None else number_ids(head, request.user)[0]
            warn_of_leaks(head, request, number_ids(head, request.item)[0], owners)
        if self._listed is not None:
            batch = self._select(self._listed, -len(self._listed))
            # Not safe: Arrow takes no integer beyond 2**53 for a float, also where it is one.
            yield from pa.Table.from_batches([batch]).cast(schema, safe=False).to_batches()
        changing = request.item_columns if request.time else []
        missing = dict.fromkeys(self._needed, 0)
        parts = self._events.parts([*dict.fromkeys([*missing, *changing])])
        for start, part in show_progress(parts, "reading events", len(self._events)):
            for name in missing:
                missing[name] += int(missing_rows(part[name]).sum())
            if not any(missing.values()):
                yield self._select(part, start)
        for name, number in missing.items():
            if number and name in request.keys:
                raise missing_ids(name, number)
            if number:
                raise missing_times(f"events[{name!r}]", number)

    def _read_head(self) -> pd.DataFrame:
        """Return the first rows that lack nothing."""
        head = next(part for _, part in self._events[:CHECKED_ROWS].parts())
        return head[~np.any([missing_rows(head[name]) for name in self._needed], axis=0)]


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
    both = pa.concat_tables([events.select(following), items]).combine_chunks().take(sources)
    names = events.column_names
    columns = [both[n] if n in following else events[n].take(rows) for n in names]
    return pa.table(columns, names=names)


def _arrow(rows: pd.DataFrame) -> pa.Table:
    arrays = [pa.chunked_array(pa.array(rows[name].array)) for name in rows.columns]
    return pa.table(arrays, names=list(rows.columns))
