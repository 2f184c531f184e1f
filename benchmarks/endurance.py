"""Hundreds of fits, thousands of predictions: is memory flat.

    python -m benchmarks.endurance [--fits 500] [--predicts 10000]

Memory is what the process holds after garbage collection and after freed memory has been given
back to the system. The first tenth of each run warms caches up; what counts is the growth from
there to the end, per call. What Ctrl-C leaves is a test: ``MOMENTS=500 pytest
tests/test_interruptions.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import sys
import time
import warnings
from collections.abc import Callable

from sklearn.base import clone
from sklearn.pipeline import Pipeline

from benchmarks.memory import anonymous_memory
from sklearn_din import DINClassifier, HistoryBuilder, HistorySequenceEncoder
from tests.fitted_pipelines import make_rows

MOST_GROWTH = 20_000  # bytes per fit
WARM_UP = 0.1  # share of the calls before memory is first read


def make_model() -> Pipeline:
    """Return a Pipeline from log to click, not fitted."""
    builder = HistoryBuilder(user="user", time="time", columns=["item"], elapsed="ago")
    encoder = HistorySequenceEncoder(drop=["user", "time"])
    classifier = DINClassifier(max_epochs=1, embedding_dim=4, hidden_units=(8,), random_state=0)
    return Pipeline([("build", builder), ("encode", encoder), ("din", classifier)])


def memory_in_use() -> int:
    """Bytes of anonymous memory of the process, after what is free has been given back."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # not glibc: freed memory may still count
        ctypes.CDLL(None).malloc_trim(0)
    return round(1e6 * anonymous_memory())


def growth(call: Callable[[], object], n_calls: int) -> float:
    """Bytes by which memory grows per call, once the first calls have warmed up."""
    n_first = max(1, int(n_calls * WARM_UP))
    for _ in range(n_first):
        call()
    before = memory_in_use()
    for _ in range(n_calls - n_first):
        call()
    return (memory_in_use() - before) / max(1, n_calls - n_first)


def main() -> None:
    """Run and print a table; status 1 where memory grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fits", type=int, default=500)
    parser.add_argument("--predicts", type=int, default=10_000)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    frame, y = make_rows()
    model = make_model().fit(frame, y)
    is_wrong = False
    runs = {
        "fits": (lambda: clone(model).fit(frame, y), options.fits, MOST_GROWTH),
        "refits": (lambda: model.fit(frame, y), options.fits // 5, MOST_GROWTH),
        "predicts": (lambda: model.predict_proba(frame), options.predicts, 500),
    }
    for name, (call, n_calls, most) in runs.items():
        began = time.perf_counter()
        grown = growth(call, n_calls)
        is_wrong |= grown > most
        seconds = time.perf_counter() - began
        print(f"{n_calls} {name}: {grown:+,.0f} bytes per call, {seconds:.0f} s", flush=True)
    sys.exit(is_wrong)


if __name__ == "__main__":
    main()
