"""Dask: searches score as one process does, histories by users equal those of one machine."""

import functools
import logging
import uuid
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  (makes the import work)
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV
from sklearn.pipeline import Pipeline

from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history, scan_parquet
from tests.engine_logs import HISTORY, LISTS, attached_here, make_logs, plain
from tests.fitted_pipelines import attach_clicks

dask = pytest.importorskip("dask", reason="needs dask: pip install .[test]")
dataframe = pytest.importorskip("dask.dataframe", reason="needs dask: pip install .[test]")
distributed = pytest.importorskip("dask.distributed", reason="needs dask: pip install .[test]")

# Histories: before the searches, whose client would be asked for them.


def attach(impressions, events):
    """The recipe of docs/guide/engines.rst."""
    events = events.sort_values("event")  # a shuffle loses the order of equal times
    return attach_history(impressions, events, **HISTORY).astype(LISTS)


@pytest.fixture(params=["synchronous", "threads"])
def scheduler(request):
    with dask.config.set(scheduler=request.param):
        yield


def attached_on_dask(impressions, events, *, npartitions=4):
    shown, log = (
        dataframe.from_pandas(
            frame.sample(frac=1, random_state=0), npartitions=n, sort=False
        ).shuffle("user", npartitions=npartitions)
        for frame, n in [(impressions, 2), (events, 3)]
    )
    meta = attach(shown._meta, log._meta)
    return dataframe.map_partitions(attach, shown, log, meta=meta, align_dataframes=False)


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_partitions_of_users_give_the_histories_of_one_machine(scheduler, zone):
    impressions, events = make_logs(zone=zone)
    found = attached_on_dask(impressions, events).compute()
    assert found["time"].dtype == impressions["time"].dtype
    assert found["item"].dtype == "Int64"
    assert plain(found) == attached_here(impressions, events)


def test_partitions_without_impressions_are_written_like_the_others(tmp_path):
    impressions, events = make_logs(zone="UTC")
    impressions = impressions[impressions["user"] == "user 5"]
    with dask.config.set(scheduler="synchronous"):
        attached_on_dask(impressions, events).to_parquet(tmp_path, write_index=False)
    scan = scan_parquet(tmp_path)
    assert len(scan) == len(impressions)
    alone = attached_here(impressions, events)
    found = scan[["hist_item", "row"]][:]
    order = np.argsort(found["row"])
    assert [list(cell) for cell in pd.Series(found["hist_item"])[order]] == alone["hist_item"]


# Searches

GRID = {"din__embedding_dim": [2, 4]}
N_CANDIDATES, N_FOLDS, N_WORKERS = 2, 2, 2


class CountedFrame(pd.DataFrame):
    """A frame that counts how often this process pickles it; a worker gets a plain frame."""

    n_pickled = 0

    @property
    def _constructor(self):
        return pd.DataFrame

    def __reduce__(self):
        CountedFrame.n_pickled += 1
        return pd.DataFrame, (pd.DataFrame(self),)


class CountedEncoder(HistorySequenceEncoder):
    """An encoder that leaves a file per fit, which says how many threads torch had."""

    def __init__(self, *, folder=None, user=None, time=None):
        super().__init__(user=user, time=time)
        self.folder = folder

    def fit_transform(self, X, y=None):
        Path(self.folder, uuid.uuid4().hex).write_text(str(torch.get_num_threads()))
        return super().fit_transform(X, y)


@pytest.fixture(scope="module")
def cluster():
    with (
        distributed.LocalCluster(
            n_workers=N_WORKERS,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=logging.ERROR,
        ) as cluster,
        distributed.Client(cluster),
    ):
        yield cluster


@pytest.fixture(scope="module")
def log():
    X, y = attach_clicks(n_users=40, n_items=30, n_categories=5, random_state=0)
    return CountedFrame(X), y


@pytest.fixture
def fits(tmp_path):
    """An empty folder that gets a file per fit of the encoder."""
    folder = tmp_path / "fits"
    folder.mkdir()
    return folder


def pipeline(*, encoder=None, memory=None):
    encoder = encoder or HistorySequenceEncoder(user="user", time="time")
    din = DINClassifier(max_epochs=1, random_state=0)
    return Pipeline([("encode", encoder), ("din", din)], memory=memory)


@pytest.mark.parametrize(
    "kind", [GridSearchCV, functools.partial(HalvingGridSearchCV, random_state=0)]
)
def test_a_search_gives_the_scores_of_one_process(cluster, log, one_thread, kind):
    X, y = log
    search = kind(pipeline(), GRID, cv=N_FOLDS, scoring="roc_auc", refit=False)
    with joblib.parallel_config(backend="dask"):
        found = search.fit(X, y).cv_results_
    alone = search.set_params(n_jobs=1).fit(X, y).cv_results_
    for fold in range(N_FOLDS):
        name = f"split{fold}_test_score"
        np.testing.assert_array_equal(found[name], alone[name])


def test_a_search_sends_the_log_once_and_each_worker_has_one_thread(cluster, log, fits):
    X, y = log
    encoder = CountedEncoder(folder=str(fits), user="user", time="time")
    search = GridSearchCV(pipeline(encoder=encoder), GRID, cv=N_FOLDS, refit=False)
    before = CountedFrame.n_pickled
    with joblib.parallel_config(backend="dask"):
        search.fit(X, y)
    assert CountedFrame.n_pickled == before + 1
    threads = [file.read_text() for file in fits.iterdir()]
    assert threads == ["1"] * (N_CANDIDATES * N_FOLDS)
