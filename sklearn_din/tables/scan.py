"""Scans: tables that are read part by part, and scan_parquet, which makes one of Parquet files."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api.extensions import ExtensionDtype

from sklearn_din._validation import (
    check_frame,
    check_name,
    check_names,
    missing_rows,
    plain_values,
)
from sklearn_din._whole_files import make_cache_folder
from sklearn_din.tables.parquet_files import ParquetFiles, find_files

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
SHARE_OF_GROUP = 2  # a row group takes at most one half of the budget,
SHARE_OF_PART = 16  # and a part one sixteenth: the rest is for what is computed of it
MOST_ROWS = 131_072  # of a part, however narrow its rows are


class Scan(ABC):
    """A table that is read part by part: sized and sliceable, as splitters and searches need it.

    ``scan[rows]``, with a slice, an index array or a mask, is a view by row number;
    ``scan["name"]`` one column in memory; ``scan[["a", "b"]]`` a view of some columns.

    Parameters
    ----------
    rows : range or ndarray of int64
        Row numbers of the whole table that this view has, in its order.
    columns : sequence of str
        Its columns, without the target.
    target : str or None
        Column that ``target_`` reads.
    memory : int
        Bytes that reading may take.
    cache_dir : Path or None
        Where encoders keep what they made of the rows.
    """

    def __init__(
        self,
        rows: range | np.ndarray,
        columns: Sequence[str],
        *,
        target: str | None,
        memory: int,
        cache_dir: Path | None,
    ) -> None:
        self._rows, self.columns = rows, list(columns)
        self._target, self.memory, self.cache_dir = target, memory, cache_dir

    @abstractmethod
    def parts(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, pd.DataFrame]]:
        """Yield the rows in their order: each part's first position in this view, and its rows."""

    @abstractmethod
    def _source(self) -> object:
        """Return what tells the source from another one, in values that JSON has."""

    @abstractmethod
    def _dtype(self, name: str) -> ExtensionDtype | np.dtype:
        """Return the dtype that a column, or the target, has in the parts."""

    @abstractmethod
    def _view(self, rows: range | np.ndarray, columns: Sequence[str]) -> Self:
        """Return the same table with other rows and columns."""

    def fingerprint(self) -> str:
        """Return a digest of source, rows and columns: equal where the scan reads the same."""
        facts = [self._source(), self.columns, self._target]
        digest = hashlib.sha256(json.dumps(facts, default=str).encode())
        rows = self._rows
        digest.update(repr(rows).encode() if isinstance(rows, range) else rows.tobytes())
        return digest.hexdigest()

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self), len(self.columns)

    @property
    def dtypes(self) -> pd.Series:
        """The dtype that each column has in the parts."""
        return pd.Series([self._dtype(n) for n in self.columns], index=self.columns, dtype=object)

    @property
    def target(self) -> str | None:
        """Name of the column that ``target_`` reads."""
        return self._target

    @property
    def all_dtypes(self) -> dict[str, ExtensionDtype | np.dtype]:
        """The dtype of all that ``parts`` can read: the columns, and the target last."""
        return {name: self._dtype(name) for name in self._readable}

    @property
    def target_(self) -> np.ndarray:
        """The target of each row, in memory."""
        if self._target is None:
            raise AttributeError(
                "this scan has no target_: name the column that is to be predicted in "
                "scan_parquet(..., target=...)."
            )
        parts, n_missing = [], 0
        for _, part in self.parts([self._target]):
            n_missing += int(missing_rows(part[self._target]).sum())
            parts.append(plain_values(part[self._target]))
        if n_missing:
            raise ValueError(
                f"the target {self._target!r} must not be missing, got {n_missing} missing "
                "values. Leave those rows out: scan[mask]."
            )
        return np.concatenate(parts) if parts else plain_values(self._column(self._target))

    def in_file_order(self) -> tuple[Self, np.ndarray | None]:
        """Return the same rows in the order of the table, and where each row of this view is in it.

        A view in another order reads row groups many times; this one reads each once. The places
        are None where the rows are in that order already.
        """
        if is_ascending(self._rows):
            return self, None
        rows = np.asarray(self._rows)
        order = np.argsort(rows, kind="stable")
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        return self._view(rows[order], self.columns), places

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            check_frame(pd.DataFrame(columns=self._readable), [key], name="the scan")
            return self._column(key)
        if isinstance(key, list) and key and all(isinstance(name, str) for name in key):
            check_frame(pd.DataFrame(columns=self.columns), key, name="the scan")
            return self._view(self._rows, check_names(key, name="columns"))
        return self._view(choose_rows(self._rows, key), self.columns)

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def narrow(self, columns: Sequence[str]) -> Self:
        """Return the same rows with some of the columns; the target may be among them."""
        return self._view(self._rows, columns)

    @property
    def _readable(self) -> list[str]:
        target = [] if self._target is None else [self._target]
        return list(dict.fromkeys([*self.columns, *target]))

    def _checked_names(self, columns: Sequence[str] | None) -> list[str]:
        """Return the columns to read, checked; all but the target where none are named."""
        names = self.columns if columns is None else list(columns)
        check_frame(pd.DataFrame(columns=self._readable), names, name="the scan")
        return names

    def _description(self, n_rows: int) -> tuple[str, str]:
        """Return how scans show their rows, columns and target, and their first columns."""
        of = "" if len(self) == n_rows else f" of {n_rows}"
        target = "" if self._target is None else f", target {self._target!r}"
        names = ", ".join(self.columns[:8]) + (", ..." if len(self.columns) > 8 else "")
        return f"{len(self)}{of} rows x {len(self.columns)} columns{target}", names

    def _column(self, name: str) -> pd.Series:
        parts = [part[name] for _, part in self.parts([name])]
        return pd.concat(parts) if parts else pd.Series([], dtype=self._dtype(name), name=name)


