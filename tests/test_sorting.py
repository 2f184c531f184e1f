"""sort_rows: the order of all columns, errors as they are, nothing left on the disk."""

import errno
import gc
import os
import sys

import numpy as np
import pyarrow as pa
import pytest

from sklearn_din.large import sorting
from sklearn_din.large.sorting import sort_rows

pytestmark = pytest.mark.slow

SCHEMA = pa.schema([("key", pa.large_string()), ("row", pa.int64())])


def batches(rows, size=3):
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    return iter(table.to_batches(max_chunksize=size))


def in_order(rows, folder, **options):
    ordered = sort_rows(batches(rows), SCHEMA, folder=folder, **{"memory": 10**8} | options)
    return [row for batch in ordered for row in batch.to_pylist()]


def test_rows_come_in_the_order_of_all_columns_or_the_error_names_the_extra(tmp_path, monkeypatch):
    rng = np.random.RandomState(0)
    rows = [{"key": key, "row": int(n)} for n in rng.permutation(9) for key in ["b", None, "B", ""]]
    expected = sorted(rows, key=lambda row: (row["key"] is not None, row["key"] or "", row["row"]))
    assert in_order(rows, tmp_path) == expected
    assert in_order([], tmp_path) == []
    assert os.listdir(tmp_path) == []
    ordered = sort_rows(batches(rows), SCHEMA, memory=1, folder=tmp_path)
    next(ordered)
    assert len(os.listdir(tmp_path)) == 1
    del ordered  # a stop
    gc.collect()
    assert os.listdir(tmp_path) == []
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ImportError, match=r"pip install 'sklearn-din\[large\]'"):
        in_order([], tmp_path)


def test_what_does_not_fit_into_memory_is_on_the_disk_meanwhile(tmp_path, monkeypatch):
    monkeypatch.setattr(sorting, "LEAST_MEMORY", 2**25)
    n_rows, schema = 800_000, pa.schema([(name, pa.int64()) for name in "abcdef"])
    numbers = np.random.default_rng(0).permutation(n_rows)

    def parts():
        for start in range(0, n_rows, 100_000):
            part = pa.array(numbers[start : start + 100_000])
            yield pa.RecordBatch.from_arrays([part] * 6, schema=schema)

    assert n_rows * 6 * 8 > sorting.LEAST_MEMORY
    most, seen = 0, 0
    for batch in sort_rows(parts(), schema, memory=1, folder=tmp_path):
        most = max(most, sum(len(files) for _, _, files in os.walk(tmp_path)))
        np.testing.assert_array_equal(batch.column(0), np.arange(seen, seen + len(batch)))
        seen += len(batch)
    assert seen == n_rows
    assert most > 0
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), MemoryError()])
def test_an_error_of_the_source_leaves_nothing(tmp_path, error):
    def failing():
        yield from batches([{"key": "a", "row": 1}])
        raise error

    with pytest.raises(type(error)) as caught:
        list(sort_rows(failing(), SCHEMA, memory=1, folder=tmp_path))
    assert caught.value is error
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("text", "kind"), [
    ("IO Error: No space left on device", OSError),
    ("failed to offload data block. This limit was set by 'max_temp_directory_size'", OSError),
    ("Out of Memory Error: failed to pin block", MemoryError),
    ("INTERRUPT Error: Interrupted!", KeyboardInterrupt),
])  # fmt: skip
def test_errors_of_the_engine_say_what_to_do(tmp_path, text, kind):
    duckdb = pytest.importorskip("duckdb")

    def refuse(*args, **options):
        raise duckdb.Error(text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duckdb, "connect", refuse)
        with pytest.raises(kind) as caught:
            in_order([], tmp_path)
    if kind is OSError:
        assert caught.value.errno == errno.ENOSPC
        assert "name a folder with room in scan_parquet(cache_dir=...)" in str(caught.value)
    if kind is MemoryError:
        assert "Give scan_parquet(memory=...) more" in str(caught.value)
