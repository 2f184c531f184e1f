"""A request: candidates of one user ranked by a Ranker and by an ONNX file.

``python -m benchmarks.speed request``: 200 candidates of one user with 50 events of two attributes,
given as a dict, a row, a frame; the ranking layout of ONNX, session alone and by a Ranker. What is
compared is called in turn; p50 and p99 of the calls. Large catalogues: ``shortlist.py``.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from benchmarks.guard import fit_one_epoch, log_and_histories
from sklearn_din import Ranker, export_onnx, load_onnx

OF_CANDIDATE = ["item", "category", "price"]
N_CANDIDATES = 200
N_CALLS, N_WARM_UP = 300, 3


def fit() -> tuple[Pipeline, pd.DataFrame]:
    """Fit one epoch on a made log; return the rows whose histories are full as well."""
    frame, y = log_and_histories(2_000, n_items=20_000, mean_length=80, n_impressions=20_000)
    return fit_one_epoch(frame, y), frame[frame["hist_item"].map(len).to_numpy() == 50]


def as_dict(user: pd.DataFrame) -> dict[str, Any]:
    """Return a frame of one row as JSON would bring it."""
    values = {name: user[name].iloc[0] for name in user}
    return {
        n: v.tolist() if isinstance(v, np.ndarray | np.generic) else v for n, v in values.items()
    }


def time_in_turn(calls: Mapping[str, Callable[[], object]], n_calls: int) -> dict[str, list[float]]:
    """Return p50 and p99 of each call, in milliseconds."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(N_WARM_UP + n_calls):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if number >= N_WARM_UP:
                seconds[name].append(time.perf_counter() - began)
    return {n: (1e3 * np.percentile(taken, [50, 99])).tolist() for n, taken in seconds.items()}


def time_ways(folder: str) -> dict[str, list[float]]:
    """Milliseconds of a request of 200 candidates, each way."""
    model, frame = fit()
    candidates = frame.drop_duplicates("item")[OF_CANDIDATE][:N_CANDIDATES]
    user = frame.drop(columns=OF_CANDIDATE)[:1]
    values, row, ranker = as_dict(user), user.iloc[0], Ranker(model, candidates)
    path = Path(folder) / "ranking.onnx"
    export_onnx(model, path, layout="ranking")
    served = load_onnx(path)
    of_file, feeds = Ranker(served, candidates), list[dict[str, np.ndarray]]()
    expected = ranker.rank(values)["probability"]
    np.testing.assert_allclose(of_file.rank(values)["probability"], expected, atol=1e-5)
    network = served[-1].net_
    session = network._session

    class Spy:
        def run(self, outputs, feed):
            feeds.append(feed)
            return session.run(outputs, feed)

    network._session = Spy()
    of_file.rank(values)
    network._session = session
    calls = {
        "dict": lambda: ranker.rank(values),
        "row": lambda: ranker.rank(row),
        "frame": lambda: ranker.rank(user),
        "session": lambda: session.run(["probability"], feeds[0]),
        "file": lambda: of_file.rank(values),
    }
    return time_in_turn(calls, N_CALLS)


def measure() -> dict[str, list[float]]:
    """Return p50 and p99 of each way, for a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        return time_ways(folder)
