"""What is served now: answers that are replaced in one move when their files were."""

import asyncio
import logging
import queue
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import joblib

from sklearn_din.server.answers import Answers, Exclude, User
from sklearn_din.server.json_values import Values
from sklearn_din.server.posts import Posts
from sklearn_din.server.store import (
    MOST_BYTES,
    SECONDS_OF_PATIENCE,
    Store,
    StoreError,
    now_as_text,
)
from sklearn_din.utils.digests import digest_of_file
from sklearn_din.utils.warnings import warn_user

SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_BETWEEN_POLLS = 0.5  # of a store that other servers may write to
SECONDS_TO_WRITE = SECONDS_OF_PATIENCE + 0.5  # after which a post is told that the store is silent
MOST_WAITING = 64  # requests behind those that are worked on, and as many posts
LOGGER = logging.getLogger("sklearn_din.server")
PASSING = ("files cannot be looked at", "a file is gone")
IN_FILES = (
    "files that are served have events of this user: answers leave them out until the history's "
    "file and the model have been made anew without them."
)


class BusyError(Exception):
    """Too many requests wait."""


class UnknownError(Exception):
    """There is nothing to take back."""


class State:
    """The answers of now, the events that were posted, and threads to work in.

    ``load`` returns the answers, anew when one of the ``files`` was replaced: requests go on
    meanwhile, each by the answers that it began with. Where loading fails the old ones stay. The
    ``store`` gets what is posted, and if ``logs_shown`` each answer of :meth:`rank`.
    """

    def __init__(
        self,
        load: Callable[[], Answers],
        files: Sequence[Path] = (),
        store: Store | None = None,
        *,
        logs_shown: bool = False,
    ) -> None:
        self._logs_shown, self.n_not_logged = logs_shown, 0
        self._load, self._files, self._store = load, files, store or Store()
        self.problem: Values | None = None  # of the new files, or of looking at them
        self.store_problem: Values | None = None
        self.n_failed = 0
        self._joining, self.loading = threading.Lock(), threading.Thread()
        self._stamp = [_stamp(path) for path in self._files]
        self.digest, self.loaded = _digest(self._files), datetime.now(UTC)
        self.answers = load()
        self.posts = self._join(self.answers)
        self.n_bytes, self._caught_up = self._store.n_bytes(), time.monotonic()
        # As many requests at once as there are cores: the others wait, and none waits long
        self.n_threads = joblib.cpu_count()
        self.n_waiting = 0
        self._jobs: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
        self._notes = threading.local()
        for _ in range(self.n_threads):  # daemons: the process ends without what they still do
            threading.Thread(target=self._work_off, daemon=True).start()
        self._turns = asyncio.Semaphore(self.n_threads)
        self._writes: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._is_closed, self._must_erase = threading.Event(), True
        self._next_look = 0.0  # at the store's room, and at what is still to be erased
        self._in_flight: dict[str, str] = {}  # users of rankings that are to be logged
        self.writing = threading.Thread(target=self._write_off, daemon=True)
        self.writing.start()

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

    async def write(self, function: Callable[..., Values], *given: Any) -> Values:
        """Return what a function returns whose writes are then in the store, and in the answers.

        All that wait are one transaction. Where it fails, nothing has changed. Nobody waits longer
        than ``SECONDS_TO_WRITE``.
        """
        if self._writes.qsize() >= MOST_WAITING:
            raise BusyError(f"{MOST_WAITING} posts wait already. Ask again in a second.")
        answered = asyncio.get_running_loop().create_future()
        answered.add_done_callback(lambda _: None)
        self._writes.put((answered, function, given))
        try:
            async with asyncio.timeout(SECONDS_TO_WRITE):  # what has not begun by then never will
                return await answered
        except TimeoutError:
            error = StoreError(f"the store, {self._store.name}, does not answer.")
            self._tell_of_store(error)
            raise error from None

    def rank(self, user: User, items: list[Any] | None, top_k: int, exclude: Exclude) -> Values:
        """Return the best items for a user, and where they are logged the id of this request.

        What waits to be logged has its bound, as posts have: what is beyond it is counted.
        """
        removed_to, answers, request = self.posts.removed_to, self.answers, uuid.uuid4().hex
        if not self._logs_shown:
            return answers.rank(user, items, top_k, exclude)
        self._in_flight[request], is_logged = self._store.user_key(answers.id_of(user)), False
        try:
            whole = answers.read_user(user)
            answer = answers.rank(user, items, top_k, exclude, whole)
            if is_logged := self._writes.qsize() < MOST_WAITING:
                shown = request, removed_to, *answers.show(user, whole, answer)
                self._writes.put((None, self._show, shown))
        finally:
            if not is_logged:
                self._in_flight.pop(request, None)
        self.n_not_logged += not is_logged
        return answer | {"request": request}

    def add(self, events: list[Values]) -> Values:
        """Let events join their users' histories; return how many are new, and their ids.

        Equal ones are one. An "event_id" says that two posts mean the same event, or that equal
        ones are two. One that is posted again with another label replaces the first.
        """
        rows = self.posts.read(events)
        new, changed = self.posts.find_new(rows, events)
        for event_id in changed:
            self.remove(event_id)
        self._store.add(new, self.digest)
        n_known = len(events) - len(new)
        answer = {"added": len(new) - len(changed), "event_ids": [row.event_id for _, row in rows]}
        counts = {"known_already": n_known, "replaced": len(changed)}
        answer |= {name: n for name, n in counts.items() if n}
        return answer | self.answers.note_posts([event for event, _ in rows], events)

    def remove(self, event_id: str) -> Values:
        """Take an event back."""
        if not self._store.remove_event(event_id):
            raise UnknownError("no event was posted with this event_id.")
        self._must_erase, self._next_look = True, 0.0
        return {"removed": 1}

    def forget(self, user: str) -> Values:
        """Forget a user: what was posted and shown; answers leave out what files have."""
        log = self.answers.histories
        whose = user if log is None else log.read_user(user)
        is_in_files = self.answers.knows(whose)
        is_known = is_in_files or self._store.user_key(whose) in [*self._in_flight.values()]
        removed = self._store.remove_user(whose, is_known=is_known)
        if not (is_known or any(removed.values())):
            raise UnknownError("nobody is known by this id.")
        self._must_erase, self._next_look = True, 0.0
        if is_in_files:
            warn_user(IN_FILES)
        return {"removed": removed["events"], "shown": removed["shown"]}

    def _show(self, request: str, removed_to: int, user: Any, columns: list[str]) -> Values:
        self._in_flight.pop(request, None)
        self._store.add_shown(request, user, columns, self.digest, removed_to)
        return {}

    def about_store(self) -> Values:
        """Return where posts are, how many do not count, and what is wrong."""
        most = MOST_BYTES if self._store.url is None else None
        return {
            "in": self._store.kind,
            "bytes": self.n_bytes,
            "bytes_at_most": most,
            "left_out": self.posts.n_left_out,
            "without_a_value": self.posts.n_without_a_value,
            "not_logged": self.n_not_logged,
            "erased": not self._must_erase,
            "seconds_behind": round(time.monotonic() - self._caught_up, 1),
            "problem": self.store_problem,
        }

    async def look_for_new_files(self) -> None:
        """Replace the answers whenever a file was replaced, for ever."""
        while True:
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
            self._store.hang_up()
            try:
                stamp = [_stamp(path) for path in self._files]
            except OSError as error:  # a link to itself, no permission, a network
                self._tell(PASSING[0], error)
                continue
            if None in stamp:  # it may be put in place just now
                gone = self._files[stamp.index(None)]
                self._tell(PASSING[1], FileNotFoundError(gone.name))
            elif self.problem is not None and self.problem["what"] in PASSING:
                self.problem = None
            if stamp != self._stamp and None not in stamp:
                self._stamp = stamp
                self.loading = threading.Thread(target=self.reload, daemon=True)
                self.loading.start()  # no end of the process waits for it
                while self.loading.is_alive():
                    await asyncio.sleep(SECONDS_BETWEEN_LOOKS / 10)
                    self._store.hang_up()

    def reload(self) -> None:
        """Load the files and replace the answers, or return the reason for failure."""
        try:
            digest = _digest(self._files)
            answers = self._load()
            posts = self._join(answers)  # posts go on meanwhile
            with self._joining:
                posts.catch_up()
                self.answers, self.posts = answers, posts
                self.digest, self.problem = digest, None
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
        """End the threads that do nothing, and let the store go."""
        for _ in range(self.n_threads):
            self._jobs.put(None)
        self._is_closed.set()
        self._writes.put((None, dict, ()))
        self.writing.join(SECONDS_OF_PATIENCE / 2)  # a database that does not answer may have it
        if not self.writing.is_alive():
            self._store.close()

    def _join(self, answers: Answers) -> Posts:
        """Let what the store has join the histories of answers that are not served yet."""
        posts = Posts(answers, self._store)
        posts.catch_up()
        for n, what in ((posts.n_left_out, "are left out"), (posts.n_without_a_value, "get null")):
            if n:
                LOGGER.warning("%s values or events that were posted for others %s", f"{n:,}", what)
        return posts

    def _write_off(self) -> None:
        """Write what was posted, all that waits at once, and read what others have written."""
        jobs: list[tuple[Any, ...]] = []
        while not self._is_closed.is_set():
            with suppress(queue.Empty):
                jobs = [self._writes.get(timeout=SECONDS_BETWEEN_POLLS)]
                while len(jobs) < MOST_WAITING:
                    jobs.append(self._writes.get_nowait())
            jobs = [job for job in jobs if job[0] is None or not job[0].cancelled()]
            for (answered, *_), outcome in zip(jobs, self._commit(jobs), strict=True):
                if answered is None:
                    self.n_not_logged += outcome[1] is not None
                elif not answered.get_loop().is_closed():
                    answered.get_loop().call_soon_threadsafe(_settle, answered, outcome)
            jobs = []

    def _commit(self, jobs: list[tuple[Any, ...]]) -> list[Any]:
        """Return the answer of each job or its error: what they write is in the store, or none."""
        outcomes: list[Any] = []
        try:
            if jobs:
                with self._store.transaction():
                    write = self._store.write_whole
                    outcomes = [self._try(write, (job[1], *job[2])) for job in jobs]
        except StoreError as error:
            self._tell_of_store(error)
            self._in_flight.clear()
            return [(None, error)] * len(jobs)
        try:
            with self._joining:
                self.posts.catch_up()
            self._caught_up = time.monotonic()
            if self._caught_up >= self._next_look:
                self._must_erase = self._must_erase and not self._store.erase()
                self.n_bytes = self._store.n_bytes()
                self._next_look = self._caught_up + SECONDS_BETWEEN_LOOKS
            self.store_problem = None
        except Exception as error:  # whatever it is: what was written is there, others go on
            self._tell_of_store(error)
        return outcomes

    def _tell_of_store(self, error: Exception) -> None:
        """Keep what is wrong with the store, and since when; the log has the sentence, once."""
        if self.store_problem is None or self.store_problem["error"] != type(error).__name__:
            LOGGER.error("%s", error if isinstance(error, StoreError) else type(error).__name__)
            self.store_problem = {"error": type(error).__name__, "since": now_as_text()}

    def _try(self, function: Callable[..., Values], given: tuple[Any, ...]) -> Any:
        """Return what a function returns, and what it warned of, or what is wrong."""
        self._notes.said = notes = list[str]()
        try:
            answer = function(*given)
            return {**answer, "notes": [*dict.fromkeys(notes)]} if notes else answer, None
        except StoreError:
            raise
        except Exception as error:  # of the request: who asked gets it
            return None, error

    def _tell(self, what: str, error: Exception) -> None:
        """Keep what is wrong, and since when; the log has the sentence, once."""
        is_new = self.problem is None or self.problem["what"] != what
        known = {} if self.problem is None or is_new else self.problem
        self.problem = {"what": what, "error": type(error).__name__, "since": now_as_text()} | known
        if is_new or what == "new files cannot be served":
            LOGGER.error("%s: %s: %s", what, type(error).__name__, error)

    def _work_off(self) -> None:
        """Do one job after the other, in a thread; those of clients who have left are dropped."""
        while (job := self._jobs.get()) is not None:
            answered, turns, function, given = job
            outcome: Any
            loop, outcome = answered.get_loop(), None
            if not answered.cancelled():
                outcome = self._try(function, given)
            if not loop.is_closed():
                loop.call_soon_threadsafe(turns.release)
                loop.call_soon_threadsafe(_settle, answered, outcome)


def _settle(answered: Any, outcome: Any) -> None:
    if answered.done() or not outcome:
        return
    answer, error = outcome
    if error is None:
        answered.set_result(answer)
    else:
        answered.set_exception(error)


def _digest(files: Sequence[Path]) -> str:
    """Return the first digits of the SHA-256 of the model, which is the first file."""
    return digest_of_file(files[0])[:12] if files else "none"


def _stamp(path: Path) -> tuple[Any, ...] | None:
    """Return what changes when a file, or one in a folder, is replaced; None while it is absent."""
    try:
        status = path.stat()
        parts = sorted(path.rglob("*")) if path.is_dir() else []
        own = [part.stat() for part in parts]
    except FileNotFoundError:
        return None
    return tuple((s.st_mtime_ns, s.st_ino, s.st_size) for s in (status, *own))
