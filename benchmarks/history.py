"""Time and peak memory of attaching histories, each size in its own process.

``python -m benchmarks.history [--rows N ...]`` prints one line a size: as many impressions as
events, one user for every twenty events, two history columns, unsorted input.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import numpy as np
import pandas as pd

from sklearn_din.logs.history import attach_history

EVENTS_PER_USER = 20
BYTES_PER_GB = 1e9


def make_log(n_rows, *, random_state):
    """Events of users drawn at random, in no order."""
    rng = np.random.default_rng(random_state)
    return pd.DataFrame(
        {
            "user": rng.integers(0, n_rows // EVENTS_PER_USER, n_rows),
            "item": rng.integers(0, 100_000, n_rows),
            "category": rng.integers(0, 1_000, n_rows),
            "time": rng.integers(0, 10**9, n_rows),
        }
    )


def peak_memory():
    """Largest resident size of this process so far, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / BYTES_PER_GB


def measure(n_rows):
    impressions = make_log(n_rows, random_state=0)
    events = make_log(n_rows, random_state=1)
    before = peak_memory()
    start = time.perf_counter()
    attached = attach_history(
        impressions, events, user="user", time="time", columns=["item", "category"]
    )
    seconds = time.perf_counter() - start
    mean_length = attached["hist_item"].array.lengths.mean()
    print(
        f"{n_rows:>12,} {seconds:>8.2f} {n_rows / seconds:>12,.0f} {before:>11.2f} "
        f"{peak_memory():>9.2f} {mean_length:>12.1f}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--here", action="store_true", help="measure in this process")
    arguments = parser.parse_args()
    if arguments.here:
        for n_rows in arguments.rows:
            measure(n_rows)
        return
    print("        rows  seconds       rows/s  frames, GB  peak, GB  mean length")
    for n_rows in arguments.rows:
        command = [sys.executable, "-m", "benchmarks.history", "--here", "--rows", str(n_rows)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
