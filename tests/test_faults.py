"""Full disks, short memory, caches that are gone, SIGTERM: a clear end, and nothing half done."""

import errno
import os
import resource
import shutil
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sklearn_din import (
    DINClassifier,
    HistorySequenceEncoder,
    attach_aggregates,
    attach_history,
    export_onnx,
    predict_to_parquet,
    sample_negatives,
    save,
    scan_parquet,
)
from sklearn_din.__main__ import main
from sklearn_din.command_line.tables import write_table
from tests.fitted_pipelines import make_rows
from tests.processes import ONE_THREAD, run_python

pytestmark = pytest.mark.slow

SCORES = pd.DataFrame({"item": range(5_000), "probability": 0.5})


@pytest.fixture(params=["save", "export", "csv", "parquet"])
def write(request, fitted):
    """Each way of writing a file: a function of its path."""
    return {
        "save": lambda path: save(fitted, path),
        "export": lambda path: export_onnx(fitted, path),
        "csv": lambda path: write_table(SCORES, path.with_suffix(".csv")),
        "parquet": lambda path: write_table(SCORES, path.with_suffix(".parquet")),
    }[request.param]


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@contextmanager
def small_disk():
    """No file may grow beyond 2,000 bytes: the system answers as for a full disk.

    Python 3.11 keeps the first 2,000 bytes of a module compiled meanwhile, and every later import
    of it fails: none may be written.
    """
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
        sys.dont_write_bytecode = writes


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a buffer at exit
def test_a_disk_full_at_the_first_or_last_step_leaves_the_old_file(write, tmp_path, monkeypatch):
    for suffix in (".din", ".csv", ".parquet"):
        (tmp_path / f"model{suffix}").write_bytes(b"old")
    before = content(tmp_path)
    with small_disk(), pytest.raises(OSError, match=r"File too large|Errno 27|errno: 27"):
        write(tmp_path / "model.din")
    assert content(tmp_path) == before

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("sklearn_din.utils.whole_files.os.fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        write(tmp_path / "model.din")
    assert content(tmp_path) == before


def test_a_folder_that_cannot_be_written_to_is_named(write):
    """The tests may run as root, for whom every folder can be written to: /proc is none."""
    with pytest.raises(OSError, match=r"/proc/self|No such file"):
        write(Path("/proc/self/model.din"))


def test_a_link_stays_a_link_and_a_device_a_device(fitted, tmp_path):
    real, link = tmp_path / "real.onnx", tmp_path / "link.onnx"
    real.write_bytes(b"old")
    link.symlink_to(real)
    export_onnx(fitted, link)
    assert link.is_symlink()
    assert real.stat().st_size > 1_000
    export_onnx(fitted, "/dev/null")
    assert not Path("/dev/null").is_file()


def make_log(folder, n_rows=400):
    chance = np.random.default_rng(0)
    log = pd.DataFrame(
        {"user": np.arange(n_rows) % (n_rows // 20), "item": chance.integers(30, size=n_rows)}
    )
    log["time"] = np.arange(n_rows)
    log.to_csv(folder / "log.csv", index=False)
    return [str(folder / "log.csv"), "--user", "user", "--item", "item", "--time", "time"]


@pytest.mark.filterwarnings("ignore:the validation rows hardly follow")
@pytest.mark.proof
def test_the_command_line_says_in_one_line_that_the_disk_is_full(tmp_path, capsys):
    options = [*make_log(tmp_path), "--folds", "2", "--epochs", "1"]
    options += ["--picture", str(tmp_path / "attention.png"), "--save", str(tmp_path / "model.din")]
    with small_disk(), pytest.raises(SystemExit) as ended:
        main(options)
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if not line.startswith("note: ")]
    assert len(errors) == 1
    assert "File too large" in errors[0]
    assert list(content(tmp_path)) == ["log.csv"]


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (MemoryError("Unable to allocate 7. GiB for an array"), SystemExit),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:120] DefaultCPUAllocator: can't allocate"
                      " memory: you tried to allocate 7 bytes."), SystemExit),
        (RuntimeError("a fault of ours"), RuntimeError),
    ],
)  # fmt: skip
def test_the_command_line_says_that_memory_is_short_and_other_errors_keep_their_traceback(
    error, ending, tmp_path, capsys, monkeypatch
):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("sklearn_din.command_line.results.judge", fail)
    with pytest.raises(ending) as ended:
        main([*make_log(tmp_path), "--picture", str(tmp_path / "attention.png")])
    lines = capsys.readouterr().err.splitlines()
    if ending is SystemExit:
        assert ended.value.code == 2
        assert "not enough memory" in lines[0]
        assert lines[0].endswith("Give fewer rows, or more memory.")
    assert len(lines) == (ending is SystemExit)


