"""Compare these files with a commit: the same predictions, and no slower.

``python -m benchmarks.speed guard COMMIT [--rounds N] [--jobs JOB ...]`` ends with status 1 where a
job takes more than 1.1 times as long as in the commit, which is checked out beside this folder for
the while. Only public names are used, so that both understand it. Predictions: one model per
pooling x interest, fixed seed. Times: both in turn, round by round, each in a process of its own; a
ratio is the median of the rounds' ratios, this over the commit. A job beyond the limit is measured
once more, and all its rounds count.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline
from skorch.callbacks import Callback

HERE = Path(__file__).resolve().parents[1]
POOLINGS = ("attention", "sum", "mean", "max")
INTERESTS = ("paper", "extended")
JOBS = ("training step", "training step of 256", "attach_history", "encode windows")
JOBS += ("encode lists", "encode Arrow", "predict", "request")
N_CANDIDATES = 200
LIMIT = 1.10


class StepClock(Callback):
    """When each training step ended."""

    ignores_gradients = True  # so steps are those of a default fit

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            self.times.append(time.perf_counter())

    def median_step(self) -> float:
        """Seconds of a step, without the first ten."""
        return float(np.median(np.diff(self.times)[10:]))


def log_and_histories(n_users: int, **parameters: float):
    """A made click log with histories of two attributes, and its labels."""
    from sklearn_din import attach_history
    from sklearn_din.datasets import make_click_log

    log = make_click_log(n_users=n_users, random_state=0, **parameters)
    columns = ["item", "category"]
    frame = attach_history(log.impressions, log.events, user="user", time="time", columns=columns)
    return frame, log.y


def fit_one_epoch(frame: pd.DataFrame, y: np.ndarray) -> Pipeline:
    """Fit the default Pipeline for one epoch."""
    from sklearn_din import DINClassifier, HistorySequenceEncoder

    encoder = HistorySequenceEncoder(user="user", time="time")
    classifier = DINClassifier(max_epochs=1, early_stopping=False, random_state=0)
    return Pipeline([("encode", encoder), ("din", classifier)]).fit(frame, y)


def predictions(path: str) -> None:
    """Fit one model per pooling and interest, and keep what it predicts."""
    from sklearn_din import DINClassifier, HistorySequenceEncoder

    frame, y = log_and_histories(150)
    X = HistorySequenceEncoder(drop=["user", "time"]).fit_transform(frame)
    probabilities = {}
    for pooling in POOLINGS:
        for interest in INTERESTS:
            classifier = DINClassifier(pooling=pooling, interest=interest, random_state=0)
            probabilities[f"{pooling}, {interest}"] = classifier.fit(X, y).predict_proba(X)
    np.savez(path, **probabilities)


def seconds(job: str) -> float:
    """Time one job; of a training the median step."""
    from sklearn_din import HistorySequenceEncoder, attach_history

    if job.startswith("training step"):
        return _step_seconds(batch_size=256 if job.endswith("256") else 1024)
    if job == "attach_history":
        rng = np.random.default_rng(0)
        n = 1_000_000
        draw = {"user": n // 20, "item": 100_000, "category": 1_000, "time": 10**9}
        log = pd.DataFrame({name: rng.integers(0, most, n) for name, most in draw.items()})
        now = log.sample(frac=1.0, random_state=1).reset_index(drop=True)
        columns = ["item", "category"]
        return _timed(lambda: attach_history(now, log, user="user", time="time", columns=columns))
    frame, _ = log_and_histories(10_000, n_items=50_000)
    if job == "predict":
        model = fit_one_epoch(*log_and_histories(1_000, n_items=50_000))
        rows = frame.iloc[:50_000]
        return _timed(lambda: model.predict_proba(rows))
    histories = ["hist_item", "hist_category"]
    if job == "request":
        return _request_seconds(frame)
    if job == "encode lists":
        lists = {name: [cell.tolist() for cell in frame[name]] for name in histories}
        frame = frame.assign(**{name: pd.Series(cells) for name, cells in lists.items()})
    if job == "encode Arrow":
        import pyarrow as pa

        kind = pd.ArrowDtype(pa.list_(pa.int64()))
        arrow = {name: pd.Series(pa.array(frame[name].array), dtype=kind) for name in histories}
        frame = frame.assign(**arrow)
    joint = {("hist_item", "hist_category"): ("item", "category")}
    encoder = HistorySequenceEncoder(histories=joint, drop=["user", "time"])
    return _timed(lambda: encoder.fit_transform(frame))


def _request_seconds(frame: pd.DataFrame) -> float:
    """Rank 200 candidates for one user by a Ranker."""
    from sklearn_din import Ranker

    frame = frame.iloc[:20_000]
    model = fit_one_epoch(frame, np.arange(len(frame)) % 2)
    columns = ["item", "category", "price"]
    candidates = frame.drop_duplicates("item").head(N_CANDIDATES)[columns]
    users = frame.drop(columns=columns)
    ranker = Ranker(model, candidates)
    return _timed(lambda: [ranker.rank(users.iloc[[row]]) for row in range(50)]) / 50


def _step_seconds(batch_size: int) -> float:
    from sklearn_din import DINClassifier, HistorySequenceEncoder

    frame, y = log_and_histories(2_000, n_items=50_000)
    X = HistorySequenceEncoder(drop=["user", "time"]).fit_transform(frame)
    clock = StepClock()
    DINClassifier(
        batch_size=batch_size, max_epochs=3, early_stopping=False, callbacks=[clock], random_state=0
    ).fit(X, y)
    return clock.median_step()


def _timed(work) -> float:
    times = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def ask(checkout: Path, *arguments: str, file: str = __file__) -> str:
    """Run a file in a process that imports the package from the checkout."""
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    command = [sys.executable, "-W", "ignore", str(Path(file).resolve()), *arguments]
    return subprocess.run(
        command, env=environment, cwd=checkout, check=True, capture_output=True, text=True
    ).stdout


def compare_predictions(other: Path) -> pd.DataFrame:
    """Largest difference of probabilities, by model."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("other.npz", "this.npz")]
        for checkout, path in zip((other, HERE), paths, strict=True):
            ask(checkout, "--child", "predictions", str(path))
        theirs, ours = (np.load(path) for path in paths)
        rows = {name: np.abs(ours[name] - theirs[name]).max() for name in theirs.files}
    return pd.DataFrame({"largest difference": rows})


