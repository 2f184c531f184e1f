"""Connections: how many there may be, and how long and how much they may say what they want."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

SECONDS_PER_HEAD = 10.0
MAX_HEAD = 65_536  # bytes of a request's first line and headers
MAX_AROUND = 4 * MAX_HEAD  # of all that is not its body: sizes of chunks and trailers, too
MAX_BODY = 1_000_000
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
    """uvicorn's protocol, which closes connections that do not end, and those too many."""

    _closing: asyncio.TimerHandle | None = None
    _is_refused = False
    _n_around = _n_body = 0  # bytes of the request that has not ended

    def connection_made(self, transport: Any) -> None:
        """Take a connection, or refuse it."""
        if len(self.connections) >= most_connections():
            self.transport = transport
            self._refuse(FULL)
            return
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._stop_expecting()
        if self in self.connections:  # not one that was too many
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read; the time for headers begins with their first bytes."""
        if self._is_refused:
            return
        self._n_around += len(data)
        super().data_received(data)
        is_head = not self._is_answering()
        if not (is_head and self._n_around):
            self._stop_expecting()
        elif self._closing is None:
            self._expect_head()
        if self._n_around > (MAX_HEAD if is_head else MAX_AROUND) or self._n_body > 2 * MAX_BODY:
            self._refuse(TOO_LONG)

    def on_body(self, body: bytes) -> None:
        """Count a part of a body, whether it is read or not."""
        self._n_around -= len(body)
        self._n_body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Begin to count the next request."""
        self._n_around = self._n_body = 0
        super().on_message_complete()

    def eof_received(self) -> None:
        """Let the transport close."""

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, answer: bytes) -> None:
        self._is_refused = True
        if not (self._is_answering() and self.cycle.response_started):
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
