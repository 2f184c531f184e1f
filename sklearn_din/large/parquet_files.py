"""The Parquet files behind a scan: where they are, what they hold, their rows in batches."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq

from sklearn_din._validation import check_columns
from sklearn_din._whole_files import remove_with

SUFFIXES = (".parquet", ".pq", ".parq")
BYTES_PER_VALUE = 8  # of a number in memory, or of a text's offsets


@dataclass(frozen=True)
class File:
    """One Parquet file as it was when the scan was made.

    ``size`` is in bytes, ``keys`` are the columns that the names of its folders give all rows (hive
    partitions).
    """

    path: str
    size: int
    mtime_ns: int | None
    row_groups: tuple[int, ...]
    keys: Mapping[str, int | str | None] = field(default_factory=dict)


class ParquetFiles:
    """Files with one schema, as one table of row groups. Holds paths and numbers alone.

    Every file must have ``columns`` with one type; None: all columns of any file. A file that is
    ``owned`` is removed when nobody reads it any more.

    Attributes
    ----------
    schema : pyarrow.Schema
        Columns of the files, then those of the folders. Dictionaries are read as their values.
    groups : ndarray of shape (n_groups, 2)
        Of each row group, its file and its number in that file.
    starts : ndarray of shape (n_groups + 1,)
        First row of each row group, and the number of rows.
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
            _check_names(schema, file.path)
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
        self._bytes = np.array([[size.get(name, 0) for name in names] for size in sizes])
        self._bytes = self._bytes.reshape(len(sizes), len(names)).astype(np.int64)

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
        """Yield some row groups in batches: the number of the first row, and an Arrow table.

        A file is opened once for consecutive row groups. A batch has at most ``n_rows`` rows.
        Errors name the file that is gone, was changed or cannot be read.
        """
        current, files = -1, ExitStack()
        with files:
            for group in groups:
                number, position = map(int, self.groups[group])
                if number != current:
                    files.close()
                    current, opened = number, self._reopen(number)
                    files.callback(opened.close, force=True)
                first = int(self.starts[group])
                for batch in self._batches(opened, number, position, columns, n_rows):
                    yield first, batch
                    first += len(batch)

    def fingerprint(self) -> list[object]:
        """Return paths, sizes and times of writing: equal where the files are the same."""
        kind = self.filesystem.type_name
        return [
            [kind, file.path, file.size, file.mtime_ns, list(file.row_groups), dict(file.keys)]
            for file in self.files
        ]

    def _reopen(self, number: int) -> pq.ParquetFile:
        file = self.files[number]
        info = self.filesystem.get_file_info(file.path)
        if (info.size, info.mtime_ns) != (file.size, file.mtime_ns):
            is_gone = info.type == pyarrow.fs.FileType.NotFound
            raise (FileNotFoundError if is_gone else OSError)(
                f"{file.path} is gone or was changed after scan_parquet read its footer: it had "
                f"{file.size} bytes and has {info.size}. Bring it back, or make the scan anew."
            )
        return _open(self.filesystem, file.path)

    def _batches(
        self,
        opened: pq.ParquetFile,
        number: int,
        position: int,
        columns: Sequence[str],
        n_rows: int,
    ) -> Iterator[pa.Table]:
        """Yield one row group in batches of the scan's types."""
        file = self.files[number]
        stored = [name for name in columns if name not in file.keys]
        if not stored:
            left = opened.metadata.row_group(position).num_rows
            while left > 0:
                yield self._table({}, file, columns, min(left, n_rows))
                left -= n_rows
            return
        with _readable(f"row group {position} of {file.path}"):
            batches = opened.iter_batches(batch_size=n_rows, row_groups=[position], columns=stored)
            for batch in batches:
                arrays = {name: batch.column(name) for name in stored}
                yield self._table(arrays, file, columns, len(batch))

    def _table(
        self, arrays: Mapping[str, pa.Array], file: File, columns: Sequence[str], n_rows: int
    ) -> pa.Table:
        def column(name: str) -> pa.Array:
            kind = self.schema.field(name).type
            if name in file.keys:
                return pa.repeat(pa.scalar(file.keys[name], type=kind), n_rows)
            return arrays[name] if arrays[name].type == kind else arrays[name].cast(kind)

        return pa.table({name: column(name) for name in columns})


def _open(filesystem: pyarrow.fs.FileSystem, path: str) -> pq.ParquetFile:
    with _readable(path):
        return pq.ParquetFile(filesystem.open_input_file(path), page_checksum_verification=True)


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


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values, whether stored once (a dictionary) or in each row.

    Numbers of 16 bits get 32: pandas has no index of float16, DuckDB and Arrow cannot sort them.

    Examples
    --------
    >>> plain_type(pa.list_(pa.dictionary(pa.int32(), pa.large_string())))
    ListType(list<element: string>)
    """
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(pa.field("element", plain_type(kind.value_type)))
    return kind


def find_files(source: object) -> tuple[pyarrow.fs.FileSystem, list[File]]:
    """Files of a path, folder, glob or ``pyarrow.dataset.Dataset``, in the order of their rows."""
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        paths = _list_paths(path)
        base = path if os.path.isdir(path) else None
        with _readable(paths[0]):
            options: dict[str, Any] = {"partitioning": "hive", "partition_base_dir": base}
            source = ds.dataset(paths, format="parquet", **options)
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
        keys = ds.get_partition_keys(fragment.partition_expression)
        keys = {name: keys[name] for name in source.schema.names if name in keys}
        info = filesystem.get_file_info(path)
        files.append(File(path, info.size, info.mtime_ns, groups, keys))
    if not files:
        raise FileNotFoundError("source must be a Dataset with at least one file, got none.")
    return filesystem, files


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
    return paths


def _check_names(schema: pa.Schema, path: str) -> None:
    names = schema.names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"{path} must have distinct column names, got {', '.join(map(repr, twice))} more than "
            "once. Rename the repeated columns."
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
