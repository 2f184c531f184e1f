"""Logs larger than memory: seconds, anonymous memory and disk of attaching and of fitting.

``python -m benchmarks.scan [--rows 30_000_000 ...] [--fit]`` writes as many impressions and events
as Parquet files, one user for every twenty events, in no order; attaches two history columns and
the times elapsed in a process of its own, and reads a part of the result; with ``--fit`` it encodes
all rows and trains one epoch. ``--users text`` makes the users text, ``--folder`` chooses the disk
(100 million of both need some 12 GB), ``--memory`` is that of ``scan_parquet``.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.memory import AnonymousPeak
from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history, scan_parquet

ROWS_PER_GROUP = 100_000
N_ITEMS, N_CATEGORIES = 100_000, 1_000
EVENTS_PER_USER = 20
ROWS_READ = 1_000_000  # of what was attached
SECONDS_BETWEEN = 0.5  # two looks at the disk in use


def make_events(first, last, *, n_users, users, seed):
    """Rows of users drawn at random as an Arrow table."""
    rng, size = np.random.default_rng([seed, first]), last - first
    owner = pa.array(rng.integers(0, n_users, size))
    return pa.table(
        {
            "user": owner.cast(pa.string()) if users == "text" else owner,
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


class DiskUse(threading.Thread):
    """The most GB that a folder held, looked at twice per second."""

    def __init__(self, folder):
        super().__init__(daemon=True)
        self.folder, self.most, self._is_over = folder, 0, threading.Event()

    def run(self):
        while not self._is_over.wait(SECONDS_BETWEEN):
            self.most = max(self.most, gigabytes_in(self.folder))

    def stop(self):
        self._is_over.set()
        self.join()
        self.most = max(self.most, gigabytes_in(self.folder))


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
    disk = DiskUse(cache)
    disk.start()
    with AnonymousPeak() as peak:
        start = time.perf_counter()
        attached = attach_history(*scans, **roles)
        tell("attached", len(attached), start, peak)
        disk.stop()
        print(f"on disk {gigabytes_in(cache):.2f} GB, at most {disk.most:.2f} GB meanwhile")
        start = time.perf_counter()
        n_rows = sum(len(part) for _, part in attached[:ROWS_READ].parts())
        tell("read", n_rows, start, peak)
        if fits:
            start, y = time.perf_counter(), attached.target_
            encoder = HistorySequenceEncoder(user="user", time="time")
            encoded = encoder.fit_transform(attached, y)
            tell("encoded", len(encoded), start, peak)
            start = time.perf_counter()
            classifier.fit(encoded, y)
            tell("trained one epoch", len(encoded), start, peak)


def tell(what, n_rows, start, peak):
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
    parser.add_argument("--users", choices=["numbers", "text"], default="numbers")
    parser.add_argument("--memory", default="1GB")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.memory, options.fit)
        return
    for n_rows in options.rows:
        n_users = max(n_rows // EVENTS_PER_USER, 1)
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            for seed, name in enumerate(["impressions", "events"]):
                make = partial(make_events, n_users=n_users, users=options.users, seed=seed)
                write(Path(folder) / f"{name}.parquet", n_rows, make)
            command = [sys.executable, "-m", "benchmarks.scan", "--memory", options.memory]
            command += ["--measure", folder, *["--fit"] * options.fit]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
