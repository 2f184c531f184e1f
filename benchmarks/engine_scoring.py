"""Scoring a table by ``score_partitions`` on Dask or Spark beside ``predict_proba`` on one machine.

``python -m benchmarks.engine_scoring --engine dask|spark|local [--rows 1000000]``: a small model is
fitted and saved, a Parquet table of that many impressions with histories is written, and the engine
reads it, scores it and writes the probabilities to Parquet, on two processes of one thread each.
"local" is ``predict_proba`` of the whole table in one process with two threads. Prints rows/s of a
second pass (the first one loads the model in each worker) and the largest difference to
``predict_proba``, asked for file by file, as the engines are (another cut of the rows rounds
differently). Spark needs the environment of ``make test-engines``.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.pipeline import Pipeline

from sklearn_din import (
    DINClassifier,
    HistorySequenceEncoder,
    attach_history,
    save,
    score_partitions,
)
from sklearn_din.datasets import make_click_log

N_WORKERS = 2
FILE_ROWS = 62_500
ONE_FILE = 1 << 28  # bytes, more than a file has


def prepared(folder, n_rows):
    """Return the fitted model, its file, and a folder of Parquet files with n_rows impressions."""
    log = make_click_log(n_users=2_000, random_state=0)
    X = attach_history(
        log.impressions, log.events, user="user", time="time", columns=["item", "category"]
    )
    encode = HistorySequenceEncoder(user="user", time="time", drop=["row"])
    din = DINClassifier(max_epochs=1, random_state=0)
    model = Pipeline([("encode", encode), ("din", din)]).fit(X.assign(row=0), log.y)
    save(model, folder / "model.din")
    (folder / "rows").mkdir()
    draw = np.random.RandomState(0)
    for start in range(0, n_rows, FILE_ROWS):
        stop = min(start + FILE_ROWS, n_rows)
        part = X.iloc[draw.randint(0, len(X), stop - start)].reset_index(drop=True)
        part = part.assign(row=np.arange(start, stop), time=part["time"].astype("datetime64[us]"))
        part.to_parquet(folder / "rows" / f"part-{start:012}.parquet", index=False)
    return model, folder / "model.din", folder / "rows"


def on_dask(score, rows, scored):
    """Seconds of two passes."""
    import dask.dataframe as dd
    from dask.distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=N_WORKERS, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        for _ in range(2):
            began = time.perf_counter()
            table = dd.read_parquet(rows, dtype_backend="pyarrow")  # lists stay Arrow's
            found = table.map_partitions(score, meta=score.meta(read(first_of(rows))))
            found.to_parquet(scored, write_index=False, overwrite=True)
            yield time.perf_counter() - began


def on_spark(score, rows, scored):
    """Seconds of two passes."""
    from pyspark.sql import SparkSession

    os.environ |= {"PYSPARK_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    builder = SparkSession.builder.master(f"local[{N_WORKERS}]")
    options = {
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "4g",
        "spark.sql.session.timeZone": "UTC",
        # One file is one partition and one batch: another cut of the rows rounds differently.
        "spark.sql.files.openCostInBytes": str(ONE_FILE),
        "spark.sql.files.maxPartitionBytes": str(ONE_FILE),
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(FILE_ROWS),
    }
    for name, value in options.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    try:
        for _ in range(2):
            began = time.perf_counter()
            table = spark.read.parquet(str(rows))
            found = table.mapInPandas(score, "row long, probability float")
            found.write.mode("overwrite").parquet(str(scored))
            yield time.perf_counter() - began
    finally:
        spark.stop()


def here(model, rows, scored):
    """Seconds of two passes of predict_proba on the whole table in memory."""
    torch.set_num_threads(N_WORKERS)
    scored.mkdir()
    for _ in range(2):
        began = time.perf_counter()
        table = read(rows)
        found = table[["row"]].assign(probability=model.predict_proba(table)[:, 1])
        found.to_parquet(scored / "scored.parquet", index=False)
        yield time.perf_counter() - began


def read(path):
    return pd.read_parquet(path, dtype_backend="pyarrow")


def first_of(rows):
    return min(rows.glob("*.parquet"))


def largest_difference(model, rows, scored):
    """Of the engine's probabilities from those of predict_proba, file by file."""
    found = pd.read_parquet(scored).set_index("row")["probability"].sort_index()
    differences = []
    n_rows = 0
    for file in sorted(rows.glob("*.parquet")):
        part = read(file)
        expected = model.predict_proba(part)[:, 1]
        differences.append(np.abs(found.loc[part["row"]].to_numpy() - expected).max())
        n_rows += len(part)
    if n_rows != len(found):
        raise SystemExit(f"{n_rows} rows were given and {len(found)} scored")
    return max(differences)


def main():
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--engine", choices=["dask", "spark", "local"], required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, path, rows = prepared(folder, options.rows)
        score, scored = score_partitions(path, columns="row"), folder / "scored"
        if options.engine == "local":
            seconds = list(here(model, rows, scored))
        else:
            seconds = list(
                {"dask": on_dask, "spark": on_spark}[options.engine](score, rows, scored)
            )
        difference = largest_difference(model, rows, scored)
    print(
        f"{options.engine}: {options.rows:,} rows, {options.rows / seconds[1]:,.0f} rows/s "
        f"(first pass {options.rows / seconds[0]:,.0f}), largest difference {difference:.1e}"
    )


if __name__ == "__main__":
    main()
