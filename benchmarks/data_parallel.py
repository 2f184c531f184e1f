"""Two processes that train one model, against one: are they equal, as fast, and safe from kill -9.

    python -m benchmarks.data_parallel [equality] [speed] [kills] [--kills 10] [--users 400]

Without a name, all three parts run one after another.

- ``equality``: two processes of gloo and one process train the same log for 200 steps and more,
  with early stopping, in double precision; the largest differences of tables and of other
  weights. In single precision they are as small until a rectifier's input is so near zero that
  rounding decides on which side it is: from there on any two trainings part that round
  differently, those of one process with other numbers of threads too.
- ``speed``: rows/s of two processes of one thread each against one process of two threads, in
  turn, three times, each after a small training; medians.
- ``kills``: as often as ``--kills`` says, a training of two processes begins, and one of them is
  killed (SIGKILL) at a moment drawn from the whole training. The other one must end with words
  that name it; the same training, started again, must end with the model of an undisturbed one.

Processes are started with the variables that torchrun sets, so that it is our own message that
is seen: torchrun ends the other processes by itself.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from benchmarks.kills import digest, encoded_log
from sklearn_din import DINClassifier
from sklearn_din.resilient import checkpoint

PARTS = ("equality", "speed", "kills")
SECONDS_TO_END = 30.0  # in which the process that was not killed must end
TRAININGS: Mapping[str, dict] = {
    "equality": {"max_epochs": 6, "batch_size": 32, "patience": 4},
    "speed": {"max_epochs": 2, "batch_size": 1024, "early_stopping": False},
    "kills": {"max_epochs": 4, "dropout": 0.1},
}


def train(part: str, out: Path, folder: Path | None, n_users: int) -> None:
    """Train in this process, together with others where there are any, and write what came."""
    if "RANK" in os.environ:
        torch.distributed.init_process_group("gloo")
    rank = os.environ.get("RANK", "0")
    X, y = encoded_log(n_users)
    checkpoint.MINUTES_BETWEEN_WRITES = 1 / 600
    if part == "equality":
        torch.set_default_dtype(torch.float64)
    (out / f"begun {rank}").touch()
    if part == "speed":  # what torch imports at the first training of a process is not counted
        DINClassifier(random_state=0, max_epochs=1).fit(X[:200], y[:200])
    classifier = DINClassifier(random_state=0, checkpoint_dir=folder, **TRAININGS[part])
    try:
        began = time.perf_counter()
        classifier.fit(X, y)
        seconds = time.perf_counter() - began
    except RuntimeError as error:
        (out / f"error {rank}").write_text(str(error))
        sys.exit(1)
    weights = {name: w.numpy() for name, w in classifier.module_.state_dict().items()}
    rows = len(X) * classifier.n_iter_ / seconds
    facts = np.array([rows, classifier.n_iter_, len(classifier.history_)])
    np.savez(out / f"weights {rank}.npz", facts=facts, **weights)
    if part == "kills":
        (out / f"digest {rank}").write_text(digest(classifier, X, y))


def start(
    part: str, out: Path, folder: Path | None, n_users: int, *, n_processes: int, n_threads: int
) -> list[subprocess.Popen]:
    """Start the processes of one training."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "benchmarks.data_parallel", "--train", part]
    command += ["--out", str(out), "--users", str(n_users)]
    command += [] if folder is None else ["--folder", str(folder)]
    variables = {"OMP_NUM_THREADS": str(n_threads)}
    if n_processes > 1:
        variables |= {"WORLD_SIZE": str(n_processes)}
        variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for old in out.iterdir():
        old.unlink()
    ranks = [{"RANK": str(rank)} if n_processes > 1 else {} for rank in range(n_processes)]
    return [subprocess.Popen(command, env=os.environ | variables | rank) for rank in ranks]


def run(part: str, out: Path, n_users: int, folder: Path | None = None, **how: int) -> None:
    """Run one training to its end."""
    for process in start(part, out, folder, n_users, **how):
        if process.wait():
            sys.exit(f"a training failed with status {process.returncode}")


