"""Hundreds of fits, thousands of predictions, Ctrl-C at many lines: is memory flat, no state half.

    python -m benchmarks.endurance [--fits 500] [--predicts 10000] [--interruptions 500]

Memory is what the process holds after garbage collection and after freed memory has been given
back to the system. The first tenth of each run warms caches up; what counts is the growth from
there to the end, per call. Interruptions are Ctrl-C at lines spread over a whole fit, save and
export: the model must be usable afterwards or not fitted, the file old or new.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline

from benchmarks.memory import anonymous_memory
from sklearn_din import DINClassifier, HistoryBuilder, HistorySequenceEncoder, save
from sklearn_din.serving.export import export_onnx
from tests.fitted_pipelines import make_rows
from tests.interruptions import interrupt, n_lines

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


def interrupt_everywhere(n_moments: int, folder: Path) -> Counter:
    """Count how fits, saves and exports ended that were interrupted."""
    frame, y = make_rows()
    fitted = make_model().fit(frame, y)
    path = folder / "model"
    endings: Counter = Counter()
    writers = {
        "save": lambda: save(fitted, path),
        "export": lambda: export_onnx(fitted, path),
    }
    for moment in _spread(n_lines(lambda: make_model().fit(frame, y)), n_moments):
        model = make_model()
        raised = interrupt(lambda model=model: model.fit(frame, y), moment)
        endings["fit", _state_after(model, frame, raised)] += 1
    for name, write in writers.items():
        write()
        new = path.read_bytes()
        for moment in _spread(n_lines(write), n_moments):
            path.write_bytes(b"old")
            interrupt(write, moment)
            content = path.read_bytes()
            is_new = content == new or (name == "save" and zipfile.is_zipfile(path))
            whole = "old file" if content == b"old" else "new file" if is_new else "HALF A FILE"
            n_left = len(list(folder.iterdir())) - 1
            endings[name, f"{n_left} PARTIAL FILES LEFT" if n_left else whole] += 1
            for left in folder.glob(".partial-*"):
                left.unlink()
        path.unlink()
    return endings


def _spread(n: int, n_moments: int) -> np.ndarray:
    return np.unique(np.linspace(1, n, n_moments).astype(int))


def _state_after(model: Pipeline, frame: pd.DataFrame, raised: BaseException | None) -> str:
    if raised is not None and not isinstance(raised, KeyboardInterrupt):
        return f"FOREIGN ERROR {raised!r:.80}"
    try:
        usable = np.isfinite(model.predict_proba(frame)).all()
    except NotFittedError:
        return "not fitted"
    return "usable" if usable else "NOT FINITE"


def main() -> None:
    """Run and print a table; status 1 where memory grows or a state is half done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fits", type=int, default=500)
    parser.add_argument("--predicts", type=int, default=10_000)
    parser.add_argument("--interruptions", type=int, default=500)
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
    with tempfile.TemporaryDirectory() as folder:
        endings = interrupt_everywhere(options.interruptions, Path(folder))
    for (name, ending), number in sorted(endings.items()):
        is_wrong |= any(word.isupper() and len(word) > 1 for word in ending.split())
        print(f"interrupted {name}: {number} {ending}")
    sys.exit(is_wrong)


if __name__ == "__main__":
    main()
