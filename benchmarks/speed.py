"""Training, scoring and memory beside the rivals and the roofline, each in its own process.

``python -m benchmarks.speed [train] [layout] [score] [candidates] [memory] [rivals]``. Rivals run
with the interpreter named by RIVALS_PYTHON (see ``rivals-requirements.txt``). Rates are medians of
steps after a warm-up; ratios are of one run.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from skorch.callbacks import Callback

from benchmarks import workloads
from benchmarks.rivals import run_child, sgemm_rate
from sklearn_din import DINClassifier, EncodedFeatures, Field, Schema
from sklearn_din.features import Behaviour, Ragged

SECTIONS = ["train", "layout", "score", "candidates", "memory", "rivals"]
RIVALS = os.environ.get("RIVALS", "deepctr-torch torch-rechub fuxictr recbole").split()
BATCH = 1024
CLICKS = "hist_item+hist_category"


def encoded(workload, part="train"):
    """EncodedFeatures of a workload's flat arrays."""
    rows, sizes = workload[part], workload["attributes"]
    fields = [Field(name, "numeric") for name in workload["numeric"]]
    fields += [Field(name, "categorical", name, n) for name, n in sizes.items()]
    fields += [Field(f"hist_{name}", "history", name, n) for name, n in sizes.items()]
    histories = tuple(f"hist_{name}" for name in sizes)
    clicks = Behaviour("+".join(histories), histories, tuple(sizes))
    schema = Schema(tuple(fields), (clicks,), workload["max_length"])
    columns = {name: rows[name].astype(np.float32) for name in workload["numeric"]}
    columns |= {name: rows[name].astype(np.int32) for name in sizes}
    events = {name: rows[name].astype(np.int32) for name in histories}
    ragged = Ragged.from_lengths(events, np.diff(rows["hist_offsets"]))
    return EncodedFeatures(schema, columns, {clicks.name: ragged})


class StepClock(Callback):
    """When each training step ended."""

    def on_train_begin(self, net, **kwargs):
        self.times = []

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            self.times.append(time.perf_counter())


