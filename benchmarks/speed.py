"""Training, scoring and requests, beside the rivals and the roofline.

``python -m benchmarks.speed [train] [steps] [busy] [request] [rivals]``, each
measurement in a process of its own; ``parts [SET ...]`` alone has the parts of a default fit.
``python -m benchmarks.speed guard COMMIT`` compares with a commit (``guard.py``).
Rivals run with the interpreter named by RIVALS_PYTHON (see ``rivals-requirements.txt``), those that
RIVALS names, all by default. Rates are medians of steps after a warm-up; what is compared runs in
turn, round by round, and a ratio is the median of the rounds' ratios.
"""

import collections
import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from sklearn.pipeline import Pipeline

from benchmarks import default_fit, guard, request, workloads
from benchmarks.rivals import run_child, sgemm_rate
from benchmarks.tables import print_frame, print_table
from sklearn_din import DINClassifier, EncodedFeatures, HistorySequenceEncoder
from sklearn_din.features import Behaviour, Field, Ragged, Schema
from sklearn_din.network.interest import DECAYS

RIVALS = os.environ.get("RIVALS", "deepctr-torch fuxictr torch-rechub").split()
RIVAL_ROUNDS = 3
RIVAL_BUDGETS = {  # workload and cap: what one rival may spend on it
    ("synthetic-100k", 100): {},
    ("synthetic-1m", 100): {},
    ("synthetic-100k", 500): {"n_steps": 6, "n_score_rows": 6_000},
}
RIVAL_SECONDS = 240
RIVAL_FIT_ROWS = 20_000
ROUNDS = 5
BATCH = 1024
FIT_ROWS = 60_000
BUSY_LOOPS = 2
UNITS = ["seconds", "of the processors"]
THREADS = 1, 2
SHAPES = [(length, batch) for length in (5, 50, 500) for batch in (256, 1024)]  # of steps
PARTS = {  # of a default fit: functions whose time, less that of others within, is theirs
    "encoding": ["transformers:HistorySequenceEncoder.fit_transform"],
    "leak checks": ["training.leaks:warn_of_leaks"],
    "tables of neighbours": ["training.rows:_learn_neighbours"],
    "do they hold": ["neighbours.holding:scores_hold"],
    "batches": ["training.batches:ImpressionBatches._join"],
    "native code": ["native_network.logits:_Call._run"],
    "native code of checks": [],
    "Python of a step": ["training.training:Training.step"],
    "optimizer": [
        "native_network.optimizer:NativeUpdate.prepare",
        "training.optim:RowwiseAdam._update",
    ],
    "Python of checks": ["training.validation_checks:ValidationChecks.predict"],
    "judging checks": ["training.validation_checks:ValidationChecks.end"],
}
PARTS_SETS = ["movies", "videos", "e-shop by time, popularity", "MovieLens by time"]
PARTS_SETS += ["turning catalogue, 20 %", "click log: many items, short, strong"]


def schema_of(workload):
    """Schema of a workload's arrays: attributes and numbers, one behaviour of all histories."""
    attributes = workload["attributes"]
    fields = [Field(a, "categorical", a, n) for a, n in attributes.items()]
    fields += [Field(name, "numeric") for name in workload["numeric"]]
    fields += [Field(f"hist_{a}", "history", a, n) for a, n in attributes.items()]
    histories = tuple(f"hist_{a}" for a in attributes)
    of_all, n_events = (histories, tuple(attributes)), workload["max_length"]
    behaviour = Behaviour("+".join(histories), *of_all, max_length=n_events)
    return Schema(tuple(fields), (behaviour,))


def encode(workload):
    """EncodedFeatures of a workload's flat arrays, which are not copied."""
    rows, schema = workload["train"], schema_of(workload)
    (clicks,) = schema.behaviours
    columns = {name: rows[name] for name in schema.names("categorical", "numeric")}
    events = {name: rows[name] for name in clicks.histories}
    ragged = Ragged.from_lengths(events, np.diff(rows["hist_offsets"]))
    return EncodedFeatures(schema, columns, {clicks.histories: ragged})


