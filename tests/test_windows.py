"""Window columns survive what people do to frames, and never copy or ship the whole log."""

import copy
import io
import pickle
import subprocess
import sys

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.model_selection import train_test_split

from sklearn_din import attach_history
from sklearn_din.logs.windows import EventLog, WindowArray, WindowDtype
from tests.tables import lists

ITEMS = np.array(["a", "b", "c", "d", "e", "f", "g", "h"], dtype=object)
STARTS, LENGTHS = np.array([0, 1, 4, 0, 1]), np.array([2, 3, 0, -1, 3])
CELLS = [["a", "b"], ["b", "c", "d"], [], None, ["b", "c", "d"]]


@pytest.fixture
def frame():
    log = EventLog({"item": ITEMS, "price": np.arange(8) * 1.5})
    ages = WindowArray(EventLog({"ago": np.arange(8.0)}, token=log.token), "ago", STARTS, LENGTHS)
    ages.row_times = np.array([10.0, 20.0, 30.0, np.nan, 50.0])
    return pd.DataFrame({
        "user": [1, 2, 1, 3, 2],
        "hist_item": WindowArray(log, "item", STARTS, LENGTHS),
        "hist_price": WindowArray(log, "price", STARTS, LENGTHS),
        "ago": ages,
    }, index=[10, 20, 20, 30, 40])  # fmt: skip


def test_cells_read_as_arrays_and_missing_cells_as_none_and_lists_become_windows(frame):
    assert lists(frame["hist_item"]) == CELLS
    assert lists(frame["hist_item"].array) == CELLS
    with pytest.raises(ValueError, match="read-only"):
        frame["hist_item"].iloc[0][0] = "z"
    assert frame["hist_item"].isna().tolist() == [False, False, False, True, False]
    assert frame["ago"].iloc[1].tolist() == [19.0, 18.0, 17.0]
    assert frame["ago"].array.flatten().tolist() == [10, 9, 19, 18, 17, 49, 48, 47]
    column = pd.Series([[1, 2], None, [], (3,), np.array([4])], dtype="window")
    assert lists(column) == [[1, 2], None, [], [3], [4]]
    assert column.array.log.columns["values"].dtype == np.int64
    assert lists(column.astype(object)) == lists(column)
    assert lists(pd.Series(lists(frame["hist_item"])).astype("window")) == CELLS
    assert lists(pd.Series([None, None], dtype="window")) == [None, None]


COLUMNS = ["hist_item", "hist_price", "ago"]
ROW_OPERATIONS = {
    "iloc": (lambda f: f.iloc[[3, 0, 0]], [3, 0, 0]),
    "mask": (lambda f: f[f["user"] == 2], [1, 4]),
    "copy": (lambda f: f.copy(), [0, 1, 2, 3, 4]),
    "deepcopy": (copy.deepcopy, [0, 1, 2, 3, 4]),
    "concat": (lambda f: pd.concat([f.iloc[:2], f.iloc[4:]]), [0, 1, 4]),
    "concat empty": (lambda f: pd.concat([f.iloc[:0], f.iloc[:2]]), [0, 1]),
    "merge": (lambda f: pd.DataFrame({"user": [2, 9, 3]}).merge(f, on="user", how="left"),
              [1, 4, None, 3]),
    "merge on histories": (lambda f: f.merge(f[["hist_item", "user"]][1:2], how="left"),
                           [0, 1, 2, 3, 4]),
    "outer merge": (lambda f: f[:2].merge(pd.DataFrame({"user": [1, 9]}), how="outer"),
                    [0, 1, None]),
    "convert_dtypes": (lambda f: f.convert_dtypes(dtype_backend="pyarrow"), [0, 1, 2, 3, 4]),
    "reindex": (lambda f: f.reset_index(drop=True).reindex([4, 7, 0]), [4, None, 0]),
    "shift": (lambda f: f.shift(1), [None, 0, 1, 2, 3]),
    "groupby apply": (lambda f: f.groupby("user", group_keys=False)[COLUMNS]
                      .apply(lambda group: group.iloc[:1]), [0, 1, 3]),
    "train_test_split": (lambda f: train_test_split(f, shuffle=False, test_size=2)[1], [3, 4]),
    "pickle of rows": (lambda f: pickle.loads(pickle.dumps(f.iloc[[4, 2, 1]])), [4, 2, 1]),
}  # fmt: skip

if int(pd.__version__.split(".")[0]) >= 3:  # pandas 2 aggregates no array-valued cells
    ROW_OPERATIONS["groupby first"] = (lambda f: f.groupby("user").first(), [0, 1, 3])