def train(workload, n_steps=60):
    """Median seconds of a training step of the default model, data path included."""
    clock = StepClock()
    X, y = encoded(workload), workload["train"]["label"].astype(int)
    epochs = -(-(n_steps + 10) * BATCH // len(y))
    options = {"batch_size": BATCH, "max_epochs": epochs, "early_stopping": False}
    DINClassifier(callbacks=[clock], random_state=0, **options).fit(X, y)
    return {"step": float(np.median(np.diff(clock.times)[10:]))}


def roofline(workload):
    """Seconds that one step's matrix products take at the machine's sgemm rate."""
    mean_length = np.diff(workload["train"]["hist_offsets"]).mean()
    width = 16 * len(workload["attributes"])
    n_relations = len(workload["attributes"]) + 1
    unit = mean_length * ((2 * width + n_relations) * 64 + 64 * 16 + 16) + width * 64
    inputs = len(workload["numeric"]) + 2 * width + 1
    forward = 2 * BATCH * (unit + inputs * 200 + 200 * 80 + 80)
    rate = sgemm_rate() * 1e9
    return {"roofline": 3 * forward / rate, "gflops": rate / 1e9}


def score(workload):
    """Rows/s of predict_proba, best of three."""
    X, y = encoded(workload), workload["train"]["label"].astype(int)
    classifier = DINClassifier(max_epochs=1, early_stopping=False, random_state=0)
    classifier.fit(X[:4096], y[:4096])
    return {"rows_per_s": len(X) / best_of(lambda: classifier.predict_proba(X))}


def candidates(n=10_000, length=100):
    """Seconds to score n candidates of one user: one shared history, and n rows of their own."""
    workload = workloads.by_name("synthetic-100k", n_rows=n)
    X, y = encoded(workload), workload["train"]["label"].astype(int)
    classifier = DINClassifier(max_epochs=1, early_stopping=False, random_state=0)
    classifier.fit(X[:4096], y[:4096])
    rng = np.random.RandomState(0)
    sizes = workload["attributes"]
    one = {f"hist_{name}": rng.randint(2, k, length).astype(np.int32) for name, k in sizes.items()}
    lengths = np.full(n, length, dtype=np.int32)
    shared = Ragged(one, np.zeros(n, dtype=np.int64), lengths)
    own = Ragged.from_lengths({name: np.tile(ids, n) for name, ids in one.items()}, lengths)
    columns = {name: values[:n] for name, values in X.columns.items()}
    both = [EncodedFeatures(X.schema, columns, {CLICKS: ragged}) for ragged in (shared, own)]
    first, second = (classifier.predict_proba(rows) for rows in both)
    assert np.abs(first - second).max() < 1e-6
    seconds = [best_of(lambda rows=rows: classifier.predict_proba(rows)) for rows in both]
    single = best_of(lambda: [classifier.predict_proba(both[1][i : i + 1]) for i in range(500)])
    return {"shared": seconds[0], "own": seconds[1], "one_by_one": single * n / 500}


def memory(n_rows=1_000_000):
    """Peak memory of fit beyond what the process held before the data, and the padded layout's."""
    before = peak()
    workload = workloads.by_name("synthetic-100k", n_rows=n_rows)
    X, y = encoded(workload), workload["train"]["label"].astype(int)
    del workload
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew, Linux only
    DINClassifier(batch_size=BATCH, max_epochs=1, early_stopping=False, random_state=0).fit(X, y)
    padded = n_rows * 100 * (2 * 8 + 1)  # two int64 ids and a mask, as the rivals' tensors hold
    return {"fit": peak() - before, "data": X.nbytes, "padded": padded}


def peak():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def best_of(function, repeats=3):
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return min(times)


def ours(task, name="synthetic-100k", **options):
    """Answer of one task in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.speed", "--child", task, name, json.dumps(options)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(answer.stdout.splitlines()[-1])


def child(task, name, options):
    if task in ("candidates", "memory"):
        return {"candidates": candidates, "memory": memory}[task]()
    workload = workloads.by_name(name, n_rows=40_000, **options)
    return {"train": train, "score": score, "roofline": roofline}[task](workload)


def report_train():
    print(
        "| training, default model | ms a step | rows/s | times the roofline |\n|---|---|---|---|"
    )
    for name in ("synthetic-10k", "synthetic-100k", "synthetic-1m"):
        limit = ours("roofline", name)
        step = np.median([ours("train", name)["step"] for _ in range(3)])
        ratio = step / limit["roofline"]
        print(f"| {name} | {1e3 * step:.1f} | {BATCH / step:,.0f} | {ratio:.2f} |", flush=True)
    print(f"\nsgemm {limit['gflops']:.0f} GFLOP/s; roofline {1e3 * limit['roofline']:.1f} ms")


def report_layout():
    steps = {}
    for cap in (100, 500, 100, 500):
        found = ours("train", cap=cap, longest=100)["step"]
        steps[cap] = min(found, steps.get(cap, np.inf))
    print(f"\nhistory cap 500 against 100, the same real events: {steps[500] / steps[100]:.2f} x")


def report_score():
    print(f"\nscoring: {ours('score')['rows_per_s']:,.0f} rows/s")


def report_candidates():
    seconds = ours("candidates")
    print("\n10,000 candidates of one user with 100 events:")
    print(f"one shared history {seconds['shared']:.2f} s")
    for name in ("own", "one_by_one"):
        print(f"{name} {seconds[name]:.2f} s, {seconds[name] / seconds['shared']:.1f} x as long")


def report_memory():
    found = ours("memory")
    print(
        f"\nfit of 1,000,000 rows: peak {found['fit'] / 1e9:.2f} GB, of which encoded data "
        f"{found['data'] / 1e9:.2f}; the padded layout alone holds {found['padded'] / 1e9:.2f} GB"
    )


def report_rivals():
    print("\n| rows/s | workload | train | score | ours: train | ours: score |")
    print("|---|---|---|---|---|---|")
    for name in ("synthetic-100k", "synthetic-1m"):
        for rival in RIVALS:
            mine = BATCH / ours("train", name)["step"], ours("score", name)["rows_per_s"]
            try:
                theirs = run_child(rival, "speed", timeout=400, workload=name)
            except (subprocess.SubprocessError, RuntimeError) as error:
                print(f"| {rival} | {name} | {type(error).__name__} | | | |", flush=True)
                continue
            rates = [theirs[task]["rows_per_second"] for task in ("train", "score")]
            ratios = [f"{m:,.0f} ({m / t:.1f} x)" for m, t in zip(mine, rates, strict=True)]
            cells = [f"{rate:,.0f}" for rate in rates] + ratios
            print(f"| {rival} | {name} | {' | '.join(cells)} |", flush=True)


def main():
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(sys.argv[2], sys.argv[3], json.loads(sys.argv[4]))))
        return
    threads = torch.get_num_threads()
    print(f"load {os.getloadavg()[0]:.1f}, {threads} threads, torch {torch.__version__}")
    for section in sys.argv[1:] or SECTIONS:
        globals()[f"report_{section}"]()


if __name__ == "__main__":
    main()
