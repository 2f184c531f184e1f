"""Time and peak memory of encoding histories: ``python -m benchmarks.encode``.

The same impressions (one candidate item and category each, a history of events with two
attributes) as windows of one log, as Arrow lists and as Python lists, each in its own process.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pyarrow as pa

from sklearn_din.logs.eventlog import EventLog
from sklearn_din.logs.windows import WindowArray
from sklearn_din.transformers import HistorySequenceEncoder

LAYOUTS = ("windows", "arrow", "python")
COLUMNS = {"item": 100_000, "category": 1_000}


def impressions(layout: str, *, n_rows: int, length: int) -> pd.DataFrame:
    """Rows that slide over one log, each with ``length`` events of two attributes."""
    rng = np.random.default_rng(0)
    n_events = n_rows + length
    frame = {name: rng.integers(0, size, n_rows) for name, size in COLUMNS.items()}
    log = EventLog({name: rng.integers(0, size, n_events) for name, size in COLUMNS.items()})
    starts, lengths = np.arange(n_rows), np.full(n_rows, length)
    for name in COLUMNS:
        windows = WindowArray(log, name, starts, lengths)
        frame[f"hist_{name}"] = {
            "windows": lambda w: w,
            "arrow": lambda w: pd.Series(pa.array(w), dtype=pd.ArrowDtype(pa.list_(pa.int64()))),
            "python": lambda w: pd.Series([cell.tolist() for cell in w]),
        }[layout](windows)
    return pd.DataFrame(frame)


def measure(layout: str, *, n_rows: int, length: int) -> str:
    """Fit and transform once, then transform again as at predict."""
    frame = impressions(layout, n_rows=n_rows, length=length)
    joint = {("hist_item", "hist_category"): ("item", "category")}
    encoder = HistorySequenceEncoder(histories=joint)
    before = peak_gb()
    start = time.perf_counter()
    encoded = encoder.fit_transform(frame)
    fitted = time.perf_counter()
    encoder.transform(frame)
    done = time.perf_counter()
    return (
        f"{layout:8} fit_transform {fitted - start:6.2f} s   transform {done - fitted:6.2f} s   "
        f"peak {peak_gb():5.2f} GB ({before:.2f} with the frame alone)   "
        f"output {encoded.nbytes / 1e9:.2f} GB"
    )


def peak_gb() -> float:
    """Largest resident size of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def main() -> None:
    """Run every layout in a process of its own, so that peaks do not mix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--length", type=int, default=20)
    parser.add_argument("--layout", choices=LAYOUTS)
    arguments = parser.parse_args()
    if arguments.layout:
        print(measure(arguments.layout, n_rows=arguments.rows, length=arguments.length))
        return
    print(f"{arguments.rows} rows x {arguments.length} events x {len(COLUMNS)} columns")
    for layout in LAYOUTS:
        size = ["--rows", str(arguments.rows), "--length", str(arguments.length)]
        command = [sys.executable, "-m", "benchmarks.encode", "--layout", layout, *size]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
