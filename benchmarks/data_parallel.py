"""Two processes that train one model, against one, and trainings that are killed and started again.

    python -m benchmarks.data_parallel [speed] [kills] [--processes 2] [--kills 10]

Without a name, both parts run. That two processes train the model of one is a test
(``tests/test_distributed.py``).

- ``speed``: rows/s of two processes of one thread each against one process of two threads, in
  turn, three times, each after a small training; medians.
- ``kills``: as often as ``--kills`` says, a training with checkpoints begins, and one of its
  processes is killed (SIGKILL) at a moment drawn from the whole training. Of two, the other one
  must end with an error that names it. The same training, started again, must end with the model
  of an undisturbed one: weights, predictions, history, and what one more pass makes of them.
  Checkpoints are written at each validation check and ten times per second, so that some kills hit
  the middle of a write.

Processes are started with the variables that torchrun sets, so that it is our own message that
is seen: torchrun ends the other processes by itself.
"""

from __future__ import annotations

import argparse
import hashlib
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

from benchmarks.guard import log_and_histories
from sklearn_din import DINClassifier, HistorySequenceEncoder
from sklearn_din.features import EncodedFeatures
from sklearn_din.resilient import checkpoint

PARTS = ("speed", "kills")
SECONDS_TO_END = 30.0  # in which the process that was not killed must end
MINUTES_BETWEEN_WRITES = 1 / 600
N_MORE = 512  # rows of one more pass
TRAININGS: Mapping[str, dict] = {
    "speed": {"max_epochs": 2, "batch_size": 1024, "early_stopping": False},
    "kills": {"max_epochs": 4, "dropout": 0.1},
}


def train(part: str, out: Path, folder: Path | None, n_users: int) -> None:
    """Train in this process, together with others where there are any, and write what came."""
    if "RANK" in os.environ:
        torch.distributed.init_process_group("gloo")
    rank = os.environ.get("RANK", "0")
    frame, y = log_and_histories(n_users, n_items=500, n_categories=20)
    X = HistorySequenceEncoder(user="user", time="time").fit(frame).transform(frame)
    checkpoint.MINUTES_BETWEEN_WRITES = MINUTES_BETWEEN_WRITES
    (out / f"begun {rank}").touch()
    if part == "speed":  # what torch imports at the first training of a process is not counted
        DINClassifier(random_state=0, max_epochs=1).fit(X[:200], y[:200])
    classifier = DINClassifier(
        random_state=0, callbacks=[checkpoint.Checkpoint(folder)], **TRAININGS[part]
    )
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


def digest(classifier: DINClassifier, X: EncodedFeatures, y: np.ndarray) -> str:
    """SHA-256 of everything that training has made, but for the seconds it took.

    One more pass over some rows shows in the weights what it goes on from: the moments of the
    optimizer and the state of random numbers.
    """
    sha = hashlib.sha256()
    for goes_on in (False, True):
        if goes_on:
            classifier.partial_fit(X[:N_MORE], y[:N_MORE])
        for name, weight in classifier.module_.state_dict().items():
            sha.update(name.encode() + weight.numpy().tobytes())
        sha.update(classifier.predict_proba(X).tobytes())
        sha.update(classifier.history_.drop(columns="seconds").to_numpy().tobytes())
    return sha.hexdigest()


class Training:
    """Processes of one training, and the folder where they write what comes of it."""

    def __init__(self, part: str, out: Path, n_users: int, folder: Path | None = None) -> None:
        self.out, self.folder = out, folder
        self.command = [sys.executable, "-m", "benchmarks.data_parallel", "--train", part]
        self.command += ["--out", str(out), "--users", str(n_users)]
        self.command += [] if folder is None else ["--folder", str(folder)]

    def start(self, n_processes: int, n_threads: int = 1) -> list[subprocess.Popen]:
        """Start the processes, once what earlier ones wrote is gone."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        variables = {"OMP_NUM_THREADS": str(n_threads)}
        if n_processes > 1:
            variables |= {"WORLD_SIZE": str(n_processes)}
            variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for old in self.out.iterdir():
            old.unlink()
        ranks = [{"RANK": str(rank)} if n_processes > 1 else {} for rank in range(n_processes)]
        return [subprocess.Popen(self.command, env=os.environ | variables | r) for r in ranks]

    def run(self, n_processes: int, n_threads: int = 1) -> None:
        """Run all processes to their end."""
        for process in self.start(n_processes, n_threads):
            if process.wait():
                sys.exit(f"a training failed with status {process.returncode}")

    def wait_for_begin(self, n_processes: int) -> None:
        """Wait until all processes have their data and begin to train."""
        while not all((self.out / f"begun {rank}").exists() for rank in range(n_processes)):
            time.sleep(0.01)

    def read(self, name: str) -> list[str]:
        """Return what each process wrote under a name."""
        return [path.read_text() for path in sorted(self.out.glob(f"{name} *"))]


def speed(out: Path, n_users: int) -> bool:
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(3):
        for n_processes, measured in rates.items():
            Training("speed", out, n_users).run(n_processes, n_threads=3 - n_processes)
            with np.load(out / "weights 0.npz") as file:
                measured.append(float(file["facts"][0]))
    one, two = (statistics.median(measured) for measured in rates.values())
    print(
        f"rows/s: {one:,.0f} by one process of two threads, {two:,.0f} by two of one: "
        f"{two / one:.2f} x"
    )
    return two >= 0.9 * one


def kills(out: Path, n_users: int, n_processes: int, n_kills: int, seed: int) -> bool:
    chance = np.random.default_rng(seed)
    Training("kills", out, n_users).run(n_processes)
    training = Training("kills", out, n_users, folder=out.parent / "folder")
    expected = training.read("digest")
    processes = training.start(n_processes)
    training.wait_for_begin(n_processes)
    began = time.perf_counter()
    statuses = [process.wait() for process in processes]
    seconds = time.perf_counter() - began
    print(f"one training with checkpoints takes {seconds:.1f} s, statuses {statuses}", flush=True)
    n_named = n_same = n = 0
    while n < n_kills:
        victim = int(chance.integers(n_processes))
        if not kill(training, n_processes, victim, chance.uniform(0, seconds)):
            continue  # it was over before
        n += 1
        messages = training.read("error")
        n_named += n_processes == 1 or any(f"rank {victim} is gone" in text for text in messages)
        training.run(n_processes)
        n_same += training.read("digest") == expected
        print(f"rank {victim} killed, the other said: {messages}; {n_same} of {n} the same model")
    print(f"{n} kills: {n_named} clear ends, {n_same} final models identical to the undisturbed")
    return n_named == n_same == n


def kill(training: Training, n_processes: int, victim: int, seconds: float) -> bool:
    """Kill one process some seconds after the training began; whether it was still going on."""
    processes = training.start(n_processes)
    training.wait_for_begin(n_processes)
    time.sleep(seconds)
    processes[victim].send_signal(signal.SIGKILL)
    is_killed = processes[victim].wait() != 0
    for process in processes:
        try:
            process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
    return is_killed and all(process.wait() != 0 for process in processes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which ones; none: all")
    parser.add_argument("--processes", type=int, choices=[1, 2], default=2, help="of kills")
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
    results = []
    with tempfile.TemporaryDirectory() as root:
        out = Path(root) / "out"
        out.mkdir()
        for part in options.parts or PARTS:
            if part == "speed":
                results.append(speed(out, 10 * options.users))
            else:
                how = options.processes, options.kills, options.seed
                results.append(kills(out, options.users, *how))
    sys.exit(not all(results))


if __name__ == "__main__":
    main()
