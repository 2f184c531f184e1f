"""Dask, Spark and Ray: a law for each use. ``make test-engines`` installs the latter two."""

import importlib.util
import logging
import os
import shutil
import sys

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.model_selection import GridSearchCV

from sklearn_din import HistorySequenceEncoder, attach_history, save, score_partitions
from tests.click_frames import as_lists
from tests.fitted_pipelines import attach_clicks, make_model

pytestmark = pytest.mark.slow


def is_there(package):
    return importlib.util.find_spec(package) is not None


needs_dask = pytest.mark.skipif(not is_there("dask"), reason="needs dask: pip install .[test]")
needs_spark = pytest.mark.skipif(
    not is_there("pyspark") or shutil.which("java") is None,
    reason="needs pyspark and java: make test-engines",
)
needs_ray = pytest.mark.skipif(not is_there("ray"), reason="needs ray: make test-engines")
# What Spark and Ray warn of is theirs.
of_others = pytest.mark.filterwarnings("default")

LARGE = 2**53  # beyond, floats cannot tell integers apart
CLOCKS_GO_BACK = pd.Timestamp("2026-10-25", tz="UTC")  # in Berlin, at one o'clock of UTC
HISTORY = {"user": "user", "time": "time", "columns": ["item", "category"], "elapsed": "ago"}
LISTS = {
    "hist_item": pd.ArrowDtype(pa.list_(pa.int64())),
    "hist_category": pd.ArrowDtype(pa.list_(pa.string())),
    "ago": pd.ArrowDtype(pa.list_(pa.float64())),
}
ATTACHED = (
    "user string, item long, category string, time timestamp, row long, "
    "hist_item array<long>, hist_category array<string>, ago array<double>"
)


def make_logs(zone):
    """Return impressions and events, which tell their rows by "row" and "event".

    Users without events or without impressions, missing users, large and missing items, events of
    equal user and time, and times in the hour that the clocks of Berlin show twice.
    """
    draw = np.random.RandomState(0)
    users = [*(f"user {number}" for number in range(12)), None]

    def table(n, users, key):
        minutes = pd.to_timedelta(10 * draw.randint(0, 15, n), unit="min")  # 00:00 to 02:20
        return pd.DataFrame({
            "user": pd.array(draw.choice(users, n), dtype="string"),
            "item": pd.array(draw.choice([*(LARGE + np.arange(9)), None], n), dtype="Int64"),
            "category": pd.array(draw.choice(["hat", "tie", None], n), dtype="string"),
            "time": (CLOCKS_GO_BACK + minutes).as_unit("us").tz_convert(zone),
            key: np.arange(n),
        })  # fmt: skip

    return table(90, users[3:], "row"), table(140, users[:-3], "event")


def plain(frame):
    """Return lists of Python's own values, in the order of "row"."""
    columns = pa.Table.from_pandas(frame.sort_values("row"), preserve_index=False)
    return {name: columns[name].to_pylist() for name in sorted(columns.column_names)}


def attach_here(impressions, events):
    """On one machine, and the recipe of docs/guide/clusters.rst for Dask."""
    events = events.sort_values("event")  # a shuffle loses the order of equal times
    return attach_history(impressions, events, **HISTORY).astype(LISTS)


def attach_in_any_zone(impressions, events):
    """Spark gives the session's zone to what comes in, and wants UTC in what goes out."""
    X = attach_history(impressions, events.sort_by("event"), **HISTORY)
    times = X["time"].cast(pa.timestamp("us", "UTC"))
    return X.set_column(X.column_names.index("time"), "time", times)


@pytest.fixture(scope="module")
def rows():
    """Impressions with histories as plain lists."""
    X, _ = attach_clicks(n_users=40, n_items=30, n_categories=5, random_state=0)
    return as_lists(X).assign(row=np.arange(len(X)))


@pytest.fixture(scope="module")
def model(rows):
    encoder = HistorySequenceEncoder(user="user", time="time", drop=["row"])
    return make_model(encoder, max_epochs=1).fit(rows, np.arange(len(rows)) % 2)


