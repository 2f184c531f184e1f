"""scan_parquet: a table in Parquet files that is larger than memory, as a scan."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from sklearn_din._validation import check_columns, check_names
from sklearn_din.large.parquet_files import ParquetFiles, find_files
from sklearn_din.tables.scan import Scan, frame_of_arrow, is_ascending

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
GROUPS_IN_MEMORY = 2  # a row group takes at most one half of the memory allowed,
PARTS_IN_MEMORY = 16  # and a part one sixteenth: the rest is for what is computed from it
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
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
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
        target: str | list[str] | None,
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
        names = self._check_names(columns)
        self._check_groups(names)
        bytes_per_row = self._files.bytes_of_groups(names).sum() / max(self._files.n_rows, 1)
        n_rows = self.memory / PARTS_IN_MEMORY / max(bytes_per_row, 1.0)
        size = int(np.clip(n_rows, 1, MOST_ROWS))
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

    def _check_groups(self, columns: Sequence[str]) -> None:
        sizes = self._files.bytes_of_groups(columns)
        most = self.memory // GROUPS_IN_MEMORY
        if not len(sizes) or sizes.max() <= most:
            return
        group = int(sizes.argmax())
        rows = int(self._files.starts[group + 1] - self._files.starts[group])
        file, position = self._files.groups[group]
        fitting = max(int(rows * most / sizes[group] * 0.8), 1)
        raise ValueError(
            f"a row group must fit into half of memory, {most / 1e6:,.6g} MB, got row group "
            f"{position} of {self._files.files[file].path} with {sizes[group] / 1e6:,.6g} MB. "
            f"Write to_parquet(..., row_group_size={fitting}), read fewer columns, or give "
            "scan_parquet(memory=...) more."
        )

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
        size = size * PARTS_IN_MEMORY // 4 if size < MOST_ROWS else size
        for start in range(0, len(self), size):
            rows = np.asarray(self._rows[start : start + size])
            order = np.argsort(rows, kind="stable")
            pieces = [piece for _, piece in self._in_order(rows[order], columns, size)]
            yield start, pa.concat_tables(pieces).take(pa.array(np.argsort(order)))


def scan_parquet(
    source: Any,
    *,
    target: str | Sequence[str] | None = None,
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
    source : path or pyarrow.dataset.Dataset
        A Parquet file, a folder of such files, or a glob such as ``"clicks/2024-*.parquet"``. In
        a folder, files that end in .parquet, .pq or .parq are read in the order of their paths,
        and folders named ``key=value`` (hive partitions) give columns.
    target : str or list of str, default=None
        Column to predict, or columns of several labels. It is no feature: ``scan.target_`` has it,
        of several labels as a frame.
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
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> clicks = pd.DataFrame({"item": ["hat", "sock"], "click": [1, 0]})
    >>> clicks.to_parquet(folder / "monday.parquet")
    >>> clicks.to_parquet(folder / "tuesday.parquet")
    >>> scan_parquet(folder, target="click")
    ParquetScan(4 rows x 1 columns, target 'click'; 2 files, 2 row groups; item)
    """
    budget = read_memory(memory)
    folder = None if cache_dir is None else Path(cache_dir).absolute()
    filesystem, files = find_files(source)
    targets = [] if target is None else check_names(target, name="target")
    if target is not None and not targets:
        raise ValueError(
            "target must name one column or several, got none. Leave it out where there are no "
            "labels."
        )
    names = None if columns is None else check_names(columns, name="columns")
    needed = names if names is None else list(dict.fromkeys([*names, *targets]))
    table = ParquetFiles(filesystem, files, columns=needed)
    if names is None:
        names = [name for name in table.schema.names if name not in table.index_columns]
        check_columns(table.schema.names, targets, name="source")
    names = [name for name in names if name not in targets]
    single = target if target is None or isinstance(target, str) else targets
    scan = ParquetScan(
        table, range(table.n_rows), names, target=single, memory=budget, cache_dir=folder
    )
    scan._check_groups(names)
    return scan


def read_memory(memory: int | str) -> int:
    """Return bytes as a number, of a number or such as "500MB"."""
    parsed = re.fullmatch(r"\s*([\d_]+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(memory))
    unit = parsed and parsed[2].upper()
    if isinstance(memory, bool) or not parsed or unit not in UNITS or float(parsed[1]) <= 0:
        raise ValueError(
            f"memory must be bytes as a number or such as '500MB' or '2GiB', got {memory!r}."
        )
    return max(int(float(parsed[1]) * UNITS[unit]), 1)


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
