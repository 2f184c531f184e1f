"""Connections: how many there may be, and how long one may take to say what it wants."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

SECONDS_PER_HEAD = 10.0
MAX_HEAD = 65_536  # bytes of a request's first line and headers
MOST_CONNECTIONS = 1_000
OTHER_FILES = 100  # that the process needs beside its connections
SECONDS_TO_READ_A_REFUSAL = 0.2  # closed at once, it would be lost with what the client sends
BACKLOG = 64  # connections that are accepted at once
EMPTY = b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
FULL = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1" + EMPTY
TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large" + EMPTY


def most_connections() -> int:
    """Return how many connections leave enough files to the process."""
    try:
        import resource
    except ImportError:  # Windows, where connections are no files of the process
        return MOST_CONNECTIONS
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(MOST_CONNECTIONS, limit - OTHER_FILES - BACKLOG))


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which closes connections whose headers do not end, and those too many."""

    _closing: asyncio.TimerHandle | None = None
    _n_head = 0  # bytes of headers that have not ended

    def connection_made(self, transport: Any) -> None:
        """Take a connection, or refuse it."""
        if len(self.connections) >= most_connections():
            self.transport, self._is_refused = transport, True
            self._refuse(FULL)
            return
        self._is_refused = False
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._stop_expecting()
        if not self._is_refused:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read; the time for headers begins with their first bytes."""
        if self._is_refused or self._n_head > MAX_HEAD:
            return
        super().data_received(data)
        self._n_head = 0 if self._is_answering() else self._n_head + len(data)
        if not self._n_head:
            self._stop_expecting()
        elif self._n_head > MAX_HEAD:
            self._refuse(TOO_LONG)
        elif self._closing is None:
            self._expect_head()

    def eof_received(self) -> None:
        """Let the transport close."""

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, answer: bytes) -> None:
        self.transport.write(answer)
        self.loop.call_later(SECONDS_TO_READ_A_REFUSAL, self.transport.close)

    def _expect_head(self) -> None:
        self._closing = self.loop.call_later(SECONDS_PER_HEAD, self._close)

    def _stop_expecting(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None

    def _close(self) -> None:
        self._closing = None
        if not self._is_answering():
            self.transport.close()
