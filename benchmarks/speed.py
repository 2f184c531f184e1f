"""Training, scoring and memory beside the rivals and the roofline, each in its own process.

``python -m benchmarks.speed [imports] [busy] [train] [profile] [cores] [layout] [score]
[candidates] [request] [memory] [search] [rivals]``.
``python -m benchmarks.speed guard COMMIT`` compares with a commit (``guard.py``).
Rivals run with the interpreter named by RIVALS_PYTHON (see ``rivals-requirements.txt``), those that
RIVALS names, all by default. Rates are medians of steps after a warm-up; what is compared runs in
turn, round by round, and a ratio is the median of the rounds' ratios.
"""

import collections
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time

import joblib
import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from skorch.callbacks import Callback

import sklearn_din.training.net
from benchmarks import guard, request, workloads
from benchmarks.rivals import reset_peak, resident, run_child, sgemm_rate
from sklearn_din import DINClassifier, EncodedFeatures, HistorySequenceEncoder
from sklearn_din._spans import Spans
from sklearn_din.features import Behaviour, Field, Ragged, Schema

SECTIONS = ["imports", "busy", "train", "profile", "cores", "layout", "score", "candidates"]
SECTIONS += ["request", "memory", "search", "rivals"]
RIVALS = os.environ.get("RIVALS", "deepctr-torch torch-rechub fuxictr recbole").split()
PADDED_RIVALS = [name for name in RIVALS if name in ("deepctr-torch", "torch-rechub")]
RIVAL_ROUNDS = 3
RIVAL_BUDGETS = {  # workload and cap: what one rival may spend on it
    ("synthetic-100k", 100): {},
    ("synthetic-1m", 100): {},
    ("synthetic-100k", 500): {"n_steps": 6, "n_score_rows": 6_000},
}
RIVAL_SECONDS = 240
ROUNDS = 5
BATCH = 1024
SEARCH_USERS = 1_000
SEARCH_WAYS = {
    "as it is": "GridSearchCV(Pipeline)",
    "memory": "with Pipeline(memory=folder)",
    "outside": "over the classifier alone, encoded before",
}
BUSY_SECONDS = 5.0
BUSY_LOOPS = 0, 2
BUSY_ROUNDS = 3
BUSY_THREADS = "by the clock", "all", "one"
CLICKS = ("hist_item", "hist_category")
IMPORTS = {
    "torch": "import torch",
    "sklearn_din": "import sklearn_din",
    "the encoder": "from sklearn_din import HistorySequenceEncoder",
    "the classifier": "from sklearn_din import DINClassifier",
    "the first optimizer": "import torch; from sklearn_din.training.optim import RowwiseAdam; "
    "RowwiseAdam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)",
    "the command line's --help": "import sys; sys.argv[1:] = ['--help']\n"
    "try: import runpy; runpy.run_module('sklearn_din', run_name='__main__')\n"
    "except SystemExit: pass",
}


def schema_of(workload):
    """Schema of a workload's arrays: attributes and numbers, one behaviour of all histories."""
    attributes = workload["attributes"]
    fields = [Field(a, "categorical", a, n) for a, n in attributes.items()]
    fields += [Field(name, "numeric") for name in workload["numeric"]]
    fields += [Field(f"hist_{a}", "history", a, n) for a, n in attributes.items()]
    histories = tuple(f"hist_{a}" for a in attributes)
    behaviour = Behaviour("+".join(histories), histories, tuple(attributes))
    return Schema(tuple(fields), (behaviour,), workload["max_length"])


def encoded(workload, part="train"):
    """EncodedFeatures of a workload's flat arrays, which are not copied."""
    rows, schema = workload[part], schema_of(workload)
    (clicks,) = schema.behaviours
    columns = {name: rows[name] for name in schema.names("categorical", "numeric")}
    events = {name: rows[name] for name in clicks.histories}
    ragged = Ragged.from_lengths(events, np.diff(rows["hist_offsets"]))
    return EncodedFeatures(schema, columns, {clicks.histories: ragged})


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
    fit_epochs(workload, n_steps + 10, clock)
    return {"step": float(np.median(np.diff(clock.times)[10:])), **roofline(workload)}


