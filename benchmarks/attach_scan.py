"""Seconds, anonymous memory and disk of attaching histories to a scan, of Parquet files made here.

``python -m benchmarks.attach_scan --impressions 100_000_000 --events 100_000_000`` writes both
tables into a temporary folder, one user for every twenty events, in no order; attaches two
history columns and the times elapsed in a process of its own; and reads a part of the result.
``--users text`` makes the users text, ``--folder`` chooses the disk. 100 million events and as many
impressions need some 12 GB there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.scan import AnonymousPeak
from sklearn_din import attach_history, scan_parquet

GROUP_ROWS = 1_000_000
N_ITEMS, N_CATEGORIES = 100_000, 1_000
SECONDS_BETWEEN = 0.5
EVENTS_PER_USER = 20
BYTES_PER_GB = 1e9


def write_table(path, n_rows, *, n_users, users, random_state):
    """Rows of users drawn at random, in no order, one row group at a time."""
    rng = np.random.default_rng(random_state)
    writer = None
    for start in range(0, n_rows, GROUP_ROWS):
        size = min(GROUP_ROWS, n_rows - start)
        owner = pa.array(rng.integers(0, n_users, size))
        category = rng.integers(0, N_CATEGORIES, size)
        table = pa.table(
            {
                "user": owner.cast(pa.string()) if users == "text" else owner,
                "item": rng.integers(0, N_ITEMS, size),
                "category": pa.array(category).cast(pa.string()),
                "time": rng.integers(0, 10**9, size),
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    writer.close()


def bytes_in(folder):
    """Bytes of all files in a folder; one that goes away meanwhile counts as none."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


class DiskUse(threading.Thread):
    """The most bytes that a folder held, looked at twice per second."""

    def __init__(self, folder):
        super().__init__(daemon=True)
        self.folder, self.most, self._done = folder, 0, threading.Event()

    def run(self):
        while not self._done.wait(SECONDS_BETWEEN):
            self.most = max(self.most, bytes_in(self.folder))

    def stop(self):
        self._done.set()
        self.join()


def measure(folder, memory):
    """Attach in this process, whose memory until now is what importing took."""
    cache = folder / "cache"
    cache.mkdir()
    shown = scan_parquet(folder / "impressions.parquet", memory=memory, cache_dir=cache)
    events = scan_parquet(folder / "events.parquet", memory=memory, cache_dir=cache)
    disk, peak = DiskUse(cache), AnonymousPeak()
    disk.start()
    peak.start()
    start = time.perf_counter()
    attached = attach_history(
        shown, events, user="user", time="time", columns=["item", "category"], elapsed="ago"
    )
    seconds, attaching = time.perf_counter() - start, peak.beyond_start
    disk.stop()
    start, n_rows, n_events = time.perf_counter(), 0, 0
    for _, part in attached[:GROUP_ROWS].parts():
        n_rows += len(part)
        n_events += int(part["hist_item"].array.lengths.sum())
    reading = time.perf_counter() - start
    print(
        f"attached in {seconds:.1f} s ({(len(shown) + len(events)) / seconds:,.0f} rows/s), "
        f"anonymous peak {attaching:,.0f} MB beyond the {peak.before:,.0f} MB at the start\n"
        f"on disk {bytes_in(cache) / BYTES_PER_GB:.2f} GB, at most "
        f"{max(disk.most, bytes_in(cache)) / BYTES_PER_GB:.2f} GB meanwhile\n"
        f"{n_rows:,} rows read in {reading:.1f} s ({n_rows / reading:,.0f} rows/s), "
        f"{n_events / max(n_rows, 1):.1f} events each; anonymous peak "
        f"{peak.beyond_start:,.0f} MB beyond the start"
    )
    peak.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--impressions", type=int, default=200_000)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--users", choices=["numbers", "text"], default="numbers")
    parser.add_argument("--memory", default="1GB")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure, arguments.memory)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        n_users = max(arguments.events // EVENTS_PER_USER, 1)
        start = time.perf_counter()
        for seed, (name, n_rows) in enumerate(
            [("impressions", arguments.impressions), ("events", arguments.events)]
        ):
            path = Path(folder) / f"{name}.parquet"
            write_table(path, n_rows, n_users=n_users, users=arguments.users, random_state=seed)
        print(
            f"{arguments.impressions:,} impressions, {arguments.events:,} events, users as "
            f"{arguments.users}: {bytes_in(Path(folder)) / BYTES_PER_GB:.2f} GB of Parquet in "
            f"{time.perf_counter() - start:.1f} s",
            flush=True,
        )
        command = [sys.executable, "-m", "benchmarks.attach_scan", "--measure", folder]
        subprocess.run([*command, "--memory", arguments.memory], check=True)


if __name__ == "__main__":
    main()
