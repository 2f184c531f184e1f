"""scan_parquet: a table in Parquet files that is larger than memory, as a scan."""

import glob
import os
import re
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq

from sklearn_din.large.sql import attach_aggregates_by_sql, attach_history_by_sql
from sklearn_din.large.sql_negatives import sample_negatives_by_sql
from sklearn_din.logs.aggregates import attach_so_far
from sklearn_din.logs.attach import attach_past
from sklearn_din.logs.negatives import NegativesRequest, follow_by_negatives
from sklearn_din.utils.arrow import plain_type
from sklearn_din.utils.scan import PARTS_IN_MEMORY, Scan, is_ascending
from sklearn_din.utils.validation import check_columns, check_distinct, check_names
from sklearn_din.utils.whole_files import remove_with

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
GROUPS_IN_MEMORY = 2  # a row group takes at most one half of the memory allowed
MOST_ROWS = 131_072  # of a part, however narrow its rows are
SUFFIXES = (".parquet", ".pq", ".parq")
BYTES_PER_VALUE = 8  # of a number in memory, or of a text's offsets


class ParquetScan(Scan):
    """A table in Parquet files, or some of its rows: sized and sliceable, read on demand.

    Made by :func:`scan_parquet`. It stores paths, row numbers and names, and reads rows from the
    files each time they are needed, one row group at a time. ``scan[rows]``, with a slice, an
    index array or a mask, is a view by row number, as needed by scikit-learn's splitters,
    searches and ``train_test_split``. ``scan["name"]`` is one column in memory, ``scan[["a",
    "b"]]`` a view of some columns.

    Attributes
    ----------
    columns : list of str
        Columns of the table, without the target.
    dtypes : Series
        The dtype of each column when read: an Arrow dtype.
    shape : tuple of int
        Rows and columns.
    memory : int
        Maximum number of bytes for reading.
    cache_dir : Path or None
        Where encoders store encoded rows.

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

    _table: "ParquetFiles"

    def parts(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, pd.DataFrame]]:
        """Read the rows in order, as frames that are small relative to the budget.

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
        bytes_per_row = self._table.bytes_of_groups(names).sum() / max(self._table.n_rows, 1)
        n_rows = self.memory / PARTS_IN_MEMORY / max(bytes_per_row, 1.0)
        size = int(np.clip(n_rows, 1, MOST_ROWS))
        if is_ascending(self._rows):
            parts = self._in_order(self._rows, names, size)
        else:
            parts = self._in_any_order(names, size)
        for start, table in parts:
            frame = table.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)
            yield start, frame.set_axis(pd.RangeIndex(start, start + len(table)), axis=0)

    def __repr__(self) -> str:
        n_files, n_groups = len(self._table.files), len(self._table.starts) - 1
        shape, names = self._description(self._table.n_rows)
        return f"ParquetScan({shape}; {n_files} files, {n_groups} row groups; {names})"

    def _source(self) -> object:
        return self._table.fingerprint()

    def _dtype(self, name: str) -> pd.ArrowDtype:
        return pd.ArrowDtype(self._table.schema.field(name).type)

    def _check_groups(self, columns: Sequence[str]) -> None:
        """Raise ValueError where a row group does not fit into half of the memory."""
        sizes = self._table.bytes_of_groups(columns)
        most = self.memory // GROUPS_IN_MEMORY
        if not len(sizes) or sizes.max() <= most:
            return
        group = int(sizes.argmax())
        rows = int(self._table.starts[group + 1] - self._table.starts[group])
        file, position = self._table.groups[group]
        fitting = max(int(rows * most / sizes[group] * 0.8), 1)
        raise ValueError(
            f"a row group must fit into half of memory, {most / 1e6:,.6g} MB, got row group "
            f"{position} of {self._table.files[file].path} with {sizes[group] / 1e6:,.6g} MB. "
            f"Write to_parquet(..., row_group_size={fitting}), read fewer columns, or give "
            "scan_parquet(memory=...) more."
        )

    def _in_order(
        self, rows: range | np.ndarray, columns: Sequence[str], size: int
    ) -> Iterator[tuple[int, pa.Table]]:
        """Yield rows with ascending numbers, batch by batch of each row group."""
        edges = _positions(rows, self._table.starts)
        groups = np.flatnonzero(edges[1:] > edges[:-1]).tolist()
        for number, batch in self._table.read(groups, columns, n_rows=size):
            start, stop = _positions(rows, np.array([number, number + len(batch)])).tolist()
            if stop > start:
                yield start, _take(batch, rows[start:stop], number)
            if stop == len(rows):
                return

    def _in_any_order(self, columns: Sequence[str], size: int) -> Iterator[tuple[int, pa.Table]]:
        """Yield rows in any order: large chunks are read in ascending order, then reordered."""
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

    Only the footers are read. Use the result in place of a DataFrame: it can be split, searched
    over and passed to a Pipeline of :class:`HistorySequenceEncoder` and :class:`DINClassifier`,
    which read it in chunks: ``model.fit(X, X.target_)``.

    Parameters
    ----------
    source : path or pyarrow.dataset.Dataset
        A Parquet file, a folder of such files, or a glob such as ``"clicks/2024-*.parquet"``. In
        a folder, files ending in .parquet, .pq or .parq are read in the order of their paths, and
        folders named ``key=value`` (hive partitions) become columns. A folder of a Delta or Iceberg
        table is refused, since deleted rows are in its files.
    target : str or list of str, default=None
        Column to predict, or columns of several labels. It is not a feature; read it as
        ``scan.target_``, a frame for several labels.
    columns : sequence of str, default=None
        Columns to read. None reads all except the target and the index of a pandas frame.
    cache_dir : path, default=None
        Folder in which encoders store the encoded rows, so that a second fit on the same files
        with the same encoder reads them, and in which processes that train one model (torchrun)
        share the encoding. It grows until you empty it. None encodes into a temporary folder,
        which is deleted with the encoded rows.
    memory : int or str, default="1GB"
        Maximum number of bytes for reading, as a number or a string such as "500MB" or "2GiB". A
        row group must fit into half of it. Larger values are slightly faster.

    Returns
    -------
    ParquetScan

    Raises
    ------
    FileNotFoundError
        If there is no file.
    ValueError
        If a file is not a Parquet file, columns differ between files, a column is missing, a row
        group does not fit into half of ``memory``, or a folder is a Delta or Iceberg table.

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
    return np.array([bisect_left(rows, number) for number in numbers.tolist()])


