"""Fitting from Parquet: peak memory, throughput and quality beside the same rows in memory.

``python -m benchmarks.scan memory [--rows 1000000 10000000]``: one epoch from Parquet, each size
in a process of its own: peak of anonymous memory beyond that before the fit.
``python -m benchmarks.scan throughput --rows N``: training rows per second from mapped files, in
the order of blocks, and in memory, in turn.
``python -m benchmarks.scan encoding --rows N``: rows per second of ``fit_transform`` from Parquet
lists and of the same table in memory, in turn.
``python -m benchmarks.scan quality --rows N``: test AUC of a streamed fit in the order of blocks
and of a fit in memory, five seeds.

The log: users with three favourite categories each, whose history grows by their clicks and has
20 events on average; a click is likelier the more events are of the candidate's category. Rows
are in the order of time, in row groups of 100,000.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.metrics import roc_auc_score

from sklearn_din import DINClassifier, HistorySequenceEncoder, scan_parquet
from sklearn_din.features.mapped import rows_per_pool

ROWS_PER_GROUP = 100_000
N_USERS = 100_000
N_CATEGORIES = 200
ITEMS_PER_CATEGORY = 500
N_FAVOURITES = 3
MOST_EVENTS = 50
CLICK_RATE = 0.2
SEEDS = 5
ROUNDS = 3
SECONDS_BETWEEN = 0.02  # two looks at the memory in use


def mixed(*numbers):
    """Pseudo-random integers that depend on the given ones alone."""
    state = np.zeros(np.broadcast_shapes(*(np.shape(n) for n in numbers)), dtype=np.uint64)
    for number in numbers:
        state = (state ^ np.asarray(number).astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        state ^= state >> np.uint64(29)
    return (state >> np.uint64(11)).astype(np.int64)


def event(user, position):
    """Category and item of a user's event: one of the favourites, always the same."""
    category = mixed(user, mixed(user, position) % N_FAVOURITES, 7) % N_CATEGORIES
    return category, category * ITEMS_PER_CATEGORY + mixed(user, position, 3) % ITEMS_PER_CATEGORY


def rows_of(first, last, *, n_rows, n_users):
    """Rows of the log as an Arrow table."""
    rng = np.random.RandomState(first % 2**31)
    moment = np.arange(first, last)
    user = rng.randint(0, n_users, len(moment))
    n_events = 5 + mixed(user, 1) % 31 + (CLICK_RATE * moment / n_users).astype(np.int64)
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
    odds = 0.7 * np.log1p(matches) - 2.0 + 0.3 * (mixed(item, 9) % 5 - 2)
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