class ParquetScan(Scan):
    """A table in Parquet files, or some of its rows: sized and sliceable, read when it is used.

    Made by :func:`scan_parquet`. It holds paths, row numbers and names; rows are read from the
    files each time they are wanted, one row group at a time. ``scan[rows]``, with a slice, an
    index array or a mask, is a view by row number, which is what scikit-learn's splitters,
    searches and ``train_test_split`` need. ``scan["name"]`` is one column in memory,
    ``scan[["a", "b"]]`` a view of some columns.

    Attributes
    ----------
    columns : list of str
        Columns of the table, without the target.
    dtypes : Series
        The dtype that each column has in the parts: an Arrow dtype.
    shape : tuple of int
        Rows and columns.
    memory : int
        Bytes that reading may take.
    cache_dir : Path or None
        Where encoders keep what they made of the rows.

    Examples
    --------
    >>> folder = Path(tempfile.mkdtemp())
    >>> clicks = pd.DataFrame({"item": ["hat", "sock", "hat"], "click": [1, 0, 1]})
    >>> clicks.to_parquet(folder / "clicks.parquet")
    >>> X = scan_parquet(folder, target="click")
    >>> X.shape, X.columns, X.target_
    ((3, 1), ['item'], array([1, 0, 1]))
    >>> X[1:]["item"].tolist()
    ['sock', 'hat']
    """

    def __init__(
        self,
        files: ParquetFiles,
        rows: range | np.ndarray,
        columns: Sequence[str],
        *,
        target: str | None,
        memory: int,
        cache_dir: Path | None,
    ) -> None:
        super().__init__(rows, columns, target=target, memory=memory, cache_dir=cache_dir)
        self._files = files

    def parts(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, pd.DataFrame]]:
        """Read the rows in their order, as frames that are small beside the budget.

        Row groups are read one at a time. A view whose rows stand in another order than the
        files reads each row group once per part.

        Parameters
        ----------
        columns : sequence of str, default=None
            Columns to read; the target may be among them. None reads all but the target.

        Yields
        ------
        start : int
            Position of the part's first row in this view.
        part : DataFrame
            Its rows, of Arrow dtypes, text as text. Its index goes on from part to part.

        Raises
        ------
        ValueError
            If a row group needs more than half of ``memory``, or cannot be read.
        FileNotFoundError, OSError
            If a file is gone or was changed since the scan was made.
        """
        names = self._checked_names(columns)
        self._check_groups(names)
        size = self._part_rows(names)
        if is_ascending(self._rows):
            parts = self._in_order(self._rows, names, size)
        else:
            parts = self._in_any_order(names, size)
        for start, table in parts:
            yield start, frame_of_arrow(table, start)

    def __repr__(self) -> str:
        n_files, n_groups = len(self._files.files), len(self._files.starts) - 1
        shape, names = self._description(self._files.n_rows)
        return f"ParquetScan({shape}; {n_files} files, {n_groups} row groups; {names})"

    def _source(self) -> object:
        return self._files.fingerprint()

    def _dtype(self, name: str) -> pd.ArrowDtype:
        return pd.ArrowDtype(self._files.schema.field(name).type)

    def _view(self, rows: range | np.ndarray, columns: Sequence[str]) -> ParquetScan:
        return ParquetScan(
            self._files,
            rows,
            columns,
            target=self._target,
            memory=self.memory,
            cache_dir=self.cache_dir,
        )

    def _check_groups(self, columns: Sequence[str]) -> None:
        sizes = self._files.bytes_of_groups(columns)
        most = self.memory // SHARE_OF_GROUP
        if not len(sizes) or sizes.max() <= most:
            return
        group = int(sizes.argmax())
        rows = int(self._files.starts[group + 1] - self._files.starts[group])
        fitting = max(int(rows * most / sizes[group] * 0.8), 1)
        raise ValueError(
            f"a row group must fit into half of memory ({most / 1e6:,.6g} MB of "
            f"{self.memory / 1e6:,.6g} MB), got {self._files.name_of_group(group)} with {rows:,} "
            f"rows of {sizes[group] / 1e6:,.6g} MB. Write the file with smaller row groups, "
            f"to_parquet(..., row_group_size={fitting}), read fewer columns, or give "
            "scan_parquet(memory=...) more."
        )

    def _part_rows(self, columns: Sequence[str]) -> int:
        n_bytes = self._files.bytes_of_groups(columns).sum()
        per_row = max(n_bytes / max(self._files.n_rows, 1), 1.0)
        return int(np.clip(self.memory / SHARE_OF_PART / per_row, 1, MOST_ROWS))

    def _in_order(
        self, rows: range | np.ndarray, columns: Sequence[str], size: int
    ) -> Iterator[tuple[int, pa.Table]]:
        """Yield rows whose numbers ascend: those that each batch of a row group has of them."""
        edges = _positions(rows, self._files.starts)
        groups = np.flatnonzero(edges[1:] > edges[:-1]).tolist()
        for number, batch in self._files.read(groups, columns, n_rows=size):
            start, stop = _positions(rows, np.array([number, number + len(batch)])).tolist()
            if stop > start:
                yield start, _take(batch, rows[start:stop], number)
            if stop == len(rows):
                return

    def _in_any_order(self, columns: Sequence[str], size: int) -> Iterator[tuple[int, pa.Table]]:
        """Yield rows in any order: those of one part are read in order, then put in theirs.

        A part is as large as the budget allows, since each may have to read every row group.
        """
        size = size * SHARE_OF_PART // 4 if size < MOST_ROWS else size
        for start in range(0, len(self), size):
            rows = np.asarray(self._rows[start : start + size])
            order = np.argsort(rows, kind="stable")
            pieces = [piece for _, piece in self._in_order(rows[order], columns, size)]
            places = np.empty_like(order)
            places[order] = np.arange(len(order))
            yield start, pa.concat_tables(pieces).take(pa.array(places))