def _take(batch: pa.Table, rows: range | np.ndarray, first: int) -> pa.Table:
    """Return rows of a batch by their numbers in the table, of which ``first`` is the batch's."""
    if isinstance(rows, range) and rows.step == 1:
        return batch.slice(rows.start - first, len(rows))
    return batch.take(pa.array(np.asarray(rows) - first))


@dataclass(frozen=True)
class File:
    """One Parquet file as it was when the scan was made; ``keys`` are of its hive folders."""

    path: str
    size: int
    mtime_ns: int | None
    row_groups: tuple[int, ...]
    keys: Mapping[str, int | str | None] = field(default_factory=dict)


class ParquetFiles:
    """Files with one schema, as one table of row groups. Holds paths and numbers alone.

    Every file must have ``columns`` with one type; None: all columns of any file. A file that is
    ``owned`` is removed when nobody reads it any more.

    schema : columns of the files, then those of the folders; dictionaries are read as their values
    groups : (n_groups, 2), of each row group, its file and its number in that file
    starts : (n_groups + 1,), first row of each row group, and the number of rows
    """

    def __init__(
        self,
        filesystem: pyarrow.fs.FileSystem,
        files: Sequence[File],
        *,
        columns: Collection[str] | None = None,
        owned: Path | None = None,
    ) -> None:
        self.filesystem, self.files = filesystem, tuple(files)
        if owned is not None:
            remove_with(self, owned)
        schemas, groups, lengths, sizes = [], [], [], []
        self.index_columns = set[str]()
        for number, file in enumerate(self.files):
            opened = self._reopen(number)
            metadata, schema = opened.metadata, opened.schema_arrow
            opened.close(force=True)
            check_distinct(pd.Index(schema.names), name=file.path)
            schemas.append(schema)
            index_columns = (schema.pandas_metadata or {}).get("index_columns", [])
            self.index_columns |= {name for name in index_columns if isinstance(name, str)}
            for group in file.row_groups:
                groups.append((number, group))
                lengths.append(metadata.row_group(group).num_rows)
                sizes.append(_bytes_in_memory(metadata.row_group(group), schema))
        self.schema = _joint_schema(schemas, self.files, columns)
        self.groups = np.array(groups, dtype=np.int64).reshape(-1, 2)
        self.starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
        names = self.schema.names
        sizes_by_name = [[size.get(name, 0) for name in names] for size in sizes]
        self._bytes = np.array(sizes_by_name, dtype=np.int64).reshape(len(sizes), len(names))

    @property
    def n_rows(self) -> int:
        """Rows of all files."""
        return int(self.starts[-1])

    def bytes_of_groups(self, columns: Sequence[str]) -> np.ndarray:
        """Return the memory that some columns of each row group need, by the footers."""
        positions = [self.schema.names.index(name) for name in columns]
        return self._bytes[:, positions].sum(axis=1)

    def read(
        self, groups: Sequence[int], columns: Sequence[str], *, n_rows: int
    ) -> Iterator[tuple[int, pa.Table]]:
        """Yield row groups in batches of ``n_rows``: the number of the first row, and a table."""
        current, files = -1, ExitStack()
        with files:
            for group in groups:
                number, position = map(int, self.groups[group])
                if number != current:
                    files.close()
                    current, opened = number, self._reopen(number)
                    files.callback(opened.close, force=True)
                file, first = self.files[number], int(self.starts[group])
                options = {"batch_size": n_rows, "row_groups": [position]}
                options["columns"] = [name for name in columns if name not in file.keys]
                with _readable(f"row group {position} of {file.path}"):
                    for batch in opened.iter_batches(**options):
                        arrays = {name: self._column(name, batch, file) for name in columns}
                        yield first, pa.table(arrays)
                        first += len(batch)

    def fingerprint(self) -> list[object]:
        """Return paths, sizes and times of writing: equal where the files are the same."""
        kind = self.filesystem.type_name
        return [
            [kind, file.path, file.size, file.mtime_ns, list(file.row_groups), dict(file.keys)]
            for file in self.files
        ]

    def _reopen(self, number: int) -> pq.ParquetFile:
        """Open a file; raise OSError where it is gone or was changed."""
        file = self.files[number]
        info = self.filesystem.get_file_info(file.path)
        if (info.size, info.mtime_ns) != (file.size, file.mtime_ns):
            is_gone = info.type == pyarrow.fs.FileType.NotFound
            raise (FileNotFoundError if is_gone else OSError)(
                f"{file.path} is gone or was changed after scan_parquet read its footer: it had "
                f"{file.size} bytes and has {info.size}. Bring it back, or make the scan anew."
            )
        with _readable(file.path):
            opened = self.filesystem.open_input_file(file.path)
            return pq.ParquetFile(opened, page_checksum_verification=True)

    def _column(self, name: str, batch: pa.RecordBatch, file: File) -> pa.Array:
        kind = self.schema.field(name).type
        if name in file.keys:
            return pa.repeat(pa.scalar(file.keys[name], type=kind), len(batch))
        column = batch.column(name)
        return column if column.type == kind else column.cast(kind)


