"""Training, scoring, requests and imports, beside the rivals and the roofline.

``python -m benchmarks.speed [imports] [busy] [train] [profile] [cores] [request] [search]
[rivals]``, each measurement in a process of its own.
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
import time

import numpy as np
import torch
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from skorch.callbacks import Callback

import sklearn_din.training.training
from benchmarks import guard, request, workloads
from benchmarks.rivals import run_child, sgemm_rate
from benchmarks.tables import print_table
from sklearn_din import DINClassifier, EncodedFeatures, HistorySequenceEncoder
from sklearn_din.features import Behaviour, Field, Ragged, Schema
from sklearn_din.network.interest import FlatEvents

RIVALS = os.environ.get("RIVALS", "deepctr-torch torch-rechub").split()
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
BUSY_SECONDS = 5.0
BUSY_LOOPS = 0, 2
BUSY_ROUNDS = 3
BUSY_THREADS = "as usual", "all", "one"
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


def encode(workload):
    """EncodedFeatures of a workload's flat arrays, which are not copied."""
    rows, schema = workload["train"], schema_of(workload)
    (clicks,) = schema.behaviours
    columns = {name: rows[name] for name in schema.names("categorical", "numeric")}
    events = {name: rows[name] for name in clicks.histories}
    ragged = Ragged.from_lengths(events, np.diff(rows["hist_offsets"]))
    return EncodedFeatures(schema, columns, {clicks.histories: ragged})


def train(name="synthetic-100k", cap=None):
    """Median seconds of a training step of the default model, data path included."""
    workload, clock = workloads.synthetic(name, cap=cap), guard.StepClock()
    fit_epochs(workload, 70, clock)
    return {"step": clock.median_step(), **roofline(workload)}


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
    """Have all steps take so many threads, torch's too."""
    torch.set_num_threads(n_threads)
    sklearn_din.training.training.use_threads = contextlib.nullcontext


def busy(threads):
    """Rows/s of training with threads "as usual", "one" or "all" of torch's."""
    if threads != "as usual":
        hold_threads(1 if threads == "one" else torch.get_num_threads())
    clock = SecondsClock(BUSY_SECONDS)
    fit_epochs(workloads.synthetic("synthetic-100k"), 100_000, clock)
    return clock.rows_per_second()


