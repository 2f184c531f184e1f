"""Posted events, and what was shown, in SQL: SQLite, or PostgreSQL where servers share them.

The tables belong to the owner of the database, who may ask them. ``user``, ``time``, ``item`` and
``columns`` are JSON as it was posted, so that 7 and "7" stay apart:

``events``
    sequence, event_id, user, time, item, label (0: shown and not clicked, no event of a history),
    columns (the others), posted_at, digest of the model of then.
``shown``
    sequence, request, user, time, columns (the request's own), items, scores, item_columns (lists
    of one length, the best item first), shown_at, digest.
``removed``
    sequence, user_key, first_event, last_event, removed_at: which events of whom are gone, by a
    hash of the user's id with a key of the store's own; a first_event of 0 is a user to forget.
``meta``
    key, value: the version of these tables, and the key of hashes.

What is taken back becomes a row of nulls: SQLite zeroes what it frees, but rows that a deletion
moves between pages leave copies behind. Indexes hold hashes alone, for the same reason.
"""

import hashlib
import hmac
import json
import math
import os
import re
import secrets
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from sklearn_din.server.json_values import write
from sklearn_din.utils.extras import import_package

VERSION = "1"
MOST_BYTES = 64_000_000  # of events that are kept in memory alone
BLOCK = 5_000  # rows that are read at once: others wait meanwhile
SECONDS_OF_PATIENCE = 3  # with a database that is locked, or does not answer
SCHEMES = ("postgresql://", "postgres://")
LOCK = 6_074_510_932_641_823_311  # of PostgreSQL: any number that nobody else has
FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)
DISK_FULL = "53100"  # to PostgreSQL
OF_EVENTS = "event_key", "user_key", "event_id", '"user"', '"time"', "item", "label", "columns"
OF_SHOWN = "user_key", "request", '"user"', '"time"', "columns", "items", "scores", "item_columns"
PERSONAL = {"events": OF_EVENTS, "shown": OF_SHOWN}
COLUMNS = {  # that are read
    "events": '"user", "time", item, label, columns',
    "shown": 'request, "user", "time", columns, items, scores, item_columns',
}
TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE events (
  sequence {number}, event_key TEXT UNIQUE, user_key TEXT, event_id TEXT, "user" TEXT,
  "time" TEXT, item TEXT, label INTEGER, columns TEXT, posted_at TEXT NOT NULL,
  digest TEXT NOT NULL);
CREATE INDEX events_of_user ON events (user_key);
CREATE TABLE shown (
  sequence {number}, user_key TEXT, request TEXT, "user" TEXT, "time" TEXT, columns TEXT,
  items TEXT, scores TEXT, item_columns TEXT, shown_at TEXT NOT NULL, digest TEXT NOT NULL);
CREATE INDEX shown_to_user ON shown (user_key);
CREATE TABLE removed (
  sequence {number}, user_key TEXT NOT NULL, first_event BIGINT NOT NULL,
  last_event BIGINT NOT NULL, removed_at TEXT NOT NULL);