def write_log(path, n_rows):
    """Write the log in row groups."""
    n_users = max(min(N_USERS, n_rows // 10), 1)
    writer = None
    for first in range(0, n_rows, ROWS_PER_GROUP):
        table = rows_of(first, min(first + ROWS_PER_GROUP, n_rows), n_rows=n_rows, n_users=n_users)
        writer = pq.ParquetWriter(path, table.schema) if writer is None else writer
        writer.write_table(table)
    writer.close()


class AnonymousPeak(threading.Thread):
    """The most anonymous memory of this process beyond that at the start, in MB.

    Pages of mapped files are not counted: the kernel drops them when it needs the memory.
    """

    def __init__(self):
        super().__init__(daemon=True)
        self.before = self.most = anonymous_memory()
        self._done = threading.Event()

    def run(self):
        while not self._done.wait(SECONDS_BETWEEN):
            self.most = max(self.most, anonymous_memory())

    @property
    def beyond_start(self):
        """Of the peak until now."""
        self.most = max(self.most, anonymous_memory())
        return self.most - self.before

    def stop(self):
        self._done.set()
        self.join()


def anonymous_memory():
    """``RssAnon`` of this process in MB; of a system without it, the peak of all memory."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024 / 1e6


def scan_with_little_memory(path):
    """Open a log by the smallest budget, beside which the encoded rows are read in blocks."""
    scan = scan_parquet(path, target="click")
    largest = int(scan._files.bytes_of_groups(scan.columns).max())
    return scan_parquet(path, target="click", memory=int(2.05 * largest))


def encoded_in_blocks(encoder, X, y):
    """Fit an encoder; its output is read in the order of blocks."""
    encoded = encoder.fit_transform(X, y)
    if rows_per_pool(encoded) is None:
        raise ValueError(f"{len(X):,} rows are too few to be read in blocks: give --rows more.")
    return encoded


def make_encoder():
    return HistorySequenceEncoder(user="user", time="time")


def make_classifier(**parameters):
    return DINClassifier(**{"max_epochs": 1, "random_state": 0, **parameters})


def fit_here(path, folder):
    """Fit one epoch from Parquet and print the peak."""
    make_classifier().fit(np.eye(4), [0, 1, 0, 1])  # libraries are loaded before the start
    memory = AnonymousPeak()
    memory.start()
    start = time.perf_counter()
    X = scan_parquet(path, target="click")
    y = X.target_
    encoder = make_encoder()
    encoded = encoder.fit_transform(X, y)
    middle, peak = time.perf_counter(), memory.beyond_start
    make_classifier().fit(encoded, y)
    end = time.perf_counter()
    print(
        f"{len(X):>12,} rows: encoding {middle - start:7.1f} s, anonymous peak {peak:6.0f} MB; "
        f"with one epoch {end - start:7.1f} s, peak {memory.beyond_start:6.0f} MB beyond "
        f"{memory.before:.0f} MB; encoded {encoded.nbytes / 1e6:,.0f} MB",
        flush=True,
    )
    memory.stop()


def measure_memory(folder, sizes):
    for n_rows in sizes:
        path = folder / f"log-{n_rows}.parquet"
        write_log(path, n_rows)
        command = [sys.executable, "-m", "benchmarks.scan", "here", "--folder", str(folder)]
        subprocess.run([*command, "--rows", str(n_rows)], check=True)
        path.unlink()


def measure_throughput(folder, sizes):
    for n_rows in sizes:
        path = folder / "log.parquet"
        write_log(path, n_rows)
        X = scan_with_little_memory(path)
        y = X.target_
        mapped = encoded_in_blocks(make_encoder(), X, y)
        in_memory = mapped[np.arange(len(mapped))]
        in_memory.behaviours = {key: r.compact() for key, r in in_memory.behaviours.items()}
        seconds = {"in memory": [], "mapped": []}
        for _ in range(ROUNDS):
            for name, some in (("in memory", in_memory), ("mapped", mapped)):
                start = time.perf_counter()
                make_classifier(early_stopping=False).fit(some, y)
                seconds[name].append(time.perf_counter() - start)
        rates = {name: n_rows / np.median(its) for name, its in seconds.items()}
        print(
            f"{n_rows:>12,} rows: "
            + ", ".join(f"{name} {rate:,.0f} rows/s" for name, rate in rates.items())
            + f"; ratio {rates['mapped'] / rates['in memory']:.2f}",
            flush=True,
        )


def measure_encoding(folder, sizes):
    for n_rows in sizes:
        path = folder / "log.parquet"
        write_log(path, n_rows)
        y = scan_parquet(path, target="click").target_
        seconds = {"in memory": [], "with reading": [], "from Parquet": []}
        for _ in range(ROUNDS):
            start = time.perf_counter()
            table = pq.read_table(path).drop_columns(["click"])
            read = time.perf_counter()
            make_encoder().fit_transform(table, y)
            end = time.perf_counter()
            seconds["in memory"].append(end - read)
            seconds["with reading"].append(end - start)
            del table
            make_encoder().fit_transform(scan_parquet(path, target="click"), y)
            seconds["from Parquet"].append(time.perf_counter() - end)
        rates = {name: n_rows / np.median(its) for name, its in seconds.items()}
        print(
            f"{n_rows:>12,} rows: "
            + ", ".join(f"{name} {rate:,.0f} rows/s" for name, rate in rates.items())
            + f"; ratio {rates['from Parquet'] / rates['in memory']:.2f}",
            flush=True,
        )


def measure_quality(folder, sizes, n_seeds=SEEDS):
    for n_rows in sizes:
        path = folder / "log.parquet"
        write_log(path, n_rows)
        n_train = n_rows * 4 // 5
        table = pq.read_table(path)
        y = table["click"].to_numpy()
        frame = table.drop_columns(["click"]).to_pandas(types_mapper=pd.ArrowDtype)
        scan = scan_with_little_memory(path)
        encoders = [make_encoder(), make_encoder()]
        train = [
            encoders[0].fit_transform(frame[:n_train], y[:n_train]),
            encoded_in_blocks(encoders[1], scan[:n_train], y[:n_train]),
        ]
        test = [encoders[0].transform(frame[n_train:]), encoders[1].transform(scan[n_train:])]
        differences = []
        for seed in range(n_seeds):
            scores = []
            for learnt, judged in zip(train, test, strict=True):
                classifier = DINClassifier(random_state=seed).fit(learnt, y[:n_train])
                scores.append(roc_auc_score(y[n_train:], classifier.predict_proba(judged)[:, 1]))
            differences.append(scores[1] - scores[0])
            print(f"seed {seed}: in memory {scores[0]:.4f}, streamed {scores[1]:.4f}", flush=True)
        print(f"{n_rows:>12,} rows: mean difference {np.mean(differences):+.4f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["memory", "throughput", "encoding", "quality", "here"])
    parser.add_argument("--rows", type=int, nargs="+")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of quality")
    parser.add_argument("--folder", type=Path, help="where the logs are written, and removed")
    arguments = parser.parse_args()
    if arguments.what == "here":
        fit_here(arguments.folder / f"log-{arguments.rows[0]}.parquet", arguments.folder)
        return
    sizes = arguments.rows or ([1_000_000, 10_000_000] if arguments.what == "memory" else [500_000])
    measure = {
        "memory": measure_memory,
        "throughput": measure_throughput,
        "encoding": measure_encoding,
        "quality": partial(measure_quality, n_seeds=arguments.seeds),
    }[arguments.what]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        measure(Path(folder), sizes)


if __name__ == "__main__":
    main()
