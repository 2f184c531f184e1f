"""Logs larger than memory: seconds, anonymous memory and disk of attaching and of fitting.

``python -m benchmarks.scan fit [--rows 1_000_000 10_000_000]``: one epoch from Parquet, each size
in a process of its own: peak of anonymous memory beyond that before the fit. The log: users with
three favourite categories each, whose history grows by their clicks and has 20 events on average; a
click is likelier the more events are of the candidate's category. Rows are in the order of time.
``python -m benchmarks.scan attach [--rows 30_000_000]``: as many impressions and events, one user
for every twenty events, in no order; two history columns and the times elapsed are attached, and a
part of the result is read. ``--users text`` makes the users text; 100 million of both need some
12 GB of disk. ``--folder`` chooses the disk, ``--memory`` is that of ``scan_parquet``.
"""

from __future__ import annotations

import argparse
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
N_USERS = 100_000
N_CATEGORIES = 200
ITEMS_PER_CATEGORY = 500
N_FAVOURITES = 3
MOST_EVENTS = 50
CLICK_RATE = 0.2
EVENTS_PER_USER = 20
ROWS_READ = 1_000_000  # of what was attached
SECONDS_BETWEEN = 0.5  # two looks at the disk in use
BYTES_PER_GB = 1e9


def mix(*numbers):
    """Pseudo-random integers that depend on the given ones alone."""
    state = np.zeros(np.broadcast_shapes(*(np.shape(n) for n in numbers)), dtype=np.uint64)
    for number in numbers:
        state = (state ^ np.asarray(number).astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        state ^= state >> np.uint64(29)
    return (state >> np.uint64(11)).astype(np.int64)


def event(user, position):
    """Category and item of a user's event: one of the favourites, always the same."""
    category = mix(user, mix(user, position) % N_FAVOURITES, 7) % N_CATEGORIES
    return category, category * ITEMS_PER_CATEGORY + mix(user, position, 3) % ITEMS_PER_CATEGORY


def make_clicks(first, last, *, n_users):
    """Rows of the log with histories as an Arrow table."""
    rng = np.random.RandomState(first % 2**31)
    moment = np.arange(first, last)
    user = rng.randint(0, n_users, len(moment))
    n_events = 5 + mix(user, 1) % 31 + (CLICK_RATE * moment / n_users).astype(np.int64)
    lengths = np.minimum(n_events, MOST_EVENTS)
    rows = np.repeat(np.arange(len(moment)), lengths)
    ends = np.cumsum(lengths)
    position = (n_events - ends)[rows] + np.arange(len(rows))
    categories, items = event(user[rows], position)
    category, item = event(user, rng.randint(0, 10**6, len(moment)))
    other = rng.random_sample(len(moment)) < 0.5
    category = np.where(other, rng.randint(0, N_CATEGORIES, len(moment)), category)
    drawn = category * ITEMS_PER_CATEGORY + rng.randint(0, ITEMS_PER_CATEGORY, len(moment))
    item = np.where(other, drawn, item)
    matches = np.bincount(rows[categories == category[rows]], minlength=len(moment))
    odds = 0.7 * np.log1p(matches) - 2.0 + 0.3 * (mix(item, 9) % 5 - 2)
    offsets = pa.array(np.append(0, ends).astype(np.int32))
    return pa.table(
        {
            "user": user,
            "time": moment,
            "item": item,
            "category": category,
            "price": np.exp(rng.normal(size=len(moment))),
            "hist_item": pa.ListArray.from_arrays(offsets, pa.array(items)),
            "hist_category": pa.ListArray.from_arrays(offsets, pa.array(categories)),
            "click": (rng.random_sample(len(moment)) < 1 / (1 + np.exp(-odds))).astype(np.int64),
        }
    )


def make_events(first, last, *, n_users, users, seed):
    """Rows of users drawn at random as an Arrow table."""
    rng, size = np.random.default_rng([seed, first]), last - first
    owner = pa.array(rng.integers(0, n_users, size))
    return pa.table(
        {
            "user": owner.cast(pa.string()) if users == "text" else owner,
            "item": rng.integers(0, N_CATEGORIES * ITEMS_PER_CATEGORY, size),
            "category": pa.array(rng.integers(0, N_CATEGORIES, size)).cast(pa.string()),
            "time": rng.integers(0, 10**9, size),
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
        self.folder, self.most, self._is_over = folder, 0, threading.Event()

    def run(self):
        while not self._is_over.wait(SECONDS_BETWEEN):
            self.most = max(self.most, bytes_in(self.folder))

    def stop(self):
        self._is_over.set()
        self.join()


def fit(folder, memory):
    """Fit one epoch from Parquet in this process and print the peak."""
    classifier = DINClassifier(max_epochs=1, random_state=0)
    classifier.fit(np.eye(4), [0, 1, 0, 1])  # libraries are loaded before the start
    with AnonymousPeak() as peak:
        start = time.perf_counter()
        X = scan_parquet(folder / "clicks.parquet", target="click", memory=memory)
        y = X.target_
        encoded = HistorySequenceEncoder(user="user", time="time").fit_transform(X, y)
        middle, of_encoding = time.perf_counter(), peak.beyond_start()
        classifier.fit(encoded, y)
        seconds, of_both = time.perf_counter() - start, peak.beyond_start()
    print(
        f"{len(X):>12,} rows: encoding {middle - start:7.1f} s, anonymous peak {of_encoding:6.0f} "
        f"MB; with one epoch {seconds:7.1f} s, peak {of_both:6.0f} MB beyond {peak.before:.0f} MB; "
        f"encoded {encoded.nbytes / 1e6:,.0f} MB",
        flush=True,
    )


def attach(folder, memory):
    """Attach in this process, whose memory until now is what importing took; read a part."""
    cache = folder / "cache"
    cache.mkdir()
    scans = [
        scan_parquet(folder / f"{name}.parquet", memory=memory, cache_dir=cache)
        for name in ("impressions", "events")
    ]
    roles = {"user": "user", "time": "time", "columns": ["item", "category"], "elapsed": "ago"}
    disk = DiskUse(cache)
    disk.start()
    with AnonymousPeak() as peak:
        start = time.perf_counter()
        attached = attach_history(*scans, **roles)
        seconds, of_attaching = time.perf_counter() - start, peak.beyond_start()
        disk.stop()
        start, n_rows, n_events = time.perf_counter(), 0, 0
        for _, part in attached[:ROWS_READ].parts():
            n_rows += len(part)
            n_events += int(part["hist_item"].array.lengths.sum())
        reading = time.perf_counter() - start
    print(
        f"attached in {seconds:.1f} s ({sum(map(len, scans)) / seconds:,.0f} rows/s), "
        f"anonymous peak {of_attaching:,.0f} MB beyond the {peak.before:,.0f} MB at the start\n"
        f"on disk {bytes_in(cache) / BYTES_PER_GB:.2f} GB, at most "
        f"{max(disk.most, bytes_in(cache)) / BYTES_PER_GB:.2f} GB meanwhile\n"
        f"{n_rows:,} rows read in {reading:.1f} s ({n_rows / reading:,.0f} rows/s), "
        f"{n_events / max(n_rows, 1):.1f} events each; anonymous peak "
        f"{peak.beyond_start():,.0f} MB beyond the start",
        flush=True,
    )


def write_logs(what, folder, n_rows, users):
    """Write the Parquet files that a measurement reads."""
    if what == "fit":
        n_users = max(min(N_USERS, n_rows // 10), 1)
        write(folder / "clicks.parquet", n_rows, partial(make_clicks, n_users=n_users))
        return
    n_users = max(n_rows // EVENTS_PER_USER, 1)
    for seed, name in enumerate(["impressions", "events"]):
        make = partial(make_events, n_users=n_users, users=users, seed=seed)
        write(folder / f"{name}.parquet", n_rows, make)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["fit", "attach"])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--users", choices=["numbers", "text"], default="numbers")
    parser.add_argument("--memory", default="1GB")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        {"fit": fit, "attach": attach}[options.what](options.measure, options.memory)
        return
    for n_rows in options.rows:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            write_logs(options.what, Path(folder), n_rows, options.users)
            command = [sys.executable, "-m", "benchmarks.scan", options.what]
            subprocess.run([*command, "--memory", options.memory, "--measure", folder], check=True)


if __name__ == "__main__":
    main()