@contextmanager
def _readable(what: str) -> Iterator[None]:
    """Name in an error what cannot be read, and what to do."""
    try:
        yield
    except MemoryError:  # pyarrow's is an ArrowException too; the file is not damaged
        raise
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{what} cannot be read: {error} The file is damaged or no Parquet file: write it "
            "again, or leave it out of the source."
        ) from error


def _bytes_in_memory(group: pq.RowGroupMetaData, schema: pa.Schema) -> dict[str, int]:
    """Return about how many bytes each column of a row group takes as an Arrow array."""
    sizes = dict.fromkeys(schema.names, 0)
    longest_first = sorted(schema.names, key=len, reverse=True)  # names may hold dots
    for position in range(group.num_columns):
        leaf = group.column(position)  # "tags.list.element" of a list, several of a struct
        name = next(n for n in longest_first if f"{leaf.path_in_schema}.".startswith(f"{n}."))
        sizes[name] += max(leaf.total_uncompressed_size, BYTES_PER_VALUE * leaf.num_values)
    return sizes


def find_files(source: object) -> tuple[pyarrow.fs.FileSystem, list[File]]:
    """Files of a path, folder, glob or ``pyarrow.dataset.Dataset``, in the order of their rows."""
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        paths = _list_paths(path)
        with _readable(paths[0]):
            source = _hive_dataset(paths, base=path if os.path.isdir(path) else None)
    if not isinstance(source, ds.Dataset):
        raise TypeError(
            "source must be the path of a Parquet file, a folder, a glob or a "
            f"pyarrow.dataset.Dataset, got {type(source).__name__}. Give a frame in memory to fit "
            "as it is; a LazyFrame or a query is written to a file first."
        )
    if getattr(source, "_scan_options", {}).get("filter") is not None:
        raise ValueError(
            "source must be a Dataset of whole files, got one with a filter. Write the rows "
            "wanted with pyarrow.dataset.write_dataset, or choose rows of the scan by number."
        )
    files, filesystem = [], pyarrow.fs.LocalFileSystem()
    for fragment in source.get_fragments():
        if not isinstance(fragment, ds.ParquetFileFragment):
            raise TypeError(
                f"source must be a Dataset of Parquet files, got one with a "
                f"{type(fragment).__name__}. Write it with pyarrow.dataset.write_dataset first."
            )
        filesystem, path = fragment.filesystem, fragment.path
        with _readable(path):
            groups = tuple(group.id for group in fragment.row_groups)
            own = set(fragment.physical_schema.names)
        keys = ds.get_partition_keys(fragment.partition_expression)
        keys = {name: keys[name] for name in source.schema.names if name in keys.keys() - own}
        info = filesystem.get_file_info(path)
        files.append(File(path, info.size, info.mtime_ns, groups, keys))
    if not files:
        raise FileNotFoundError("source must be a Dataset with at least one file, got none.")
    return filesystem, files


