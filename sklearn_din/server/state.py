"""What is served now: answers that are replaced in one move when their files were."""

import asyncio
import hashlib
import logging
import os
import queue
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sklearn_din.server.answers import Answers
from sklearn_din.server.histories import Event
from sklearn_din.server.journal import Journal
from sklearn_din.server.json_values import Values

SECONDS_BETWEEN_LOOKS = 1.0
MOST_WAITING = 64  # requests behind those that are worked on
LOGGER = logging.getLogger("sklearn_din.server")

NO_LOG = (
    "there is no log that a click could join: start the server with --history, or serve a Pipeline "
    "that begins with a HistoryBuilder."
)


class BusyError(Exception):
    """Too many requests wait."""


class State:
    """The answers of now, the events that were posted, and threads to work in.

    Parameters
    ----------
    load : function
        Returns the answers, out of the files.
    files : list of path
        When one of them is replaced, ``load`` is called again. Requests go on meanwhile, each by
        the answers that it began with. Where loading fails the old ones stay.
    journal : Journal, default=None
        Where posted events are kept; None: in memory.
    """

    def __init__(
        self,
        load: Callable[[], Answers],
        files: Sequence[Path] = (),
        journal: Journal | None = None,
    ) -> None:
        self._load, self._files, self.journal = load, files, journal or Journal()
        self.problem: Values | None = None  # of the new files, or of looking at them
        self.n_failed = 0
        self._joined_ids: dict[str, Event] = {}
        self._writing = threading.Lock()
        self._stamp = [_stamp(path) for path in self._files]
        self.answers = load()
        self._join(self.answers)
        self._ids = self._joined_ids
        self.loaded, self.digest = datetime.now(UTC), _digest(self._files)
        # As many requests at once as there are cores: the others wait, and none waits long
        self.n_threads = len(os.sched_getaffinity(0))
        self.n_waiting = 0
        self._jobs: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
        self._notes = threading.local()
        for _ in range(self.n_threads):  # daemons: the process ends without what they still do
            threading.Thread(target=self._work_off, daemon=True).start()
        self._turns = asyncio.Semaphore(self.n_threads)

    async def work(self, function: Callable[..., Values], *given: Any) -> Values:
        """Return what a function returns, in a thread; with what it warned of as "notes".

        Who is cancelled while waiting for a thread is not worked for.
        """
        if self.n_waiting >= MOST_WAITING:
            raise BusyError(f"{MOST_WAITING} requests wait already. Ask again in a second.")
        self.n_waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self.n_waiting -= 1
        answered = asyncio.get_running_loop().create_future()
        answered.add_done_callback(lambda _: None)
        self._jobs.put((answered, self._turns, function, given))
        return await answered

    def add(self, events: list[Values]) -> Values:
        """Let events join their users' histories; return how many are new.

        Equal ones of one post are one. An "event_id" says that two posts mean the same event, or
        that equal ones are two.
        """
        with self._writing:
            histories = self.answers.histories
            if histories is None:
                raise ValueError(NO_LOG)
            ids = [_read_id(event.get("event_id")) for event in events]
            own = [{n: v for n, v in event.items() if n != "event_id"} for event in events]
            new: dict[Any, tuple[Event, str | None]] = {}
            for event, id_ in zip(histories.read(self.answers.fill_events(own)), ids, strict=True):
                is_known = histories.has(event) if id_ is None else id_ in self._ids
                if not is_known:
                    new.setdefault(event if id_ is None else id_, (event, id_))
            rows = [
                {"event": histories.write(event)} | ({} if id_ is None else {"id": id_})
                for event, id_ in new.values()
            ]
            self.journal.append(rows)
            histories.add([event for event, _ in new.values()])
            self._ids |= {id_: event for event, id_ in new.values() if id_ is not None}
        n_known = len(events) - len(new)
        return {"added": len(new)} | ({"known_already": n_known} if n_known else {})

    def remove(self, event_id: str) -> Values:
        """Take an event back that was posted with an id."""
        with self._writing:
            event, histories = self._ids.get(event_id), self.answers.histories
            if event is None or histories is None:
                raise LookupError(f"no event was posted with the event_id {event_id!r:.60}.")
            if histories.is_in_log(event):
                raise ValueError("the event stands in the history's file too. Take it out there.")
            histories.remove(event)
            self.journal.append([{"deleted": event_id}])
            del self._ids[event_id]
        return {"removed": 1}

    async def look_for_new_files(self) -> None:
        """Replace the answers whenever a file was replaced, for ever."""
        while True:
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
            try:
                stamp = [_stamp(path) for path in self._files]
            except OSError as error:  # a link to itself, no permission, a network
                self._tell("files cannot be looked at", error)
                continue
            if self.problem is not None and self.problem["what"] == "files cannot be looked at":
                self.problem = None
            if stamp != self._stamp and None not in stamp:
                self._stamp = stamp
                await asyncio.to_thread(self.reload)

    def reload(self) -> None:
        """Load the files and replace the answers, or return the reason for failure."""
        try:
            digest = _digest(self._files)
            answers = self._load()
            n_joined = self._join(answers)  # posts go on meanwhile
            with self._writing:
                self._join(answers, n_joined)
                self.answers, self.digest, self.problem = answers, digest, None
                self._ids = self._joined_ids
                self.loaded = datetime.now(UTC)
        except Exception as error:  # whatever a file holds: the old answers are there
            self.n_failed += 1
            self._tell("new files cannot be served", error)
            return
        LOGGER.info("new files are served: %s items", f"{len(answers.items):,}")

    def collect_notes(self) -> None:
        """Send warnings to who asked: they may hold values of a request, and no log may."""

        def keep(message: Warning | str, *_: Any, **__: Any) -> None:
            notes = getattr(self._notes, "said", None)
            if notes is not None:
                notes.append(str(message))

        warnings.simplefilter("always")
        warnings.showwarning = keep

    def close(self) -> None:
        """End the threads that do nothing, and keep what was posted."""
        for _ in range(self.n_threads):
            self._jobs.put(None)
        self.journal.close()

    def _join(self, answers: Answers, start: int = 0) -> int:
        """Let what was posted join the histories of answers that are not served yet.

        ``start`` lines have joined before. Returns how many there are.
        """
        ids, n = (dict(self._joined_ids) if start else {}), start
        for n, line in enumerate(self.journal.lines(start), start=start + 1):
            if answers.histories is None:
                raise ValueError(f"events were posted, and {NO_LOG}")
            if "deleted" in line:
                answers.histories.remove(ids.pop(line["deleted"]))
                continue
            (event,) = answers.histories.read(answers.fill_events([line["event"]]), is_kept=True)
            answers.histories.add([event])
            if "id" in line:
                ids[line["id"]] = event
            if n % 20 == 0 and answers is not self.answers:
                time.sleep(0.001)  # requests go on: short calls of numpy never let them in
        self._joined_ids = ids
        return n

    def _tell(self, what: str, error: Exception) -> None:
        """Keep what is wrong, and since when; the log has the sentence, once."""
        is_new = self.problem is None or self.problem["what"] != what
        since = datetime.now(UTC).isoformat(timespec="seconds")
        known = {} if self.problem is None or is_new else self.problem
        self.problem = {"what": what, "error": type(error).__name__, "since": since} | known
        if is_new or what != "files cannot be looked at":
            LOGGER.error("%s: %s: %s", what, type(error).__name__, error)

    def _work_off(self) -> None:
        """Do one job after the other, in a thread; those of clients who have left are dropped."""
        while (job := self._jobs.get()) is not None:
            answered, turns, function, given = job
            outcome: Any
            loop, outcome = answered.get_loop(), None
            if not answered.cancelled():
                try:
                    outcome = self._with_notes(function, *given), None
                except Exception as error:  # of the request: who asked gets it
                    outcome = None, error
            if not loop.is_closed():
                loop.call_soon_threadsafe(_settle, answered, turns, outcome)

    def _with_notes(self, function: Callable[..., Values], *given: Any) -> Values:
        notes: list[str] = []
        self._notes.said = notes
        answer = function(*given)
        return {**answer, "notes": list(dict.fromkeys(notes))} if notes else answer


def _settle(answered: Any, turns: asyncio.Semaphore, outcome: Any) -> None:
    turns.release()
    if answered.done() or not outcome:
        return
    answer, error = outcome
    if error is None:
        answered.set_result(answer)
    else:
        answered.set_exception(error)


def _read_id(event_id: Any) -> str | None:
    if event_id is not None and (type(event_id) not in (str, int) or len(str(event_id)) > 200):
        raise ValueError(
            f"event_id must be text or an integer of at most 200 characters, got {event_id!r:.60}."
        )
    return None if event_id is None else str(event_id)


def _digest(files: Sequence[Path]) -> str:
    """Return the first digits of the SHA-256 of the model, which is the first file."""
    if not files:
        return "none"
    with files[0].open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def _stamp(path: Path) -> tuple[Any, ...] | None:
    """Return what changes when a file, or one in a folder, is replaced; None while it is absent."""
    try:
        status = path.stat()
        parts = sorted(path.rglob("*")) if path.is_dir() else []
        own = [part.stat() for part in parts]
    except FileNotFoundError:
        return None
    return tuple((s.st_mtime_ns, s.st_ino, s.st_size) for s in (status, *own))
