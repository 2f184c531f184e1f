"""Caches that are gone, short memory, SIGTERM: a clear end, and nothing is half done."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sklearn_din import (
    DINClassifier,
    HistorySequenceEncoder,
    attach_aggregates,
    attach_history,
    predict_to_parquet,
    sample_negatives,
    scan_parquet,
)
from tests.fitted_pipelines import make_rows

HOUSE = Path(__file__).resolve().parents[1]
ROLES = {"user": "user", "time": "time"}
COUNTS = {"n": ("user", None, "count")}


@pytest.fixture
def log(tmp_path):
    frame, y = make_rows()
    path = tmp_path / "rows.parquet"
    frame.assign(click=y).to_parquet(path, row_group_size=30)
    return path


def scan_of(log, cache):
    return scan_parquet(log, target="click", cache_dir=cache)


def test_what_was_encoded_outlives_its_cache_and_a_second_fit_writes_it_again(log, tmp_path):
    cache = tmp_path / "cache"
    scan = scan_of(log, cache)
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
    scan = scan_of(log, log if cache == "a file" else cache)
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
    from tests.test_faults_of_scans import HIDDEN, ROLES, ended

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
    def limited(what, megabytes):
        # So much memory is left, however much of it lay free before.
        faulthandler.enable()
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + (megabytes << 20),) * 2)
        taken = []
        try:
            while True:
                taken.append(bytearray(1 << 16))
        except MemoryError:
            del taken[-(megabytes << 4) :]
        calls[what]()

    endings = set()
    for what in calls:
        found = []
        for megabytes in (1, 2, 4, 8, 16):
            found.append(in_a_child(lambda: limited(what, megabytes)))
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


def run(folder, code):
    """What each call came to: by name, the statuses of its processes."""
    text = textwrap.dedent(PREPARE) + textwrap.dedent(code)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # a process with threads is not forked
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", text, str(folder)],
        cwd=HOUSE, capture_output=True, text=True, timeout=240, env=environment,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    lines = [
        line for line in child.stdout.splitlines() if not line.startswith("Error:")
    ]  # FBGEMM's
    return {line.split()[0]: line.split()[1:] for line in lines}, child.stderr


CALLS = {"save", "predictions", "checkpoint", "cache", "attach"}


@pytest.mark.skipif(sys.platform != "linux", reason="memory in use is read from /proc")
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
def test_sigterm_at_the_last_moment_leaves_the_old_state_and_hidden_files_alone(tmp_path):
    found, said = run(tmp_path, TERMINATED)
    assert found.keys() >= CALLS
    assert {status for its in found.values() for status in its} == {str(-signal.SIGTERM)}, said
    assert (tmp_path / "model").read_bytes() == b"old"