class SecondsClock(Callback):
    """Rows per second of all steps but the first ones, until some seconds are over."""

    def __init__(self, seconds):
        self.seconds, self.times = seconds, []

    def on_batch_end(self, net, training=False, **kwargs):
        self.times.append(time.perf_counter())
        if self.times[-1] - self.times[0] > self.seconds:
            raise KeyboardInterrupt  # skorch's own way to leave the loop

    def rows_per_second(self):
        return BATCH * (len(self.times) - 1) / (self.times[-1] - self.times[0])


def hold_threads(n_threads):
    """Have all steps take so many threads, whatever the clock says."""
    torch.set_num_threads(n_threads)
    sklearn_din.training.net.lend_threads = lambda *args, **kwargs: contextlib.nullcontext()


def busy(workload, threads):
    """Rows/s of training with threads "by the clock", "one" or "all" of torch's."""
    if threads != "by the clock":
        hold_threads(1 if threads == "one" else torch.get_num_threads())
    clock = SecondsClock(BUSY_SECONDS)
    fit_epochs(workload, 100_000, clock)
    return {"rows_per_s": clock.rows_per_second(), "threads": torch.get_num_threads()}


def fit_epochs(workload, n_steps, callback):
    """Train the default model for as many epochs as hold ``n_steps``."""
    X, y = encoded(workload), workload["train"]["label"].astype(int)
    epochs = -(-n_steps * BATCH // len(y))
    options = {"batch_size": BATCH, "max_epochs": epochs, "early_stopping": False}
    DINClassifier(callbacks=[callback], random_state=0, **options).fit(X, y)


class Laps(Callback):
    """Seconds of each step by part: from one mark to the next belongs to the part that ends there.

    Marks are hooks of modules, of their outputs' gradients and of optimizers.
    """

    def on_train_begin(self, net, **kwargs):
        self.steps, self.last = [], time.perf_counter()
        module = net.module_
        self.part(module.embeddings, "embeddings, forward", "attention, backward")
        for interest in module.interests:
            self.part(interest, "attention and relations, forward", "MLP and its inputs, backward")
        self.part(module, "MLP and its inputs, forward", "rest")
        # The optimizer calls the step's closure: the part that is left is the update.
        net.optimizer_.register_step_post_hook(lambda *args: self.lap("optimizer"))

    def part(self, module, name, before_backward):
        """Mark where a module's forward begins and ends, and where its backward begins."""

        def end(module, inputs, outputs):
            self.lap(name)
            for part in outputs if isinstance(outputs, tuple) else [outputs]:
                for tensor in part.values() if isinstance(part, dict) else [part]:
                    if isinstance(tensor, torch.Tensor) and tensor.requires_grad:
                        tensor.register_hook(lambda gradient: self.lap(before_backward))

        module.register_forward_pre_hook(lambda *args: self.lap("rest"))
        module.register_forward_hook(end)

    def lap(self, name):
        now = time.perf_counter()
        self.steps[-1][name] = self.steps[-1].get(name, 0.0) + now - self.last
        self.last = now

    def on_batch_begin(self, net, **kwargs):
        self.steps.append({})
        self.lap("batch")

    def on_grad_computed(self, net, named_parameters, **kwargs):
        self.lap("embeddings, backward")

    def on_batch_end(self, net, **kwargs):
        self.lap("rest")


class MatmulClock(Callback):
    """Seconds per step of the kernels that multiply matrices, by torch's profiler."""

    names = ("mm", "addmm", "bmm", "mv", "addmv")

    def on_train_begin(self, net, **kwargs):
        self.n_steps, self.profiler = -10, torch.profiler.profile()

    def on_batch_end(self, net, **kwargs):
        self.n_steps += 1
        if self.n_steps == 0:
            self.profiler.start()

    def on_train_end(self, net, **kwargs):
        self.profiler.stop()
        events = self.profiler.key_averages()
        kernels = [e for e in events if e.key.removeprefix("aten::").rstrip("_") in self.names]
        self.seconds = 1e-6 * sum(e.self_cpu_time_total for e in kernels) / self.n_steps


def profile(workload, threads=None):
    """Seconds a step by part (medians), and those of matrix products wherever they stand."""
    if threads is not None:
        hold_threads(threads)
    laps, matmuls = Laps(), MatmulClock()
    fit_epochs(workload, 100, laps)
    fit_epochs(workload, 30, matmuls)
    steps = laps.steps[10:]
    names = sorted(steps[-1], key="rest".__eq__)  # the rest last
    parts = {name: float(np.median([step[name] for step in steps])) for name in names}
    return {"parts": parts, "matmuls": matmuls.seconds, **roofline(workload)}


def by_onednn(left, right):
    """``left @ right`` as a convolution with a window of one pixel, which torch gives to oneDNN."""
    images = left.reshape(16, -1, 1, left.shape[1]).permute(0, 3, 1, 2)
    return torch.conv2d(images, right.t()[..., None, None])


def roofline(workload):
    """Seconds that one step's matrix products take at the rates of torch.mm and of oneDNN."""
    mean_length = np.diff(workload["train"]["hist_offsets"]).mean()
    width = 16 * len(workload["attributes"])
    n_relations = len(workload["attributes"]) + 1
    first = mean_length * (2 * width + n_relations) * 64 + width * 64
    inputs = len(workload["numeric"]) + 3 * width + 2 + 2 * len(workload["attributes"])
    others = mean_length * (64 * 16 + 16) + inputs * 200 + 200 * 80 + 80
    # Three products a layer: forward, of the weights, of the inputs. The unit's first layer has
    # no gradient of its inputs: attention does not train embeddings.
    gflop = 2e-9 * BATCH * (2 * first + 3 * others)
    rates = {"gflops": sgemm_rate(), "onednn_gflops": sgemm_rate(by_onednn)}
    return {"roofline": gflop / rates["gflops"], "lower": gflop / max(rates.values()), **rates}


def search(way):
    """Seconds of nine candidates in three folds, two at a time, and of all fits one by one."""
    frame, y = guard.log_and_histories(SEARCH_USERS)
    grid = {"embedding_dim": [8, 16, 32], "lr": [0.001, 0.003, 0.01]}
    network = DINClassifier(max_epochs=4, early_stopping=False, neighbours=None, random_state=0)
    with tempfile.TemporaryDirectory() as folder:
        steps = [("encode", HistorySequenceEncoder(drop=["user", "time"])), ("din", network)]
        model = Pipeline(steps, memory=folder if way == "memory" else None)
        grid = {f"din__{name}": values for name, values in grid.items()}
        if way == "outside":
            frame = steps[0][1].fit_transform(frame)
            model = Pipeline(steps[1:])
        n_jobs = 1 if way == "one by one" else 2
        options = {"scoring": "roc_auc", "cv": 3, "n_jobs": n_jobs, "refit": False}
        began = time.perf_counter()
        found = GridSearchCV(model, grid, **options).fit(frame, y)
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "auc": float(found.best_score_)}


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
    shared = Ragged(one, Spans(np.zeros(n, dtype=np.int64), lengths))
    own = Ragged.from_lengths({name: np.tile(ids, n) for name, ids in one.items()}, lengths)
    columns = {name: values[:n] for name, values in X.columns.items()}
    both = [EncodedFeatures(X.schema, columns, {CLICKS: ragged}) for ragged in (shared, own)]
    first, second = (classifier.predict_proba(rows) for rows in both)
    assert np.abs(first - second).max() < 1e-6
    seconds = [best_of(lambda rows=rows: classifier.predict_proba(rows)) for rows in both]
    single = best_of(lambda: [classifier.predict_proba(both[1][i : i + 1]) for i in range(500)])
    return {"shared": seconds[0], "own": seconds[1], "one_by_one": single * n / 500}


