"""Histories on Dask, one partition of users after another: those of one machine, row by row."""

import numpy as np
import pandas as pd
import pytest

from sklearn_din import attach_history, scan_parquet
from tests.engine_logs import HISTORY, LISTS, attached_here, make_logs, plain

dask = pytest.importorskip("dask", reason="needs dask: pip install .[test]")
dataframe = pytest.importorskip("dask.dataframe", reason="needs dask: pip install .[test]")


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


def test_the_made_logs_have_what_they_are_made_for():
    impressions, events = make_logs(zone="UTC")
    assert impressions["user"].isna().any()
    assert set(impressions["user"].dropna()) - set(events["user"])
    assert set(events["user"]) - set(impressions["user"])
    assert events.duplicated(["user", "time"]).any()
    in_berlin = events["time"].dt.tz_convert("Europe/Berlin").dt.tz_localize(None)
    assert in_berlin.nunique() < events["time"].nunique()
    lists = attached_here(impressions, events)["hist_item"]
    assert any(item is None for cell in lists for item in cell)
    assert any(len(cell) == HISTORY["max_length"] for cell in lists)


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
