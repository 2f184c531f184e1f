"""Spark and Ray: ``make test-engines`` installs them in an environment of their own."""

import importlib.util
import os
import shutil
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from sklearn_din import HistorySequenceEncoder, attach_history, save, score_partitions
from tests.click_frames import as_lists
from tests.engine_logs import HISTORY, attached_here, make_logs, plain
from tests.fitted_pipelines import attach_clicks, make_model


def is_there(package):
    return importlib.util.find_spec(package) is not None


needs_spark = pytest.mark.skipif(
    not is_there("pyspark") or shutil.which("java") is None,
    reason="needs pyspark and java: make test-engines",
)
needs_ray = pytest.mark.skipif(not is_there("ray"), reason="needs ray: make test-engines")
# What the engines warn of is theirs.
pytestmark = pytest.mark.filterwarnings("default")

ATTACHED = (
    "user string, item long, category string, time timestamp, row long, "
    "hist_item array<long>, hist_category array<string>, ago array<double>"
)


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


def check_scores(scored, model, rows, *, n_parts):
    """The bits of ``predict_proba`` where all rows come in one part; rounding apart otherwise."""
    scored = scored.sort_values("row")
    assert scored["row"].tolist() == rows["row"].tolist()
    expected = model.predict_proba(rows)[:, 1]
    if n_parts == 1:
        np.testing.assert_array_equal(scored["probability"], expected)
    else:
        np.testing.assert_allclose(scored["probability"], expected, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def spark():
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable  # of the workers
    session = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.shuffle.partitions", "3")
        .config("spark.sql.execution.arrow.pyspark.enabled", "true")
        .getOrCreate()
    )
    yield session
    session.stop()


def in_zone(spark, zone):
    spark.conf.set("spark.sql.session.timeZone", zone)
    return spark


@needs_spark
@pytest.mark.parametrize("n_parts", [1, 3])
def test_spark_scores_by_map_in_pandas(spark, model, score, rows, n_parts):
    table = in_zone(spark, "UTC").createDataFrame(rows).coalesce(1)
    if n_parts > 1:
        table = table.repartition(n_parts)
    scored = table.mapInPandas(score, "row long, probability float").toPandas()
    assert scored["probability"].dtype == np.float32
    check_scores(scored, model, rows, n_parts=n_parts)


def attach(impressions, events):
    """The recipe of docs/guide/engines.rst, of Arrow tables."""
    return attach_history(impressions, events.sort_by("event"), **HISTORY)


def attach_pandas(impressions, events):
    """The same of pandas frames."""
    return attach_history(impressions, events.sort_values("event"), **HISTORY)


def on_spark(spark, impressions, events):
    """Both tables, shuffled, and the groups of each: some users per group."""
    from pyspark.sql import functions

    group = functions.pmod(functions.hash("user"), functions.lit(4))
    tables = (
        spark.createDataFrame(pa.Table.from_pandas(frame, preserve_index=False)).repartition(3)
        for frame in (impressions, events)
    )
    return [table.groupby(group) for table in tables]


@needs_spark
def test_spark_attaches_histories_by_apply_in_arrow(spark):
    impressions, events = make_logs(zone="UTC")
    shown, log = on_spark(in_zone(spark, "UTC"), impressions, events)
    found = shown.cogroup(log).applyInArrow(attach, ATTACHED).toArrow()
    assert plain(found.to_pandas(types_mapper=pd.ArrowDtype)) == attached_here(impressions, events)


def attach_in_any_zone(impressions, events):
    """Spark gives the session's zone to what comes in, and wants UTC in what goes out."""
    X = attach(impressions, events)
    times = X["time"].cast(pa.timestamp("us", "UTC"))
    return X.set_column(X.column_names.index("time"), "time", times)


@needs_spark
def test_a_session_in_another_zone_gives_the_same_histories(spark):
    impressions, events = make_logs(zone="UTC")
    shown, log = on_spark(in_zone(spark, "Europe/Berlin"), impressions, events)
    found = shown.cogroup(log).applyInArrow(attach_in_any_zone, ATTACHED).toArrow()
    assert plain(found.to_pandas(types_mapper=pd.ArrowDtype)) == attached_here(impressions, events)


@needs_spark
def test_spark_attaches_histories_by_apply_in_pandas(spark):
    logs = make_logs(zone="UTC")
    # applyInPandas makes floats of integers among which some are missing
    impressions, events = (log.assign(item=log["item"].fillna(0).astype("int64")) for log in logs)
    shown, log = on_spark(in_zone(spark, "UTC"), impressions, events)
    found = shown.cogroup(log).applyInPandas(attach_pandas, ATTACHED).toArrow()
    assert plain(found.to_pandas(types_mapper=pd.ArrowDtype)) == attached_here(impressions, events)


@pytest.fixture(scope="module")
def ray():
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@needs_ray
@pytest.mark.parametrize("n_parts", [1, 3])
def test_ray_scores_by_map_batches(ray, model, score, rows, n_parts):
    from ray import data

    table = data.from_pandas(rows).repartition(n_parts)
    scored = table.map_batches(score, batch_format="pandas", batch_size=None).to_pandas()
    check_scores(scored, model, rows, n_parts=n_parts)
