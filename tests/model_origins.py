"""Models of every origin, to be saved; the files and caches that they were made of are gone."""

import shutil

import pandas as pd
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from sklearn_din import (
    Checkpoint,
    DINClassifier,
    HistorySequenceEncoder,
    TimeSplit,
    attach_history,
    scan_parquet,
    update,
)
from tests.fitted_pipelines import make_rows

ROLES = {"user": "user", "time": "time"}
SMALL = {"embedding_dim": 2, "hidden_units": (4,), "max_epochs": 2, "random_state": 0}


def make_pipeline_of(**parameters):
    encoder = HistorySequenceEncoder(**ROLES, min_frequency=2)
    return Pipeline([("encode", encoder), ("din", DINClassifier(**SMALL, **parameters))])


def make_origins(folder):
    """Return fitted models by name, and rows that they predict; the folder is removed."""
    folder.mkdir(exist_ok=True)
    frame, y = make_rows()
    rows = attach_history(frame, frame, columns=["item"], **ROLES)
    frame.assign(click=y).to_parquet(folder / "rows.parquet", row_group_size=30)
    scan = scan_parquet(folder / "rows.parquet", target="click", cache_dir=folder / "cache")
    X = attach_history(scan, scan, columns=["item"], **ROLES)
    later = rows.assign(time=rows["time"] + pd.Timedelta("30D"), item=rows["item"] + "new")
    grid = {"din__lr": [0.01, 0.02]}
    models = {
        "scan": make_pipeline_of().fit(X, X.target_),
        "frame": make_pipeline_of().fit(rows, y),
        "search": GridSearchCV(make_pipeline_of(), grid, cv=TimeSplit(2, time="time")),
        "checkpoint": make_pipeline_of(callbacks=[Checkpoint(folder / "runs")]).fit(rows, y),
    }
    models["search"].fit(X, X.target_)
    models["grown scan"] = update(make_pipeline_of().fit(X, X.target_), later, y)
    models["updated by a scan"] = update(make_pipeline_of().fit(rows, y), X, X.target_)
    models["partial_fit"] = make_pipeline_of().fit(rows, y)
    encoder, classifier = models["partial_fit"]["encode"], models["partial_fit"]["din"]
    classifier.partial_fit(encoder.partial_fit(later, y).transform(later), y)
    del X, scan
    shutil.rmtree(folder)
    return models, rows
