"""scan_parquet: a table in Parquet files that is read part by part and never fits memory."""

from __future__ import annotations

import os
import re
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from sklearn_din._validation import check_frame, check_name, check_names
from sklearn_din._whole_files import make_cache_folder
from sklearn_din.logs.parquet_files import ParquetFiles, find_files
from sklearn_din.logs.scan_views import Scan

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
SHARE_OF_GROUP = 2  # a row group takes at most one half of the budget,
SHARE_OF_PART = 16  # and a part one sixteenth: the rest is for what is computed of it
MOST_ROWS = 131_072  # of a part, however narrow its rows are


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
        names = self._asked(columns)
        self._check_groups(names)
        size = self._part_rows(names)
        if isinstance(self._rows, range) and self._rows.step == 1:
            pieces = self._in_sequence(names, size)
        else:
            pieces = self._by_row_numbers(names, size)
        for start, table in pieces:
            yield start, _frame(table, start, self._files.schema)

    def __repr__(self) -> str:
        n_files, n_groups = len(self._files.files), len(self._files.starts) - 1
        shape, names = self._described(self._files.n_rows)
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

    def _in_sequence(self, columns: Sequence[str], size: int) -> Iterator[tuple[int, pa.Table]]:
        """Consecutive rows: slices of one row group after the other."""
        rows, starts = self._rows, self._files.starts
        first, last = (rows.start, rows.stop) if isinstance(rows, range) else (0, 0)
        groups = np.flatnonzero((starts[:-1] < last) & (starts[1:] > first)).tolist()
        own = [group for group in groups if self._is_own(max(int(starts[group]) - first, 0))]
        for group, table in self._files.read(own, columns):
            begin, end = max(first, starts[group]), min(last, starts[group + 1])
            for at in range(int(begin), int(end), size):
                table_part = table.slice(at - int(starts[group]), min(size, int(end) - at))
                yield at - first, table_part
            del table

    def _by_row_numbers(self, columns: Sequence[str], size: int) -> Iterator[tuple[int, pa.Table]]:
        """Rows in any order: those of one part are read row group by row group, then put in order.

        A part is as large as the budget allows, since each may have to read every row group.
        """
        starts = self._files.starts
        size = size * SHARE_OF_PART // 4 if size < MOST_ROWS else size
        for start in filter(self._is_own, range(0, len(self), size)):
            rows = np.asarray(self._rows[start : start + size])
            order = np.argsort(rows, kind="stable")
            ordered = rows[order]
            group_of = np.searchsorted(starts, ordered, side="right") - 1
            pieces = []
            for group, table in self._files.read(np.unique(group_of).tolist(), columns):
                inside = ordered[group_of == group] - starts[group]
                pieces.append(_plain(table.take(pa.array(inside)), self._files.schema))
                del table
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
    budget = _read_memory(memory)
    folder = None if cache_dir is None else Path(cache_dir).absolute()
    owned = None
    if type(source).__module__.split(".")[0] == "polars":
        owned = _sunk(source, folder)
        source = owned
    filesystem, found = find_files(source)
    if target is not None:
        check_name(target, name="target")
    names = None if columns is None else check_names(columns, name="columns")
    wanted = names if names is None or target is None else [*names, target]
    files = ParquetFiles(filesystem, found, columns=wanted, owned=owned)
    if names is None:
        out = files.index_columns
        names = [name for name in files.schema.names if name not in out]
        if target is not None:
            check_frame(pd.DataFrame(columns=files.schema.names), [target], name="source")
    names = [name for name in names if name != target]
    scan = ParquetScan(
        files, range(files.n_rows), names, target=target, memory=budget, cache_dir=folder
    )
    scan._check_groups(names)
    return scan


def _read_memory(memory: int | str) -> int:
    found = re.fullmatch(r"\s*([\d_]+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(memory))
    unit = found and found[2].upper()
    if isinstance(memory, bool) or not found or unit not in UNITS or float(found[1]) <= 0:
        raise ValueError(
            f"memory must be bytes as a positive number or such as '500MB' or '2GiB', got "
            f"{memory!r}."
        )
    return max(int(float(found[1]) * UNITS[unit]), 1)


def _sunk(lazy: Any, folder: Path | None) -> Path:
    """Path of a file into which a polars LazyFrame was written."""
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


def _plain(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Text as text: the codes of a row group hold values of rows that are not wanted."""
    kinds = [schema.field(name).type for name in table.column_names]
    columns = [
        column if column.type == kind else column.cast(kind)
        for column, kind in zip(table.columns, kinds, strict=True)
    ]
    return pa.table(columns, names=table.column_names)


def _frame(table: pa.Table, start: int, schema: pa.Schema) -> pd.DataFrame:
    plain = _plain(table, schema)
    index = pd.RangeIndex(start, start + len(table))
    columns = {
        name: pd.Series(pd.arrays.ArrowExtensionArray(plain.column(name)), index=index)
        for name in plain.column_names
    }
    return pd.DataFrame(columns, index=index, columns=plain.column_names)
