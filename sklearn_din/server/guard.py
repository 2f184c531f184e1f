"""What stands before every route: who may ask, sizes, times, headers, counts, and the log."""

import asyncio
import hmac
import json
import logging
import time
import traceback
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sklearn_din.server.connections import MAX_BODY

SECONDS_PER_BODY = 10.0
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
HEADERS = [
    (b"content-security-policy", b"default-src 'self'; base-uri 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
NUL = b"\\u0000"
CLOSE = {"connection": "close"}  # what is left of a body is not read
OPEN = {"/", "/docs", "/page.css", "/page.js", "/docs.js", "/favicon.ico", "/health", "/ready"}
METHODS = {"GET", "POST", "DELETE", "OPTIONS"}
WRITES = {"/events", "/users"}  # a path, or what begins with it and a slash
LOGGER = logging.getLogger("sklearn_din.server")


class Guard:
    """Middleware that refuses unauthorized requests before it reads their bodies.

    Of a request the log gets the route, the status, its size and its time; of an error of ours its
    type and line. A post that is no JSON is refused, so that no page of elsewhere can send one
    without asking first. The work for a client that has gone is dropped.

    Who writes has to show the ``token``, if there is one; with ``protects_reading`` also who reads
    anything but pages and states. ``hosts`` are the only names by which the server may be asked.
    """

    def __init__(
        self,
        app: ASGIApp,
        registry: CollectorRegistry,
        *,
        token: str = "",
        protects_reading: bool = False,
        hosts: Collection[str] = (),
    ) -> None:
        self._app, self._protects_reading = app, protects_reading
        self._hosts, self._token = {name.lower() for name in hosts}, token.encode()
        names: dict[str, Any] = {"namespace": "sklearn_din", "registry": registry}
        self._requests = Counter("requests", "Requests.", ["route", "status"], **names)
        self._bytes = Counter("request_bytes", "Bytes of bodies.", ["route"], **names)
        self._seconds = Histogram(
            "request_seconds", "Time to the answer.", ["route"], buckets=BUCKETS, **names
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, let the application answer, and count."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # its answer is that of GET, of which uvicorn sends the head
            scope = {**scope, "method": "GET"}
        began, body, status = time.perf_counter(), b"", 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        try:
            self._check(scope)
            body = await _read_body(scope, receive)
            await self._answer(scope, receive, send_with_headers, body)
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

    def _check(self, scope: Scope) -> None:
        """Raise where the server was asked by another name or method, or without its token."""
        headers = Headers(scope=scope)
        if scope["method"] not in METHODS:
            raise HTTPException(405, f"{scope['method']:.20} is no method here.", CLOSE)
        coding = headers.get("transfer-encoding")
        if coding is not None and "content-length" in headers:
            raise HTTPException(400, "a body has one length: Content-Length, or chunks.", CLOSE)
        if coding is not None and coding.strip().lower() != "chunked":
            raise HTTPException(501, "of transfer codings there is chunked alone.", CLOSE)
        if len(headers.getlist("host")) > 1:
            raise HTTPException(400, "a request has one Host.", CLOSE)
        host = headers.get("host", "")
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        if self._hosts and name.lower() not in self._hosts:
            raise HTTPException(400, "this server has another name: see --allowed-host.", CLOSE)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        writes = any(path == p or path.startswith(f"{p}/") for p in WRITES)
        is_open = path in OPEN or path.startswith("/page/image/")
        if not self._token or not (writes or (self._protects_reading and not is_open)):
            return
        scheme, _, given = headers.get("authorization", "").encode("latin-1").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._token):
            ask = {"www-authenticate": 'Bearer realm="sklearn-din"'}
            raise HTTPException(
                401, f"{path} needs the header Authorization: Bearer TOKEN.", CLOSE | ask
            )

    async def _answer(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        """Let the application answer, unless the client goes before."""
        gone = asyncio.ensure_future(_wait_for_end(receive))
        is_read = False

        async def replay() -> Message:
            nonlocal is_read
            if is_read:
                await asyncio.shield(gone)
                return {"type": "http.disconnect"}
            is_read = True
            return {"type": "http.request", "body": body}

        answering: asyncio.Future[Any] = asyncio.ensure_future(self._app(scope, replay, send))
        try:
            await asyncio.wait([answering, gone], return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                answering.cancel()
                await asyncio.wait([answering])
            if not answering.cancelled():
                answering.result()
        finally:
            gone.cancel()
            answering.cancel()


async def _wait_for_end(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _read_body(scope: Scope, receive: Receive) -> bytes:
    if scope["method"] in ("GET", "OPTIONS", "DELETE"):
        return b""
    kind = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
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
    text = body.decode(errors="replace")
    if "\0" in text or text.encode() != body:
        raise HTTPException(400, "a body must be UTF-8.")
    if "\\u" in text:
        _refuse_half_characters(text)
    return bytes(body)


def _refuse_half_characters(body: str) -> None:
    """Raise where a text cannot be written as UTF-8, or not in a database."""
    with suppress(ValueError, RecursionError):  # which is told later
        values = json.loads(body)
        try:
            text = json.dumps(values, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            text = NUL
        if NUL in text.replace(b"\\\\", b""):
            raise HTTPException(422, "a text has half characters (\\ud800) or NUL (\\u0000).")