def scan_parquet(
    source: Any,
    *,
    target: str | None = None,
    columns: Sequence[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    memory: int | str = "1GB",
) -> ParquetScan:
    """Open a table in Parquet files that is larger than memory.

    Only the footers are read. What comes back takes the place of a DataFrame: it can be split,
    searched over and given to a Pipeline of :class:`HistorySequenceEncoder` and
    :class:`DINClassifier`, which read it part by part: ``model.fit(X, X.target_)``.

    Parameters
    ----------
    source : path, pyarrow.dataset.Dataset or polars.LazyFrame
        A Parquet file, a folder of such files, or a glob such as ``"clicks/2024-*.parquet"``. In
        a folder, files that end in .parquet, .pq or .parq are read in the order of their paths,
        and folders named ``key=value`` (hive partitions) give columns. A LazyFrame is first
        written to a temporary file in ``cache_dir``, which is removed with the scan.
    target : str, default=None
        Column to predict. It is no feature: ``scan.target_`` has it.
    columns : sequence of str, default=None
        Columns to read. None takes all but the target, and the index of a pandas frame.
    cache_dir : path, default=None
        Folder in which encoders keep the encoded rows, so that a second fit on the same files
        with the same encoder reads them instead, and in which processes that train one model
        (torchrun) share the encoding. It grows until you empty it. None encodes into a temporary
        folder, which is removed with what was encoded.
    memory : int or str, default="1GB"
        Bytes that reading may take, as a number or such as "500MB" or "2GiB". A row group must
        fit into half of it. Larger parts are a little faster.

    Returns
    -------
    ParquetScan

    Raises
    ------
    FileNotFoundError
        If there is no file.
    ValueError
        If a file is no Parquet file, columns differ between files, a column is not there, or a
        row group does not fit into half of ``memory``.

    Examples
    --------
    >>> folder = Path(tempfile.mkdtemp())
    >>> clicks = pd.DataFrame({"item": ["hat", "sock"], "click": [1, 0]})
    >>> clicks.to_parquet(folder / "monday.parquet")
    >>> clicks.to_parquet(folder / "tuesday.parquet")
    >>> scan_parquet(folder, target="click")
    ParquetScan(4 rows x 1 columns, target 'click'; 2 files, 2 row groups; item)
    """
    budget = read_memory(memory)
    folder = None if cache_dir is None else Path(cache_dir).absolute()
    owned = None
    if type(source).__module__.split(".")[0] == "polars":
        owned = _write_lazy(source, folder)
        source = owned
    filesystem, files = find_files(source)
    if target is not None:
        check_name(target, name="target")
    names = None if columns is None else check_names(columns, name="columns")
    needed = names if names is None or target is None else [*names, target]
    table = ParquetFiles(filesystem, files, columns=needed, owned=owned)
    if names is None:
        names = [name for name in table.schema.names if name not in table.index_columns]
        if target is not None:
            check_frame(pd.DataFrame(columns=table.schema.names), [target], name="source")
    names = [name for name in names if name != target]
    scan = ParquetScan(
        table, range(table.n_rows), names, target=target, memory=budget, cache_dir=folder
    )
    scan._check_groups(names)
    return scan


def read_memory(memory: int | str) -> int:
    """Return bytes as a number, of a number or such as "500MB"."""
    parsed = re.fullmatch(r"\s*([\d_]+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(memory))
    unit = parsed and parsed[2].upper()
    if isinstance(memory, bool) or not parsed or unit not in UNITS or float(parsed[1]) <= 0:
        raise ValueError(
            f"memory must be bytes as a positive number or such as '500MB' or '2GiB', got "
            f"{memory!r}."
        )
    return max(int(float(parsed[1]) * UNITS[unit]), 1)


def _write_lazy(lazy: Any, folder: Path | None) -> Path:
    """Write a polars LazyFrame into a file; return its path."""
    if type(lazy).__name__ != "LazyFrame":
        raise TypeError(
            f"source must be a polars LazyFrame, got a {type(lazy).__name__}. A frame in memory "
            "needs no scan: give it to fit as it is."
        )
    if folder is not None:
        make_cache_folder(folder, cache_dir=folder)
    path = Path(folder or tempfile.gettempdir()) / f"lazy-{uuid.uuid4().hex}.parquet"
    try:
        lazy.sink_parquet(path, row_group_size=MOST_ROWS)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def choose_rows(rows: range | np.ndarray, key: Any) -> range | np.ndarray:
    """Return the row numbers of some rows of a view."""
    if isinstance(key, tuple) and len(key) == 2 and key[1] is Ellipsis:  # as scikit-learn asks
        key = key[0]
    if isinstance(key, slice):
        return rows[key]
    picked_rows = np.empty(()) if isinstance(key, tuple) else np.asarray(key)
    if picked_rows.ndim != 1 or (picked_rows.size and picked_rows.dtype.kind not in "iub"):
        raise TypeError(
            "rows of a scan are chosen by a slice, a 1-D index array or a 1-D bool mask, and "
            f"columns by a name or a list of names, got {key!r:.80}. For one row use "
            "scan[i : i + 1]."
        )
    if picked_rows.dtype == bool and picked_rows.size:
        if len(picked_rows) != len(rows):
            raise IndexError(f"a mask must have {len(rows)} values, got {len(picked_rows)}.")
        picked_rows = np.flatnonzero(picked_rows)
    picked_rows = picked_rows.astype(np.int64)
    low, high = picked_rows.min(initial=0), picked_rows.max(initial=-1)
    if low < -len(rows) or high >= len(rows):
        wrong = low if low < -len(rows) else high
        raise IndexError(f"row {wrong} is not there: the scan has {len(rows)} rows.")
    picked_rows = np.where(picked_rows < 0, picked_rows + len(rows), picked_rows)
    numbers = rows.start + rows.step * picked_rows if isinstance(rows, range) else rows[picked_rows]
    steps = np.diff(numbers)
    if len(numbers) and (steps == 1).all():
        return range(int(numbers[0]), int(numbers[-1]) + 1)  # consecutive rows are read by slices
    return numbers


def is_ascending(rows: range | np.ndarray) -> bool:
    """Return whether row numbers stand in the order of the table; they may repeat."""
    if isinstance(rows, range):
        return rows.step > 0 or len(rows) < 2
    return bool((rows[1:] >= rows[:-1]).all())


def _positions(rows: range | np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return how many ascending row numbers are smaller than each of some numbers."""
    if isinstance(rows, range):
        if len(rows) < 2:  # whatever the step
            rows = range(rows.start, rows.start + len(rows))
        return np.clip(-((rows.start - numbers) // rows.step), 0, len(rows))
    return np.searchsorted(rows, numbers)


def _take(batch: pa.Table, rows: range | np.ndarray, first: int) -> pa.Table:
    """Return rows of a batch by their numbers in the table, of which ``first`` is the batch's."""
    if isinstance(rows, range) and rows.step == 1:
        return batch.slice(rows.start - first, len(rows))
    return batch.take(pa.array(np.asarray(rows) - first))


def frame_of_arrow(table: pa.Table, start: int) -> pd.DataFrame:
    """Return an Arrow table as a frame of Arrow dtypes, whose index begins at ``start``."""
    index = pd.RangeIndex(start, start + len(table))
    columns = {
        name: pd.Series(pd.arrays.ArrowExtensionArray(table.column(name)), index=index)
        for name in table.column_names
    }
    return pd.DataFrame(columns, index=index, columns=table.column_names)
