"""What is served now: answers that are replaced atomically when their files are."""

import asyncio
import json
import logging
import os
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sklearn_din.server.answers import Answers
from sklearn_din.server.json_values import Values

SECONDS_BETWEEN_LOOKS = 1.0
CLICKS_KEPT = 100_000  # of those posted: they join the histories of the next model too
LOGGER = logging.getLogger("sklearn_din.server")

Stamp = list[tuple[int, int, int] | None]


class State:
    """The answers of now, the clicks that came since the start, and threads to work in.

    Parameters
    ----------
    load : function
        Returns the answers, out of the files.
    files : list of path
        When one of them is replaced, ``load`` is called again. Requests go on meanwhile, each by
        the answers that it began with. Where loading fails the old ones stay.
    """

    def __init__(self, load: Callable[[], Answers], files: Sequence[Path] = ()) -> None:
        self._load, self._files = load, files
        self.stamp = [_stamp(path) for path in self._files]
        self.answers = load()
        self.loaded = datetime.now(UTC)
        self.failure: str | None = None
        self._clicks: dict[tuple[str, int], Values] = {}
        self._writing = threading.Lock()
        # As many requests at once as there are cores: the others wait, and none waits long
        self._pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        self._notes = threading.local()

    async def work(self, function: Callable[..., Values], *given: Any) -> Values:
        """Return what a function returns, in a thread; with what it warned of as "notes"."""
        return await asyncio.get_running_loop().run_in_executor(
            self._pool, self._with_notes, function, *given
        )

    def add(self, events: list[Values]) -> dict[str, int]:
        """Let clicks join their users' histories; return how many are new."""
        with self._writing:
            answers = self.answers
            if answers.histories is None:
                raise ValueError(
                    "there is no log that a click could join: start the server with --history, or "
                    "serve a Pipeline that begins with a HistoryBuilder."
                )
            events = answers.fill_events(events)
            n_new = answers.histories.add(events)
            self._keep(events)
        return {"added": n_new}

    async def look_for_new_files(self) -> None:
        """Replace the answers whenever a file was replaced, for ever."""
        while True:
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
            stamp = [_stamp(path) for path in self._files]
            if stamp != self.stamp and None not in stamp:
                self.stamp = stamp
                await asyncio.to_thread(self.reload)

    def reload(self) -> None:
        """Load the files and replace the answers, or return the reason for failure."""
        try:
            answers = self._load()
        except Exception as error:  # whatever a file holds: the old answers are there
            self.failure = f"{type(error).__name__}: {error}"
            LOGGER.error("the new files are not served: %s", self.failure)
            return
        with self._writing:
            if answers.histories is not None and self._clicks:
                try:
                    answers.histories.add([*self._clicks.values()])
                except ValueError as error:  # of another log
                    self._clicks.clear()
                    LOGGER.warning("clicks since the start are forgotten: %s", error)
            self.answers, self.loaded, self.failure = answers, datetime.now(UTC), None
        LOGGER.info("new files are served: %s items", f"{len(answers.items):,}")

    def _keep(self, events: list[Values]) -> None:
        """Keep clicks for the next model: one that is posted again counts once, as in histories."""
        copies: Counter[str] = Counter()
        for event in events:
            text = json.dumps(event, sort_keys=True)
            copies[text] += 1
            self._clicks[text, copies[text]] = event
        while len(self._clicks) > CLICKS_KEPT:
            del self._clicks[next(iter(self._clicks))]

    def collect_notes(self) -> None:
        """Send warnings to who asked: they may hold values of a request, and no log may."""

        def keep(message: Warning | str, *_: Any, **__: Any) -> None:
            notes = getattr(self._notes, "said", None)
            if notes is not None:
                notes.append(str(message))

        warnings.simplefilter("always")
        warnings.showwarning = keep

    def close(self) -> None:
        """End the threads, when what they do is done."""
        self._pool.shutdown()

    def _with_notes(self, function: Callable[..., Values], *given: Any) -> Values:
        notes: list[str] = []
        self._notes.said = notes
        answer = function(*given)
        return {**answer, "notes": list(dict.fromkeys(notes))} if notes else answer


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file is replaced; None while it is not there."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
