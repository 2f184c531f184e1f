"""scan_parquet: the same rows as a frame, whatever the files, the view and the budget."""

import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from sklearn_din import attach_aggregates, attach_history, scan_parquet
from sklearn_din.utils import scan as scans
from sklearn_din.utils.scan import as_scan
from tests.tables import read

N_ROWS = 100

pytestmark = pytest.mark.usefixtures("one_database")


@pytest.fixture(scope="module")
def table():
    rng = np.random.RandomState(0)
    items = rng.randint(0, 30, N_ROWS)
    lists = [[f"i{i}" for i in rng.randint(0, 30, n)] for n in rng.randint(0, 5, N_ROWS)]
    lists[7] = None
    return pa.table({
        "user": pa.array(rng.randint(0, 9, N_ROWS)),
        "item": pa.array([f"i{i}" for i in items]).dictionary_encode(),
        "price": pa.array(rng.randn(N_ROWS), mask=rng.rand(N_ROWS) < 0.2),
        "time": pa.array(np.sort(rng.randint(0, 10**6, N_ROWS)), pa.timestamp("us", "UTC")),
        "hist_item": pa.array(lists),
        "click": pa.array(rng.randint(0, 2, N_ROWS)),
    })  # fmt: skip


def write_parts(table, folder):
    for number, start in enumerate(range(0, N_ROWS, 40)):
        path = folder / f"part-{number}.parquet"
        pq.write_table(table.slice(start, 40), path, row_group_size=15)
    return folder


@pytest.fixture
def folder(table, tmp_path):
    return write_parts(table, tmp_path)


def frame_of(table):
    """The twin: the whole table at once, text as text."""
    types = {f.name: pa.string() if f.name == "item" else f.type for f in table.schema}
    schema = pa.schema(types.items())
    return table.cast(schema).to_pandas(types_mapper=pd.ArrowDtype)


def same(scan, frame):
    ours, twin = (
        table.map(lambda cell: tuple(cell) if isinstance(cell, np.ndarray) else cell)
        for table in (read(scan), frame.reset_index(drop=True))
    )
    pd.testing.assert_frame_equal(ours, twin, check_dtype=False)


def attach(table):
    """Attach a history and a number to a frame or a scan."""
    roles = {"user": "user", "time": "time"}
    numbers = {"n": ("user", None, "count")}
    counted = attach_aggregates(table, table, time="time", aggregates=numbers)
    return attach_history(counted, table, columns="price", elapsed="ago", **roles)


@pytest.fixture(scope="module")
def whole(table, tmp_path_factory):
    """By form, the whole table and its twin."""
    folder, frame = write_parts(table, tmp_path_factory.mktemp("parts")), frame_of(table)
    scans = {m: scan_parquet(folder, target="click", memory=m) for m in ("1GB", "8KB")}
    forms = {memory: (scan, frame) for memory, scan in scans.items()}
    forms["attached"] = attach(scans["8KB"]), attach(frame)
    return forms | {"frame": (as_scan(frame.drop(columns="click"), name="X"), frame)}


@pytest.mark.parametrize("form", ["1GB", "8KB", "attached", "frame"])
@pytest.mark.parametrize("rows", [
    slice(20, 90),
    slice(None, None, -3),
    slice(5, 5),
    np.random.RandomState(1).permutation(N_ROWS)[:70],
    [3, -1, 3, 50],
    np.arange(N_ROWS) % 3 == 1,
    [],
], ids=["slice", "backwards", "nothing", "shuffled", "repeated", "mask", "empty list"])  # fmt: skip
def test_views_are_those_rows_of_the_frame(whole, form, rows, monkeypatch):
    monkeypatch.setattr(scans, "PART_ROWS", 13)
    table, frame = whole[form]
    scan = table[rows]
    assert (table[:].fingerprint() == scan.fingerprint()) == (len(scan) == N_ROWS)
    wanted = frame.iloc[np.asarray(rows, dtype=int) if isinstance(rows, list) else rows]
    assert len(scan) == len(wanted)
    if form != "frame":
        assert scan.target_.tolist() == wanted["click"].tolist()
    assert scan["item"].tolist() == wanted["item"].tolist()
    if len(wanted):
        assert scan.dtypes.map(repr).tolist() == read(scan).dtypes.map(repr).tolist()
        same(scan, wanted.drop(columns="click"))
        same(scan[::-2], wanted.drop(columns="click").iloc[::-2])
        same(scan[["item", "user"]], wanted[["item", "user"]])


def test_sources_are_files_folders_globs_and_datasets(folder, table):
    frame = frame_of(table).drop(columns="click")
    dataset = ds.dataset(folder, format="parquet")
    for source in (folder, str(folder), folder / "part-*.parquet", dataset):
        same(scan_parquet(source, columns=frame.columns, cache_dir=folder / "cache"), frame)
    same(scan_parquet(folder / "part-1.parquet", target="click"), frame.iloc[40:80])


