"""Rows per second of two processes that train one model, beside one process: in turn.

``python -m benchmarks.data_parallel [--users 4000]``: two processes of one thread each against one
of two threads, three times, each after a small training; medians. That two processes train the
model of one, and what comes of those that are killed, are tests (``tests/test_distributed.py``).
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time

import torch

from benchmarks.guard import log_and_histories
from sklearn_din import DINClassifier, HistorySequenceEncoder


def train(n_users: int) -> None:
    """Train in this process, together with others where there are any; print rows per second."""
    if "RANK" in os.environ:
        torch.distributed.init_process_group("gloo")
    frame, y = log_and_histories(n_users, n_items=500, n_categories=20)
    X = HistorySequenceEncoder(user="user", time="time").fit(frame).transform(frame)
    # What torch imports at the first training of a process is not counted.
    DINClassifier(random_state=0, max_epochs=1).fit(X[:200], y[:200])
    options = {"max_epochs": 2, "batch_size": 1024, "early_stopping": False}
    began = time.perf_counter()
    classifier = DINClassifier(random_state=0, **options).fit(X, y)
    print(len(X) * classifier.n_iter_ / (time.perf_counter() - began))


def rate_of(n_processes: int, n_users: int) -> float:
    """Run a training of so many processes, two threads in all; return the first one's rate."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    variables = os.environ | {"OMP_NUM_THREADS": str(2 // n_processes)}
    command = [sys.executable, "-m", "benchmarks.data_parallel", "--train", "--users", str(n_users)]
    processes = []
    for rank in range(n_processes):
        joint = address | {"WORLD_SIZE": str(n_processes), "RANK": str(rank)}
        environment = variables | (joint if n_processes > 1 else {})
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE))
    rates = [float(process.communicate()[0]) for process in processes]
    return rates[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=4000)
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(options.users)
        return
    rounds = [[rate_of(n, options.users) for n in (1, 2)] for _ in range(3)]
    one, two = map(statistics.median, zip(*rounds, strict=True))
    print(
        f"rows/s: {one:,.0f} by one process of two threads, {two:,.0f} by two of one: "
        f"{two / one:.2f} x"
    )


if __name__ == "__main__":
    main()
