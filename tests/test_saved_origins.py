"""Models of every origin can be saved; the files and caches they were made of are gone."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline

import sklearn_din
from benchmarks.tampering import make_rows
from sklearn_din import (
    DINClassifier,
    HistorySequenceEncoder,
    ItemNeighbours,
    TimeSplit,
    attach_history,
    inspect,
    load,
    save,
    scan_parquet,
    update,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
ROLES = {"user": "user", "time": "time"}
ASK = """
import joblib, sys, sklearn_din
rows, expected = joblib.load(sys.argv[1])
for path in sys.argv[2:]:
    assert (sklearn_din.load(path).predict_proba(rows) == expected[path]).all(), path
"""


def make_pipeline_of(**parameters):
    encoder = HistorySequenceEncoder(**ROLES, min_frequency=2)
    classifier = DINClassifier(
        embedding_dim=2, hidden_units=(4,), max_epochs=2, random_state=0, **parameters
    )
    return Pipeline([("encode", encoder), ("din", classifier)])


@pytest.fixture(scope="module")
def rows():
    frame, _ = make_rows()
    return attach_history(frame, frame, columns=["item"], **ROLES)


@pytest.fixture(scope="module")
def models(rows, tmp_path_factory):
    """Name -> fitted model; files, caches and checkpoints that it was made of are gone."""
    frame, y = make_rows()
    folder = tmp_path_factory.mktemp("sources")
    frame.assign(click=y).to_parquet(folder / "rows.parquet", row_group_size=30)
    scan = scan_parquet(folder / "rows.parquet", target="click", cache_dir=folder / "cache")
    X = attach_history(scan, scan, columns=["item"], **ROLES)
    later = rows.assign(time=rows["time"] + pd.Timedelta("30D"), item=rows["item"] + "new")
    grid = {"din__lr": [0.01, 0.02]}
    models = {
        "scan": make_pipeline_of().fit(X, X.target_),
        "frame": make_pipeline_of().fit(rows, y),
        "search": GridSearchCV(make_pipeline_of(), grid, cv=TimeSplit(2, time="time")),
        "checkpoint": make_pipeline_of(checkpoint_dir=folder / "runs").fit(rows, y),
    }
    models["search"].fit(X, X.target_)
    models["grown scan"] = update(make_pipeline_of().fit(X, X.target_), later, y)
    models["updated by a scan"] = update(make_pipeline_of().fit(rows, y), X, X.target_)
    models["partial_fit"] = make_pipeline_of().fit(rows, y)
    encoder, classifier = models["partial_fit"]["encode"], models["partial_fit"]["din"]
    classifier.partial_fit(encoder.partial_fit(later, y).transform(later), y)
    del X, scan
    shutil.rmtree(folder)
    return models


def test_a_fresh_process_elsewhere_predicts_the_same_bits(models, rows, tmp_path):
    paths = {name: str(tmp_path / f"{name}.din") for name in models}
    for name, model in models.items():
        save(model, paths[name])
    expected = {paths[name]: model.predict_proba(rows) for name, model in models.items()}
    joblib.dump((rows, expected), tmp_path / "truth.joblib")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = os.environ | {"PYTHONPATH": str(Path(sklearn_din.__file__).parents[1])}
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASK, str(tmp_path / "truth.joblib"), *expected],
        check=True,
        cwd=elsewhere,
        env=environment,
    )


def test_none_asks_for_trust_and_each_can_go_on_learning(models, rows, tmp_path):
    later = rows.assign(time=rows["time"] + pd.Timedelta("60D"), item="newest")
    y = make_rows()[1]
    for name, model in models.items():
        path = tmp_path / f"{name}.din"
        save(model, path)
        assert inspect(path)["untrusted"] == []
        twins = [load(path), pickle.loads(pickle.dumps(model))]
        found = [update(twin, later, y).predict_proba(rows) for twin in twins]
        np.testing.assert_array_equal(*found, err_msg=name)


def test_a_scan_and_a_frame_of_its_rows_give_files_of_one_form(models, tmp_path):
    """A file tells nothing of where the rows lay: no path of the scan is in it."""
    kinds = []
    for name in ("scan", "frame"):
        save(models[name], tmp_path / name)
        contents = inspect(tmp_path / name)
        kinds.append([(its["kind"], sorted(its["arrays"])) for its in contents["objects"]])
        assert b"rows.parquet" not in (tmp_path / name).read_bytes()
    assert kinds[0] == kinds[1]


def test_skops_needs_our_class_names_alone_for_grown_models(models, rows):
    skops_io = pytest.importorskip("skops.io", reason="needs '.[safe]'")
    for name in ("grown scan", "partial_fit"):
        content = skops_io.dumps(models[name])
        names = skops_io.get_untrusted_types(data=content)
        assert all(its.startswith("sklearn_din.") for its in names), names
        again = skops_io.loads(content, trusted=names)
        np.testing.assert_array_equal(again.predict_proba(rows), models[name].predict_proba(rows))


def test_item_neighbours_for_other_models_are_kept_without_trust(rows, tmp_path):
    pytest.importorskip("skops", reason="the regression needs '.[safe]'")
    y = make_rows()[1]
    neighbours = ItemNeighbours(**ROLES).fit(rows, y)
    numbers = neighbours.transform(rows)
    save(neighbours, tmp_path / "neighbours.din")
    for again in (load(tmp_path / "neighbours.din"), pickle.loads(pickle.dumps(neighbours))):
        pd.testing.assert_frame_equal(again.transform(rows), numbers)
    save(ItemNeighbours(user="user"), tmp_path / "new.din")
    assert load(tmp_path / "new.din").get_params() == ItemNeighbours(user="user").get_params()
    columns = [name for name in numbers if name.startswith("hist_item_")]
    model = make_pipeline(LogisticRegression().fit(numbers[columns], y))
    save(model, tmp_path / "model.din")
    assert inspect(tmp_path / "model.din")["untrusted"] == []
    assert (
        load(tmp_path / "model.din").predict(numbers[columns]) == model.predict(numbers[columns])
    ).all()


def test_item_neighbours_take_no_other_encoder(rows):
    neighbours = ItemNeighbours(**ROLES).fit(rows, make_rows()[1])
    neighbours.encoder_ = HistorySequenceEncoder()
    with pytest.raises(ValueError, match="not fitted yet"):
        pickle.loads(pickle.dumps(neighbours))
