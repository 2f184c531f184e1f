"""An encoder reads a scan as it reads the same table in memory, whatever the parts."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sklearn_din import HistorySequenceEncoder, attach_history, scan_parquet
from sklearn_din.datasets import make_click_log
from sklearn_din.encoding import stored_rows, vocabulary
from sklearn_din.large.parquet_scan import ParquetFiles
from tests.click_frames import every_kind

EASY = {"user": "user", "time": "time"}


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


def assert_same_encoders(mine, twin):
    assert mine.vocabularies_.keys() == twin.vocabularies_.keys()
    for name, values in twin.vocabularies_.items():
        assert mine.vocabularies_[name].dtype == values.dtype
        assert mine.vocabularies_[name].tolist() == values.tolist()
    assert mine.scales_.keys() == twin.scales_.keys()
    for name, scale in twin.scales_.items():
        assert mine.scales_[name].is_elapsed == scale.is_elapsed
        learnt = [mine.scales_[name].shift, mine.scales_[name].scale]
        np.testing.assert_allclose(learnt, [scale.shift, scale.scale], rtol=1e-12)
    assert mine.feature_names_in_.tolist() == twin.feature_names_in_.tolist()
    assert mine.longest_history_ == twin.longest_history_
    assert mine._learnt.late_unknown.keys() == twin._learnt.late_unknown.keys()


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
    twin, mine = HistorySequenceEncoder(**options), HistorySequenceEncoder(**options)
    expected, found = twin.fit_transform(X, y), mine.fit_transform(scan, scan.target_)
    assert_same_encoders(mine, twin)
    assert_same_arrays(found, expected)
    assert_same_arrays(mine.transform(scan), twin.transform(X))
    assert_same_arrays(mine.transform(X), twin.transform(X))
    if "time" in options:
        np.testing.assert_array_equal(found.times, expected.times)
    if "user" in options:
        codes = pd.factorize(expected.users, sort=True)[0]
        np.testing.assert_array_equal(found.users, codes)


@pytest.mark.parametrize("elapsed", [None, "hist_elapsed"])
@pytest.mark.parametrize("options", [{}, {"max_length": 4}])
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
    encoders = [HistorySequenceEncoder(**EASY, **options) for _ in range(2)]
    expected = encoders[0].fit_transform(frame, log.y)
    found = encoders[1].fit_transform(scan, log.y)
    assert_same_encoders(encoders[1], encoders[0])
    assert_same_arrays(found, expected)
    later = np.arange(len(frame))[::-3]
    assert_same_arrays(encoders[1].transform(scan[later]), encoders[0].transform(frame.iloc[later]))
    n_log = len(frame["hist_item"].array.log)
    (ragged,) = found.behaviours.values()
    assert {len(values) for values in ragged.columns.values()} == {n_log}


def test_columns_of_every_kind_are_read_as_in_memory(tmp_path):
    random, n = np.random.RandomState(0), 90
    ids = random.randint(0, 12, n)
    gone = random.random_sample(n) < 0.2
    lists = [[int(i) for i in ids[max(0, k - 3) : k]] for k in range(n)]
    table = pa.table(
        {
            "item": pa.array(ids, mask=gone),
            "flag": pa.array(ids % 2 == 0, mask=gone),
            "shop": pa.array([f"s{i}" for i in ids], mask=gone).dictionary_encode(),
            "size": pa.array(ids.astype(float), mask=gone),
            "hist_size": pa.array([[float(i) for i in cell] for cell in lists]),
            "day": pa.array(ids.astype(np.int32), pa.date32()),
            "late": pa.array([None] * 60 + [f"x{i}" for i in ids[60:]]),
            "never": pa.nulls(n, pa.float32()),
            "hist_item": pa.array(
                [[*cell, None] if k % 7 else None for k, cell in enumerate(lists)]
            ),
            "hist_shop": pa.array(["|".join(f"s{i}" for i in cell) for cell in lists]),
            "tags": pa.array([[f"t{i}"] * (i % 3) for i in ids], pa.large_list(pa.large_string())),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=25)
    options = {"separator": "|", "categorical": ["size"]}
    scan = scan_parquet(tmp_path)
    twin, mine = HistorySequenceEncoder(**options), HistorySequenceEncoder(**options)
    expected = twin.fit_transform(table)
    found = mine.fit_transform(scan)
    assert_same_encoders(mine, twin)
    assert_same_arrays(found, expected)
    assert_same_arrays(mine.transform(scan), twin.transform(table))


@pytest.mark.parametrize("options", [EASY, {"user": "user"}])
def test_shuffled_rows_are_read_in_the_order_of_the_files(table, folder, options, monkeypatch):
    X, y = in_memory(table)
    rows = np.random.RandomState(0).permutation(len(table))[:200]
    rows = np.append(rows, rows[:3])
    scan, X = scan_parquet(folder, target="click")[rows], X.take(pa.array(rows))
    twin, mine = HistorySequenceEncoder(**options), HistorySequenceEncoder(**options)
    read = []
    monkeypatch.setattr(ParquetFiles, "read", counted(ParquetFiles.read, read))
    expected, found = twin.fit_transform(X, y[rows]), mine.fit_transform(scan, y[rows])
    n_groups, n_passes = len(scan._table.starts) - 1, 4  # columns, counting, users, encoding
    assert sum(map(len, read)) <= n_passes * n_groups
    assert_same_encoders(mine, twin)
    assert_same_arrays(found, expected)
    assert_same_arrays(
        mine.transform(scan[::-1]), twin.transform(X.take(pa.array(np.arange(203)[::-1])))
    )


def counted(read, groups_read):
    def reading(self, groups, columns, **options):
        groups_read.append(groups)
        return read(self, groups, columns, **options)

    return reading
