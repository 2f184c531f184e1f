"""TimeSplit trains on what came before and tests on what came next, and parts no moment."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sklearn_din import TimeSplit

DAYS = list(pd.date_range("2024-01-01", periods=5))
ZONED = list(pd.date_range("2024-01-01", periods=5, tz="Asia/Tokyo").as_unit("s"))


@pytest.mark.parametrize(("times", "n_splits", "parameters", "expected"), [
    ([3, 1, 2], 2, {}, [([1], [2]), ([1, 2], [3])]),
    ([1, 2, 2, 2, 3], 2, {}, [([1], [2, 2, 2]), ([1, 2, 2, 2], [3])]),
    ([1, 1, 1, 2, 3], 1, {"test_size": 3}, [([1, 1, 1], [2, 3])]),  # nearer than the start
    ([1, 2, 2, 2, 2, 3], 1, {"test_size": 4}, [([1], [2, 2, 2, 2, 3])]),
    ([1, 2, 3, 4, 5], 2, {"test_size": 1}, [([1, 2, 3], [4]), ([1, 2, 3, 4], [5])]),
    ([1, 2, 3, 4, 5], 1, {"test_size": 0.4}, [([1, 2, 3], [4, 5])]),
    ([1, 2, 3, 4, 5], 1, {"test_size": 2, "gap": 1}, [([1, 2], [4, 5])]),
    ([1, 2, 3, 4, 5], 1, {"test_size": 2, "gap": 1.5}, [([1, 2], [4, 5])]),
    ([1, 2, 3, 4, 5], 1, {"test_size": 2, "gap": 0.5}, [([1, 2, 3], [4, 5])]),
    ([1.0, 2.5, 3.0], 1, {"test_size": 1, "gap": 0.5}, [([1.0], [3.0])]),
    ([1, 1, 2, 2, 2, 2, 2, 2, 3, 4], 3, {}, [([1, 1], [2] * 6), ([1, 1] + [2] * 6, [3]),
                                            ([1, 1] + [2] * 6 + [3], [4])]),
    (DAYS, 1, {"test_size": 2, "gap": 0}, [(DAYS[:3], DAYS[3:])]),
    (DAYS, 1, {"test_size": 2, "gap": "36h"}, [(DAYS[:2], DAYS[3:])]),
    (DAYS, 1, {"test_size": 2, "gap": pd.Timedelta("47h")}, [(DAYS[:2], DAYS[3:])]),
    (DAYS, 1, {"test_size": 2, "gap": np.timedelta64(2, "D")}, [(DAYS[:1], DAYS[3:])]),
    (ZONED, 1, {"test_size": 2, "gap": "1D"}, [(ZONED[:2], ZONED[3:])]),
])  # fmt: skip
def test_folds_by_hand(times, n_splits, parameters, expected):
    frame = pd.DataFrame({"time": times})
    folds = TimeSplit(n_splits, time="time", **parameters).split(frame)
    found = [tuple(frame["time"].iloc[rows].tolist() for rows in fold) for fold in folds]
    assert found == expected


TIMES = st.one_of(
    st.lists(st.integers(-5, 12), min_size=2, max_size=40),
    st.lists(st.sampled_from([-1.5, 0.0, 0.25, 1.0, 3.5, 4.0]), min_size=2, max_size=40),
    st.lists(st.integers(2**62, 2**62 + 6), min_size=2, max_size=40),
)


@settings(max_examples=120, deadline=None)
@given(times=TIMES, n_splits=st.integers(1, 5),
       test_size=st.one_of(st.none(), st.integers(1, 4), st.floats(0.05, 0.4)),
       gap=st.sampled_from([0, 0.5, 1, 2]))  # fmt: skip
@pytest.mark.slow
def test_laws_of_every_fold(times, n_splits, test_size, gap):
    n_times = len(set(times))
    assume(n_times > n_splits)
    rows = test_size if isinstance(test_size, int) else round((test_size or 0) * len(times))
    assume(max(rows, 1) * n_splits < len(times))
    frame = pd.DataFrame({"time": times}, index=range(100, 100 + len(times)))
    splitter = TimeSplit(n_splits, test_size=test_size, gap=gap, time="time")
    try:
        made = list(splitter.split(frame))
    except ValueError:
        if not gap:  # only a gap may leave nothing to train on
            raise
        return
    times = frame["time"].to_numpy()
    tested = np.concatenate([test for _, test in made])
    assert len(made) == n_splits == splitter.get_n_splits()
    assert len(set(tested)) == len(tested)  # no row in two test blocks
    first = times[made[0][1]].min()
    assert set(tested) == set(np.flatnonzero(times >= first))  # and every newer row in one
    for train, test in made:
        assert len(train)
        assert len(test)
        limit = times[test].min()
        expected = [row for row, t in enumerate(times.tolist()) if limit.item() - t > gap]
        assert sorted(train) == expected
        assert not set(times[train]) & set(times[test])
        rest = np.setdiff1d(tested, test)
        assert not set(times[rest]) & set(times[test])


@pytest.mark.parametrize("make", [pl.from_pandas, pa.Table.from_pandas])
def test_polars_and_arrow_split_as_pandas(make):
    stamps = pd.Timestamp("2024-01-01") + pd.to_timedelta([4, 1, 2, 2, 3, 5, 6], unit="h")
    frame = pd.DataFrame({"item": list("abcdefg"), "time": stamps})
    splitter = TimeSplit(3, time="time", gap="30min")
    for pair, expected in zip(splitter.split(make(frame)), splitter.split(frame), strict=True):
        assert [rows.tolist() for rows in pair] == [rows.tolist() for rows in expected]


def test_a_fold_trains_on_rows_whose_label_was_known_when_its_test_block_begins():
    rng = np.random.RandomState(0)
    for unit in (None, "ms"):
        frame = pd.DataFrame({"time": rng.randint(50, size=200)})
        frame["known"] = frame["time"] + rng.randint(20, size=200)
        numbers = frame.copy()
        if unit is not None:  # labels in finer times than the rows
            frame["time"] = pd.to_datetime(frame["time"], unit="s").astype("datetime64[s]")
            frame["known"] = pd.to_datetime(frame["known"], unit="s").astype(f"datetime64[{unit}]")
        for train, test in TimeSplit(3, time="time", known="known").split(frame):
            first = numbers["time"].iloc[test].min()
            is_train = (numbers["time"] < first) & (numbers["known"] < first)
            assert sorted(train) == np.flatnonzero(is_train).tolist()
    with pytest.raises(TypeError, match="must hold datetimes, as the times do, got numbers"):
        next(TimeSplit(time="time", known="known").split(frame.assign(known=1)))
    finer = frame.assign(known=(frame["known"] + pd.Timedelta("900ms")).astype("datetime64[ms]"))
    split = TimeSplit(3, time="time", known="known")
    for (train, _), (coarse, test) in zip(split.split(finer), split.split(frame), strict=True):
        assert set(train) == set(coarse)  # what is known at 5.9 s is known before 6 s
        first = finer["time"].iloc[test].min()
        assert set(train) == set(np.flatnonzero((finer["known"] < first) & (finer["time"] < first)))
    late = frame.assign(known=frame["time"] + pd.Timedelta("9D"))
    with pytest.raises(ValueError, match="and its label known before, 'known'"):
        next(TimeSplit(time="time", known="known").split(late))