def _hive_dataset(paths: Sequence[str], *, base: str | None) -> ds.Dataset:
    """Return a Dataset with the schema given by the names of hive folders.

    ``pyarrow.dataset.dataset`` fails where a column is in the files too, with another type.
    """
    folders = ds.HivePartitioning.discover()
    options = ds.FileSystemFactoryOptions(partition_base_dir=base, partitioning=folders)
    factory = ds.FileSystemDatasetFactory(
        pyarrow.fs.LocalFileSystem(), list(paths), ds.ParquetFileFormat(), options
    )
    return factory.finish(factory.inspect_schemas()[-1])


def _list_paths(path: str) -> list[str]:
    """Return the files of a path, a glob or a folder, but those that hidden names lead to."""
    if os.path.isdir(path):
        names = [Path(name) for name in glob.glob("**", root_dir=path, recursive=True)]
        paths = [
            os.path.join(path, name)
            for name in names
            if name.suffix in SUFFIXES and not any(part.startswith("_") for part in name.parts)
        ]
    else:
        paths = [path] if os.path.exists(path) else glob.glob(path, recursive=True)
    paths = sorted(os.path.abspath(path) for path in paths if os.path.isfile(path))
    if not paths:
        raise FileNotFoundError(
            "source must be a Parquet file, a glob, or a folder of files that end in "
            f"{', '.join(SUFFIXES)}, got {path!r}, where there is none. Check the path, and that "
            "the disk is mounted; files of another name are taken by a glob: 'folder/*'."
        )
    if not os.path.isfile(path):
        _refuse_deleted_files(paths)
    return paths


def _refuse_deleted_files(paths: Sequence[str]) -> None:
    """Raise ValueError where a Delta or Iceberg log says which files are still in a table."""
    for folder in sorted({str(folder) for path in paths for folder in Path(path).parents}):
        kind = "Delta" if os.path.isdir(os.path.join(folder, "_delta_log")) else ""
        if glob.glob("metadata/*.avro", root_dir=folder):
            kind = "Iceberg"
        if kind:
            raise ValueError(
                f"{folder!r} holds a {kind} table, whose files include rows that were deleted or "
                "replaced. Of a Delta table, give the current files as a Dataset, "
                "pyarrow.dataset.dataset(DeltaTable(path).file_uris(), partitioning='hive'); write "
                "an Iceberg table's rows, table.scan().to_arrow(), to Parquet first."
            )


def _joint_schema(
    schemas: Sequence[pa.Schema], files: Sequence[File], columns: Collection[str] | None
) -> pa.Schema:
    """Return the types of all files, which must agree; a column of nulls alone fits any type."""
    types_of_files = []
    for schema, file in zip(schemas, files, strict=True):
        kinds = {f.name: plain_type(f.type) for f in schema if f.name not in file.keys}
        kinds |= {n: pa.null() if v is None else pa.scalar(v).type for n, v in file.keys.items()}
        types_of_files.append(kinds)
    names = list(dict.fromkeys(name for kinds in types_of_files for name in kinds))
    if columns is not None:
        check_columns(names, columns, name="source")
        names = [name for name in names if name in columns]
    types = dict.fromkeys(names, pa.null())
    for kinds, file in zip(types_of_files, files, strict=True):
        for name in names:
            if name not in kinds:
                raise ValueError(
                    f"{file.path} has no column {name!r}, which another file has. Write that file "
                    "again with the column, or name those that all files have in columns."
                )
            if pa.types.is_null(types[name]):
                types[name] = kinds[name]
            elif kinds[name] not in (types[name], pa.null()):
                raise ValueError(
                    f"column {name!r} must have one type in all files: it is {types[name]} before, "
                    f"and {kinds[name]} in {file.path}. Write that file again with the column as "
                    "the others have it."
                )
    return pa.schema(list(types.items()))


def _follow_by_negatives(
    events: Scan,
    request: NegativesRequest,
    random_state: int | np.random.RandomState | None,
    catalogue: Any,
) -> tuple[ParquetScan, np.ndarray]:
    """Follow each event with negatives; their file is removed with the scan of it."""
    path, y = sample_negatives_by_sql(events, request, random_state, catalogue)
    table = ParquetFiles(*find_files(path), owned=path)
    scan = ParquetScan(
        table,
        range(table.n_rows),
        events.columns,
        target=None,
        memory=events.memory,
        cache_dir=events.cache_dir,
    )
    return scan, y


attach_past.register(Scan, attach_history_by_sql)
attach_so_far.register(Scan, attach_aggregates_by_sql)
follow_by_negatives.register(Scan, _follow_by_negatives)