def fit_epochs(workload, n_steps, callback):
    """Train the default model for as many epochs as hold ``n_steps``."""
    X, y = encode(workload), workload["train"]["label"].astype(int)
    epochs = -(-n_steps * BATCH // len(y))
    options = {"batch_size": BATCH, "max_epochs": epochs, "early_stopping": False}
    DINClassifier(callbacks=[callback], random_state=0, **options).fit(X, y)


class Laps(Callback):
    """Seconds of each step by part: from one mark to the next belongs to the part that ends there.

    Marks are hooks of modules, of their outputs' gradients and of optimizers, and the end of
    ``FlatEvents.outputs``, which computes the MLP's inputs of a behaviour.
    """

    def on_train_begin(self, net, **kwargs):
        self.steps, self.last = [], time.perf_counter()
        end_embeddings = self.ender("embeddings, forward", "attention, backward")
        end_events = self.ender("attention and relations, forward", "MLP and its inputs, backward")
        end_module = self.ender("MLP and its inputs, forward", "rest")
        for module, end in ((net.module_.embeddings, end_embeddings), (net.module_, end_module)):
            module.register_forward_pre_hook(lambda *args: self.lap("rest"))
            module.register_forward_hook(lambda module, inputs, outputs, end=end: end(outputs))
        compute = FlatEvents.outputs
        FlatEvents.outputs = lambda events: end_events(compute(events))
        # The optimizer calls the step's closure: the part that is left is the update.
        net.optimizer_.register_step_post_hook(lambda *args: self.lap("optimizer"))

    def ender(self, name, before_backward):
        """Return what marks where outputs are ready, and where their gradients are."""

        def end(outputs):
            self.lap(name)
            for part in outputs if isinstance(outputs, list | tuple) else [outputs]:
                for tensor in part.values() if isinstance(part, dict) else [part]:
                    if isinstance(tensor, torch.Tensor) and tensor.requires_grad:
                        tensor.register_hook(lambda gradient: self.lap(before_backward))
            return outputs

        return end

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


def profile(threads=None):
    """Seconds a step by part (medians), and those of matrix products wherever they stand."""
    if threads is not None:
        hold_threads(threads)
    workload, laps, products = workloads.synthetic("synthetic-100k"), Laps(), MatmulClock()
    fit_epochs(workload, 100, laps)
    fit_epochs(workload, 30, products)
    steps = laps.steps[10:]
    names = sorted(steps[-1], key="rest".__eq__)  # the rest last
    parts = {name: float(np.median([step[name] for step in steps])) for name in names}
    return {"parts": parts, "products": products.seconds, **roofline(workload)}


def roofline(workload):
    """Seconds that one step's matrix products take at the rate of torch.mm, and this rate."""
    mean_length = np.diff(workload["train"]["hist_offsets"]).mean()
    width = 16 * len(workload["attributes"])
    n_relations = len(workload["attributes"]) + 1
    first = mean_length * (2 * width + n_relations) * 64 + width * 64
    inputs = len(workload["numeric"]) + 3 * width + 2 + 2 * len(workload["attributes"])
    others = mean_length * (64 * 16 + 16) + inputs * 200 + 200 * 80 + 80
    # Three products a layer: forward, of the weights, of the inputs. The unit's first layer has
    # no gradient of its inputs: attention does not train embeddings.
    rate = sgemm_rate()
    return {"roofline": 2e-9 * BATCH * (2 * first + 3 * others) / rate, "gflops": rate}


def search(n_jobs):
    """Seconds of nine candidates in three folds by GridSearchCV."""
    frame, y = guard.log_and_histories(SEARCH_USERS)
    network = DINClassifier(max_epochs=4, early_stopping=False, neighbours=None, random_state=0)
    encoder = HistorySequenceEncoder(drop=["user", "time"])
    model = Pipeline([("encode", encoder), ("din", network)])
    grid = {"din__embedding_dim": [8, 16, 32], "din__lr": [0.001, 0.003, 0.01]}
    options = {"scoring": "roc_auc", "cv": 3, "n_jobs": n_jobs, "refit": False}
    began = time.perf_counter()
    GridSearchCV(model, grid, **options).fit(frame, y)
    return time.perf_counter() - began


def score(name="synthetic-100k", cap=None):
    """Rows/s of predict_proba, best of three."""
    workload = workloads.synthetic(name, cap=cap)
    X, y = encode(workload), workload["train"]["label"].astype(int)
    classifier = DINClassifier(max_epochs=1, early_stopping=False, random_state=0)
    classifier.fit(X[:4096], y[:4096])
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        classifier.predict_proba(X)
        seconds.append(time.perf_counter() - began)
    return len(X) / min(seconds)


TASKS = {"train": train, "busy": busy, "profile": profile, "search": search, "score": score}
TASKS["request"] = request.measure


def ask_ours(task, **options):
    """Answer of one task in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.speed", "--child", task, json.dumps(options)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(answer.stdout.splitlines()[-1])


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
    rounds = [{what: import_seconds(code) for what, code in IMPORTS.items()} for _ in range(ROUNDS)]
    print_table(
        ["imports", "seconds, median", "the dearest packages"],
        (
            [what, f"{np.median([answer[what] for answer in rounds]):.2f}", dearest_packages(code)]
            for what, code in IMPORTS.items()
        ),
    )
    over = [answer["the classifier"] - answer["torch"] for answer in rounds]
    print(f"\nthe classifier over torch's own: {np.median(over):.2f} s", flush=True)


def report_train():
    rounds = [
        {name: ask_ours("train", name=name) for name in workloads.SPEED} for _ in range(ROUNDS)
    ]
    limit = min(answer["roofline"] for answers in rounds for answer in answers.values())
    steps = {name: [answers[name]["step"] for answers in rounds] for name in workloads.SPEED}
    print_table(
        ["training", "ms a step: median, best", "rows/s", "times the roofline"],
        (
            [
                name,
                f"{1e3 * np.median(of):.1f}, {1e3 * min(of):.1f}",
                f"{BATCH / np.median(of):,.0f}",
                f"{np.median(of) / limit:.2f}",
            ]
            for name, of in steps.items()
        ),
    )
    rate = max(answer["gflops"] for answers in rounds for answer in answers.values())
    print(f"\n{ROUNDS} rounds; best sgemm {rate:.0f} GFLOP/s: roofline {1e3 * limit:.1f} ms")
    ratios = np.divide(steps["synthetic-1m"], steps["synthetic-10k"])
    spread = f"({ratios.min():.2f} to {ratios.max():.2f})"
    print(f"1 M ids against 10 k ids: {np.median(ratios):.2f} x {spread} the step", flush=True)


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
                rates.append([ask_ours("busy", threads=how) for how in BUSY_THREADS])
        rounds.append(rates)
        print([[round(rate) for rate in row] for row in rates], flush=True)
    medians = zip(BUSY_LOOPS, np.median(rounds, axis=0), strict=True)
    print_table(
        ["rows/s", *(f"threads {how}" for how in BUSY_THREADS)],
        ([f"beside {n} busy loops", *(f"{rate:,.0f}" for rate in row)] for n, row in medians),
    )
    quiet, busy = np.array(rounds)[:, [0, -1], 0].T
    gains = quiet / np.array(rounds)[:, 0, 1]
    print(f"as usual, beside {BUSY_LOOPS[-1]}: {np.median(busy / quiet):.2f} of the quiet rate")
    print(f"quiet, as usual against all threads: {np.median(gains):.2f}", flush=True)


def report_cores():
    """Milliseconds by part with one and two threads, and by Amdahl's law with more."""
    rounds = [[ask_ours("profile", threads=n)["parts"] for n in (1, 2)] for _ in range(BUSY_ROUNDS)]
    rows = {}
    for name in rounds[0][0]:
        one, two = 1e3 * np.median([[parts[name] for parts in pair] for pair in rounds], axis=0)
        serial = float(np.clip(2 * two - one, 0, one))
        rows[name] = [one, two, serial, *(serial + (one - serial) / n for n in (8, 16))]
    rows["all"] = np.sum(list(rows.values()), axis=0)
    print_table(
        ["ms of a step", "1 thread", "2", "serial", "8", "16"],
        ([name, *(f"{ms:.2f}" for ms in row)] for name, row in rows.items()),
    )


def report_search():
    half = ask_ours("search", n_jobs=1) / 2
    seconds = ask_ours("search", n_jobs=2)
    print(f"\nhalf of nine candidates in three folds, one by one: {half:.1f} s")
    print(f"two at a time: {seconds:.1f} s, {seconds / half:.2f} x", flush=True)


def report_profile():
    answer = ask_ours("profile")
    total = sum(answer["parts"].values())
    parts = {**answer["parts"], "all": total, "of which matrix products": answer["products"]}
    parts["they need at the sgemm rate"] = answer["roofline"]
    print_table(
        ["where a step's time goes", "ms", "share"],
        ([name, f"{1e3 * s:.2f}", f"{s / total:.0%}"] for name, s in parts.items()),
    )


def report_request():
    print_table(
        ["200 candidates of one user with 50 events", "p50, ms", "p99, ms"],
        ([way, *(f"{ms:.2f}" for ms in both)] for way, both in ask_ours("request").items()),
    )


def ask_rival(rival, **options):
    """Answer of a rival's process, and what went wrong with it if anything."""
    try:
        return run_child(rival, "speed", timeout=RIVAL_SECONDS, **options), None
    except subprocess.TimeoutExpired:
        return None, f"more than {RIVAL_SECONDS} s"
    except RuntimeError as error:
        return None, str(error).splitlines()[-1]


def report_rivals():
    def rows():
        for (name, cap), budget in RIVAL_BUDGETS.items():
            for rival in RIVALS:
                mine, theirs, trouble = in_turn(rival, name, cap, budget)
                head = [rival, f"{name}, histories to {cap}"]
                if trouble:
                    yield [*head, trouble, "", "", ""]
                    continue
                ratios = [f"{m:,.0f} ({m / t:.1f} x)" for m, t in zip(mine, theirs, strict=True)]
                yield [*head, *(f"{rate:,.0f}" for rate in theirs), *ratios]

    print_table(["rows/s", "workload", "train", "score", "ours: train", "ours: score"], rows())


def in_turn(rival, name, cap, budget):
    """Rows/s of training and scoring, ours and theirs: medians of rounds in turn."""
    mine, theirs = [], []
    for _ in range(RIVAL_ROUNDS if cap <= 100 else 1):
        step = ask_ours("train", name=name, cap=cap)["step"]
        mine.append([BATCH / step, ask_ours("score", name=name, cap=cap)])
        answer, trouble = ask_rival(rival, workload=name, cap=cap, **budget)
        if trouble:
            return mine, theirs, trouble
        theirs.append([answer[task]["rows_per_second"] for task in ("train", "score")])
    return np.median(mine, axis=0), np.median(theirs, axis=0), None


SECTIONS = {
    "imports": report_imports,
    "busy": report_busy,
    "train": report_train,
    "profile": report_profile,
    "cores": report_cores,
    "request": report_request,
    "search": report_search,
    "rivals": report_rivals,
}


def main():
    if sys.argv[1:2] == ["guard"]:
        sys.exit(guard.main(sys.argv[2:]))
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(TASKS[sys.argv[2]](**json.loads(sys.argv[3]))))
        return
    threads = torch.get_num_threads()
    print(f"load {os.getloadavg()[0]:.1f}, {threads} threads, torch {torch.__version__}")
    for section in sys.argv[1:] or SECTIONS:
        SECTIONS[section]()


if __name__ == "__main__":
    main()
