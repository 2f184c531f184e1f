"""Connections: how many there may be, and how long and how much they may say what they want."""

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

    def data_received(self, data: bytes) -> None:
        """Read; uvicorn's time of an idle connection goes on until a request's headers end."""
        if self._is_refused:
            return
        self._n_around += len(data)
        closing, self.timeout_keep_alive_task = self.timeout_keep_alive_task, None
        super().data_received(data)
        is_head = self.cycle is None or self.cycle.response_complete
        if not (is_head and self._n_around):
            if closing is not None:
                closing.cancel()
        elif closing is not None:
            self.timeout_keep_alive_task = closing
        else:
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

    def _refuse(self, answer: bytes) -> None:
        self._is_refused = True
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(answer)
        self.loop.call_later(SECONDS_TO_READ_A_REFUSAL, self.transport.close)

    def _expect_head(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            SECONDS_PER_HEAD, self.timeout_keep_alive_handler
        )
