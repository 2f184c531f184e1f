"""pandas, polars or Arrow comes in: the same kind goes out, with what pandas would have got."""

import datetime as dt

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.pipeline import make_pipeline

from sklearn_din import (
    DINClassifier,
    HistoryBuilder,
    HistorySequenceEncoder,
    Ranker,
    attach_aggregates,
    attach_history,
    rank_candidates,
    sample_negatives,
)
from tests.tables import plain

pl = pytest.importorskip("polars")

CLICKS = pd.DataFrame({
    "user": [1, 1, 2, 1, 2, 3],
    "item": ["hat", "tie", "hat", "cap", "tie", "sock"],
    "size": pd.Series([1, None, 3, 4, 5, 6], dtype="Int32"),
    "day": pd.to_datetime(["2024-01-01"] * 2 + ["2024-01-02"] * 3 + ["2024-01-03"]),
    "time": [1, 2, 2, 3, 3, 4],
})  # fmt: skip
NOW = pd.DataFrame({"user": [1, 2, 9], "time": [3, 9, 9]})
PAST = {"user": "user", "time": "time", "columns": ["item", "size", "day"], "elapsed": "ago"}
KINDS = {
    "pandas": lambda frame: frame,
    "polars": pl.from_pandas,
    "arrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
}
TYPES = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "arrow": pa.Table}


@pytest.mark.parametrize("theirs", KINDS)
@pytest.mark.parametrize("ours", KINDS)
def test_histories_are_those_of_pandas_whatever_the_two_kinds(ours, theirs):
    attached = attach_history(KINDS[ours](NOW), KINDS[theirs](CLICKS), **PAST)
    assert isinstance(attached, TYPES[ours])
    assert plain(attached) == plain(attach_history(NOW, CLICKS, **PAST))


def test_the_callers_own_columns_are_never_converted_there_and_back():
    odd = pl.from_pandas(NOW).with_columns(
        kind=pl.Series(["a", "b", "a"], dtype=pl.Enum(["a", "b"])),
        tiny=pl.Series([1, None, 3], dtype=pl.UInt8),
        pair=pl.struct("user", "time"),
        clock=pl.lit(dt.time(12)),
    )
    attached = attach_history(odd, pl.from_pandas(CLICKS), **PAST)
    assert attached.select(odd.columns).equals(odd)
    assert attached.select(odd.columns).schema == odd.schema


@pytest.mark.parametrize("kind", KINDS)
def test_negatives_of_any_kind(kind):
    log = KINDS[kind](CLICKS)
    options = {"item": "item", "item_columns": ["size"], "user": "user", "random_state": 0}
    expected, expected_y = sample_negatives(CLICKS, n_negatives=3, **options)
    impressions, y = sample_negatives(log, n_negatives=3, **options)
    assert isinstance(impressions, TYPES[kind])
    assert plain(impressions) == plain(expected)
    assert kind == "pandas" or impressions.schema == log.schema
    np.testing.assert_array_equal(y, expected_y)


@pytest.mark.parametrize("kind", KINDS)
def test_a_builder_of_any_kind_takes_its_columns_by_name(kind):
    make, columns = KINDS[kind], ["user", "item", "time"]
    first, later = CLICKS[columns].head(4), CLICKS[columns].tail(2)
    builder = HistoryBuilder(user="user", time="time", columns="item", events="all")
    expected = builder.fit(first).partial_fit(later).transform(later)
    mixed = builder.fit(make(first)).partial_fit(later).transform(make(later))
    assert isinstance(mixed, TYPES[kind])
    assert plain(mixed) == plain(expected)
    assert plain(builder.transform(later)) == plain(expected)
    moved = make(CLICKS[["size", "time", "item", "user"]].assign(time=9))
    found = builder.transform(moved)
    assert isinstance(found, TYPES[kind])
    assert plain(found) == plain(builder.transform(CLICKS[columns].assign(time=9)))
    assert list(plain(found)) == list(builder.get_feature_names_out())
    with pytest.raises(ValueError, match="seen at fit time, yet now missing:\n- item"):
        builder.transform(later.drop(columns="item"))
    builder.partial_fit(make(CLICKS[columns].assign(time=9)))
    assert len(builder.events_) == 2 * len(CLICKS)
    positive = HistoryBuilder(user="user", time="time", columns="item")
    shown = positive.fit_transform(make(first), pl.Series([0, 1, 1, 0]))
    assert plain(shown)["hist_item"] == [[], [], [], ["tie"]]


@pytest.mark.parametrize("kind", KINDS)
def test_candidates_are_ranked_in_their_own_kind_and_name_the_user(kind):
    shown = {"user": [7, 9], "item": ["hat", "sock"], "hist_item": [["sock"], ["hat"]]}
    shown = pd.DataFrame(shown)
    encoder = HistorySequenceEncoder(user="user")
    model = make_pipeline(encoder, DINClassifier(max_epochs=1, random_state=0))
    model.fit(KINDS[kind](shown), [0, 1])
    users, items = shown[["user", "hist_item"]], shown[["item"]].assign(title=["Hat", None])
    ranking = rank_candidates(model, KINDS[kind](users), KINDS[kind](items), top_k=2)
    assert isinstance(ranking, TYPES[kind])
    assert plain(ranking) == plain(rank_candidates(model, users, items, top_k=2))
    assert [*plain(ranking)][:3] == ["row", "user", "rank"]
    assert plain(ranking)["user"] == [7, 7, 9, 9]
    alone = Ranker(model, KINDS[kind](items)).rank({"user": 9, "hist_item": ["hat"]}, top_k=1)
    assert plain(alone)["user"] == [9]
    nobody = rank_candidates(model, KINDS[kind](users[["hist_item"]]), KINDS[kind](items))
    assert "user" not in plain(nobody)


@pytest.mark.parametrize("kind", KINDS)
def test_the_callers_frames_stay_as_they_were(kind):
    clicks, now = KINDS[kind](CLICKS.copy()), KINDS[kind](NOW.copy())
    HistoryBuilder(user="user", time="time", columns="item", events="all").fit_transform(clicks)
    attach_history(now, clicks, **PAST)
    attached = attach_history(clicks, clicks, **PAST | {"columns": "item"})
    before = plain(attached)
    HistorySequenceEncoder(drop=["user", "time"]).fit(attached).transform(attached)
    assert plain(attached) == before
    attach_aggregates(now, clicks, time="time", aggregates={"n": ("user", None, "count")})
    sample_negatives(clicks, item="item")
    assert plain(clicks) == plain(KINDS[kind](CLICKS))
    assert plain(now) == plain(KINDS[kind](NOW))


def test_a_stream_is_read_once_and_answered_with_a_table_that_keeps_its_index():
    table = pa.Table.from_pandas(NOW.set_axis([7, 8, 9]))
    attached = attach_history(table.to_reader(), CLICKS, **PAST)
    assert isinstance(attached, pa.Table)
    assert plain(attached) == plain(attach_history(table, CLICKS, **PAST))
    again = attached.to_pandas()
    assert again.index.tolist() == [7, 8, 9]
    histories = [f"hist_{name}" for name in PAST["columns"]]
    assert again.columns.tolist() == ["user", "time", *histories, "ago"]
