"""Full disks, unwritable folders, no memory, SIGTERM: one line, and nothing half done."""

import errno
import os
import resource
import signal
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sklearn_din import export_onnx, save
from sklearn_din.__main__ import main
from sklearn_din.command_line.tables import write_table

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


def old_files(folder):
    for suffix in (".din", ".csv", ".parquet"):
        (folder / f"model{suffix}").write_bytes(b"old")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@contextmanager
def small_disk():
    """No file may grow beyond 2,000 bytes: the system answers as for a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a buffer at exit
def test_a_full_disk_leaves_the_old_file_and_nothing_else(write, tmp_path):
    before = old_files(tmp_path)
    with small_disk(), pytest.raises(OSError, match=r"File too large|Errno 27|errno: 27"):
        write(tmp_path / "model.din")
    assert content(tmp_path) == before


def test_a_disk_that_is_full_at_the_last_step_leaves_the_old_file(write, tmp_path, monkeypatch):
    before = old_files(tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("sklearn_din.utils.whole_files.os.fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        write(tmp_path / "model.din")
    assert content(tmp_path) == before


def test_a_folder_that_cannot_be_written_to_is_named(write, tmp_path, monkeypatch):
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


@pytest.mark.filterwarnings("ignore:nothing was found to learn")
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
    "error",
    [
        MemoryError("Unable to allocate 7. GiB for an array"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:120] DefaultCPUAllocator: can't allocate"
                     " memory: you tried to allocate 7 bytes."),
    ],
)  # fmt: skip
def test_the_command_line_says_in_one_line_that_memory_is_short(
    error, tmp_path, capsys, monkeypatch
):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("sklearn_din.command_line.results.judge", fail)
    with pytest.raises(SystemExit) as ended:
        main([*make_log(tmp_path), "--picture", str(tmp_path / "attention.png")])
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "not enough memory" in line
    assert line.endswith("Give fewer rows, or more memory.")


def test_other_errors_of_the_runtime_keep_their_traceback(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("sklearn_din.command_line.results.judge", fail)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        main([*make_log(tmp_path), "--picture", str(tmp_path / "attention.png")])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_command_line_in_one_line_and_leaves_no_file(
    number, tmp_path, capsys, monkeypatch
):
    """In the middle of writing the model, and in the middle of a training."""
    arguments = [*make_log(tmp_path), "--folds", "2", "--epochs", "1", "--negatives", "1"]
    arguments += ["--picture", str(tmp_path / "attention.png")]
    handlers = [signal.getsignal(its) for its in (signal.SIGTERM, signal.SIGINT)]

    def end(*_):
        signal.raise_signal(number)

    for place in ("saving._check_names", "training.training.keep_freed_memory"):
        monkeypatch.setattr(f"sklearn_din.{place}", end)
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--save", str(tmp_path / "model.din")])
        assert ended.value.code == 128 + number
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith(f"ended by {number.name}: ")
        assert list(content(tmp_path)) == ["log.csv"]
    assert [signal.getsignal(its) for its in (signal.SIGTERM, signal.SIGINT)] == handlers