def memory(n_rows=1_000_000):
    """Peak memory of fit beyond the imports: encoded rows, model, moments, workspace."""
    few = workloads.by_name("synthetic-10k", n_rows=64)
    DINClassifier(max_epochs=1).fit(encoded(few), few["train"]["label"])  # for its imports
    before = resident()
    workload = workloads.by_name("synthetic-100k", n_rows=n_rows)
    X, y = encoded(workload), workload["train"]["label"].astype(int)
    del workload
    reset_peak()
    DINClassifier(batch_size=BATCH, max_epochs=1, early_stopping=False, random_state=0).fit(X, y)
    padded = n_rows * 100 * (2 * 8 + 1)  # two int64 ids and a mask an event
    return {"fit": resident("VmHWM") - before, "data": X.nbytes, "padded": padded}


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
    if task in ("search", "cache"):
        return {"search": search, "cache": cache}[task](name)
    if task == "request":
        return request.measure(name)
    if task in ("busy", "profile"):
        return {"busy": busy, "profile": profile}[task](workloads.by_name(name), **options)
    if task in ("candidates", "memory"):
        return {"candidates": candidates, "memory": memory}[task]()
    workload = workloads.by_name(name, **options)
    return {"train": train, "score": score}[task](workload)


def rounds(runs):
    """Ask for training steps in turn, round by round: one list of answers each run."""
    found = [
        {key: ours("train", *args, **options) for key, (args, options) in runs.items()}
        for _ in range(ROUNDS)
    ]
    return {key: [answers[key] for answers in found] for key in runs}


