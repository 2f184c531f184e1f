"""predict_to_parquet: what predict_proba gives on the whole table, in a file, part by part."""

import os

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_din import (
    DINClassifier,
    HistorySequenceEncoder,
    attach_aggregates,
    attach_history,
    predict_to_parquet,
    scan_parquet,
)
from sklearn_din.serving import scoring


@pytest.fixture(scope="module")
def clicks():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "user": rng.integers(0, 15, 240),
            "item": [f"i{item}" for item in rng.integers(0, 20, 240)],
            "time": np.arange(240),
        }
    )
    return table.assign(click=(rng.random(240) < 0.4).astype(int))


@pytest.fixture
def scan(clicks, tmp_path):
    clicks.to_parquet(tmp_path / "clicks.parquet", row_group_size=50)
    return scan_parquet(tmp_path / "clicks.parquet", target="click", memory="100KB")


def attached(shown, events):
    options = {"user": "user", "time": "time"}
    shown = attach_history(shown, events, columns="item", elapsed="ago", **options)
    return attach_aggregates(shown, events, time="time", aggregates={"n": ("user", None, "count")})


def same_frame(frame):
    return frame.assign(n=frame["n"].astype("float64"))


def make_pipeline():
    return Pipeline(
        [
            ("own", FunctionTransformer(same_frame)),
            ("encode", HistorySequenceEncoder(drop=["user", "time"])),
            ("din", DINClassifier(hidden_units=(8,), max_epochs=1, random_state=0)),
        ]
    )


def test_a_pipeline_predicts_a_scan_as_it_predicts_a_frame(clicks, scan, tmp_path):
    frame = attached(clicks.drop(columns="click"), clicks)
    model = make_pipeline().fit(frame, clicks["click"])
    expected = model.predict_proba(frame)[:, 1]
    X = attached(scan, scan)
    assert len(list(X.parts())) > 2
    path = tmp_path / "predictions.parquet"
    assert predict_to_parquet(model, X, path, columns=["user", "click"]) == path
    table = pq.read_table(path)
    assert table.column_names == ["user", "click", "probability"]
    assert table.column("user").to_pylist() == clicks["user"].tolist()
    assert table.column("click").to_pylist() == clicks["click"].tolist()
    np.testing.assert_allclose(table.column("probability"), expected, atol=1e-6, rtol=0)
    backwards = tmp_path / "backwards.parquet"
    predict_to_parquet(model, X[::-1], backwards)
    found = pq.read_table(backwards).column("probability")
    np.testing.assert_allclose(found, expected[::-1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("as_form", ["frame", "Arrow", "polars"], indirect=True)
def test_frames_are_predicted_in_parts_too(as_form, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "FRAME_ROWS", 7)
    X = pd.DataFrame({"price": np.linspace(0, 1, 30), "key": [f"k{i}" for i in range(30)]})
    model = Pipeline([("pick", FunctionTransformer(_price)), ("lr", LogisticRegression())]).fit(
        X, np.arange(30) % 3
    )
    given = as_form(X)
    path = predict_to_parquet(model, given, tmp_path / "p.parquet", columns="key")
    table = pd.read_parquet(path)
    assert table.columns.tolist() == ["key", *(f"probability_{i}" for i in range(3))]
    np.testing.assert_allclose(table.iloc[:, 1:], model.predict_proba(X), atol=1e-6)
    assert table["key"].tolist() == X["key"].tolist()
    empty = predict_to_parquet(model, given[:0], tmp_path / "e.parquet", columns="key")
    assert pd.read_parquet(empty).shape == (0, 4)


class Constant:
    def predict_proba(self, rows):
        return np.full((len(rows), 2), 0.5)


@pytest.mark.parametrize(
    "values",
    [
        [None, None, "a", "b", None],
        ["a", "b", None, None, None],
        [1, 2, 1.5, None, 2.5],
        [None, None, [1], [2, 3], None],
        [None] * 5,
        [1, 2, "a", "b", None],  # several kinds: said before anything is predicted
    ],
)
def test_all_rows_of_a_frame_tell_the_type_of_a_kept_column(values, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "FRAME_ROWS", 2)
    column = np.empty(5, dtype=object)
    column[:] = values
    X = pd.DataFrame({"price": np.arange(5.0), "key": pd.Series(column, dtype=object)})
    if values[:3] == [1, 2, "a"]:
        message = r"columns must hold values of one kind, .*, got 'key', "
        monkeypatch.setattr(Constant, "predict_proba", None)
        with pytest.raises(ValueError, match=message):
            predict_to_parquet(Constant(), X, tmp_path / "p.parquet", columns="key")
        return
    path = predict_to_parquet(Constant(), X, tmp_path / "p.parquet", columns="key")
    assert pq.read_table(path).column("key").to_pylist() == values


def _price(X):
    return np.asarray(X["price"], dtype=float)[:, None]


def test_a_model_without_probabilities_gives_its_decisions(tmp_path):
    X = pd.DataFrame({"price": np.linspace(0, 1, 30)})
    model = RidgeClassifier().fit(X, np.arange(30) > 9)
    found = pd.read_parquet(predict_to_parquet(model, X, tmp_path / "d.parquet"))
    np.testing.assert_allclose(found["decision"], model.decision_function(X))
    with pytest.raises(TypeError, match="needs a fitted model with predict_proba or decision_func"):
        predict_to_parquet(KMeans(), X, tmp_path / "r.parquet")


def test_a_file_that_is_there_stays_until_the_new_one_is_whole(clicks, scan, tmp_path):
    X = scan[["time"]]
    model = LogisticRegression().fit(np.asarray(clicks[["time"]]), clicks["click"])
    path = tmp_path / "p.parquet"
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError, match=r"predict_to_parquet needs a new path, got .*exists"):
        predict_to_parquet(model, X, path)

    class Failing:
        def predict_proba(self, rows):
            if rows.index[-1] == 239:
                raise RuntimeError("no more")
            return np.full((len(rows), 2), 0.5)

    with pytest.raises(RuntimeError, match="no more"):
        predict_to_parquet(Failing(), X, path, overwrite=True)
    assert path.read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["clicks.parquet", "p.parquet"]
    for wrong, message in (("usr", "X has no column 'usr'"), ({"a"}, "columns must be a column")):
        with pytest.raises((ValueError, TypeError), match=message):
            predict_to_parquet(Failing(), X, path, columns=wrong, overwrite=True)
    clash = clicks.iloc[:9].rename(columns={"user": "probability"})
    with pytest.raises(ValueError, match=r"the name of a prediction, got .'probabil"):
        predict_to_parquet(Failing(), clash, tmp_path / "q.parquet", columns="probability")
    assert sorted(os.listdir(tmp_path)) == ["clicks.parquet", "p.parquet"]
