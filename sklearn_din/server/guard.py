"""Checks before every route: sizes, types, headers, time limits, and the log."""

import asyncio
import logging
import time
import traceback

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
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
CLOSE = {"connection": "close"}  # what is left of a body is not read
LOGGER = logging.getLogger("sklearn_din.server")


class Guard:
    """A layer around the application that limits the size and time of requests and logs them.

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
        except HTTPException as refusal:
            answer = JSONResponse({"detail": refusal.detail}, refusal.status_code, refusal.headers)
            await answer(scope, receive, send_with_headers)
        except Exception as error:
            line = traceback.extract_tb(error.__traceback__)[-1]
            LOGGER.error("%s in %s:%d", type(error).__name__, line.filename, line.lineno)
            if status == 500:  # else the answer has begun
                answer = JSONResponse({"detail": "the server failed. Its log says where."}, 500)
                await answer(scope, receive, send_with_headers)
        route = getattr(scope.get("route"), "path", "none")
        seconds = time.perf_counter() - began
        self._requests.labels(route, status).inc()
        self._bytes.labels(route).inc(len(body))
        self._seconds.labels(route).observe(seconds)
        LOGGER.info("%s %d, %d bytes, %.1f ms", route, status, len(body), 1e3 * seconds)


async def _read_body(scope: Scope, receive: Receive) -> bytes:
    if scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return b""
    kind = Headers(scope=scope).get("content-type", "").partition(";")[0].strip()
    if kind != "application/json":
        raise HTTPException(415, "a body must be JSON: Content-Type: application/json.")
    body, too_large = bytearray(), f"a body may have {MAX_BODY:,} bytes. Send less."
    try:
        async with asyncio.timeout(SECONDS_PER_BODY):
            async for part in Request(scope, receive).stream():
                body += part
                if len(body) > MAX_BODY:
                    raise HTTPException(413, too_large, CLOSE)
    except (TimeoutError, ClientDisconnect) as error:
        too_late = f"the body did not come in {SECONDS_PER_BODY:g} s."
        raise HTTPException(408, too_late, CLOSE) from error
    return bytes(body)