def test_hive_folders_give_columns_and_the_index_of_a_frame_none(tmp_path):
    for day, country, item in [(2, "de", 5), (10, "fr", 6), (2, "__HIVE_DEFAULT_PARTITION__", 7)]:
        place = tmp_path / "days" / f"day={day}" / f"country={country}"
        place.mkdir(parents=True)
        pq.write_table(pa.table({"item": [item]}), place / "rows.parquet")
    scan = scan_parquet(tmp_path / "days", columns=["country", "item", "day"])
    rows = read(scan).to_dict("list")
    assert rows == {"country": ["fr", None, "de"], "item": [6, 7, 5], "day": [10, 2, 2]}
    partitioned = ds.dataset(tmp_path / "days", format="parquet", partitioning="hive")
    assert read(scan_parquet(partitioned))["day"].tolist() == [10, 2, 2]
    place = tmp_path / "own" / "day=2024-01-05" / "hour=7"  # polars' files keep the keys
    place.mkdir(parents=True)
    own = pa.table({"day": pa.array([0], pa.date32()), "hour": pa.array([7], pa.int64())})
    pq.write_table(own, place / "rows.parquet")
    same(scan_parquet(tmp_path / "own"), own.to_pandas())
    pd.DataFrame({"item": [1, 2]}, index=[7, 9]).to_parquet(tmp_path / "a.parquet")
    assert scan_parquet(tmp_path / "a.parquet").columns == ["item"]
    index = scan_parquet(tmp_path / "a.parquet", columns=["__index_level_0__"])
    assert index["__index_level_0__"].tolist() == [7, 9]


def test_a_row_group_over_the_budget_is_refused_with_the_remedy(folder):
    message = r"fit into half of memory, .* row group 0 of .*part-0.*row_group_size=\d"
    with pytest.raises(ValueError, match=message):
        scan_parquet(folder, memory=1000)
    assert len(scan_parquet(folder, memory=1000, columns=["click"])["click"]) == N_ROWS


def drop_column(table, path):
    pq.write_table(table.drop_columns(["price"]), path)


@pytest.mark.parametrize(("harm", "message"), [
    (lambda table, path: pq.write_table(table.set_column(0, "user", [["7"] * N_ROWS]), path),
     r"'user' must have one type .* int64 before, and string in .*part-2"),
    (drop_column, r"part-2.parquet has no column 'price', which another file has"),
    (lambda table, path: path.write_bytes(b"PAR1 this is no file"),
     r"part-2.parquet cannot be read: "),
])  # fmt: skip
def test_a_file_that_does_not_fit_is_named(folder, table, harm, message):
    harm(table, folder / "part-2.parquet")
    with pytest.raises(ValueError, match=message):
        scan_parquet(folder)


@pytest.mark.parametrize("source", ["", "*/*.parquet", "day=1"])
@pytest.mark.parametrize("log", ["_delta_log/0.json", "metadata/snap-1.avro"])
def test_tables_with_deleted_files_are_refused_unless_by_files(tmp_path, log, source):
    kind = "Delta" if "delta" in log else "Iceberg"
    left, deleted = (tmp_path / "day=1" / f"{name}.parquet" for name in ("left", "deleted"))
    for path in (left, deleted, tmp_path / log):
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"item": ["hat", "sock"]}), path)
    with pytest.raises(ValueError, match=rf"{kind} table, .* deleted or replaced\. .*file_uris"):
        scan_parquet(tmp_path / source)
    expected = pd.DataFrame({"item": ["hat", "sock"], "day": 1})
    for files in (ds.dataset([str(left)], partitioning="hive"), left):
        same(scan_parquet(files), expected)


def test_a_column_of_nulls_fits_any_type_and_columns_that_are_not_read_may_differ(folder, table):
    nulls = table.slice(0, 3).set_column(1, "item", pa.nulls(3))
    pq.write_table(nulls, folder / "a-first.parquet")
    items = read(scan_parquet(folder))["item"]
    assert items.isna().sum() == 3
    assert items.iloc[3] == table["item"][0].as_py()
    drop_column(table, folder / "part-2.parquet")
    assert scan_parquet(folder, columns=["item"], target="click").columns == ["item"]
    with pytest.raises(ValueError, match="has no column 'itm'; did you mean 'item'"):
        scan_parquet(folder, columns=["itm"])


def test_a_file_that_went_or_changed_or_is_damaged_is_named(folder, table):
    path = folder / "part-1.parquet"
    scan, good, stat = scan_parquet(folder), path.read_bytes(), path.stat()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"part-1.parquet is gone or .* \d+ bytes and has"):
        read(scan)
    pq.write_table(table.slice(0, 3), path)
    with pytest.raises(OSError, match=r"part-1.parquet .* changed after .* had \d+ bytes and has"):
        read(scan)
    path.write_bytes(good[:4] + bytes(200) + good[204:])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(ValueError, match=r"row group 0 of .*part-1.parquet cannot be read"):
        read(scan)