@pytest.mark.parametrize("name", ROW_OPERATIONS)
def test_rows_keep_their_histories_and_columns_the_same_windows(frame, name):
    operation, rows = ROW_OPERATIONS[name]
    result = operation(frame)
    for column in COLUMNS:
        before = lists(frame[column])
        assert lists(result[column]) == [None if row is None else before[row] for row in rows]
        assert isinstance(result[column].dtype, WindowDtype)
    item = result["hist_item"].array
    assert item.fingerprint == result["hist_price"].array.fingerprint
    assert item.fingerprint == result["ago"].array.fingerprint


def test_moving_rows_shares_the_log_and_missing_histories_become_arrows_nulls(frame):
    log = frame["hist_item"].array.log
    for name in ("iloc", "mask", "copy", "deepcopy", "concat", "merge", "shift"):
        assert ROW_OPERATIONS[name][0](frame)["hist_item"].array.log is log
    converted = frame[3:4].convert_dtypes(dtype_backend="pyarrow")
    assert [str(dtype) for dtype in converted.dtypes[1:]] == ["null[pyarrow]"] * 3
    with pytest.raises(NotImplementedError, match="Unsupported cast from list"):
        frame["hist_item"].astype(converted["hist_item"].dtype)  # some are there


def test_compacting_keeps_each_covered_event_once():
    log = EventLog({"item": np.arange(1_000_000)})
    windows = WindowArray(log, "item", [500, 502, 10, 0], [4, 4, 2, 0])
    small = windows.compact()
    assert small.log.columns["item"].tolist() == [10, 11, 500, 501, 502, 503, 504, 505]
    assert lists(small) == lists(windows)
    assert small.log.token == log.token
    assert len(pickle.dumps(windows)) < 2_000
    assert joblib.hash(windows) == joblib.hash(windows.copy())
    rng = np.random.default_rng(0)
    for apart in (1, 500):  # far starts are compared, close ones are counted
        starts = 7 + apart * rng.permutation(2_000)
        many = WindowArray(log, "item", starts, rng.integers(0, 9, 2_000))
        events = np.unique(many.flatten())
        assert many.compact().log.columns["item"].tolist() == events.tolist()
        assert lists(many.compact()) == lists(many)


def test_frames_of_different_logs_concat_into_one(frame):
    big = 2**60 + 1
    for values in ([7, 8], [big], ["a"], [0.5], np.array([1], np.int32)):
        other = WindowArray(EventLog({"item": np.array(values)}), "item", [0], [len(values)])
        joined = pd.concat([frame["hist_item"], pd.Series(other), frame["hist_item"].iloc[:1]])
        assert lists(joined) == [*CELLS, [*values], ["a", "b"]]  # as they are
    numbers = WindowArray(EventLog({"item": np.array([1], np.int32)}), "item", [0], [1])
    large = WindowArray(EventLog({"item": np.array([big])}), "item", [0], [1])
    assert lists(pd.concat([pd.Series(numbers), pd.Series(large)])) == [[1], [big]]
    parts = [pickle.loads(pickle.dumps(frame.iloc[rows])) for rows in ([0, 3], [1], [2])]
    whole = pd.concat(parts)
    assert lists(whole["hist_item"]) == [CELLS[row] for row in (0, 3, 1, 2)]
    assert whole["ago"].iloc[0].tolist() == [10.0, 9.0]
    assert whole["hist_item"].array.fingerprint == whole["hist_price"].array.fingerprint
    again = [pickle.loads(pickle.dumps(frame)) for _ in range(3)]
    assert len(pd.concat(again)["hist_item"].array.log) == 4
    joined = pd.concat([frame["ago"], frame["hist_price"]], ignore_index=True)
    assert lists(joined) == [*lists(frame["ago"]), *lists(frame["hist_price"])]


@pytest.mark.parametrize("unit", ["ns", "us", "s"])
def test_dates_stay_dates_beside_values_of_another_kind(unit):
    days = pd.Series(pd.to_datetime(["2024-05-01", "2024-05-02"])).dt.as_unit(unit)
    logs = [pd.DataFrame({"user": 1, "time": [1, 2], "day": of}) for of in (days, ["new", "old"])]
    attached = [attach_history(log, log, user="user", time="time", columns="day") for log in logs]
    cells = pd.concat(attached)["hist_day"].tolist()
    assert [cell.tolist() for cell in cells] == [[], [pd.Timestamp("2024-05-01")], [], ["new"]]


def test_assigning_cells(frame):
    frame["hist_item"] = frame["hist_item"].where(frame["user"] != 1)
    assert lists(frame["hist_item"]) == [None, CELLS[1], None, None, CELLS[4]]
    frame.loc[10, "hist_item"] = None
    assert lists(frame["hist_item"]) == [None, CELLS[1], None, None, CELLS[4]]
    array = frame["hist_item"].array.copy()
    array[1] = ["y", "z"]
    array[[0, 2]] = [["x"], []]
    assert lists(array) == [["x"], ["y", "z"], [], None, CELLS[4]]
    assert lists(frame["hist_item"]) == [None, CELLS[1], None, None, CELLS[4]]