def compare_times(other: Path, n_rounds: int, jobs: Sequence[str]) -> pd.DataFrame:
    """Median seconds of both, and the median of the rounds' ratios, by job."""
    rows = {}
    for job in jobs:
        rounds = time_in_turn(other, n_rounds, job)
        if summarize(rounds)["ratio"] > LIMIT:
            rounds += time_in_turn(other, n_rounds, job)
        rows[job] = summarize(rounds)
        print(job, {name: round(value, 4) for name, value in rows[job].items()}, flush=True)
    return pd.DataFrame(rows).T


def time_in_turn(other: Path, n_rounds: int, job: str) -> list[dict[str, float]]:
    """Seconds of both, round by round; each begins every other round."""
    rounds = []
    for number in range(n_rounds):
        pair = [("commit", other), ("this", HERE)]
        pair = pair[::-1] if number % 2 else pair
        rounds.append({n: json.loads(ask(c, "--child", "time", job)) for n, c in pair})
    return rounds


def summarize(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Median seconds of both; median, least and greatest of the rounds' ratios."""
    table = pd.DataFrame(rounds)
    ratios = table["this"] / table["commit"]
    spread = {"ratio": ratios.median(), "from": ratios.min(), "to": ratios.max()}
    return {**table.median().to_dict(), **spread}


@contextmanager
def check_out(commit: str) -> Iterator[Path]:
    """Give a folder with the files of a commit and its native code, for a while."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "commit"
        git = ["git", "-C", str(HERE), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(path), commit], check=True)
        try:
            build = [sys.executable, "-m", "sklearn_din.native.build"]
            subprocess.run(build, cwd=path, env={**os.environ, "PYTHONPATH": str(path)}, check=True)
            yield path
        finally:
            subprocess.run([*git, "remove", "--force", str(path)], check=True)


def main(arguments: Sequence[str]) -> int:
    """Compare with a commit; 1 where a job takes too long."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed guard")
    parser.add_argument("commit", help="such as HEAD~1, or HEAD for what is not committed yet")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=JOBS)
    options = parser.parse_args(arguments)
    print(f"load {os.getloadavg()[0]:.1f}")
    with check_out(options.commit) as other:
        print(compare_predictions(other).to_string(), flush=True)
        times = compare_times(other, options.rounds, options.jobs)
    slower = times.index[times["ratio"] > LIMIT]
    print(f"more than {LIMIT} times as long: {', '.join(slower) or 'nothing'}")
    return int(len(slower) > 0)


def be_child(task: str, argument: str) -> None:
    """Answer for the checkout that is imported."""
    if task == "predictions":
        predictions(argument)
    else:
        print(json.dumps(seconds(argument)))


if __name__ == "__main__":
    be_child(*sys.argv[2:])
