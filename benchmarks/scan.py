"""Logs larger than memory: seconds, anonymous memory and disk of attaching and of fitting.

``python -m benchmarks.scan [--rows 30_000_000 ...] [--fit]`` writes as many impressions and events
as Parquet files, one user for every twenty events, in no order; attaches two history columns and
the times elapsed in a process of its own, and reads a part of the result; with ``--fit`` it encodes
all rows and trains one epoch. 100 million of both need some 12 GB of disk. ``--memory`` is that of
``scan_parquet``.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.memory import Peak
from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history, scan_parquet

ROWS_PER_GROUP = 100_000
N_ITEMS, N_CATEGORIES = 100_000, 1_000
EVENTS_PER_USER = 20
ROWS_READ = 1_000_000  # of what was attached
SECONDS_BETWEEN = 0.5  # two looks at the disk in use


def make_events(first, last, *, n_users, seed):
    """Rows of users drawn at random as an Arrow table."""
    rng, size = np.random.default_rng([seed, first]), last - first
    return pa.table(
        {
            "user": rng.integers(0, n_users, size),
            "item": rng.integers(0, N_ITEMS, size),
            "category": pa.array(rng.integers(0, N_CATEGORIES, size)).cast(pa.string()),
            "time": rng.integers(0, 10**9, size),
            "click": rng.integers(0, 2, size),
        }
    )


def write(path, n_rows, make):
    """Write what ``make`` returns of the first to the last row, group by group."""
    writer = None
    for first in range(0, n_rows, ROWS_PER_GROUP):
        table = make(first, min(first + ROWS_PER_GROUP, n_rows))
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    writer.close()


def gigabytes_in(folder):
    """GB of all files in a folder; one that goes away meanwhile counts as none."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total / 1e9


def measure(folder, memory, fits):
    """Attach in this process, whose memory until now is what importing took; read, and fit."""
    classifier = DINClassifier(max_epochs=1, early_stopping=False, random_state=0)
    classifier.fit(np.eye(4), [0, 1, 0, 1])  # libraries are loaded before the start
    cache = folder / "cache"
    cache.mkdir()
    scans = [
        scan_parquet(folder / f"{name}.parquet", target="click", memory=memory, cache_dir=cache)
        for name in ("impressions", "events")
    ]
    roles = {"user": "user", "time": "time", "columns": ["item", "category"], "elapsed": "ago"}
    with Peak() as peak:
        start = time.perf_counter()
        with Peak(partial(gigabytes_in, cache), SECONDS_BETWEEN) as disk:
            attached = attach_history(*scans, **roles)
        print_row("attached", len(attached), start, peak)
        most = disk.beyond_start()
        print(f"on disk {gigabytes_in(cache):.2f} GB, at most {most:.2f} GB meanwhile")
        start = time.perf_counter()
        n_rows = sum(len(part) for _, part in attached[:ROWS_READ].parts())
        print_row("read", n_rows, start, peak)
        if fits:
            start, y = time.perf_counter(), attached.target_
            encoder = HistorySequenceEncoder(user="user", time="time")
            encoded = encoder.fit_transform(attached, y)
            print_row("encoded", len(encoded), start, peak)
            start = time.perf_counter()
            classifier.fit(encoded, y)
            print_row("trained one epoch", len(encoded), start, peak)


def print_row(what, n_rows, start, peak):
    """Print how long something took, and the peak of memory until now."""
    seconds = time.perf_counter() - start
    print(
        f"{what}: {n_rows:,} rows in {seconds:.1f} s ({n_rows / seconds:,.0f} rows/s), anonymous "
        f"peak {peak.beyond_start():,.0f} MB beyond {peak.before:,.0f} MB at the start",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--fit", action="store_true", help="encode and train one epoch as well")
    parser.add_argument("--memory", default="1GB")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.memory, options.fit)
        return
    for n_rows in options.rows:
        n_users = max(n_rows // EVENTS_PER_USER, 1)
        with tempfile.TemporaryDirectory() as folder:
            for seed, name in enumerate(["impressions", "events"]):
                make = partial(make_events, n_users=n_users, seed=seed)
                write(Path(folder) / f"{name}.parquet", n_rows, make)
            command = [sys.executable, "-m", "benchmarks.scan", "--memory", options.memory]
            command += ["--measure", folder, *["--fit"] * options.fit]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