@pytest.fixture(scope="module")
def score(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.din"
    save(model, path)
    return score_partitions(path, columns="row")


def check_scores(scored, model, rows):
    scored = scored.sort_values("row")
    assert scored["row"].tolist() == rows["row"].tolist()
    expected = model.predict_proba(rows)[:, 1]
    np.testing.assert_allclose(scored["probability"], expected, rtol=0, atol=1e-6)


@needs_dask
@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.proof
def test_partitions_of_users_on_dask_give_the_histories_of_one_machine(scheduler, tmp_path):
    import dask
    from dask import dataframe

    tables = make_logs("Europe/Berlin")
    with dask.config.set(scheduler=scheduler):
        shown, log = (
            dataframe.from_pandas(
                frame.sample(frac=1, random_state=0), npartitions=n, sort=False
            ).shuffle("user", npartitions=13)  # some without impressions
            for frame, n in zip(tables, (2, 3), strict=True)
        )
        meta = attach_here(shown._meta, log._meta)
        options = {"meta": meta, "align_dataframes": False}
        attached = dataframe.map_partitions(attach_here, shown, log, **options)
        found = attached.compute()
        attached.to_parquet(tmp_path, write_index=False)
    assert found["time"].dtype == tables[0]["time"].dtype
    assert plain(found) == plain(attach_here(*tables))
    written = pd.read_parquet(tmp_path, dtype_backend="pyarrow").sort_values("row")
    assert written["hist_item"].tolist() == found.sort_values("row")["hist_item"].tolist()


@needs_dask
@pytest.mark.proof
def test_a_search_on_dask_gives_the_same_scores_and_sends_the_log_once(one_thread, monkeypatch):
    """Hence nobody needs ``scatter=``."""
    from dask import distributed

    X, y = attach_clicks(n_users=40, n_items=30, n_categories=5, random_state=0)
    grid = {"din__embedding_dim": [2, 4]}
    search = GridSearchCV(make_model(max_epochs=1), grid, cv=2, scoring="roc_auc", refit=False)
    alone = search.fit(X, y).cv_results_
    sent, state = [], pd.DataFrame.__getstate__
    noting = lambda frame: sent.append(len(frame)) or state(frame)  # noqa: E731
    monkeypatch.setattr(pd.DataFrame, "__getstate__", noting)
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True}
    options |= {"dashboard_address": None, "silence_logs": logging.ERROR}
    with (
        distributed.LocalCluster(**options) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        found = search.fit(X, y).cv_results_
    assert sent.count(len(X)) == 1
    for name in ("split0_test_score", "split1_test_score"):
        np.testing.assert_array_equal(found[name], alone[name])


@pytest.fixture(scope="module")
def spark():
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable  # of the workers
    options = {"ui.enabled": "false", "driver.bindAddress": "127.0.0.1"}
    options |= {"driver.host": "127.0.0.1", "sql.shuffle.partitions": "3"}
    builder = SparkSession.builder.master("local[2]")
    for name, value in options.items():
        builder = builder.config(f"spark.{name}", value)
    session = builder.config("spark.sql.execution.arrow.pyspark.enabled", "true").getOrCreate()
    yield session
    session.stop()


@of_others
@needs_spark
def test_spark_scores_by_map_in_pandas(spark, model, score, rows):
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    table = spark.createDataFrame(rows).repartition(3)
    scored = table.mapInPandas(score, "row long, probability float").toPandas()
    assert scored["probability"].dtype == np.float32
    check_scores(scored, model, rows)


@of_others
@needs_spark
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_spark_attaches_histories_by_apply_in_arrow(spark, zone):
    from pyspark.sql import functions

    spark.conf.set("spark.sql.session.timeZone", zone)
    tables = make_logs("UTC")
    group = functions.pmod(functions.hash("user"), functions.lit(4))
    shown, log = (
        spark.createDataFrame(pa.Table.from_pandas(frame, preserve_index=False))
        .repartition(3)
        .groupby(group)
        for frame in tables
    )
    found = shown.cogroup(log).applyInArrow(attach_in_any_zone, ATTACHED).toArrow()
    assert plain(found.to_pandas(types_mapper=pd.ArrowDtype)) == plain(attach_here(*tables))


@of_others
@needs_ray
def test_ray_scores_by_map_batches(model, score, rows):
    import ray
    from ray import data

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        table = data.from_pandas(rows).repartition(3)
        scored = table.map_batches(score, batch_format="pandas", batch_size=None).to_pandas()
    finally:
        ray.shutdown()
    check_scores(scored, model, rows)
