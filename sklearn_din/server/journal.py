"""Posted events, kept until the server ends, or in a file for the next one."""

import fcntl
import itertools
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from sklearn_din.server.json_values import Values

MOST_BYTES = 64_000_000  # of events that are kept in memory alone
SECONDS_BETWEEN_SYNCS = 1.0


class FullError(Exception):
    """There is no room for another event."""


class Journal:
    """Lines of JSON: an event, with its id where it has one, or the id of one taken back.

    Without a file they are in memory, 64 MB of them. In a file they are written before a post is
    answered, so that no end of the process loses one; a file system keeps them at the latest after
    a second, should the machine lose its power.

    Parameters
    ----------
    path : path, default=None
        The file; made where it is not there. A second server may not open it. A last line that was
        not written to its end belongs to a post that was not answered: it is cut off.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path, self.n_cut = path, 0
        self._memory: list[bytes] = []
        self._n_bytes, self._synced = 0, 0.0
        self._syncing: threading.Timer | None = None
        self._closing = threading.Lock()
        if path is None:
            return
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ValueError(
                f"the journal {path} cannot be opened: {error.strerror}. Name a file by --events, "
                "in a folder where this process may write."
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise ValueError(
                f"{path} is the journal of another server that runs. End that one, or name another "
                "file by --events."
            ) from error
        content = path.read_bytes()
        end = content.rfind(b"\n") + 1
        self.n_cut, self._n_bytes = len(content) - end, end
        if self.n_cut:
            os.ftruncate(self._file, end)

    def lines(self, start: int = 0) -> Iterator[Values]:
        """Return what was kept, in its order, from a line on."""
        kept: Any = nullcontext(self._memory) if self.path is None else self.path.open("rb")
        with kept as lines:
            for number, line in enumerate(itertools.islice(lines, start, None), start=start + 1):
                yield _read_line(line, f"{self.path}, line {number}")

    def append(self, rows: list[Values]) -> None:
        """Keep lines, all or none of them."""
        written = b"".join(json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in rows)
        if self.path is None:
            if self._n_bytes + len(written) > MOST_BYTES:
                raise FullError(
                    f"events that were posted take {MOST_BYTES:,} bytes, as many as are kept "
                    "without a journal. Start the server with --events FILE."
                )
            self._memory += written.splitlines()
        else:
            self._write(written)
        self._n_bytes += len(written)

    def about(self) -> Values:
        """Return what is kept where, and how much there may be."""
        kept = {"in": "memory" if self.path is None else "journal", "bytes": self._n_bytes}
        return kept | {"bytes_at_most": MOST_BYTES if self.path is None else None}

    def close(self) -> None:
        """Let the file be kept by its file system, and others have it."""
        self._sync()
        with self._closing:
            if self.path is not None:
                os.close(self._file)
                self.path = None

    def _write(self, written: bytes) -> None:
        try:
            view = memoryview(written)
            while len(view):
                view = view[os.write(self._file, view) :]
        except OSError as error:  # a full disk, a limit
            os.ftruncate(self._file, self._n_bytes)
            raise FullError(f"the journal cannot be written: {error.strerror}.") from error
        if self._syncing is None or not self._syncing.is_alive():
            wait = max(0.0, self._synced + SECONDS_BETWEEN_SYNCS - time.monotonic())
            self._syncing = threading.Timer(wait, self._sync)
            self._syncing.daemon = True
            self._syncing.start()

    def _sync(self) -> None:
        with self._closing:
            if self.path is not None:
                self._synced = time.monotonic()
                os.fsync(self._file)


def _read_line(line: bytes, where: str) -> Values:
    try:
        values = json.loads(line)
        if not isinstance(values.get("event", {}), dict):
            raise TypeError
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}, is no event of a journal.") from error
    return values
