"""Sorting of any number of rows: DuckDB sorts in limited memory and spills to disk."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from sklearn_din.utils.extras import import_package

INTEGERS = {8: pa.int8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}
LEAST_MEMORY = 128 * 2**20  # DuckDB's buffers need so much, whatever the caller allows
DATABASE_FRACTION = 0.75  # of the memory: the rest is for rows on their way in and out


class Database:
    """DuckDB over rows that come from Python; :func:`open_database` makes one."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.error: BaseException | None = None

    def register(self, name: str, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> None:
        """Let batches be a table of that name, which can be read once."""
        reader = pa.RecordBatchReader.from_batches(schema, self._watch(batches))
        self.connection.register(name, reader)

    def read(self, query: str) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a query."""
        yield from pa.RecordBatchReader.from_stream(self.connection.sql(query))

    def _watch(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Remember an error of the batches: DuckDB makes text of it."""
        try:
            yield from batches
        except GeneratorExit:  # DuckDB stopped reading: the error is not one of the batches
            raise
        except BaseException as error:
            self.error = error
            raise


@contextmanager
def open_database(*, memory: int, folder: Path) -> Iterator[Database]:
    """Yield an empty database of ``memory`` bytes, 128 MiB at least, spilling to ``folder``."""
    purpose = "sorting of tables that are read part by part"
    duckdb = import_package("duckdb", purpose=purpose, extra="large")
    with tempfile.TemporaryDirectory(prefix="sorting-", dir=folder) as spilled:
        config: dict[str, Any] = {
            "memory_limit": f"{max(int(memory * DATABASE_FRACTION), LEAST_MEMORY) // 2**20}MiB",
            "temp_directory": spilled,
            "default_null_order": "nulls_first",
        }
        threads = os.environ.get("OMP_NUM_THREADS", "")
        if threads.isdecimal():
            config["threads"] = threads
        database: Database | None = None
        try:
            with duckdb.connect(config=config) as connection:
                database = Database(connection)
                yield database
        except (duckdb.Error, pa.ArrowException, OSError, RuntimeError) as error:
            cause = None if database is None else database.error
            raise (cause or _explain(error, folder)) from error


def sort_rows(
    batches: Iterator[pa.RecordBatch],
    schema: pa.Schema,
    *,
    memory: int,
    folder: Path,
    query: str = "select * from rows order by all",
) -> Iterator[pa.RecordBatch]:
    """Yield rows in the order of all their columns, missing values first; or another ``query``.

    So the result does not depend on the number of threads. Errors of the batches are raised here.
    """
    with open_database(memory=memory, folder=folder) as database:
        database.register("rows", batches, schema)
        yield from database.read(query)


def plain_integers(array: pa.Array) -> pa.Array:
    """Return numbers, times and booleans as integers with the same bits, and text unchanged.

    Decimals become text, since DuckDB does not take all of them.
    """
    kind = array.type
    if pa.types.is_boolean(kind):
        return array.cast(pa.int8())
    if pa.types.is_decimal(kind):
        return array.cast(pa.large_string())
    if not pa.types.is_primitive(kind):
        return array
    return array.view(INTEGERS[kind.bit_width])


def _explain(error: Exception, folder: Path) -> Exception:
    """Return what to raise for an error of DuckDB: by its text, since Arrow hands on no more."""
    text = str(error)
    if "No space left" in text or "max_temp_directory_size" in text:
        return OSError(
            errno.ENOSPC,
            f"the disk of {folder.parent} is full: sorting could not write what does not fit into "
            "memory. Free some of it, or name a folder with room in scan_parquet(cache_dir=...)",
        )
    if "Out of Memory" in text or isinstance(error, MemoryError):
        return MemoryError(
            f"sorting needs more memory than it was given: {text.splitlines()[0]} "
            "Give scan_parquet(memory=...) more."
        )
    if "interrupted" in text.lower():
        return KeyboardInterrupt()  # type: ignore[return-value]
    return error