def test_equality_is_by_cell_and_arrow_gets_the_wanted_type(frame, monkeypatch):
    item = frame["hist_item"]
    assert (item == item).tolist() == [True, True, True, False, True]
    assert (item != item.iloc[::-1].to_numpy()).tolist() == [True, True, False, True, True]
    assert item.equals(item.copy())
    assert not item.equals(item.iloc[::-1])
    assert frame.equals(frame.copy())
    assert (item == "a").sum() == 0
    with pytest.raises(ValueError, match="Lengths must match to compare: 5 and 2"):
        item.array == item.array[:2]  # noqa: B015
    wanted = pa.large_list(pa.float32())
    array = pa.array(frame["hist_price"], type=wanted)
    assert array.type == wanted
    assert array.to_pylist() == lists(frame["hist_price"])
    monkeypatch.setattr("sklearn_din.logs.windows._LARGE", 1)  # wide offsets for very many events
    assert pa.array(item).type == pa.large_list(pa.large_string())
    assert pa.array(frame["ago"]).to_pylist() == lists(frame["ago"])


def test_whole_frame_operations_that_hash_or_explode_cells(frame):
    doubled = pd.concat([frame, frame])
    assert len(doubled.drop_duplicates()) == len(frame)
    assert frame["hist_item"].duplicated().tolist() == [False, False, False, False, True]
    assert frame["hist_item"].nunique() == 3
    assert frame["hist_item"].value_counts().tolist() == [2, 1, 1]
    assert frame.describe(include="all").loc["unique", "hist_item"] == 3
    assert lists(frame["hist_item"].unique()) == CELLS[:4]
    assert lists(frame.sort_values("hist_item", kind="stable")["hist_item"])[0] == []
    exploded = frame["hist_item"].explode()
    assert exploded.dropna().tolist() == ["a", "b", "b", "c", "d", "b", "c", "d"]
    assert exploded.index.tolist() == [10, 10, 20, 20, 20, 20, 30, 40, 40, 40]
    assert exploded.isna().sum() == 2


def test_frames_can_be_printed(frame):
    long = WindowArray(EventLog({"item": np.arange(99)}), "item", [0] * 5, [50] * 5)
    frame["long"] = long
    for text in (repr(frame), frame.to_string(), frame.to_html()):
        assert "[a, b]" in text
        assert "[0, 1, ..., 48, 49]" in text
        assert "None" in text
    assert "[b, c, d]" in repr(frame["hist_item"])
    assert "[10, 9]" in repr(frame["ago"].array)
    buffer = io.StringIO()
    frame.info(buf=buffer)
    assert "window" in buffer.getvalue()
    assert repr(WindowDtype()) == "WindowDtype()"
    assert frame["long"].astype(str).iloc[0].endswith("46, 47, 48, 49]")


def test_parquet_gets_plain_lists_that_a_reader_without_the_package_reads(frame, tmp_path):
    path = tmp_path / "frame.parquet"
    frame.to_parquet(path)
    back = pd.read_parquet(path)
    for column in ("hist_item", "hist_price", "ago"):
        assert lists(back[column]) == lists(frame[column])
    assert back.index.tolist() == frame.index.tolist()
    script = (
        "import sys, pandas as pd; f = pd.read_parquet(sys.argv[1]);"
        "assert 'sklearn_din' not in sys.modules; print(f['hist_item'].iloc[1].tolist())"
    )
    command = [sys.executable, "-c", script, str(path)]
    read = subprocess.run(command, capture_output=True, text=True, check=True)
    assert read.stdout.strip() == "['b', 'c', 'd']"


@pytest.mark.slow
def test_mixed_values_are_refused_by_parquet_and_do_not_end_the_process(tmp_path):
    code = (
        "import numpy as np, pandas as pd; from sklearn_din import HistorySequenceEncoder as E;"
        "f = pd.DataFrame({'item': [1, 2], 'hist_item': [[np.datetime64('2021-01-01')],"
        "[np.float32(1.0)]]})\n"
        "try: E().fit(f)\n"
        "except (ValueError, TypeError): pass"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    mixed = pd.Series([np.datetime64("2021-01-01"), np.float32(1.0)] * 2, dtype=object)
    log = pd.DataFrame({"user": 1, "item": mixed, "time": range(4)})
    frame = attach_history(log[["user", "time"]], log, user="user", time="time", columns="item")
    with pytest.raises(ValueError, match="'item' holds events of several kinds"):
        frame.to_parquet(tmp_path / "mixed.parquet")