def test_a_signal_ends_the_command_line_in_one_line_and_leaves_no_file(
    tmp_path, capsys, monkeypatch
):
    """In the middle of writing the model, and in the middle of a training."""
    arguments = [*make_log(tmp_path), "--folds", "2", "--epochs", "1", "--negatives", "1"]
    arguments += ["--picture", str(tmp_path / "attention.png")]
    handlers = [signal.getsignal(its) for its in (signal.SIGTERM, signal.SIGINT)]

    for place, number in (
        ("saving._check_names", signal.SIGTERM),
        ("training.training.keep_freed_memory", signal.SIGINT),
    ):
        end = lambda *_, number=number: signal.raise_signal(number)  # noqa: E731
        monkeypatch.setattr(f"sklearn_din.{place}", end)
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--save", str(tmp_path / "model.din")])
        assert ended.value.code == 128 + number
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith(f"ended by {number.name}: ")
        assert list(content(tmp_path)) == ["log.csv"]
    assert [signal.getsignal(its) for its in (signal.SIGTERM, signal.SIGINT)] == handlers


# Scans and their caches

ROLES = {"user": "user", "time": "time"}
COUNTS = {"n": ("user", None, "count")}


@pytest.fixture
def log(tmp_path):
    frame, y = make_rows()
    path = tmp_path / "rows.parquet"
    frame.assign(click=y).to_parquet(path, row_group_size=30)
    return path


def test_what_was_encoded_outlives_its_cache_and_a_second_fit_writes_it_again(log, tmp_path):
    cache = tmp_path / "cache"
    scan = scan_parquet(log, target="click", cache_dir=cache)
    attached = attach_history(scan, scan, columns=["item"], **ROLES)
    encoder = HistorySequenceEncoder(**ROLES)
    X = encoder.fit_transform(attached, scan.target_)
    expected = X["item"].tolist()
    shutil.rmtree(cache)
    classifier = DINClassifier(max_epochs=1, hidden_units=(4,), random_state=0)
    assert np.isfinite(classifier.fit(X, scan.target_).predict_proba(X)).all()
    for use in (
        lambda: attached["hist_item"],
        lambda: encoder.transform(attached),
        lambda: predict_to_parquet(classifier, attached, tmp_path / "scores.parquet"),
    ):
        with pytest.raises(FileNotFoundError, match=r"and it is gone\. Scan and attach again"):
            use()
    assert not [name for name in os.listdir(tmp_path) if name not in ("cache", "rows.parquet")]
    attached = attach_history(scan, scan, columns=["item"], **ROLES)
    again = HistorySequenceEncoder(**ROLES).fit_transform(attached, scan.target_)
    assert again["item"].tolist() == expected


@pytest.mark.parametrize("cache", ["/proc/self/cache", "a file"])
def test_a_cache_dir_that_cannot_be_written_to_is_named(log, cache, tmp_path):
    """The tests may run as root, for whom every folder can be written to: /proc is none."""
    cache = log if cache == "a file" else cache
    scan = scan_parquet(log, target="click", cache_dir=cache)
    for use in (
        lambda: attach_history(scan, scan, columns=["item"], **ROLES),
        lambda: attach_aggregates(scan, scan, time="time", aggregates=COUNTS),
        lambda: sample_negatives(scan, item="item", random_state=0),
        lambda: HistorySequenceEncoder(**ROLES).fit(scan, scan.target_),
    ):
        with pytest.raises(OSError, match="cache_dir must be a folder that can be written to"):
            use()
    assert os.listdir(tmp_path) == ["rows.parquet"]


