"""Speed and quality of other libraries' DIN, each measured in a process of its own.

Four questions, of a rival by name and a workload (see ``workloads.py``)::

    train_speed("torch-rechub", workload)  rows/s of steady steps in the library's own training loop
    fit_speed("torch-rechub", workload)    rows/s of a whole fit of one epoch, its encoding included
    score_speed("torch-rechub", workload)  rows/s of the library's own predict call
    fit_predict("torch-rechub", workload)  test scores after early stopping on the validation AUC

``run_child`` asks them in a child process, with the interpreter named by RIVALS_PYTHON (made as
``rivals-requirements.txt`` says).
"""

import argparse
import contextlib
import importlib.metadata
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from benchmarks import workloads
from benchmarks.rival_libraries import RIVALS

WARM_UP = 3  # steps before the clock counts


class _BudgetSpentError(Exception):
    """Raised inside a library's training loop once enough steps have been timed."""


class StepClock:
    """Notes when each optimizer step ends, inside the library's own unmodified loop."""

    def __init__(self, optimizer, *, n_steps, seconds):
        self.ends, self.n_steps, self.seconds = [], n_steps, seconds
        optimizer.register_step_post_hook(self)

    def __call__(self, optimizer, args, kwargs):
        self.ends.append(time.perf_counter())
        timed = self.ends[WARM_UP:]
        if len(timed) > self.n_steps or (len(timed) > 5 and timed[-1] - timed[0] > self.seconds):
            raise _BudgetSpentError

    def step_seconds(self):
        return np.diff(self.ends[WARM_UP:])


def train_speed(name, workload, *, n_steps, seconds=60.0, batch_size=1024, seed=0):
    """Time steady steps, loading included; the first ``WARM_UP`` steps do not count."""
    rival = RIVALS[name](workload, batch_size=batch_size)
    rival.build(seed)
    clock = StepClock(rival.optimizer(), n_steps=n_steps, seconds=seconds)
    n_epochs = 2 + (n_steps + WARM_UP) // max(1, rival.n_rows("train") // batch_size)
    with contextlib.suppress(_BudgetSpentError):
        rival.train(epochs=n_epochs)
    steps = clock.step_seconds()
    return {"rows_per_second": batch_size / float(np.median(steps)), "n_steps": len(steps)}


def fit_speed(name, workload, *, n_rows, batch_size=1024, seed=0):
    """Time one epoch from flat arrays of ids on: what the library makes of them, too."""
    rows = workloads.take(workload["train"], slice(0, n_rows))
    began = time.perf_counter()
    rival = RIVALS[name]({**workload, "train": rows}, batch_size=batch_size)
    rival.build(seed)
    rival.train(epochs=1)
    return {"rows_per_second": n_rows / (time.perf_counter() - began)}


def score_speed(name, workload, *, n_rows, batch_size=1024, seed=0):
    """Time the predict call, the library's preparation of the arrays included, after a warm-up."""
    score = workloads.take(workload["train"], slice(0, n_rows))
    warm = workloads.take(score, slice(0, 2048))
    rival = RIVALS[name]({**workload, "valid": warm, "test": score}, batch_size=batch_size)
    rival.build(seed)
    rival.predict("valid")
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        rival.predict("test")
        seconds.append(time.perf_counter() - begin)
    return {"rows_per_second": rival.n_rows("test") / float(np.median(seconds))}


def fit_predict(name, workload, *, batch_size=256, seed=0, max_epochs=20, patience=3):
    """Train on "train", stop early on the AUC of "valid", return the scores of "test" and facts."""
    from sklearn.metrics import roc_auc_score

    rival = RIVALS[name](workload, batch_size=batch_size)
    rival.build(seed)
    begin = time.perf_counter()
    n_epochs = rival.train_early(max_epochs=max_epochs, patience=patience)
    facts = {"seconds": time.perf_counter() - begin, "n_epochs": n_epochs}
    scores = {part: np.asarray(rival.predict(part), float).ravel() for part in ("valid", "test")}
    for part, values in scores.items():
        facts[f"{part}_auc"] = float(roc_auc_score(workload[part]["label"], values))
    return scores["test"], facts


def sgemm_rate(size=1024):
    """Return GFLOP/s of a square float32 product, now: tells a busy machine from an idle one."""
    import torch

    left, right = torch.randn(size, size), torch.randn(size, size)
    seconds = []
    for _ in range(20):
        begin = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - begin)
    return 2e-9 * size**3 / float(np.median(seconds))


def run_child(rival, task, *, timeout=3600, **options):
    """Run one measurement in a process of its own and return its JSON as a dictionary.

    ``options`` are those of the command line: ``run_child("torch-rechub", "speed", cap=500)``.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.json"
        command = [os.environ.get("RIVALS_PYTHON", sys.executable), "-m", "benchmarks.rivals"]
        command += ["--rival", rival, "--task", task, "--json", str(path)]
        for name, value in options.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        root = Path(__file__).resolve().parents[1]
        process = subprocess.run(
            command, cwd=root, capture_output=True, text=True, timeout=timeout, check=False
        )
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{process.stderr[-2000:]}")
        return json.loads(path.read_text())


def _measure(options):
    if options.npz:
        workload = workloads.load(options.npz)
    else:
        workload = workloads.synthetic(options.workload, cap=options.cap)
    version = importlib.metadata.version(options.rival)
    facts = {"rival": options.rival, "version": version, "workload": workload["name"]}
    facts["sgemm_gflops"] = sgemm_rate()
    if options.task == "speed":
        facts["train"] = train_speed(options.rival, workload, n_steps=options.n_steps)
        facts["fit"] = fit_speed(options.rival, workload, n_rows=options.n_score_rows)
        facts["score"] = score_speed(options.rival, workload, n_rows=options.n_score_rows)
    else:
        scores, facts["quality"] = fit_predict(options.rival, workload, seed=options.seed)
        np.save(options.scores, scores)
    return facts


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rivals")
    parser.add_argument("--rival", choices=RIVALS, required=True)
    parser.add_argument("--task", choices=["speed", "quality"], required=True)
    parser.add_argument("--workload", default="synthetic-100k", choices=workloads.SPEED)
    parser.add_argument("--npz", help="a file by workloads.save, instead of --workload")
    parser.add_argument("--cap", type=int, help="width of the padded layout")
    parser.add_argument("--n-steps", type=int, default=30)
    parser.add_argument("--n-score-rows", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scores", help="quality: where to write the test scores (.npy)")
    parser.add_argument("--json", required=True, help="where to write what was measured")
    options = parser.parse_args()
    del sys.argv[1:]  # one of the libraries reads the command line, too
    warnings.simplefilter("ignore")
    os.environ["TQDM_DISABLE"] = "1"
    logging.disable(logging.CRITICAL)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        facts = _measure(options)
    Path(options.json).write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