def ratio(above, below):
    """Median and range of the rounds' ratios of two steps."""
    ratios = [a["step"] / b["step"] for a, b in zip(above, below, strict=True)]
    return f"{np.median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f})"


def import_seconds(code):
    """Return the seconds that code takes in a new process."""
    clock = "import time; began = time.perf_counter()"
    code = f"{clock}\n{code}\nprint(time.perf_counter() - began)"
    child = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(child.stdout.splitlines()[-1])


def dearest_packages(code):
    """Return seconds by imported package, by ``-X importtime``, which adds some of its own."""
    command = [sys.executable, "-X", "importtime", "-c", code]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stderr.splitlines()
    packages = collections.Counter()
    for line in lines[1:]:  # after the head: "import time: microseconds | with its own | name"
        microseconds, _, name = line.removeprefix("import time:").split("|")
        packages[name.strip().split(".")[0]] += 1e-6 * int(microseconds)
    return ", ".join(f"{name} {seconds:.2f}" for name, seconds in packages.most_common(5))


def report_imports():
    answers = [
        {what: import_seconds(code) for what, code in IMPORTS.items()} for _ in range(ROUNDS)
    ]
    print("| imports | seconds, median | the dearest packages |\n|---|---|---|")
    for what, code in IMPORTS.items():
        seconds = np.median([answer[what] for answer in answers])
        print(f"| {what} | {seconds:.2f} | {dearest_packages(code)} |")
    over = [answer["the classifier"] - answer["torch"] for answer in answers]
    print(f"\nthe classifier over torch's own: {np.median(over):.2f} s", flush=True)


def report_train():
    found = rounds({name: ([name], {}) for name in workloads.SPEED})
    every = [answer for answers in found.values() for answer in answers]
    limit, lower = (min(answer[key] for answer in every) for key in ("roofline", "lower"))
    rate, other = (max(answer[key] for answer in every) for key in ("gflops", "onednn_gflops"))
    head = ["training", "ms a step: median, best", "rows/s", "times the roofline", "by oneDNN"]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for name, answers in found.items():
        steps = [answer["step"] for answer in answers]
        step = np.median(steps)
        cells = f"{1e3 * step:.1f}, {1e3 * min(steps):.1f} | {BATCH / step:,.0f}"
        print(f"| {name} | {cells} | {step / limit:.2f} | {step / lower:.2f} |")
    print(f"\n{ROUNDS} rounds; best sgemm {rate:.0f} GFLOP/s: roofline {1e3 * limit:.1f} ms")
    print(f"by oneDNN {other:.0f} GFLOP/s: with the faster of both {1e3 * lower:.1f} ms")
    compared = ratio(found["synthetic-1m"], found["synthetic-10k"])
    print(f"1 M ids against 10 k ids: {compared} the step", flush=True)


@contextlib.contextmanager
def busy_loops(n_loops):
    """Have so many processes compute for nothing."""
    code = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"
    loops = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(n_loops)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()


