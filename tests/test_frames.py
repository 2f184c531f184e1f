"""pandas, polars and Arrow frames, plain arrays, and what serving sends."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from sklearn_din import HistorySequenceEncoder, scan_parquet
from tests.click_frames import as_lists, encoder, same, with_windows


def test_dropped_columns_may_be_absent_when_serving():
    frame = with_windows()
    fitted = encoder().fit(frame)
    same(fitted.transform(frame.drop(columns=["user", "time"])), fitted.transform(frame))


@pytest.mark.parametrize("dtype", ["Int64", "category", "str", object, pd.ArrowDtype(pa.int64())])
def test_ids_of_any_dtype_encode_alike(dtype):
    values = pd.Series([12, 3, 3, 45])
    frame = pd.DataFrame({"item": values.astype(dtype)})
    if dtype != "str":
        frame.loc[0, "item"] = None
    X = HistorySequenceEncoder().fit_transform(frame)
    assert X["item"].tolist() == ([2, 3, 3, 4] if dtype == "str" else [1, 2, 2, 3])


def test_plain_arrays_are_numeric_throughout_and_columns_without_names_taken_by_position():
    array = np.array([[1, 10], [3, 20]])
    X = HistorySequenceEncoder().fit_transform(array)
    assert X.keys() == ["x0", "x1"]
    assert X.schema.names("numeric") == ["x0", "x1"]
    assert X["x0"].tolist() == [-1.0, 1.0]
    frame = pd.DataFrame({"price": [1.0, 3.0], "item": ["a", "b"]})
    fitted = HistorySequenceEncoder().fit(frame)
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        X = fitted.transform(frame.to_numpy())
    same(X, fitted.transform(frame))
    frame = pd.DataFrame(np.array([[1.0, 2.0], [3.0, 4.0]]))
    fitted = HistorySequenceEncoder().fit(frame)
    assert not hasattr(fitted, "feature_names_in_")
    assert fitted.transform(frame).keys() == ["x0", "x1"]
    with pytest.warns(UserWarning, match="X has feature names, but"):
        named = fitted.transform(frame.set_axis(["a", "b"], axis=1))
    assert named["x1"].tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("kind", ["pandas", "polars", "arrow", "scan"])
def test_moved_and_further_columns_are_taken_by_name(kind, tmp_path):
    frame = as_lists(with_windows())
    fitted = encoder(user="user", drop=["time"]).fit(frame)
    expected = fitted.transform(frame)
    moved = frame[frame.columns[::-1]].assign(colour="red", hist_colour=[["red"]] * len(frame))
    names = list(moved.columns)
    if kind == "scan":
        moved.to_parquet(tmp_path / "moved.parquet")
        moved = scan_parquet(tmp_path)
    elif kind != "pandas":
        moved = pa.Table.from_pandas(moved) if kind == "arrow" else pl.from_pandas(moved)
    found = fitted.transform(moved)
    same(found, expected)
    assert found.users.tolist() == expected.users.tolist()
    of_fit = frame[frame.columns[::-1]]
    same(fitted.partial_fit(of_fit).transform(frame), expected)
    assert not isinstance(moved, pd.DataFrame) or list(moved.columns) == names
