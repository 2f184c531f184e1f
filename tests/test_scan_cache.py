"""What cache_dir keeps: read when all is the same, written whole or not at all."""

import os
import sys

import numpy as np
import pandas as pd
import pytest

from sklearn_din import HistorySequenceEncoder, ParquetScan, scan_parquet
from sklearn_din.utils import progress, whole_files

N_ROWS = 60


@pytest.fixture
def source(tmp_path):
    rng = np.random.RandomState(0)
    items = [f"i{n}" for n in rng.randint(0, 9, N_ROWS)]
    frame = pd.DataFrame(
        {
            "user": rng.randint(0, 6, N_ROWS),
            "time": np.arange(N_ROWS),
            "item": items,
            "price": rng.randn(N_ROWS),
            "hist_item": [items[max(n - 3, 0) : n] for n in range(N_ROWS)],
            "click": rng.randint(0, 2, N_ROWS),
        }
    )
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
    assert again.feature_names_in_.tolist() == encoder.feature_names_in_.tolist()
    for name, values in encoder.vocabularies_.items():
        np.testing.assert_array_equal(again.vocabularies_[name], values)
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


def test_an_interrupted_fit_leaves_neither_a_folder_nor_a_fitted_encoder(
    source, cache, monkeypatch
):
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


def test_all_rows_decide_what_a_column_is(source):
    """One length in the last part tells two histories apart, in a scan as in a frame."""
    frame = pd.read_parquet(source).assign(hist_category=lambda X: X["hist_item"])
    frame["category"] = frame["item"]
    frame.at[55, "hist_category"] = ["i1"]
    frame.to_parquet(source / "a.parquet", row_group_size=25)
    scan = scan_parquet(source, target="click")
    schema = make_encoder().fit(scan).schema_
    assert schema == make_encoder().fit(frame.drop(columns="click")).schema_
    assert [b.histories for b in schema.behaviours] == [("hist_item",), ("hist_category",)]


def test_an_empty_scan_and_missing_columns_are_refused(source):
    scan = scan_parquet(source, target="click")
    with pytest.raises(ValueError, match="0 sample"):
        make_encoder().fit(scan[:0])
    encoder = make_encoder().fit(scan, scan.target_)
    with pytest.raises(ValueError, match="0 sample"):
        encoder.transform(scan[:0])
    with pytest.raises(ValueError, match=r"(?s)Feature names .*price"):
        encoder.transform(scan[["user", "time", "item", "hist_item"]])
    assert len(encoder.transform(scan[["item", "price", "hist_item"]])) == N_ROWS


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
    assert np.flatnonzero(np.isnan(X.users)).tolist() == [7]
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
