"""Scores of partitions and of tables in files: the numbers of predict_proba, part by part."""

import os
import pickle

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_din import (
    DINClassifier,
    HistorySequenceEncoder,
    attach_aggregates,
    attach_history,
    predict_to_parquet,
    save,
    scan_parquet,
)
from sklearn_din import score_partitions as make_scorer
from sklearn_din.serving import scoring
from tests.click_frames import as_lists
from tests.fitted_pipelines import attach_clicks, make_model, make_rows


@pytest.fixture(scope="module")
def frame():
    X, y = attach_clicks(n_users=40, n_items=30, n_categories=5, random_state=0)
    return as_lists(X).assign(click=y)  # as engines hold them


@pytest.fixture(scope="module")
def model(frame):
    return make_model(max_epochs=1).fit(frame.drop(columns="click"), frame["click"])


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.din"
    save(model, path)
    return path


@pytest.fixture
def rows(frame):
    return frame.drop(columns="click")


def test_a_partition_gives_its_keys_and_the_probability(model, path, rows, tmp_path):
    part, score = rows[100:150], make_scorer(path, columns=["user", "item"])
    scored = score(part)
    assert scored.columns.tolist() == ["user", "item", "probability"]
    pd.testing.assert_frame_equal(scored[["user", "item"]], part[["user", "item"]])
    np.testing.assert_array_equal(scored["probability"], model.predict_proba(part)[:, 1])
    assert scored["probability"].dtype == np.float32
    meta = score.meta(rows)
    assert len(meta) == 0
    pd.testing.assert_series_equal(meta.dtypes, scored.dtypes)
    parts = list(make_scorer(path)(iter([rows[:70], rows[:0], rows[70:]])))
    assert [len(part) for part in parts] == [70, 0, len(rows) - 70]
    found = pd.concat(parts)["probability"]
    np.testing.assert_allclose(found, model.predict_proba(rows)[:, 1], rtol=1e-6)
    with pytest.raises(FileNotFoundError, match="needs the file of a saved model"):
        make_scorer(tmp_path / "none.din")
    with pytest.raises(ValueError, match="usr"):
        make_scorer(path, columns="usr")(rows)


def test_one_process_loads_one_file_once_and_a_changed_one_again(model, tmp_path, rows):
    path = tmp_path / "model.din"
    save(model, path)
    before = scoring._load.cache_info().misses
    score = pickle.loads(pickle.dumps(make_scorer(path)))
    first = score(rows[:5])
    score(rows[5:9])
    assert scoring._load.cache_info().misses == before + 1
    other = clone(model).set_params(din__random_state=1)
    save(other.fit(rows, np.arange(len(rows)) % 2), path)
    second = score(rows[:5])
    assert scoring._load.cache_info().misses == before + 2
    assert not np.allclose(first["probability"], second["probability"])


def test_models_of_several_classes_give_a_column_for_each(tmp_path):
    X = pd.DataFrame({"probability_a": [1.0, 2.0, 3.0, 4.0]})
    path = tmp_path / "model.din"
    save(Pipeline([("linear", LogisticRegression().fit(X, list("aabc")))]), path)
    assert make_scorer(path)(X).columns.tolist() == [f"probability_{name}" for name in "abc"]
    with pytest.raises(ValueError, match="name of a prediction, got \\['probability_a'\\]"):
        make_scorer(path, columns="probability_a")(X)


@pytest.mark.parametrize("scheduler", ["synchronous", "processes"])
@pytest.mark.proof
def test_dask_scores_partitions(model, path, rows, scheduler):
    dataframe = pytest.importorskip("dask.dataframe", reason="needs dask: pip install .[test]")
    import dask

    with dask.config.set(scheduler=scheduler, **{"dataframe.convert-string": False}):
        table = dataframe.from_pandas(rows, npartitions=3)
        score = make_scorer(path, columns=["user"])
        scored = table.map_partitions(score, meta=score.meta(table._meta)).compute()
    np.testing.assert_allclose(scored["probability"], model.predict_proba(rows)[:, 1], rtol=1e-6)
    assert scored["user"].tolist() == rows["user"].tolist()


@pytest.fixture(scope="module")
def clicks():
    table, y = make_rows(15, 20, 240)
    return table.assign(click=y, time=np.arange(240))


@pytest.fixture
def scan(clicks, tmp_path):
    clicks.to_parquet(tmp_path / "clicks.parquet", row_group_size=50)
    return scan_parquet(tmp_path / "clicks.parquet", target="click", memory="100KB")


def attached(shown, events):
    options = {"user": "user", "time": "time"}
    shown = attach_history(shown, events, columns="item", elapsed="ago", **options)
    return attach_aggregates(shown, events, time="time", aggregates={"n": ("user", None, "count")})


def test_a_pipeline_predicts_a_scan_as_it_predicts_a_frame(clicks, scan, tmp_path):
    frame = attached(clicks.drop(columns="click"), clicks)
    own = FunctionTransformer(lambda frame: frame.assign(n=frame["n"].astype("float64")))
    encoder = HistorySequenceEncoder(drop=["user", "time"])
    model = make_pipeline(own, encoder, DINClassifier(max_epochs=1, random_state=0))
    model.fit(frame, clicks["click"])
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
    price = FunctionTransformer(lambda X: np.asarray(X["price"], dtype=float)[:, None])
    model = make_pipeline(price, LogisticRegression()).fit(X, np.arange(30) % 3)
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


@pytest.mark.parametrize("values", [
    [None, None, "a", "b", None],
    ["a", "b", None, None, None],
    [1, 2, 1.5, None, 2.5],
    [None, None, [1], [2, 3], None],
    [None] * 5,
])  # fmt: skip
def test_all_rows_of_a_frame_tell_the_type_of_a_kept_column(values, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "FRAME_ROWS", 2)
    column = np.empty(5, dtype=object)
    column[:] = values
    X = pd.DataFrame({"price": np.arange(5.0), "key": pd.Series(column, dtype=object)})
    path = predict_to_parquet(Constant(), X, tmp_path / "p.parquet", columns="key")
    assert pq.read_table(path).column("key").to_pylist() == values


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
