"""Sampled negatives of a scan: DuckDB brings each item's and each user's events together."""

from __future__ import annotations

import errno
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.utils import check_random_state

from sklearn_din._progress import Progress
from sklearn_din._validation import check_frame, missing_rows, plain_values
from sklearn_din.features.store import create_store
from sklearn_din.logs.item_columns import warn_of_misplaced
from sklearn_din.logs.other_items import OwnItems, nothing_to_draw
from sklearn_din.logs.sql import SORTS_AT_ONCE, changes, key_kind, read_keys
from sklearn_din.logs.windows import WindowDtype
from sklearn_din.tables.parquet_files import ParquetFiles, find_files
from sklearn_din.tables.scan import ParquetScan, Scan
from sklearn_din.tables.sorting import plain_integers, sort_rows
from sklearn_din.tables.table import arrow_of_column

CHECKED_ROWS = 100_000  # of the first part: which columns are the item's
SHARE_OF_WRITTEN = 16  # what is written at once takes one sixteenth of the budget
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

Draws = tuple[np.ndarray, np.ndarray]  # rows, and the items drawn for each


@dataclass(frozen=True)
class NegativesRequest:
    """The checked parameters of sample_negatives.

    Parameters
    ----------
    item : str
        Item column.
    item_columns : list of str
        Columns that describe the item.
    n_negatives : int
        Negatives per event.
    user : str or None
        User column.
    strategy : {"uniform", "popularity"}
        How items are drawn.
    """

    item: str
    item_columns: list[str]
    n_negatives: int
    user: str | None
    strategy: str

    @property
    def following(self) -> list[str]:
        """Columns whose values a negative takes from its own item."""
        return [self.item, *self.item_columns]


def sample_negatives_by_sql(
    events: Scan,
    request: NegativesRequest,
    time: str | None,
    random_state: int | np.random.RandomState | None,
) -> tuple[ParquetScan, np.ndarray]:
    """Follow each event of a scan with negatives, as :func:`sample_negatives` does in memory.

    Sorted by item, the events are numbered: that is the catalogue, which is in memory, with the
    item columns of each item's last row. Sorted by user and row, each user's events stand together,
    and the items that the user does not have are drawn as in memory. With a user column the draws
    depend on the seed and the rows alone, whatever ``memory`` is.

    Parameters
    ----------
    events : Scan
        What users chose.
    request : NegativesRequest
        What to draw.
    time : str or None
        Must be None.
    random_state : int, RandomState instance or None
        Seed of the draw.

    Returns
    -------
    impressions : ParquetScan
        Over a file that is removed with it.
    y : ndarray of int8
        1 for events and 0 for negatives.
    """
    _check(events, request, time)
    rng = check_random_state(random_state)
    n_negatives = request.n_negatives
    with create_store(events.cache_dir, "negatives", memory=events.memory) as workshop:
        catalogue = _Catalogue(events, request, workshop.folder)
        draws = workshop.allocate("draws", (len(events), n_negatives), np.int32)
        if request.user is None:
            pieces = catalogue.draw_others(rng)
        else:
            pieces = catalogue.draw_by_user(request.user, rng)
        for rows, drawn in pieces:
            draws[rows] = drawn
        path = workshop.folder / "impressions.parquet"
        _write(path, events, catalogue.read_items(), draws, request)
        owned = workshop.folder.parent / f"negatives-{uuid.uuid4().hex}.parquet"
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
    y = np.zeros((len(events), 1 + n_negatives), dtype=np.int8)
    y[:, 0] = 1
    return impressions, y.ravel()


def _check(events: Scan, request: NegativesRequest, time: str | None) -> None:
    owner = [] if request.user is None else [request.user]
    check_frame(pd.DataFrame(columns=events.columns), [*request.following, *owner], name="events")
    if time is not None:
        raise ValueError(
            f"sample_negatives must have time=None where events are a scan, got {time!r}. Leave "
            "columns that change in time out of item_columns, and join them afterwards."
        )
    if len(events) == 0:
        raise ValueError("events must have at least one row, got none.")
    histories = [name for name, kind in events.dtypes.items() if isinstance(kind, WindowDtype)]
    if histories:
        raise ValueError(
            f"events must be without history columns, got {histories}. Call sample_negatives "
            "first, and attach_history to what it gives."
        )


