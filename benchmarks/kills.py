"""kill -9 at random moments of a training with checkpoints: the same bits in the end or not.

    python -m benchmarks.kills [--kills 50] [--users 400] [--seed 0]

Each round begins a training of some seconds in a process of its own, kills that process (SIGKILL)
at a moment drawn from the whole of its time, and starts it again until it ends. Checkpoints are
written at each validation check and ten times per second, so that some kills hit the middle of a
write. The final model is compared with that of a training that nobody disturbed: weights,
predictions, history, and what one more pass makes of them, by SHA-256.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from sklearn_din import DINClassifier, HistorySequenceEncoder, attach_history
from sklearn_din.datasets import make_click_log
from sklearn_din.features import EncodedFeatures
from sklearn_din.resilient import checkpoint

WRITES_PER_SECOND = 10
N_MORE = 512  # rows of one more pass


def encoded_log(n_users: int) -> tuple[EncodedFeatures, np.ndarray]:
    """Return impressions of a made log, and their clicks."""
    log = make_click_log(n_users=n_users, n_items=500, n_categories=20, random_state=0)
    frame = attach_history(
        log.impressions, log.events, user="user", time="time", columns=["item", "category"]
    )
    return HistorySequenceEncoder(user="user", time="time").fit(frame).transform(frame), log.y


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


def start(train: Callable[[], str], answer: Path) -> int:
    """Train in a forked process, which writes its model's digest to a file; return its number."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            answer.write_text(train())
            status = 0
        finally:
            os._exit(status)
    return pid


def is_killed(pid: int) -> bool:
    """Wait for a process; whether it was killed. Any other failure ends the benchmark."""
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status not in (0, -signal.SIGKILL):
        sys.exit(f"a training failed with status {status}")
    return status != 0


def what_is_left(folder: Path) -> str:
    """Say in which moment the kill came, by the files that it left."""
    names = os.listdir(folder)
    has_file = checkpoint.FILE in names
    if any(name.startswith(".partial-") for name in names):
        return f"in the middle of a write, {'an' if has_file else 'no'} earlier file"
    return "between two writes" if has_file else "before the first write"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--users", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    X, y = encoded_log(options.users)
    digest(DINClassifier(max_epochs=1).fit(X[:99], y[:99]), X, y)  # what is loaded at the first fit
    chance = np.random.default_rng(options.seed)
    checkpoint.MINUTES_BETWEEN_WRITES = 1 / 60 / WRITES_PER_SECOND
    with tempfile.TemporaryDirectory() as root:
        folder, answer = Path(root) / "run", Path(root) / "digest"

        def train(checkpoint_dir: Path | None = folder) -> str:
            classifier = DINClassifier(
                max_epochs=6, dropout=0.1, random_state=0, checkpoint_dir=checkpoint_dir
            )
            return digest(classifier.fit(X, y), X, y)

        is_killed(start(lambda: train(None), answer))
        expected = answer.read_text()
        began = time.perf_counter()
        is_killed(start(train, answer))
        seconds = time.perf_counter() - began
        print(f"{len(X):,} rows; one training with checkpoints takes {seconds:.1f} s", flush=True)
        results, moments = [answer.read_text() == expected], Counter[str]()
        while moments.total() < options.kills:
            pid = start(train, answer)
            time.sleep(chance.uniform(0, seconds))
            os.kill(pid, signal.SIGKILL)
            if not is_killed(pid):
                continue  # it was over before
            moments[what_is_left(folder) if folder.exists() else "before the first write"] += 1
            answer.unlink(missing_ok=True)
            is_killed(start(train, answer))
            results.append(answer.read_text() == expected)
    print(f"{moments.total()} kills: {sum(results[1:])} final models identical to the undisturbed")
    print("; ".join(f"{number} {moment}" for moment, number in moments.most_common()))
    sys.exit(not all(results))


if __name__ == "__main__":
    main()
