"""Python objects as Arrow arrays: of one kind, or refused before Arrow sees them."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from sklearn_din import attach_history


def objects(cells):
    column = np.empty(len(cells), dtype=object)
    column[:] = cells
    return column


TIME, NUMBER = np.datetime64("2021-01-01"), np.float32(1.0)


def test_a_history_of_mixed_times_and_numbers_does_not_end_the_process():
    code = (
        "import numpy as np, pandas as pd; from sklearn_din import HistorySequenceEncoder as E;"
        "f = pd.DataFrame({'item': [1, 2], 'hist_item': [[np.datetime64('2021-01-01')],"
        "[np.float32(1.0)]]})\n"
        "try: E().fit(f)\n"
        "except (ValueError, TypeError): pass"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_windows_over_mixed_values_are_refused_by_parquet_and_do_not_crash(tmp_path):
    values = pd.Series(objects([TIME, NUMBER, TIME]))
    log = pd.DataFrame({"user": 1, "item": values, "time": [1, 2, 3]})
    frame = attach_history(log[["user", "time"]], log, user="user", time="time", columns="item")
    with pytest.raises(ValueError, match="'item' holds events of several kinds"):
        frame.to_parquet(tmp_path / "mixed.parquet")
