"""What stands before every route: sizes, types, headers, times, and the log."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import traceback
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 1_000_000  # bytes
SECONDS_PER_BODY = 10.0
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
HEADERS = [
    (b"content-security-policy", b"default-src 'self'; base-uri 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
]
LOGGER = logging.getLogger("sklearn_din.server")


class Guard:
    """A layer around the application: no request is larger, slower to come, or told to a log.

    Of a request the log gets the route, the status, its size and its time; of an error of ours its
    type and line. A post that is no JSON is refused, so that no page of elsewhere can send one
    without asking first.

    Parameters
    ----------
    app : ASGI application
        What answers.
    registry : CollectorRegistry
        Where requests are counted, by route and status.
    """

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self._app = app
        labels = ["route", "status"]
        self._requests = Counter("requests", "Requests.", labels, registry=registry)
        self._bytes = Counter("request_bytes", "Bytes of bodies.", ["route"], registry=registry)
        self._seconds = Histogram(
            "request_seconds", "Time to the answer.", ["route"], registry=registry, buckets=BUCKETS
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, let the application answer, and count."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, body, status, is_read = time.perf_counter(), b"", 500, False

        async def replay() -> Message:
            nonlocal is_read
            if is_read:
                return await receive()
            is_read = True
            return {"type": "http.request", "body": body}

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        try:
            body = await _read_body(scope, receive)
            await self._app(scope, replay, send_with_headers)
        except _RefusedError as refusal:
            await _answer(send_with_headers, refusal.status, str(refusal))
        except Exception as error:
            line = traceback.extract_tb(error.__traceback__)[-1]
            LOGGER.error("%s in %s:%d", type(error).__name__, line.filename, line.lineno)
            if status == 500:  # else the answer has begun
                await _answer(send_with_headers, 500, "the server failed. Its log says where.")
        route = getattr(scope.get("route"), "path", "none")
        seconds = time.perf_counter() - began
        self._requests.labels(route, status).inc()
        self._bytes.labels(route).inc(len(body))
        self._seconds.labels(route).observe(seconds)
        LOGGER.info("%s %d, %d bytes, %.1f ms", route, status, len(body), 1e3 * seconds)


class _RefusedError(Exception):
    """A request that is not read further."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def _read_body(scope: Scope, receive: Receive) -> bytes:
    if scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return b""
    headers = dict(scope["headers"])
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip()
    if kind != b"application/json":
        raise _RefusedError(415, "a body must be JSON: Content-Type: application/json.")
    body, is_whole = bytearray(), False
    try:
        async with asyncio.timeout(SECONDS_PER_BODY):
            while not is_whole:
                message: dict[str, Any] = dict(await receive())
                body += message.get("body", b"")
                is_whole = not message.get("more_body", False)
                if len(body) > MAX_BODY:
                    raise _RefusedError(413, f"a body may have {MAX_BODY:,} bytes. Send less.")
    except TimeoutError as error:
        raise _RefusedError(408, f"the body did not come in {SECONDS_PER_BODY:g} s.") from error
    return bytes(body)


async def _answer(send: Send, status: int, detail: str) -> None:
    body = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status in (408, 413):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
