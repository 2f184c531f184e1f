"""sample_negatives of a scan: drawn user by user on disk, written part by part."""

from __future__ import annotations

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
from sklearn_din.logs.item_columns import warn_of_misplaced
from sklearn_din.logs.mapped_arrays import (
    ArrayWriter,
    FilledArray,
    MappedArray,
    OwnedFolder,
    new_folder,
)
from sklearn_din.logs.mapped_log import DistinctValues
from sklearn_din.logs.other_items import OwnItems, nothing_to_draw
from sklearn_din.logs.partitions import Partitions, key_kind, partition_of, read_keys
from sklearn_din.logs.tables import n_partitions
from sklearn_din.logs.windows import WindowDtype
from sklearn_din.tables.parquet_files import ParquetFiles, find_files
from sklearn_din.tables.scan import ParquetScan, Scan

CHECKED_ROWS = 100_000  # of the first part: which columns are the item's
PENDING_ROWS = 1 << 20  # last rows of items that are kept before repeated items are dropped
SHARE_OF_WRITTEN = 16  # what is written at once takes one sixteenth of the budget
SEEDS = 2**31 - 1


@dataclass(frozen=True)
class Wanted:
    """What sample_negatives was asked for, checked.

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


def sample_negatives_by_part(
    events: Scan,
    wanted: Wanted,
    time: str | None,
    random_state: int | np.random.RandomState | None,
) -> tuple[ParquetScan, np.ndarray]:
    """Follow each event of a scan with negatives, as :func:`sample_negatives` does in memory.

    The catalogue is in memory: each item with its ``item_columns``. A user's own items are found
    user by user, in partitions on disk. Each partition, or without ``user`` each part, has its
    own draw, whose seed comes from ``random_state``: one seed gives the same negatives where
    files and ``memory`` are the same.

    Parameters
    ----------
    events : Scan
        What users chose.
    wanted : Wanted
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
    following, user = [wanted.item, *wanted.item_columns], wanted.user
    _check(events, [*following, *([] if user is None else [user])], time)
    rng = check_random_state(random_state)
    parent = events.cache_dir
    with new_folder(parent) as path:
        catalogue = _Catalogue(path, events, wanted.item, wanted.item_columns, user)
        weights = np.ones(catalogue.n_items, dtype=np.int64)
        weights = catalogue.counts if wanted.strategy == "popularity" else weights
        draws: _Draws
        if user is None:
            draws = _DrawsOfOthers(catalogue, weights, wanted.n_negatives, rng)
        else:
            draws = _DrawsByUser(path, events, catalogue, weights, wanted.n_negatives, user, rng)
        written = _write(path, events, catalogue, draws, following, wanted.n_negatives)
        kept = path.parent / f"negatives-{uuid.uuid4().hex}.parquet"
        written.replace(kept)
    OwnedFolder(path, kept=False)  # nobody needs what else is in it
    filesystem, found = find_files(kept)
    files = ParquetFiles(filesystem, found, owned=kept)
    rows = range(files.n_rows)
    impressions = ParquetScan(
        files, rows, events.columns, target=None, memory=events.memory, cache_dir=parent
    )
    y = np.zeros((len(events), 1 + wanted.n_negatives), dtype=np.int8)
    y[:, 0] = 1
    return impressions, y.ravel()


def _check(events: Scan, columns: Sequence[str], time: str | None) -> None:
    check_frame(pd.DataFrame(columns=events.columns), columns, name="events")
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
    """Items by number: how often each occurs, its last row, and the item of each event.

    With a user column the events are laid out by user in the same pass.
    """

    def __init__(
        self, folder: Path, events: Scan, item: str, item_columns: Sequence[str], user: str | None
    ) -> None:
        self._known, self.counts = DistinctValues(), np.zeros(0, dtype=np.int64)
        self._last: list[tuple[np.ndarray, pa.Table]] = []
        self._n_pending = 0
        writer = ArrayWriter(folder, "items.codes", np.dtype(np.int32))
        self.by_user: Partitions | None = None
        kind = None
        if user is not None:
            number = n_partitions(len(events), events.memory)
            self.by_user = Partitions(folder, "events", number)
            kind = key_kind(pd.Series([], dtype=events.all_dtypes[user]), name=f"events[{user!r}]")
        missing = dict.fromkeys([item, *([] if user is None else [user])], 0)
        with Progress("reading events", len(events)) as progress:
            for start, part in events.parts():
                if start == 0:
                    _warn(part, item, item_columns, user)
                for name in missing:
                    missing[name] += int(missing_rows(part[name]).sum())
                if not any(missing.values()):
                    codes = self._coded(part[item])
                    writer.append(codes)
                    self._note_last(codes, part[[item, *item_columns]])
                    if self.by_user is not None and user is not None:
                        keys, _ = read_keys(part[user], kind)
                        named = {f"key {place}": key for place, key in enumerate(keys)}
                        named |= {"row": start + np.arange(len(part)), "item": codes}
                        self.by_user.append(partition_of(keys, self.by_user.n_partitions), named)
                progress.update(len(part))
        _check_missing(missing)
        if self.by_user is not None:
            self.by_user.finish()
        self.n_items = self._known.n_values
        self._compact()
        ((_, self.rows),) = self._last
        self.items = writer.mapped(OwnedFolder(folder, kept=True))

    def _coded(self, column: pd.Series) -> np.ndarray:
        codes, distinct = _factorized(column)
        numbers = self._known.codes(distinct)
        counts = np.bincount(numbers[codes], minlength=self._known.n_values)
        counts[: len(self.counts)] += self.counts
        self.counts = counts
        return numbers[codes]

    def _note_last(self, codes: np.ndarray, rows: pd.DataFrame) -> None:
        """Keep the last row of each item of a part."""
        distinct, places = _last_of_each(codes)
        self._last.append((distinct, _arrow(rows.iloc[places])))
        self._n_pending += len(distinct)
        if self._n_pending > max(PENDING_ROWS, 2 * self._known.n_values):
            self._compact()

    def _compact(self) -> None:
        codes = np.concatenate([one for one, _ in self._last])
        table = pa.concat_tables([one for _, one in self._last])
        distinct, places = _last_of_each(codes)
        self._last = [(distinct, table.take(pa.array(places)))]
        self._n_pending = len(distinct)


