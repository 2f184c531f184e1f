"""Hundreds of fits, thousands of predictions: is memory flat.

    python -m benchmarks.endurance [--fits 500] [--predicts 10000]

Memory is what the process holds after garbage collection and after freed memory has been given
back to the system. The first tenth of each run warms caches up; what counts is the growth from
there to the end, per call. What Ctrl-C leaves is a test: ``MOMENTS=500 pytest
tests/test_interruptions.py``.
"""

import argparse
import contextlib
import ctypes
import gc
import sys
import time
import warnings
from pathlib import Path

from sklearn.base import clone
from sklearn.pipeline import Pipeline

from sklearn_din import DINClassifier, HistoryBuilder, HistorySequenceEncoder
from tests.fitted_pipelines import make_rows

MOST_GROWTH = 20_000  # bytes per fit


def anonymous_memory():
    """Return ``RssAnon`` of this process in MB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024 / 1e6


def make_model():
    """Return a Pipeline from log to click, not fitted."""
    builder = HistoryBuilder(user="user", time="time", columns=["item"], elapsed="ago")
    encoder = HistorySequenceEncoder(drop=["user", "time"])
    classifier = DINClassifier(max_epochs=1, embedding_dim=4, hidden_units=(8,), random_state=0)
    return Pipeline([("build", builder), ("encode", encoder), ("din", classifier)])


def growth(call, n_calls):
    """Bytes by which memory grows per call, once the first tenth of the calls has warmed up."""
    n_first, memory = max(1, n_calls // 10), []
    for n in (n_first, n_calls - n_first):
        for _ in range(n):
            call()
        gc.collect()
        with contextlib.suppress(AttributeError, OSError):  # not glibc
            ctypes.CDLL(None).malloc_trim(0)
        memory.append(1e6 * anonymous_memory())
    return (memory[1] - memory[0]) / max(1, n_calls - n_first)


def main():
    """Run and print a table; status 1 where memory grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fits", type=int, default=500)
    parser.add_argument("--predicts", type=int, default=10_000)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    (frame, y), is_wrong = make_rows(), False
    model = make_model().fit(frame, y)
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