def report_busy():
    rounds = []
    for _ in range(BUSY_ROUNDS):
        rates = []
        for n_loops in BUSY_LOOPS:
            with busy_loops(n_loops):
                rates.append([ours("busy", threads=how)["rows_per_s"] for how in BUSY_THREADS])
        rounds.append(rates)
        print([[round(rate) for rate in row] for row in rates], flush=True)
    print(f"| rows/s | {' | '.join(f'threads {how}' for how in BUSY_THREADS)} |")
    print(f"|---|{'---|' * len(BUSY_THREADS)}")
    for n_loops, row in zip(BUSY_LOOPS, np.median(rounds, axis=0), strict=True):
        print(f"| beside {n_loops} busy loops | {' | '.join(f'{rate:,.0f}' for rate in row)} |")
    quiet, beside = np.array(rounds)[:, [0, -1], 0].T
    shares, gains = beside / quiet, quiet / np.array(rounds)[:, 0, 1]
    print(f"by the clock, beside {BUSY_LOOPS[-1]}: {np.median(shares):.2f} of the quiet rate")
    print(f"quiet, by the clock against all threads: {np.median(gains):.2f}", flush=True)


def report_cores():
    """Milliseconds by part with one and two threads, and by Amdahl's law with more."""
    rounds = [[ours("profile", threads=n)["parts"] for n in (1, 2)] for _ in range(BUSY_ROUNDS)]
    print("\n| ms of a step | 1 thread | 2 | serial | 8 | 16 |\n|---|---|---|---|---|---|")
    total = np.zeros(5)
    for name in rounds[0][0]:
        one, two = 1e3 * np.median([[parts[name] for parts in pair] for pair in rounds], axis=0)
        serial = float(np.clip(2 * two - one, 0, one))
        row = [one, two, serial, *(serial + (one - serial) / n for n in (8, 16))]
        total += row
        print(f"| {name} | {' | '.join(f'{ms:.2f}' for ms in row)} |")
    print(f"| all | {' | '.join(f'{ms:.2f}' for ms in total)} |", flush=True)


def cache(kind):
    """Seconds of the processor for encoding rows, and for the hash by which a cache knows them."""
    frame, _ = guard.log_and_histories(5_000, n_items=50_000)
    if kind == "lists":
        lists = {name: [cell.tolist() for cell in frame[name]] for name in CLICKS}
        frame = frame.assign(**{name: pd.Series(cells) for name, cells in lists.items()})
    joint = {CLICKS: ("item", "category")}
    encoder = HistorySequenceEncoder(histories=joint, drop=["user", "time"])
    seconds = {"rows": len(frame)}
    for name, job in {"encode": encoder.fit_transform, "hash": joblib.hash}.items():
        began = time.process_time()
        job(frame)
        seconds[name] = time.process_time() - began
    return seconds


def report_search():
    half = ours("search", "one by one")["seconds"] / 2
    print(f"\nhalf of nine candidates in three folds, one by one: {half:.1f} s")
    for way, words in SEARCH_WAYS.items():
        answer = ours("search", way)
        ratio = answer["seconds"] / half
        print(f"two at a time, {words}: {answer['seconds']:.1f} s, {ratio:.2f} x", flush=True)
    for kind in ("windows", "lists"):
        cost = ours("cache", kind)
        print(
            f"{cost['rows']} rows, {kind}: encode {cost['encode']:.2f} s, hash {cost['hash']:.2f} s"
        )


def report_profile():
    found = ours("profile")
    total = sum(found["parts"].values())
    print("\n| where a step's time goes | ms | share |\n|---|---|---|")
    for name, seconds in found["parts"].items():
        print(f"| {name} | {1e3 * seconds:.2f} | {seconds / total:.0%} |")
    print(f"| all | {1e3 * total:.2f} | |")
    matmuls, limit = found["matmuls"], found["roofline"]
    print(f"| of which matrix products | {1e3 * matmuls:.2f} | {matmuls / total:.0%} |")
    print(f"| they need at the sgemm rate | {1e3 * limit:.2f} | {limit / total:.0%} |", flush=True)


def report_layout():
    caps = {cap: ([], {"cap": cap, "longest": 100}) for cap in (100, 500)}
    found = rounds(caps)
    compared = ratio(found[500], found[100])
    print(f"\nhistory cap 500 against 100, the same real events: {compared} the step", flush=True)


