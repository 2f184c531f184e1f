"""An encoder reads a scan as it reads the same table in memory, and what cache_dir keeps."""

import os
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sklearn_din import HistorySequenceEncoder, ParquetScan, attach_history, scan_parquet
from sklearn_din.datasets import make_click_log
from sklearn_din.encoding import stored_rows, vocabulary
from sklearn_din.large.parquet_scan import ParquetFiles
from sklearn_din.utils import progress, whole_files
from sklearn_din.utils.keys import NO_KEY
from tests.click_frames import assert_same_encoders, every_kind

EASY = {"user": "user", "time": "time"}
pytestmark = [pytest.mark.usefixtures("one_database"), pytest.mark.slow]


@pytest.fixture(scope="module")
def table():
    return pa.Table.from_pandas(every_kind()[0], preserve_index=False)


@pytest.fixture(scope="module")
def folder(table, tmp_path_factory):
    place = tmp_path_factory.mktemp("clicks")
    half = len(table) // 2
    pq.write_table(table.slice(0, half), place / "a.parquet", row_group_size=170)
    pq.write_table(table.slice(half), place / "b.parquet", row_group_size=90)
    return place


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Merging and walking happen many times, in small tables too."""
    monkeypatch.setattr(vocabulary, "PENDING_VALUES", 20)
    monkeypatch.setattr(stored_rows, "AT_A_TIME", 64)


def in_memory(table):
    return table.drop_columns(["click"]), np.asarray(table["click"])


def assert_same_arrays(mine, twin):
    assert mine.schema == twin.schema
    assert len(mine) == len(twin)
    for name in twin.keys():  # noqa: SIM118
        a, b = np.asarray(mine[name]), np.asarray(twin[name])
        assert a.dtype == b.dtype
        if a.dtype.kind == "f":
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(a, b, err_msg=name)
    for behaviour, theirs in twin.behaviours.items():
        ours = mine.behaviours[behaviour]
        np.testing.assert_array_equal(ours.whole.lengths, theirs.whole.lengths)
        for name in behaviour:
            events = [ragged.columns[name][ragged.whole.index()] for ragged in (ours, theirs)]
            np.testing.assert_array_equal(*events, err_msg=f"{name}, older events")


def assert_same_encoding(scan, frame, y, options):
    """Fit on both; return the encoders, and the encoded rows of both."""
    encoders = [HistorySequenceEncoder(**options) for _ in range(2)]
    rows = [encoder.fit_transform(X, y) for encoder, X in zip(encoders, (scan, frame), strict=True)]
    assert_same_encoders(*encoders)
    for found in (rows[0], *(encoder.transform(scan) for encoder in encoders)):
        assert_same_arrays(found, rows[1])
        for name, values in rows[1].metadata.items():
            expected = rows[1].user_keys.hashes if name == "users" else values
            np.testing.assert_array_equal(found.metadata[name], expected)
    return encoders, *rows


OPTIONS = [
    {},
    EASY,
    {"user": "user", "max_length": 3},
    {**EASY, "min_frequency": 3, "max_ids": 20, "drop": ["country"]},
    {**EASY, "histories": {("hist_item", "hist_category"): ("item", "category"), "tags": None}},
]


@pytest.mark.parametrize(("options", "memory"), [(EASY, "1GB"), *((o, "300KB") for o in OPTIONS)])
def test_a_streamed_fit_equals_a_fit_in_memory(table, folder, options, memory):
    X, y = in_memory(table)
    scan = scan_parquet(folder, target="click", memory=memory)
    np.testing.assert_array_equal(scan.target_, y)
    (mine, twin), *_ = assert_same_encoding(scan, X, y, options)
    assert_same_arrays(mine.transform(X), twin.transform(X))


@pytest.mark.parametrize(
    ("elapsed", "options"),
    [(None, {"max_length": 4}), ("hist_elapsed", {}), ("hist_elapsed", {"max_length": 4})],
)
def test_a_log_on_disk_is_encoded_once_and_its_windows_are_kept(elapsed, options, tmp_path):
    log = make_click_log(n_users=20, n_items=60, n_categories=6, random_state=1)
    events = log.events.assign(paid=np.random.RandomState(0).gamma(2.0, size=len(log.events)))
    scans = []
    for name, table in {"shown": log.impressions, "events": events}.items():
        table.to_parquet(tmp_path / f"{name}.parquet", row_group_size=37)
        scans.append(scan_parquet(tmp_path / f"{name}.parquet"))
    roles = {"user": "user", "time": "time", "columns": ["item", "category", "paid"]}
    frame = attach_history(log.impressions, events, **roles, elapsed=elapsed)
    scan = attach_history(*scans, **roles, elapsed=elapsed)
    (mine, twin), found, _ = assert_same_encoding(scan, frame, log.y, {**EASY, **options})
    later = np.arange(len(frame))[::-3]
    assert_same_arrays(mine.transform(scan[later]), twin.transform(frame.iloc[later]))
    n_log = len(frame["hist_item"].array.log)
    (ragged,) = found.behaviours.values()
    assert {len(values) for values in ragged.columns.values()} == {n_log}


def test_columns_of_every_kind_are_read_as_in_memory(tmp_path):
    random, n = np.random.RandomState(0), 90
    ids = random.randint(0, 12, n)
    gone = random.random_sample(n) < 0.2
    lists = [[int(i) for i in ids[max(0, k - 3) : k]] for k in range(n)]
    table = pa.table({
        "item": pa.array(ids, mask=gone),
        "flag": pa.array(ids % 2 == 0, mask=gone),
        "shop": pa.array([f"s{i}" for i in ids], mask=gone).dictionary_encode(),
        "size": pa.array(ids.astype(float), mask=gone),
        "hist_size": pa.array([[float(i) for i in cell] for cell in lists]),
        "day": pa.array(ids.astype(np.int32), pa.date32()),
        "late": pa.array([None] * 60 + [f"x{i}" for i in ids[60:]]),
        "never": pa.nulls(n, pa.float32()),
        "hist_item": pa.array([[*cell, None] if k % 7 else None for k, cell in enumerate(lists)]),
        "hist_shop": pa.array(["|".join(f"s{i}" for i in cell) for cell in lists]),
        "tags": pa.array([[f"t{i}"] * (i % 3) for i in ids], pa.large_list(pa.large_string())),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=25)
    options = {"separator": "|", "categorical": ["size"]}
    assert_same_encoding(scan_parquet(tmp_path), table, None, options)


@pytest.mark.parametrize("options", [EASY, {"user": "user"}])
def test_shuffled_rows_are_read_in_the_order_of_the_files(table, folder, options, monkeypatch):
    X, y = in_memory(table)
    rows = np.random.RandomState(0).permutation(len(table))[:200]
    rows = np.append(rows, rows[:3])
    scan, X = scan_parquet(folder, target="click")[rows], X.take(pa.array(rows))
    read = []
    monkeypatch.setattr(ParquetFiles, "read", counted(ParquetFiles.read, read))
    (mine, twin), *_ = assert_same_encoding(scan, X, y[rows], options)
    n_groups, n_passes = len(scan._table.starts) - 1, 3 + 2  # columns, counting, encoding; twice
    assert sum(map(len, read)) <= n_passes * n_groups
    backwards = X.take(pa.array(np.arange(203)[::-1]))
    assert_same_arrays(mine.transform(scan[::-1]), twin.transform(backwards))


def counted(read, groups_read):
    def reading(self, groups, columns, **options):
        groups_read.append(groups)
        return read(self, groups, columns, **options)

    return reading


# What cache_dir keeps: read when all is the same, written whole or not at all

N_ROWS = 60


@pytest.fixture
def source(tmp_path):
    rng = np.random.RandomState(0)
    items = [f"i{n}" for n in rng.randint(0, 9, N_ROWS)]
    frame = pd.DataFrame({
        "user": rng.randint(0, 6, N_ROWS),
        "time": np.arange(N_ROWS),
        "item": items,
        "price": rng.randn(N_ROWS),
        "hist_item": [items[max(n - 3, 0) : n] for n in range(N_ROWS)],
        "click": rng.randint(0, 2, N_ROWS),
    })  # fmt: skip
    (tmp_path / "rows").mkdir()
    frame.to_parquet(tmp_path / "rows" / "a.parquet", row_group_size=25)
    return tmp_path / "rows"


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def passes(monkeypatch):
    """How often rows were read."""
    read, parts = [], ParquetScan.parts

    def counted(self, columns=None):
        read.append(columns)
        return parts(self, columns)

    monkeypatch.setattr(ParquetScan, "parts", counted)
    return read


def make_encoder(**options):
    return HistorySequenceEncoder(user="user", time="time", **options)


def encode(source, cache, encoder=None, rows=slice(None)):
    scan = scan_parquet(source, target="click", cache_dir=cache)[rows]
    y = scan.target_
    encoder = make_encoder() if encoder is None else encoder
    return encoder, encoder.fit_transform(scan, y)


def same(X, twin):
    assert X.schema == twin.schema
    assert all(np.array_equal(X[name], twin[name]) for name in twin)
    assert np.array_equal(X.users, twin.users)
    assert np.array_equal(X.times, twin.times)


def test_a_second_fit_reads_what_the_first_one_kept(source, cache, passes):
    encoder, X = encode(source, cache)
    later = encoder.transform(scan_parquet(source, target="click", cache_dir=cache))
    n_passes = len(passes)
    again, Y = encode(source, cache)
    assert len(passes) == n_passes + 1  # of the target
    same(Y, X)
    assert vars(again).keys() == vars(encoder).keys()
    assert again.schema_ == encoder.schema_
    assert again.scales_ == encoder.scales_
    assert_same_encoders(again, encoder)
    kept = again.transform(scan_parquet(source, target="click", cache_dir=cache))
    assert len(passes) == n_passes + 1
    same(kept, later)
    same(again.transform(scan_parquet(source, columns=encoder.feature_names_in_)), later)


def names(folder):
    """Kinds of stores in a folder, and how many there are of each."""
    kinds = [path.name.partition("-")[0] for path in folder.iterdir()]
    return {kind: kinds.count(kind) for kind in kinds}


def test_another_encoder_other_rows_or_columns_are_encoded_anew(source, cache):
    encode(source, cache)
    assert names(cache) == {"learnt": 1, "encoded": 1}
    encode(source, cache, make_encoder(max_length=2))
    encode(source, cache, rows=slice(1, None))
    scan = scan_parquet(source, target="click", cache_dir=cache)
    make_encoder().fit_transform(scan[["user", "time", "item", "hist_item"]], scan.target_)
    assert names(cache) == {"learnt": 4, "encoded": 4}
    encode(source, cache)
    os.utime(source / "a.parquet", ns=(0, 10**18))  # written again
    encode(source, cache)
    assert names(cache) == {"learnt": 5, "encoded": 5}


def test_an_interrupted_fit_leaves_nothing(source, cache, monkeypatch):
    parts = ParquetScan.parts

    def interrupted(self, columns=None):
        for number, part in enumerate(parts(self, columns)):
            if columns is not None and "hist_item" in columns and number == 2 and cache.exists():
                raise KeyboardInterrupt
            yield part

    monkeypatch.setattr(ParquetScan, "parts", interrupted)
    encoder = make_encoder()
    with pytest.raises(KeyboardInterrupt):
        encode(source, cache, encoder)
    assert not list(cache.iterdir())
    assert not hasattr(encoder, "schema_")


def test_a_forked_process_does_not_take_its_parents_files_away(tmp_path):
    whole_files._remove(tmp_path, os.getpid() + 1)
    assert tmp_path.exists()


def test_missing_users_are_nobody_and_missing_times_and_infinite_numbers_are_refused(source):
    frame = pd.read_parquet(source)
    infinite = frame.assign(price=frame["price"].mask(frame.index == 41, np.inf))
    infinite.to_parquet(source / "a.parquet", row_group_size=25)
    with pytest.raises(ValueError, match=r"infinity in price.* rows 25 to 49 of the scan"):
        encode(source, None)
    frame["user"] = frame["user"].map("u{}".format).mask(frame["time"] == 7)
    frame.to_parquet(source / "a.parquet")
    scan = scan_parquet(source, target="click")
    X = make_encoder().fit_transform(scan, scan.target_)
    assert np.flatnonzero(X.users == NO_KEY).tolist() == [7]
    frame["time"] = frame["time"].astype("Int64").mask(frame["time"] == 9)
    frame.to_parquet(source / "a.parquet")
    with pytest.raises(ValueError, match=r"X\['time'\] must not have missing times"):
        make_encoder().fit(scan_parquet(source, target="click"))


def test_a_bar_shows_each_pass_on_a_terminal(source, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "SECONDS_BEFORE", 0.0)
    encode(source, None)
    shown = capsys.readouterr().err
    assert "counting" in shown
    assert "encoding" in shown
    assert "rows" in shown