def _last_of_each(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct codes, and where each occurs last."""
    distinct, backwards = np.unique(codes[::-1], return_index=True)
    return distinct, len(codes) - 1 - backwards


class _Draws:
    """Negatives of consecutive events, as numbers of items."""

    def of(self, start: int, stop: int) -> np.ndarray:
        raise NotImplementedError


class _DrawsOfOthers(_Draws):
    """Any item but the event's own: drawn when asked for."""

    def __init__(
        self,
        catalogue: _Catalogue,
        weights: np.ndarray,
        n_negatives: int,
        rng: np.random.RandomState,
    ) -> None:
        every = np.arange(catalogue.n_items)
        self._own = OwnItems(every, every, weights)
        if (self._own.free == 0).any():
            raise nothing_to_draw(catalogue.rows.column(0)[0].as_py(), None)
        self._items, self._n_negatives, self._rng = catalogue.items, n_negatives, rng

    def of(self, start: int, stop: int) -> np.ndarray:
        items = self._items.take(slice(start, stop)).astype(np.int64)
        return self._own.draw_others(items, self._n_negatives, self._rng)


class _DrawsByUser(_Draws):
    """No item that the user has: drawn for one partition of users after the other."""

    def __init__(
        self,
        folder: Path,
        events: Scan,
        catalogue: _Catalogue,
        weights: np.ndarray,
        n_negatives: int,
        user: str,
        rng: np.random.RandomState,
    ) -> None:
        self._n_negatives = n_negatives
        n_draws = len(events) * n_negatives
        filled = FilledArray(folder, "draws.codes", np.int32, n_draws)
        rows = catalogue.by_user
        seeds = rng.randint(SEEDS, size=0 if rows is None else rows.n_partitions)
        with Progress("drawing negatives", len(events)) as progress:
            for partition, seed in enumerate(seeds):
                for piece in _pieces(rows, partition):
                    owners = _owner_codes(piece)
                    own = OwnItems(owners, piece["item"].astype(np.int64), weights)
                    nothing_left = np.flatnonzero(own.free == 0)
                    if len(nothing_left):
                        row = int(piece["row"][np.argmax(owners == nothing_left[0])])
                        raise nothing_to_draw(events[row : row + 1][user].tolist()[0], user)
                    drawn = own.draw_others(owners, n_negatives, np.random.RandomState(seed))
                    places = piece["row"][:, None] * n_negatives + np.arange(n_negatives)
                    filled.fill(places.ravel(), drawn.ravel())
                    progress.update(len(owners))
        self._draws: MappedArray = filled.mapped(OwnedFolder(folder, kept=True))

    def of(self, start: int, stop: int) -> np.ndarray:
        wanted = slice(start * self._n_negatives, stop * self._n_negatives)
        return self._draws.take(wanted).reshape(-1, self._n_negatives)


def _pieces(rows: Partitions | None, partition: int) -> Iterator[dict[str, np.ndarray]]:
    """All events of one partition at once, if there are any."""
    if rows is not None and rows.sizes[partition]:
        yield from rows.read(partition, rows.names)


def _owner_codes(piece: dict[str, np.ndarray]) -> np.ndarray:
    owners = pd.factorize(piece["key 0"])[0].astype(np.int64)
    if "key 1" not in piece:
        return owners
    other, distinct = pd.factorize(piece["key 1"])
    return pd.factorize(owners * len(distinct) + other)[0].astype(np.int64)


def _write(
    folder: Path,
    events: Scan,
    catalogue: _Catalogue,
    draws: _Draws,
    following: Sequence[str],
    n_negatives: int,
) -> Path:
    """Write the impressions: each event, then its negatives."""
    path, writer = folder / "impressions.parquet", None
    try:
        with Progress("writing impressions", len(events) * (1 + n_negatives)) as progress:
            for start, part in events.parts():
                table = _arrow(part)
                per_row = max(table.nbytes / max(len(table), 1), 1.0) * (1 + n_negatives)
                size = max(int(events.memory / SHARE_OF_WRITTEN / per_row), 1)
                for first in range(0, len(table), size):
                    piece = table.slice(first, size)
                    at = start + first
                    drawn = draws.of(at, at + len(piece))
                    shown = _impressions(piece, catalogue.rows, drawn, following)
                    writer = writer or pq.ParquetWriter(path, shown.schema)
                    writer.write_table(shown)
                    progress.update(len(shown))
    finally:
        if writer is not None:
            writer.close()
    return path


def _impressions(
    events: pa.Table, catalogue: pa.Table, drawn: np.ndarray, following: Sequence[str]
) -> pa.Table:
    """Each event followed by its negatives, which have the columns of their own item."""
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
    """Codes of a column of ids, and its values."""
    try:
        codes, values = pd.factorize(plain_values(column))
    except TypeError as error:  # lists: not hashable
        raise ValueError(f"events[{column.name!r}] must hold ids, got {column.dtype}.") from error
    return codes, np.asarray(values)


def _check_missing(missing: dict[str, int]) -> None:
    for name, number in missing.items():
        if number:
            raise ValueError(
                f"events[{name!r}] must not be missing, got {number} rows without. Drop those rows."
            )