"""
TABLES_OF = {
    False: "SELECT name FROM sqlite_master",
    True: "SELECT tablename FROM pg_tables WHERE schemaname = 'sklearn_din'",
}


class StoreError(OSError):
    """The store cannot be asked now: what was to be written is not, or can be repeated."""


class FullError(StoreError):
    """There is no room for more."""


class Posted(NamedTuple):
    """An event as it is stored: texts of JSON."""

    event_id: str
    user: str
    time: str
    item: str
    label: int | None
    columns: str


class Removed(NamedTuple):
    """Events of a user that are gone: from the first to the last, by sequence; 0: all before."""

    sequence: int
    user_key: str
    first: int
    last: int


class Store:
    """Events in a database, written in one order and committed in the same.

    A transaction that writes holds a lock from its beginning to its end, so that no event gets a
    number before one that is seen earlier: who reads on from the last number misses none.

    ``url`` is a file of SQLite, or ``postgresql://...``; None: memory, 64 MB. With ``reads_only``
    nothing is made or written, so that the disk may be one that cannot be written.
    """

    def __init__(self, url: str | None = None, *, reads_only: bool = False) -> None:
        self.url, self._reads_only = url, reads_only
        self._lock = threading.RLock()
        self._connection: Any = None
        self._files: list[tuple[int, int]] | None = []  # of SQLite, as they were opened
        self._asked = math.inf  # when a statement began that has not been answered
        self.is_postgres = url is not None and url.startswith(SCHEMES)
        self.kind = "memory" if url is None else "PostgreSQL" if self.is_postgres else "SQLite"
        if self.is_postgres:
            self._driver = import_package("psycopg", purpose="PostgreSQL", extra="postgres")
            self.name = _check_address(self._driver, str(url))
        elif url == ":memory:":
            raise ValueError("--events :memory: keeps nothing. Name a file, or leave --events out.")
        else:
            self._driver, self.name = sqlite3, url or "memory"
        with self._own_errors():
            self._connect()
            self._prepare()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write in a context: it is there afterwards, or none of it."""
        lock = f"; SELECT pg_advisory_xact_lock({LOCK})" if self.is_postgres else " IMMEDIATE"
        with self._lock:
            try:
                self._check_files()
                self.ask(f"BEGIN{lock}")
                yield
                self.ask("COMMIT")
                self._check_files()  # which may have gone meanwhile
            except BaseException:
                with suppress(self._driver.Error, AttributeError):
                    self._connection.execute("ROLLBACK")
                raise

    def write_whole(self, function: Callable[..., Any], *given: Any) -> Any:
        """Return what a function returns that writes in a transaction: all of it, or none."""
        self.ask("SAVEPOINT post")
        try:
            answer = function(*given)
            if not self.is_postgres:  # SQLite copies a page for each that is open
                self.ask("RELEASE post")
            return answer
        except Exception as error:
            if not isinstance(error, StoreError):  # which ends the transaction
                self.ask("ROLLBACK TO post")
            raise

    def find_stored(self, event_ids: Sequence[str]) -> dict[str, tuple[int | None, str]]:
        """Return those ids that an event has, its label and its columns."""
        id_of = {self.hash(f"event {event_id}"): event_id for event_id in event_ids}
        places = ", ".join("?" * len(id_of))
        query = f"SELECT event_key, label, columns FROM events WHERE event_key IN ({places})"
        rows = self.ask(query, list(id_of)) if id_of else []
        return {id_of[key]: (label, columns) for key, label, columns in rows}

    def add(self, events: Sequence[Posted], digest: str) -> None:
        """Write events whose ids are new."""
        own = now_as_text(), digest
        rows = []
        for event in events:
            key, user_key = self.hash(f"event {event[0]}"), self.user_key(json.loads(event.user))
            rows.append((key, user_key, *event, *own))
        self._insert("events", (*PERSONAL["events"], "posted_at", "digest"), rows)

    def add_shown(
        self, request: str, user: Any, others: Sequence[str], digest: str, removed_to: int
    ) -> None:
        """Write what was shown, unless the user was removed since ``removed_to``.

        The other columns are text of JSON; ``removed_to`` is a number of ``removed``.
        """
        query = "SELECT 1 FROM removed WHERE user_key = ? AND first_event = 0 AND sequence > ?"
        if self.ask(query, [self.user_key(user), removed_to]):
            return
        row = self.user_key(user), request, write(user), *others, now_as_text(), digest
        self._insert("shown", (*PERSONAL["shown"], "shown_at", "digest"), [row])

    def remove_event(self, event_id: str) -> bool:
        """Take an event back; return whether there was one."""
        key = self.hash(f"event {event_id}")
        query = "SELECT sequence, user_key FROM events WHERE event_key = ?"
        for sequence, user_key in self.ask(query, [key]):
            self._note_removed(user_key, sequence, sequence)
            self._blank("events", "sequence", sequence)
            return True
        return False

    def remove_user(self, user: Any, *, is_known: bool = False) -> dict[str, int]:
        """Forget a user; return how many rows there were. Who had none is noted if ``is_known``."""
        key = self.user_key(user)
        n_rows = {table: self._blank(table, "user_key", key) for table in PERSONAL}
        if is_known or any(n_rows.values()):
            ((last,),) = self.ask("SELECT COALESCE(MAX(sequence), 0) FROM events")
            self._note_removed(key, 0, last if n_rows["events"] else 0)
        return n_rows

    def read_removed(self, after: int) -> list[Removed]:
        """Return what was removed after a number."""
        query = "SELECT sequence, user_key, first_event, last_event FROM removed"
        query += " WHERE sequence > ? ORDER BY sequence"
        self._check_files()
        return [Removed(*row) for row in self.ask(query, [after])]

    def read_rows(self, table: str, after: int) -> list[tuple[Any, ...]]:
        """Return a block of events, or of what was shown, in their order: ``COLUMNS``."""
        query = f"SELECT sequence, {COLUMNS[table]} FROM {table}"
        query += ' WHERE sequence > ? AND "user" IS NOT NULL ORDER BY sequence LIMIT ?'
        return self.ask(query, [after, BLOCK])

    def read_blocks(self, table: str) -> Iterator[list[tuple[Any, ...]]]:
        """Yield all rows of a table block after block: nobody waits for a long reader."""
        after, n_rows = 0, BLOCK
        while n_rows == BLOCK:
            block = self.read_rows(table, after)
            yield block
            n_rows, after = len(block), block[-1][0] if block else 0

    def erase(self) -> bool:
        """Take what was removed out of the log of writes, too; return whether it is done.

        It is not while another process reads. PostgreSQL's log and backups are its owner's.
        """
        if self.kind != "SQLite":
            return True
        with self._lock:  # posts wait, so that readers of other processes are not waited for
            self.ask("PRAGMA busy_timeout = 0")
            ((is_busy, *_),) = self.ask("PRAGMA wal_checkpoint(TRUNCATE)")
            self.ask(f"PRAGMA busy_timeout = {1_000 * SECONDS_OF_PATIENCE}")
        return not is_busy

    def n_bytes(self) -> int:
        """Return how much room the store takes."""
        query = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        if self.is_postgres:
            query = "SELECT pg_total_relation_size('events') + pg_total_relation_size('shown')"
        ((n_bytes,),) = self.ask(query)
        return int(n_bytes)

    def user_key(self, user: Any) -> str:
        """Return the hash of a user's id, the same for 7 and "7"; None is nobody's."""
        whole = int(user) if isinstance(user, float) and user.is_integer() else user
        return self.hash("nobody" if user is None else f"user {whole}")

    def hang_up(self) -> None:
        """End a connection to PostgreSQL that does not answer: who waits for it gets an error."""
        if self.is_postgres and time.monotonic() - self._asked > SECONDS_OF_PATIENCE:
            own = suppress(self._driver.Error, AttributeError, OSError)
            with own, socket.socket(fileno=os.dup(self._connection.fileno())) as line:
                line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let the database go."""
        with self._lock, suppress(self._driver.Error):
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def hash(self, text: str) -> str:
        """Return a hash of a text with the store's key."""
        return hmac.digest(self._key, text.encode(), hashlib.sha256)[:16].hex()

    def _connect(self) -> Any:
        """Return the connection, opened where there is none."""
        if self._connection is not None and not getattr(self._connection, "closed", False):
            return self._connection
        if self.is_postgres:
            self._connection = self._driver.connect(
                self.url,
                autocommit=True,
                connect_timeout=SECONDS_OF_PATIENCE,
                tcp_user_timeout=1_000 * SECONDS_OF_PATIENCE,
                application_name="sklearn_din",
            )
            for name in ("lock_timeout", "statement_timeout"):
                self._connection.execute(f"SET {name} = '{SECONDS_OF_PATIENCE}s'")
            self._connection.execute("SET search_path = sklearn_din")
            return self._connection
        make = _find_file if self._reads_only else _make_file
        self._connection = sqlite3.connect(
            ":memory:" if self.url is None else make(Path(self.url)),
            SECONDS_OF_PATIENCE,
            isolation_level=None,
            check_same_thread=False,
            uri=self._reads_only,
        )
        if self._reads_only:
            return self._connection
        settings = ["journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"]
        if self.url is None:
            settings.append(f"max_page_count = {MOST_BYTES // 4096}")
        for setting in settings:
            self._connection.execute(f"PRAGMA {setting}").fetchall()
        self._connection.execute(TABLES_OF[False]).fetchall()  # opens the other files
        self._files = self._find_files()
        return self._connection

    def _check_files(self) -> None:
        """Raise where what was written would be gone with a file that has been removed."""
        if self._connection is not None and self._files != self._find_files():
            raise StoreError(
                f"the store, {self.name}, is no longer the file that was opened: it, or its -wal, "
                "was removed or replaced. Put it back, or start the server anew."
            )

    def _find_files(self) -> list[tuple[int, int]] | None:
        """Return which files of SQLite lie at their paths; None where one is gone."""
        with suppress(OSError):
            ends = ("", "-wal", "-shm") if self.kind == "SQLite" and not self._reads_only else ()
            files = [os.stat(f"{self.url}{end}") for end in ends]
            return [(file.st_dev, file.st_ino) for file in files]
        return None

    def _prepare(self) -> None:
        """Make the tables where there are none, and check that they are ours."""
        if not self._reads_only and not self.ask(TABLES_OF[self.is_postgres]):
            with self.transaction():  # another server may begin at the same time
                if not self.ask(TABLES_OF[self.is_postgres]):
                    self._make_tables()
        tables = {name for (name,) in self.ask(TABLES_OF[self.is_postgres])}
        if not {"meta", "events", "removed"} <= tables:
            raise ValueError(
                f"{self.name} is a database of something else, with {sorted(tables)[:3]}. "
                "Name another one by --events."
            )
        known = dict(self.ask("SELECT key, value FROM meta"))
        if known.get("version") != VERSION:
            raise ValueError(
                f"{self.name} has tables of version {known.get('version')}, and this server makes "
                f"version {VERSION}. Name another one by --events."
            )
        self._key = bytes.fromhex(known["key"])

    def _make_tables(self) -> None:
        number = "INTEGER PRIMARY KEY AUTOINCREMENT"
        if self.is_postgres:
            number = "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
            self.ask("CREATE SCHEMA IF NOT EXISTS sklearn_din")
        for statement in TABLES.format(number=number).split(";\n")[:-1]:
            self.ask(statement)
        made = {"version": VERSION, "key": secrets.token_hex(32)}
        self._insert("meta", ("key", "value"), list(made.items()))

    def _note_removed(self, user_key: str, first: int, last: int) -> None:
        columns = ("user_key", "first_event", "last_event", "removed_at")
        self._insert("removed", columns, [(user_key, first, last, now_as_text())])

    def ask(self, query: str, given: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a statement, ``?`` for values."""
        with self._lock, self._own_errors():
            cursor = self._connect().execute(self._spell(query), *([given] if given else []))
            return cursor.fetchall() if cursor.description else []

    def _insert(self, table: str, columns: Sequence[str], rows: list[Any]) -> None:
        places = ", ".join("?" * len(columns))
        query = self._spell(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})")
        with self._lock, self._own_errors():
            self._connect().cursor().executemany(query, rows)

    def _blank(self, table: str, column: str, value: Any) -> int:
        """Make rows null; return how many."""
        nulls = ", ".join(f"{name} = NULL" for name in PERSONAL[table])
        query = self._spell(f"UPDATE {table} SET {nulls} WHERE {column} = ?")
        with self._lock, self._own_errors():
            return int(self._connect().execute(query, [value]).rowcount)

    def _spell(self, query: str) -> str:
        return query.replace("?", "%s") if self.is_postgres else query

    @contextmanager
    def _own_errors(self) -> Iterator[None]:
        """Raise errors of the database as ours, with their first line: others may hold values."""
        self._asked = time.monotonic()
        try:
            yield
        except self._driver.Error as error:
            is_full = getattr(error, "sqlstate", None) == DISK_FULL
            is_full |= getattr(error, "sqlite_errorcode", None) in FULL
            message = next(iter(str(error).splitlines()), type(error).__name__)
            if self.url is None and is_full:
                raise FullError(
                    f"events that were posted take {MOST_BYTES:,} bytes, as many as are kept in "
                    "memory. Start the server with --events FILE."
                ) from error
            kind: type[Exception] = FullError if is_full else StoreError
            kind = ValueError if isinstance(error, self._driver.DataError) else kind  # of a post
            raise kind(f"the store, {self.name}, cannot be asked: {message}.") from error
        finally:
            self._asked = math.inf


def now_as_text() -> str:
    """Return the time as it is stored and shown."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _check_address(driver: Any, url: str) -> str:
    """Return what a PostgreSQL is called; an address that cannot be read is not repeated."""
    with suppress(driver.Error):
        parts = driver.conninfo.conninfo_to_dict(url)
        if re.fullmatch(r"[\d,]*", str(parts.get("port", ""))):
            host = parts.get("host", "this machine")
            return f"PostgreSQL at {host}/{parts.get('dbname', '')}"
    raise ValueError(
        "the address of PostgreSQL cannot be read (it may hold a password: it is not repeated). It "
        "must be postgresql://user:password@host:port/database, with %40 for @ in a password."
    )


def _make_file(path: Path) -> str:
    """Return the path of a file that its owner alone may read, made where there is none."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise ValueError(
            f"{path} cannot be opened: {error.strerror}. Name a file by --events, in a folder "
            "where this process may write."
        ) from error
    return str(path)


def _find_file(path: Path) -> str:
    """Return the address of a file that is not written, also on a disk that cannot be."""
    wal = Path(f"{path}-wal")
    is_whole = not os.access(path.absolute().parent, os.W_OK)
    is_whole &= not (wal.exists() and wal.stat().st_size)
    return f"{path.absolute().as_uri()}?{'immutable=1' if is_whole else 'mode=ro'}"