def report_score():
    print(f"\nscoring: {ours('score')['rows_per_s']:,.0f} rows/s")


def report_candidates():
    seconds = ours("candidates")
    print("\n10,000 candidates of one user with 100 events:")
    print(f"one shared history {seconds['shared']:.3f} s")
    for name in ("own", "one_by_one"):
        print(f"{name} {seconds[name]:.3f} s, {seconds[name] / seconds['shared']:.1f} x as long")


def report_request():
    print("\n| 200 candidates of one user with 50 events | p50, ms | p99, ms |\n|---|---|---|")
    for way, (middle, last) in ours("request", "small").items():
        print(f"| {way} | {middle:.2f} | {last:.2f} |", flush=True)
    found = ours("request", "large")
    for n in (1, 2):
        print(
            f"{found['candidates']:,} candidates, {n} threads: {found[str(n)][0]:.0f} ms "
            f"(a square product: {found[f'rate {n}']:.0f} GFLOP/s)"
        )
    print(f"peak of such requests beyond the catalogue: {found['bytes'] / 1e6:.0f} MB", flush=True)


def report_memory():
    found = ours("memory")
    fit, padded = found["fit"], found["padded"]
    print(
        f"\nfit of 1,000,000 rows: peak {fit / 1e9:.2f} GB, of which encoded data "
        f"{found['data'] / 1e9:.2f}; the padded layout alone, int64 ids and a mask, "
        f"{padded / 1e9:.2f} GB ({fit / padded:.2f})",
        flush=True,
    )
    for rival in PADDED_RIVALS:
        theirs, trouble = ask(rival, "memory")
        if trouble:
            print(f"{rival}: {trouble}", flush=True)
            continue
        print(
            f"{rival}'s fit of the same rows: peak {theirs['fit'] / 1e9:.2f} GB, of which its "
            f"arrays {theirs['arrays'] / 1e9:.2f}: ours is {fit / theirs['fit']:.2f} of it",
            flush=True,
        )


def ask(rival, task, **options):
    """Answer of a rival's process, and what went wrong with it if anything."""
    try:
        return run_child(rival, task, timeout=RIVAL_SECONDS, **options), None
    except subprocess.TimeoutExpired:
        return None, f"more than {RIVAL_SECONDS} s"
    except RuntimeError as error:
        return None, str(error).splitlines()[-1]


def report_rivals():
    print("\n| rows/s | workload | train | score | ours: train | ours: score |")
    print("|---|---|---|---|---|---|")
    for (name, cap), budget in RIVAL_BUDGETS.items():
        for rival in RIVALS:
            mine, theirs, trouble = in_turn(rival, name, cap, budget)
            head = f"| {rival} | {name}, histories to {cap} |"
            if trouble:
                print(f"{head} {trouble} | | | |", flush=True)
                continue
            ratios = [f"{m:,.0f} ({m / t:.1f} x)" for m, t in zip(mine, theirs, strict=True)]
            cells = [f"{rate:,.0f}" for rate in theirs] + ratios
            print(f"{head} {' | '.join(cells)} |", flush=True)


def in_turn(rival, name, cap, budget):
    """Rows/s of training and scoring, ours and theirs: medians of rounds in turn."""
    mine, theirs = [], []
    for _ in range(RIVAL_ROUNDS if cap <= 100 else 1):
        step = ours("train", name, cap=cap)["step"]
        mine.append([BATCH / step, ours("score", name, cap=cap)["rows_per_s"]])
        found, trouble = ask(rival, "speed", workload=name, cap=cap, **budget)
        if trouble:
            return mine, theirs, trouble
        theirs.append([found[task]["rows_per_second"] for task in ("train", "score")])
    return np.median(mine, axis=0), np.median(theirs, axis=0), None


def main():
    if sys.argv[1:2] == ["guard"]:
        sys.exit(guard.main(sys.argv[2:]))
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(sys.argv[2], sys.argv[3], json.loads(sys.argv[4]))))
        return
    threads = torch.get_num_threads()
    print(f"load {os.getloadavg()[0]:.1f}, {threads} threads, torch {torch.__version__}")
    for section in sys.argv[1:] or SECTIONS:
        globals()[f"report_{section}"]()


if __name__ == "__main__":
    main()
