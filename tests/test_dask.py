"""Dask: searches score as one process does, histories by users equal those of one machine."""

import functools
import logging

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  (makes the import work)
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV

from sklearn_din import attach_history, scan_parquet
from tests.engine_logs import HISTORY, LISTS, attached_here, make_logs, plain
from tests.fitted_pipelines import attach_clicks, make_model

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


@pytest.fixture(scope="module")
def cluster():
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=logging.ERROR,
        ) as cluster,
        distributed.Client(cluster),
    ):
        yield cluster


@pytest.mark.parametrize(
    "kind", [GridSearchCV, functools.partial(HalvingGridSearchCV, random_state=0)]
)
def test_a_search_gives_the_scores_of_one_process(cluster, one_thread, kind):
    X, y = attach_clicks(n_users=40, n_items=30, n_categories=5, random_state=0)
    search = kind(make_model(max_epochs=1), GRID, cv=2, scoring="roc_auc", refit=False)
    with joblib.parallel_config(backend="dask"):
        found = search.fit(X, y).cv_results_
    alone = search.set_params(n_jobs=1).fit(X, y).cv_results_
    for name in ("split0_test_score", "split1_test_score"):
        np.testing.assert_array_equal(found[name], alone[name])


def test_a_search_sends_the_log_once(cluster, monkeypatch):
    """Hence nobody needs ``scatter=``."""
    X, y = attach_clicks(n_users=40, n_items=30, n_categories=5, random_state=0)
    sent, state = [], pd.DataFrame.__getstate__
    monkeypatch.setattr(
        pd.DataFrame, "__getstate__", lambda frame: sent.append(len(frame)) or state(frame)
    )
    search = GridSearchCV(make_model(max_epochs=1), GRID, cv=2, refit=False)
    with joblib.parallel_config(backend="dask"):
        search.fit(X, y)
    assert sent.count(len(X)) == 1