PREPARE = """
    import faulthandler, os, re, resource, signal, sys
    from pathlib import Path
    import duckdb, numpy as np, pandas as pd, skops.io
    from sklearn.pipeline import Pipeline
    import sklearn_din.saving, sklearn_din.estimator, sklearn_din.training.leaks
    from sklearn_din import *
    from tests.test_faults import HIDDEN, ROLES, ended

    try:
        import onnx
    except ImportError:
        onnx = None
    folder = Path(sys.argv[1])
    log = pd.DataFrame({"user": np.arange(30_000) % 500, "time": np.arange(30_000)})
    log["item"] = np.random.RandomState(0).permutation(30_000)
    log.assign(click=log["time"] % 2).to_parquet(folder / "rows.parquet", row_group_size=10_000)
    scan = scan_parquet(folder / "rows.parquet", target="click", cache_dir=folder / "cache")
    y = scan.target_
    encoder = HistorySequenceEncoder(**ROLES)
    small = {"max_epochs": 1, "hidden_units": (4,), "random_state": 0}
    # All rows with the base rate, which is all that can be learnt, would be a file of 894 bytes.
    classifier = DINClassifier(embedding_dim=64, early_stopping=False, **small)
    with_checkpoint = DINClassifier(**small, callbacks=[Checkpoint(folder / "runs")])
    rows = log[["user", "time", "item"]]
    model = Pipeline([("encode", encoder), ("din", classifier)]).fit(rows, y)
    X = encoder.transform(rows)
    calls = {
        "save": lambda: save(model, folder / "model"),
        "export": lambda: export_onnx(model, folder / "model"),
        "predictions": lambda: predict_to_parquet(model, scan, folder / "model", overwrite=True),
        "checkpoint": lambda: with_checkpoint.fit(X, y),
        "cache": lambda: HistorySequenceEncoder(**ROLES).fit_transform(scan, y),
        "attach": lambda: attach_history(scan, scan, columns=["item"], **ROLES),
    }
    calls = {name: call for name, call in calls.items() if name != "export" or onnx}
    (folder / "model").write_bytes(b"old")


    def in_a_child(call):
        process = os.fork()
        if process:
            return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        try:
            call()
        except Exception as error:  # of protobuf, "Failed to serialize proto"
            words = "memory|allocate|thread|serialize proto"
            if not re.search(words, str(error) + type(error).__name__, re.I):
                raise
            os._exit(9)
        os._exit(0)
"""
LIMITED = """
    def limited(what, kilobytes):
        # So much memory is left, however much of it lay free before.
        faulthandler.enable()
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + (kilobytes << 10),) * 2)
        taken = []
        try:
            while True:
                taken.append(bytearray(1 << 16))
        except MemoryError:
            del taken[-(kilobytes >> 6) :]
        calls[what]()

    endings = set()
    for what in calls:
        found = []
        for kilobytes in (128, 256, 2048, 8192, 16384):
            found.append(in_a_child(lambda: limited(what, kilobytes)))
            endings.add(found[-1])  # a process that crashed leaves hidden files
            ended(folder, hidden=HIDDEN[-1:] if endings <= {0, 9} else HIDDEN)
        print(what, *found, in_a_child(calls[what]))
"""
TERMINATED = """
    import sklearn_din.utils.whole_files
    from sklearn_din.features import store

    def end(*_):
        signal.raise_signal(signal.SIGTERM)

    sklearn_din.utils.whole_files.os.replace = end
    store.StoreWriter._write_manifest = store._put = end
    for what, call in calls.items():
        print(what, in_a_child(call))
        ended(folder, hidden=HIDDEN)
"""


HIDDEN = (".partial-", ".sklearn-din-", "training.lock")  # what no later call reads


def ended(folder, hidden=()):
    """Raise unless what is left behind is whole, or has one of the names that nobody reads."""
    left = {path.name for path in folder.iterdir()} - {"cache", "runs", "rows.parquet", "model"}
    for place in ("cache", "runs"):
        left |= set(os.listdir(folder / place)) if (folder / place).exists() else set()
    whole = ("encoded-", "learnt-", "history-")
    assert all(name.startswith((*whole, *hidden)) for name in left), left
    content = (folder / "model").read_bytes()
    assert content == b"old" or len(content) > 1000


def run(folder, code, n_rows="30_000"):
    """What each call came to: by name, the statuses of its processes."""
    text = PREPARE.replace("30_000", n_rows) + code
    child = run_python(text, folder, **ONE_THREAD)  # a process with threads is not forked
    assert child.returncode == 0, child.stderr
    lines = [
        line for line in child.stdout.splitlines() if not line.startswith("Error:")
    ]  # FBGEMM's
    return {line.split()[0]: line.split()[1:] for line in lines}, child.stderr


CALLS = {"save", "predictions", "checkpoint", "cache", "attach"}


@pytest.mark.skipif(sys.platform != "linux", reason="memory in use is read from /proc")
@pytest.mark.proof
def test_short_memory_ends_in_an_error_and_leaves_nothing_half_written(tmp_path):
    found, said = run(tmp_path, LIMITED)
    assert found.keys() >= CALLS
    # In onnx and pandas' hash tables; the C library ends a process whose thread cannot start.
    crashes = {str(-signal.SIGSEGV), str(-signal.SIGABRT), "127"}
    for what, (*short, enough) in found.items():
        assert set(short) <= {"0", "9"} | (crashes if what != "save" else set()), (what, said)
        assert "9" in short, (what, found)
        assert enough == "0", (what, found, said)


@pytest.mark.parametrize("method", ["__init__", "iter_batches"])
def test_a_file_that_memory_does_not_suffice_for_is_not_called_damaged(log, monkeypatch, method):
    def fails(*args, **kwargs):
        raise pa.ArrowMemoryError("malloc of size 121536 failed")

    scan = scan_parquet(log)
    monkeypatch.setattr(pq.ParquetFile, method, fails)
    with pytest.raises(MemoryError, match="malloc of size 121536 failed"):
        list(scan.parts())


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
@pytest.mark.proof
def test_sigterm_at_the_last_moment_leaves_the_old_state_and_hidden_files_alone(tmp_path):
    found, said = run(tmp_path, TERMINATED, n_rows="3_000")
    assert found.keys() >= CALLS
    assert {status for its in found.values() for status in its} == {str(-signal.SIGTERM)}, said
    assert (tmp_path / "model").read_bytes() == b"old"
