"""One training at a time in a folder: a file that names the process which holds it."""

from __future__ import annotations

import json
import os
import platform
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK = "training.lock"
SECONDS_TO_WRITE = 0.2  # after which a lock without content is one whose process died
MOST_TRIES = 5

_held: set[str] = set()  # what this process' locks hold; another one of its number is dead


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Make a folder if it is not there, and hold it within the block.

    The lock is a file that only one process can create (O_EXCL). It holds the number of the
    process, when that began and on which machine. A lock whose process has died is taken over: it
    died without a chance to remove it (SIGKILL, loss of power). The start tells apart processes
    that had the same number, as in a container that is started anew. A process on another machine
    cannot be asked: its lock holds until somebody deletes it.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    RuntimeError
        Where another training holds the folder.
    OSError
        Where the folder cannot be made or written to.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with locked_folder(folder):
    ...     os.listdir(folder)
    ['training.lock']
    >>> os.listdir(folder)
    []
    """
    lock, pid = Path(os.path.realpath(folder)) / LOCK, os.getpid()
    holder = {"pid": pid, "began": _began(pid), "host": platform.node(), "fit": uuid.uuid4().hex}
    own = json.dumps(holder)
    _held.add(own)
    try:
        _make_and_take(lock, own, folder)
        yield
    finally:
        _held.discard(own)
        if os.getpid() == pid and _content(lock) == own:  # not in a process forked meanwhile
            lock.unlink(missing_ok=True)


def _make_and_take(lock: Path, own: str, folder: Path) -> None:
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        _take(lock, own)
    except OSError as error:
        raise OSError(
            error.errno,
            f"checkpoint_dir must be a folder that can be written to: {error.strerror}. Nothing "
            "was trained; choose another folder",
            str(folder),
        ) from error


def _take(lock: Path, own: str) -> None:
    for _ in range(MOST_TRIES):
        try:
            descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            content = _content(lock)
            if not content:
                time.sleep(SECONDS_TO_WRITE)
                content = _content(lock)
            if _is_held(content):
                break
            _remove_stale(lock, content)
            continue
        with os.fdopen(descriptor, "w") as file:
            file.write(own)
        return
    raise RuntimeError(
        f"checkpoint_dir must serve one training at a time, and {str(lock.parent)!r} is held by "
        f"another: {_content(lock):.200}. Wait for it, or give each training a folder of its own "
        f"(searches: n_jobs=1). If no such process trains there, delete {str(lock)!r}."
    )


def _content(lock: Path) -> str:
    with suppress(OSError):
        return lock.read_text(encoding="utf-8", errors="replace")
    return ""


def _remove_stale(lock: Path, content: str) -> None:
    """Remove a dead process' lock, but never one that a faster process has taken meanwhile."""
    aside = lock.with_name(f".stale-{uuid.uuid4().hex}")
    with suppress(FileNotFoundError):
        os.rename(lock, aside)  # of several processes, one succeeds
        if _content(aside) != content:
            with suppress(FileExistsError):
                os.link(aside, lock)
        aside.unlink()


def _is_held(content: str) -> bool:
    try:
        holder = json.loads(content)
        pid, began, host = int(holder["pid"]), holder["began"], holder["host"]
    except (ValueError, TypeError, KeyError):  # cut off by a loss of power
        return False
    if host != platform.node():
        return True
    if pid == os.getpid():
        return content in _held
    if os.name != "posix":  # there, signal 0 would end the process
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # a process of another user
        pass
    return _began(pid) == began


def _began(pid: int) -> str:
    """When a process began, in ticks since the machine did; empty where nothing is known."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    state, *fields = text.rpartition(")")[2].split()
    return "ended" if state in "ZX" else fields[18]
