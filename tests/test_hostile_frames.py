"""Frames that nobody should have made: a right answer or a clear error, never anything else.

``python -m benchmarks.hostile_frames`` draws thousands of such frames, and says for each function
what a right answer is; here stands a table of columns.
"""

import datetime
import decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from benchmarks.hostile_frames import STEPS, verdict
from sklearn_din import (
    attach_aggregates,
    attach_history,
    sample_negatives,
    scan_parquet,
)
from sklearn_din.command_line.tables import read_ids

pytestmark = pytest.mark.slow

COLUMNS = {
    "floats": [0.5, float("nan"), float("inf"), -0.0],
    "large integers": [2**70, 1, 2**63, -1],
    "integers, 64 bits": np.array([2**64 - 1, 0, 1, 2**53 + 1], dtype=np.uint64),
    "booleans": [True, False, True, True],
    "booleans and missing": [True, None, False, True],
    "complex": [1 + 2j, 2j, 0j, 1j],
    "half precision": np.array([1, 2, 1, 3], dtype=np.float16),
    "text": ["hat", "", None, "\x00"],
    "numbers as text": ["1", "2", "30", "1.5"],
    "lone surrogates": ["\ud800", "ж", "hat", "hat"],
    "bytes": [b"x", b"\xff", b"x", None],
    "categories": pd.Categorical(["hat", None, "sock", "hat"]),
    "moments": pd.to_datetime(["1700-01-01", "2024-05-01", None, "2024-05-01"]),
    "moments with a zone": pd.to_datetime(["2024-05-01", "2024-05-02"] * 2).tz_localize("UTC"),
    "dates": [datetime.date(2020, 1, 1), datetime.date(9999, 12, 31), None, None],
    "periods": pd.period_range("2024-01", periods=4, freq="M"),
    "intervals": pd.interval_range(0, 4),
    "decimals": [decimal.Decimal("1.5"), decimal.Decimal("2"), None, None],
    "lists": [[1], [], [1, None], None],
    "ragged lists": [[1], "hat", np.zeros((2, 2)), {1, 2}],
    "dicts": [{"a": 1}, {}, {"a": 1}, None],
    "tuples": [(1, "a"), (2,), (1, "a"), None],
    "classes": [object, int, object, None],
    "many kinds": [1, "hat", 2.5, None],
    "nothing": [None, pd.NA, pd.NaT, float("nan")],
}


def good_frame():
    frame = pd.DataFrame({"user": [1, 1, 2, 2], "item": ["hat", "sock", "hat", "tie"]})
    frame["price"] = [1.0, 2.0, 3.0, 4.0]
    frame["time"] = [1, 2, 3, 4]
    frame["hist_item"] = [["hat"], [], ["sock", "hat"], ["tie"]]
    return frame


@pytest.mark.parametrize("name", [name for name in STEPS if "command line" not in name])
@pytest.mark.proof
def test_hostile_columns_end_in_answers_or_errors_of_our_own(name):
    step, endings = STEPS[name], {}
    for row, place in enumerate(["item", "price", "user", "time", "hist_item"]):
        for number, kind in enumerate(COLUMNS):
            if (row + number) % max(step.every, 3 if "scan" in name else 1):  # they take long
                continue
            values = COLUMNS[kind]
            column = pd.Series(values, dtype=object if isinstance(values, list) else None)
            if place == "hist_item":
                column = pd.Series([column.tolist()[:row] for row in range(4)], dtype=object)
            endings[place, kind] = verdict(step.run, good_frame().assign(**{place: column}))
    failures = {key: said for key, (ending, said) in endings.items() if ending == "FAILURE"}
    assert not failures
    assert {ending for ending, _ in endings.values()} == {"answer", "own error"}


def test_numbers_of_half_precision_are_numbers_like_others(tmp_path):
    """Neither Arrow nor DuckDB sorts them."""
    log = pd.DataFrame({"user": [0, 1, 2] * 20, "item": [*range(20)] * 3, "time": range(60)})
    log["price"] = (log["user"] / 4).astype(np.float16)
    log.to_parquet(tmp_path / "log.parquet")
    X, y = sample_negatives(scan_parquet(tmp_path / "log.parquet"), item="item", time="time")
    price = pd.concat([part for _, part in X.parts()])["price"]
    assert price[y == 1].tolist() == log["price"].tolist()
    log = pd.DataFrame({"user": np.array([1, 1, 2], np.float16), "item": 1, "time": [1, 2, 3]})
    numbers = {"n": ("user", None, "count"), "mean": ("user", "user", "mean")}
    attached = attach_aggregates(log, log, time="time", aggregates=numbers)
    assert attached["n"].tolist() == [0, 1, 0]
    assert attached["mean"].tolist()[1] == 1.0
    assert read_ids(pd.Series([1, 2], dtype="float16", name="item")).tolist() == [1, 2]


@pytest.mark.skipif(pd.__version__ < "3", reason="pandas 2 reads moments of any year")
def test_moments_with_a_zone_beyond_the_years_of_python_are_named():
    moments = pa.array([2**62, 0], pa.timestamp("us", tz="Europe/Berlin"))
    log = pd.DataFrame({"user": [1, 1], "time": [1, 2]})
    log["item"] = pd.arrays.ArrowExtensionArray(moments)
    message = "'item' holds moments with a zone that Python has no date"
    with pytest.raises(ValueError, match=message):
        attach_history(log, log, user="user", time="time", columns="item")