class _Catalogue:
    """The items of a scan by number, in the order of a sort, and draws of them.

    Parameters
    ----------
    events : Scan
        What users chose.
    request : NegativesRequest
        What to draw.
    folder : Path
        Where sorting may write.
    """

    def __init__(self, events: Scan, request: NegativesRequest, folder: Path) -> None:
        self._events, self._request, self._folder = events, request, folder
        self._memory = events.memory // SORTS_AT_ONCE
        self._counts: list[np.ndarray] = []
        self._last: list[np.ndarray] = []

    def draw_others(self, rng: np.random.RandomState) -> Iterator[Draws]:
        """Yield, in the order of rows, any items but the event's own."""
        numbered = pa.schema([("row", pa.int64()), ("code", pa.int64())])
        own: OwnItems | None = None
        for batch in self._sorted(self._numbered(numbered), numbered):
            if own is None:
                weights = self._weights()
                every = np.arange(len(weights))
                own = OwnItems(every, every, weights)
                if (own.free == 0).any():
                    row = int(batch.column("row")[0].as_py())
                    raise nothing_to_draw(self._value(row, self._request.item), None)
            rows, codes = (batch.column(name).to_numpy() for name in numbered.names)
            yield rows, own.draw_others(codes, self._request.n_negatives, rng)

    def draw_by_user(self, user: str, rng: np.random.RandomState) -> Iterator[Draws]:
        """Yield, user by user, items that the user does not have."""
        kind = key_kind(
            pd.Series([], dtype=self._events.all_dtypes[user]), name=f"events[{user!r}]"
        )
        owner = pa.field("owner", pa.large_string() if kind == "text" else pa.int64())
        numbered = pa.schema([owner, ("row", pa.int64()), ("code", pa.int64())])
        weights: np.ndarray | None = None
        for owners, rows, codes in self._whole_owners(self._numbered(numbered, kind), numbered):
            weights = self._weights() if weights is None else weights
            own = OwnItems(owners, codes, weights)
            nothing_left = np.flatnonzero(own.free == 0)
            if len(nothing_left):
                row = int(rows[np.argmax(owners == nothing_left[0])])
                raise nothing_to_draw(self._value(row, user), user)
            yield rows, own.draw_others(owners, self._request.n_negatives, rng)

    def read_items(self) -> pa.Table:
        """Return the columns of each item as they are in its last row, in the order of numbers."""
        last = np.concatenate(self._last)
        order = np.argsort(last)
        parts = self._events.narrow(self._request.following)[last[order]].parts()
        table = pa.concat_tables([_arrow(part) for _, part in parts])
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        return table.take(pa.array(places))

    def _weights(self) -> np.ndarray:
        """Return how likely each item is drawn; all events have been numbered by then."""
        counts = np.concatenate(self._counts)
        return counts if self._request.strategy == "popularity" else np.ones_like(counts)

    def _value(self, row: int, name: str) -> object:
        return self._events[row : row + 1][name].tolist()[0]

    def _sorted(
        self, batches: Iterator[pa.RecordBatch], schema: pa.Schema
    ) -> Iterator[pa.RecordBatch]:
        return sort_rows(batches, schema, memory=self._memory, folder=self._folder)

    def _numbered(self, numbered: pa.Schema, kind: str | None = None) -> Iterator[pa.RecordBatch]:
        """Yield owner, row and number of the item of all events; count the items meanwhile."""
        item, names = self._request.item, numbered.names
        empty = _sortable(pd.Series([], dtype=self._events.all_dtypes[item], name=item))
        owner = [numbered.field("owner")] if "owner" in names else []
        schema = pa.schema([("item", empty.type), ("row", pa.int64()), *owner])
        n_items, previous = 0, None
        for batch in self._sorted(self._read(schema, kind), schema):
            items, rows = batch.column("item"), batch.column("row").to_numpy()
            is_new = changes([items], previous)
            codes = n_items - 1 + np.cumsum(is_new)
            first = int(codes[0])
            counts = np.bincount(codes - first)
            # Rows ascend within an item: its last place in the batch has its last row.
            last = rows[np.append(np.flatnonzero(np.diff(codes)), len(codes) - 1)]
            if not is_new[0]:
                self._counts[-1][-1] += counts[0]
                self._last[-1][-1] = last[0]
                counts, last = counts[1:], last[1:]
            if len(counts):
                self._counts.append(counts)
                self._last.append(np.array(last))
            n_items, previous = int(codes[-1]) + 1, (items[-1],)
            columns = {"row": batch.column("row"), "code": pa.array(codes)}
            if owner:
                columns["owner"] = batch.column("owner")
            yield pa.RecordBatch.from_arrays([columns[name] for name in names], schema=numbered)

    def _read(self, schema: pa.Schema, kind: str | None) -> Iterator[pa.RecordBatch]:
        """Yield items and owners of all events; missing ones are counted over all parts."""
        request = self._request
        keys = [request.item, *([] if request.user is None else [request.user])]
        missing = dict.fromkeys(keys, 0)
        with Progress("reading events", len(self._events)) as progress:
            for start, part in self._events.parts():
                if start == 0:
                    _warn(part, request.item, request.item_columns, request.user)
                for name in missing:
                    missing[name] += int(missing_rows(part[name]).sum())
                if not any(missing.values()):
                    arrays = [_sortable(part[request.item])]
                    arrays.append(pa.array(np.arange(start, start + len(part))))
                    if request.user is not None:
                        arrays.append(read_keys(part[request.user], kind))
                    yield pa.RecordBatch.from_arrays(arrays, schema=schema)
                progress.update(len(part))
        for name, number in missing.items():
            if number:
                raise ValueError(
                    f"events[{name!r}] must not be missing, got {number} rows without. Drop those "
                    "rows."
                )

    def _whole_owners(
        self, batches: Iterator[pa.RecordBatch], schema: pa.Schema
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield owners from 0, rows and items, so that each owner's events come at once."""
        n_owners, previous = 0, None
        pending: list[tuple[np.ndarray, ...]] = []
        for batch in self._sorted(batches, schema):
            keys = batch.column("owner")
            owners = n_owners - 1 + np.cumsum(changes([keys], previous))
            n_owners, previous = int(owners[-1]) + 1, (keys[-1],)
            arrays = (owners, batch.column("row").to_numpy(), batch.column("code").to_numpy())
            begins_last = int(np.searchsorted(owners, owners[-1]))
            if begins_last or (pending and pending[-1][0][-1] != owners[0]):
                pending.append(tuple(array[:begins_last] for array in arrays))
                yield _joined(pending)
                pending = []
            pending.append(tuple(array[begins_last:] for array in arrays))
        yield _joined(pending)


def _joined(pieces: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    owners, rows, codes = (np.concatenate(arrays) for arrays in zip(*pieces, strict=True))
    return owners - owners[0], rows, codes


def _sortable(column: pd.Series) -> pa.Array:
    """Return items as an Arrow array that DuckDB can sort: numbers and times as integers."""
    array = arrow_of_column(column)
    if pa.types.is_nested(array.type):
        raise ValueError(f"events[{column.name!r}] must hold ids, got {column.dtype}.")
    return plain_integers(array)


def _write(
    path: Path, events: Scan, items: pa.Table, draws: np.ndarray, request: NegativesRequest
) -> None:
    """Write the impressions: each event, then its negatives."""
    writer = None
    n_rows = len(events) * (1 + request.n_negatives)
    try:
        with Progress("writing impressions", n_rows) as progress:
            for start, part in events.parts():
                table = _arrow(part)
                per_event = max(table.nbytes / max(len(table), 1), 1.0) * (1 + request.n_negatives)
                size = max(int(events.memory / SHARE_OF_WRITTEN / per_event), 1)
                for first in range(0, len(table), size):
                    piece = table.slice(first, size)
                    drawn = draws[start + first : start + first + len(piece)]
                    shown = _impressions(piece, items, drawn, request.following)
                    writer = writer or pq.ParquetWriter(path, shown.schema)
                    writer.write_table(shown)
                    progress.update(len(shown))
        if writer is not None:
            writer.close()
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise OSError(
            error.errno,
            f"the disk of {path.parent.parent} is full. What was written there is removed. Make "
            "room, or give scan_parquet(cache_dir=...) a folder on another disk",
        ) from error


def _impressions(
    events: pa.Table, catalogue: pa.Table, drawn: np.ndarray, following: Sequence[str]
) -> pa.Table:
    """Return each event followed by its negatives, which have the columns of their own item."""
    n_events, n_negatives = drawn.shape
    places = np.arange(n_events)
    rows = pa.array(np.repeat(places, 1 + n_negatives))
    negatives = n_events + np.arange(drawn.size).reshape(drawn.shape)
    sources = pa.array(np.column_stack([places, negatives]).ravel())
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


def _warn(part: pd.DataFrame, item: str, item_columns: Sequence[str], user: str | None) -> None:
    """Judge by the first rows which columns are the item's and which are the user's."""
    head = part.iloc[:CHECKED_ROWS]
    keys = [item] if user is None else [item, user]
    head = head[~np.any([missing_rows(head[key]) for key in keys], axis=0)]
    if len(head) == 0:
        return
    warn_of_misplaced(
        head,
        item=item,
        items=_factorized(head[item])[0].astype(np.int64),
        item_columns=item_columns,
        user=user,
        owners=None if user is None else _factorized(head[user])[0].astype(np.int64),
    )


def _factorized(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes of a column of ids, and its values."""
    try:
        codes, values = pd.factorize(plain_values(column))
    except TypeError as error:  # lists: not hashable
        raise ValueError(f"events[{column.name!r}] must hold ids, got {column.dtype}.") from error
    return codes, np.asarray(values)
