"""Scoring partitions: the numbers of predict_proba, wherever the model is loaded."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from sklearn_din import save
from sklearn_din import score_partitions as make_scorer
from sklearn_din.serving import scoring
from tests.click_frames import as_lists
from tests.fitted_pipelines import attach_clicks, make_model


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


def test_a_partition_gives_its_keys_and_the_probability_and_an_iterator_one(
    model, path, rows, tmp_path
):
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
def test_dask_scores_partitions(model, path, rows, scheduler):
    dataframe = pytest.importorskip("dask.dataframe", reason="needs dask: pip install .[test]")
    import dask

    with dask.config.set(scheduler=scheduler, **{"dataframe.convert-string": False}):
        table = dataframe.from_pandas(rows, npartitions=3)
        score = make_scorer(path, columns=["user"])
        scored = table.map_partitions(score, meta=score.meta(table._meta)).compute()
    np.testing.assert_allclose(scored["probability"], model.predict_proba(rows)[:, 1], rtol=1e-6)
    assert scored["user"].tolist() == rows["user"].tolist()
