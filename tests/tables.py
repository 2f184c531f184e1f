"""A table in every form that the package takes, its rows in plain Python, and what a call says."""

import itertools
import logging
import warnings
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

from sklearn_din import scan_parquet
from sklearn_din.large.sorting import Database
from sklearn_din.utils.warnings import log_once, warn_once


def as_scan(frame, folder, *, group=60, **options):
    """Scan a new file that holds the rows of a frame."""
    path = folder / f"{len([*folder.iterdir()])}.parquet"
    frame.to_parquet(path, row_group_size=group)
    return scan_parquet(path, **options)


FORMS = {
    "frame": lambda frame, folder: frame,
    "polars": lambda frame, folder: pl.from_pandas(frame),
    "Arrow": lambda frame, folder: pa.Table.from_pandas(frame, preserve_index=False),
    "scan": as_scan,
    "small scan": partial(as_scan, memory="25KB"),  # read in many parts, sorted on the disk
}


def read_in_pieces(monkeypatch, size):
    """Have what DuckDB sorts come in batches that cut through keys."""
    whole = Database.read

    def read(database, query):
        for batch in whole(database, query):
            yield from (batch.slice(first, size) for first in range(0, len(batch), size))

    monkeypatch.setattr(Database, "read", read)


@contextmanager
def open_once(folder):
    """DuckDB is opened once for each budget, and a call has an empty database of its own in it."""
    import duckdb

    connect, opened, numbers = duckdb.connect, {}, itertools.count()

    @contextmanager
    def attach(config):
        key, name = (config["memory_limit"], config.get("threads")), f"database{next(numbers)}"
        if key not in opened:
            opened[key] = connect(config=config | {"temp_directory": str(folder)})
        try:
            with opened[key].cursor() as cursor:
                cursor.execute(f"attach ':memory:' as {name}; use {name}")
                yield cursor
        finally:
            opened[key].execute(f"detach {name}")

    with patch.object(duckdb, "connect", attach):
        yield
    for connection in opened.values():
        connection.close()


def read(scan):
    """All rows; each part is checked to begin where the one before it ended."""
    parts = list(scan.parts())
    ends = np.cumsum([0, *(len(part) for _, part in parts)])
    assert [start for start, _ in parts] == ends[:-1].tolist()
    return pd.concat([part for _, part in parts])


def plain(table):
    """Every cell as plain Python, missing as None, whatever the kind of frame."""
    if isinstance(table, pd.DataFrame):
        table = pa.Table.from_pandas(table, preserve_index=False)
    return table.to_pydict() if isinstance(table, pa.Table) else table.to_dict(as_series=False)


def lists(column):
    """The cells of a history column as lists, missing ones as None."""
    return [None if cell is None else np.asarray(cell).tolist() for cell in column]


def said(call, *, filename=None):
    """The warnings of a call, all of the given file, and its lines of the log."""
    warn_once.cache_clear()
    log_once.cache_clear()
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("sklearn_din")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True, action="always") as caught:
            call()
    finally:
        logger.removeHandler(handler)
    assert filename is None or {warning.filename for warning in caught} <= {filename}
    return [str(warning.message) for warning in caught], lines