def equality(out: Path, n_users: int) -> bool:
    found = []
    for n_processes in (1, 2):
        run("equality", out, n_users, n_processes=n_processes, n_threads=1)
        with np.load(out / "weights 0.npz") as file:
            found.append({name: file[name] for name in file.files})
    one, two = found
    same_stop = bool((one["facts"][1:] == two["facts"][1:]).all())
    differences = {name: float(np.abs(one[name] - two[name]).max()) for name in one}
    tables = max(value for name, value in differences.items() if "tables" in name)
    del differences["facts"]
    dense = max(value for name, value in differences.items() if "tables" not in name)
    print(
        f"{one['facts'][1]:.0f} epochs, {one['facts'][2]:.0f} validation checks; the same stopping "
        f"point: {same_stop}; largest difference in tables {tables:.1e}, elsewhere {dense:.1e}"
    )
    return same_stop and max(tables, dense) < 1e-6


def speed(out: Path, n_users: int) -> bool:
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(3):
        for n_processes, measured in rates.items():
            run("speed", out, n_users, n_processes=n_processes, n_threads=3 - n_processes)
            with np.load(out / "weights 0.npz") as file:
                measured.append(float(file["facts"][0]))
    one, two = (statistics.median(measured) for measured in rates.values())
    print(
        f"rows/s: {one:,.0f} by one process of two threads, {two:,.0f} by two of one: "
        f"{two / one:.2f} x"
    )
    return two >= 0.9 * one


def kills(out: Path, n_users: int, n_kills: int, seed: int) -> bool:
    chance = np.random.default_rng(seed)
    how = {"n_processes": 2, "n_threads": 1}
    folder = out.parent / "folder"
    run("kills", out, n_users, **how)
    expected = (out / "digest 0").read_text()
    processes = start("kills", out, folder, n_users, **how)
    _wait_for_begin(out)
    began = time.perf_counter()
    statuses = [process.wait() for process in processes]
    seconds = time.perf_counter() - began
    print(f"one training with checkpoints takes {seconds:.1f} s, statuses {statuses}", flush=True)
    ends = results = n = 0
    while n < n_kills:
        victim = int(chance.integers(2))
        processes = start("kills", out, folder, n_users, **how)
        _wait_for_begin(out)
        time.sleep(chance.uniform(0, seconds))
        processes[victim].send_signal(signal.SIGKILL)
        if processes[victim].wait() == 0:
            [process.wait() for process in processes]
            continue  # it was over before
        killed = time.perf_counter()
        try:
            processes[1 - victim].wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            processes[1 - victim].kill()
        took = time.perf_counter() - killed
        if processes[1 - victim].returncode == 0:
            continue  # it was over before
        n += 1
        error = out / f"error {1 - victim}"
        said = error.read_text() if error.exists() else "nothing"
        ends += f"rank {victim} is gone" in said
        print(f"rank {victim} killed; after {took:.1f} s the other said: {said}", flush=True)
        run("kills", out, n_users, folder, **how)
        digests = [(out / f"digest {rank}").read_text() for rank in (0, 1)]
        results += digests == [expected] * 2
    print(f"{n} kills: {ends} clear ends, {results} final models identical to the undisturbed")
    return ends == results == n


def _wait_for_begin(out: Path) -> None:
    """Wait until both processes have their data and begin to train."""
    while not all((out / f"begun {rank}").exists() for rank in (0, 1)):
        time.sleep(0.01)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=PARTS)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--users", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(options.train, options.out, options.folder, options.users)
        return
    if set(options.parts) - set(PARTS):
        parser.error(f"parts are {', '.join(PARTS)}, got {' '.join(options.parts)}")
    results = []
    with tempfile.TemporaryDirectory() as root:
        out = Path(root) / "out"
        out.mkdir()
        if "equality" in options.parts:
            results.append(equality(out, options.users))
        if "speed" in options.parts:
            results.append(speed(out, 10 * options.users))
        if "kills" in options.parts:
            results.append(kills(out, options.users, options.kills, options.seed))
    sys.exit(not all(results))


if __name__ == "__main__":
    main()