def train(name="synthetic-100k", cap=None, length=None, batch_size=BATCH, n_threads=None):
    """Median seconds of a training step of the default model, data path included."""
    torch.set_num_threads(n_threads or torch.get_num_threads())
    n_rows = 50_000 if length is None else 8 * batch_size
    workload = workloads.synthetic(name, cap=cap, length=length, n_rows=n_rows)
    clock = guard.StepClock()
    fit_epochs(workload, 70 if length is None else 40, clock, batch_size)
    return {"step": clock.median_step(), **roofline(workload, batch_size)}


def fit_epochs(workload, n_steps, callback, batch_size):
    """Train the default model for as many epochs as hold ``n_steps``."""
    X, y = encode(workload), workload["train"]["label"].astype(int)
    epochs = -(-n_steps * batch_size // len(y))
    options = {"batch_size": batch_size, "max_epochs": epochs, "early_stopping": False}
    DINClassifier(callbacks=[callback], random_state=0, **options).fit(X, y)


def roofline(workload, batch_size):
    """Seconds that one step's matrix products take at the rate of torch.mm, and this rate."""
    mean_length = np.diff(workload["train"]["hist_offsets"]).mean()
    width = 16 * len(workload["attributes"])
    n_relations = len(workload["attributes"]) * len(DECAYS) + 1
    first = mean_length * (2 * width + n_relations) * 64 + width * 64
    inputs = len(workload["numeric"]) + 3 * width + 2 + 2 * len(workload["attributes"])
    others = mean_length * (64 * 16 + 16) + inputs * 200 + 200 * 80 + 80
    # Three products a layer: forward, of the weights, of the inputs. The unit's first layer has
    # no gradient of its inputs: attention does not train embeddings.
    rate = sgemm_rate()
    return {"roofline": 2e-9 * batch_size * (2 * first + 3 * others) / rate, "gflops": rate}


def fit(n_threads):
    """Seconds of a default fit, and of the processors, with times and 2,000 items."""
    torch.set_num_threads(n_threads)
    frame, y = guard.log_and_histories(8_000, n_items=2_000)
    frame, y = frame[:FIT_ROWS], y[:FIT_ROWS]

    def fit_rows(n):
        encoder = HistorySequenceEncoder(user="user", time="time")
        model = Pipeline([("encode", encoder), ("din", DINClassifier(random_state=0))])
        began = time.perf_counter(), time.process_time()
        model.fit(frame[:n], y[:n])
        return time.perf_counter() - began[0], time.process_time() - began[1]

    fit_rows(1_000)  # imports
    return fit_rows(FIT_ROWS)


class PartsClock:
    """Seconds, and those of the processors, by the function that is the innermost of ``PARTS``."""

    def __init__(self):
        self.seconds, self._within = collections.defaultdict(lambda: np.zeros(2)), ["the rest"]
        self._since = self._now()
        for part, places in PARTS.items():
            for place in places:
                module, _, path = place.partition(":")
                owner = importlib.import_module(f"sklearn_din.{module}")
                *classes, name = path.split(".")
                for of in classes:
                    owner = getattr(owner, of)
                setattr(owner, name, self._timed(part, getattr(owner, name)))

    def turn_to(self, part):
        """End the innermost part, and begin another one; None: the one around it goes on."""
        now = self._now()
        self.seconds[self._within[-1]] += now - self._since
        self._since = now
        self._within.pop() if part is None else self._within.append(part)

    def _now(self):
        return np.array([time.perf_counter(), time.process_time()])

    def _timed(self, part, function):
        def call(*arguments, **options):
            if threading.current_thread() is not threading.main_thread():
                return function(*arguments, **options)
            predicts = part == "native code" and arguments[2] is None  # no gradients
            self.turn_to("native code of checks" if predicts else part)
            try:
                return function(*arguments, **options)
            finally:
                self.turn_to(None)

        return call


def parts(path, *, n_threads, has_clock=True):
    """Seconds of the parts of a default fit on pickled rows, all and of the processors.

    Without the clock, which takes time of its own, of the fit as a whole.
    """
    torch.set_num_threads(n_threads)
    X, y, *_, parameters = pd.read_pickle(path)
    encoder = HistorySequenceEncoder(**parameters)
    DINClassifier(max_epochs=1).fit(encoder.fit_transform(X[:1000]), y[:1000])  # imports
    if not has_clock:
        began = time.perf_counter(), time.process_time()
        DINClassifier(random_state=0).fit(encoder.fit_transform(X), y)
        spent = [time.perf_counter() - began[0], time.process_time() - began[1]]
        return {"all": spent, "sgemm": 2 * [sgemm_rate()]}
    clock = PartsClock()
    classifier = DINClassifier(random_state=0).fit(encoder.fit_transform(X), y)
    clock.turn_to("the rest")
    print(classifier.history_.shape, file=sys.stderr)
    return {part: list(seconds) for part, seconds in clock.seconds.items()}


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


def whole_fit(name="synthetic-100k", cap=None, n_rows=RIVAL_FIT_ROWS):
    """Rows/s of a fit of one epoch from a frame of values on, encoding included, best of three."""
    workload = workloads.synthetic(name, cap=cap)
    rows = workloads.take(workload["train"], slice(0, n_rows))
    ends, y = pa.array(rows["hist_offsets"]), rows["label"].astype(int)
    single = [*workload["attributes"], *workload["numeric"]]
    columns = {name: rows[name] for name in single}
    for name in workload["attributes"]:
        cells = pa.LargeListArray.from_arrays(ends, pa.array(rows[f"hist_{name}"]))
        columns[f"hist_{name}"] = pd.Series(cells, dtype=pd.ArrowDtype(cells.type))
    frame, seconds = pd.DataFrame(columns), []
    for _ in range(3):
        began = time.perf_counter()
        network = DINClassifier(batch_size=BATCH, max_epochs=1, early_stopping=False)
        Pipeline([("encode", HistorySequenceEncoder()), ("din", network)]).fit(frame, y)
        seconds.append(time.perf_counter() - began)
    return n_rows / min(seconds)


TASKS = {"train": train, "fit": fit, "parts": parts, "score": score}
TASKS["whole_fit"] = whole_fit
TASKS["request"] = request.measure


def ask_ours(task, *, environment=None, **options):
    """Answer of one task in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.speed", "--child", task, json.dumps(options)]
    environment = os.environ | (environment or {})
    answer = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(answer.stdout.splitlines()[-1])


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


def report_steps():
    """Steps by length and batch, with one thread and two, quiet and beside busy loops."""

    def ask():
        return [
            [ask_ours("train", length=length, batch_size=size, n_threads=n) for n in THREADS]
            for length, size in SHAPES
        ]

    quiet = ask()
    with busy_loops(BUSY_LOOPS):
        busy = ask()
    rates = np.max([[answer["gflops"] for answer in row] for row in quiet], axis=0)
    rows = []
    for (length, size), *answers in zip(SHAPES, quiet, busy, strict=True):
        row = [f"{length}, {size:,}"]
        for alone, beside, rate in zip(*answers, rates, strict=True):
            limit = alone["roofline"] * alone["gflops"] / rate
            row.append(f"{1e3 * alone['step']:.1f} ({alone['step'] / limit:.1f} x)")
            row.append(f"{1e3 * beside['step']:.1f} ({alone['step'] / beside['step']:.2f})")
        rows.append(row)
    names = [f"{n} threads{how}" for n in THREADS for how in (" (its products)", ", busy (rate)")]
    print_table(["ms of a step: events a row, rows", *names], rows)
    best = ", ".join(f"{rate:.0f}" for rate in rates)
    print(f"\nsgemm with {THREADS} threads: {best} GFLOP/s; {BUSY_LOOPS} busy loops", flush=True)


def report_busy():
    """Default fits with one thread and two, quiet and beside busy loops, round by round."""

    def ask(n_threads, n_loops):
        with busy_loops(n_loops):
            return ask_ours("fit", n_threads=n_threads)

    ways = [(n, loops) for loops in (0, BUSY_LOOPS) for n in THREADS]
    rounds = np.array([[ask(*way) for way in ways] for _ in range(RIVAL_ROUNDS)])
    ratios = np.median(rounds[..., 0] / rounds[:, :1, 0], axis=0)
    print_table(
        ["a default fit: threads, busy loops", "seconds", "of the processors", "times one, quiet"],
        (
            [f"{n}, {loops}", *(f"{of:.1f}" for of in both), f"{ratio:.2f}"]
            for (n, loops), both, ratio in zip(ways, np.median(rounds, axis=0), ratios, strict=True)
        ),
    )
    print(f"\n{FIT_ROWS:,} rows, {RIVAL_ROUNDS} rounds; the bar beside loops: 2.2")
    print(of_threads(ratios[1], rounds[:, 0]), flush=True)


def of_threads(ratio, one):
    """Line on two threads' share of the time of one, and on ``one``: (n_rounds, 2) seconds.

    Threads are set by torch: OMP_NUM_THREADS=1 would also keep BLAS from spinning.
    """
    cpu = np.median(np.divide(*np.transpose(one)[::-1]))
    return f"two threads over one {ratio:.2f} (bar .75), CPU over wall of one {cpu:.2f} (bar 1.1)"


def report_parts(*names):
    """What a default fit's seconds go to by set, with one thread and two, in turn.

    The ratios are of fits without the clock, medians of rounds. A virtual machine's two processors
    may be one core: two threads then multiply matrices as fast as one.
    """
    for name in names or PARTS_SETS:
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "rows.pickle")
            pd.to_pickle(default_fit.frames_of(name, 0), path)
            print_parts(name, path)


def print_parts(name, path):
    def ask(n_threads, **options):
        environment, options = {"PYTHONWARNINGS": "ignore"}, {"n_threads": n_threads, **options}
        answer = ask_ours("parts", environment=environment, path=path, **options)
        return pd.DataFrame(answer, index=UNITS).T

    rounds = [[ask(n, has_clock=False) for n in THREADS] for _ in range(RIVAL_ROUNDS)]
    ratios = pd.DataFrame([two.loc["all"] / one.loc["all"] for one, two in rounds]).median()
    for both in rounds:
        fits = (f"{fit['seconds']['all']:.2f} s ({fit['seconds']['sgemm']:.0f})" for fit in both)
        print(f"{name}, one thread and two (sgemm, GFLOP/s): {', '.join(fits)}", flush=True)
    table = pd.concat({f"{n} threads": ask(n) for n in THREADS}, axis=1).fillna(0)
    table = table.reindex([*PARTS, "the rest"]).fillna(0)
    table.loc["all"] = table.sum()
    table.columns = [" ".join(column) for column in table.columns]
    line = of_threads(ratios["seconds"], [one.loc["all"] for one, _ in rounds])
    title = f"{name}: {line}, processors {ratios['of the processors']:.2f}"
    print_frame(table.map("{:.2f}".format), title)


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
                    yield [*head, trouble, *[""] * 5]
                    continue
                ratios = [f"{m:,.0f} ({m / t:.1f} x)" for m, t in zip(mine, theirs, strict=True)]
                yield [*head, *(f"{rate:,.0f}" for rate in theirs), *ratios]

    tasks = "steps", "whole fit", "score"
    names = ["rows/s", "workload", *tasks, *(f"ours: {task}" for task in tasks)]
    print_table(names, rows())


def in_turn(rival, name, cap, budget):
    """Rows/s of steps, whole fits and scoring, ours and theirs: medians of rounds in turn."""
    mine, theirs = [], []
    for _ in range(RIVAL_ROUNDS if cap <= 100 else 1):
        step = ask_ours("train", name=name, cap=cap)["step"]
        rates = (ask_ours(task, name=name, cap=cap) for task in ("whole_fit", "score"))
        mine.append([BATCH / step, *rates])
        answer, trouble = ask_rival(rival, workload=name, cap=cap, **budget)
        if trouble:
            return mine, theirs, trouble
        theirs.append([answer[task]["rows_per_second"] for task in ("train", "fit", "score")])
    return np.median(mine, axis=0), np.median(theirs, axis=0), None


SECTIONS = {
    "train": report_train,
    "steps": report_steps,
    "busy": report_busy,
    "request": report_request,
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
    if sys.argv[1:2] == ["parts"]:
        report_parts(*sys.argv[2:])
    else:
        for section in sys.argv[1:] or SECTIONS:
            SECTIONS[section]()


if __name__ == "__main__":
    main()
