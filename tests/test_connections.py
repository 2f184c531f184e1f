"""What a hostile client may cost, over real sockets."""

import asyncio
import contextlib
import json
import logging
import resource
import signal
import socket
import threading
import time

import pandas as pd
import pytest

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
import uvicorn
from prometheus_client import CollectorRegistry

from sklearn_din.__main__ import main
from sklearn_din.server import connections
from sklearn_din.server.answers import Answers
from sklearn_din.server.guard import Guard
from sklearn_din.server.state import LOGGER
from tests.page_server import serve_app, start_server
from tests.served_model import fit_served, wait_for, write_served

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served():
    model, clicks = fit_served()
    return Answers(model, clicks.drop_duplicates("item")[["item", "category"]])


@pytest.fixture
def serve(served):
    """Start servers on ports of this machine, which end with the test."""
    with contextlib.ExitStack() as started:
        yield lambda **options: started.enter_context(serve_app(served, **options))


def connect(port, address="127.0.0.1"):
    return socket.create_connection((address, port), timeout=20)


def send(port, method, path, body=None, address="127.0.0.1", **headers):
    """Status, headers and body of an answer."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = {"Host": "localhost", "Connection": "close", "Content-Type": "application/json",
             "Content-Length": str(len(content)), **headers}  # fmt: skip
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{n}: {v}\r\n" for n, v in lines.items())
    with connect(port, address) as connection:
        connection.sendall(head.encode() + b"\r\n" + content)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    start, _, rest = answer.partition(b"\r\n\r\n")
    return int(start.split()[1]), start.decode().lower(), rest


def test_headers_that_do_not_end_close_the_connection(serve, monkeypatch):
    monkeypatch.setattr(connections, "SECONDS_PER_HEAD", 0.3)
    _, port = serve()
    for beginning in (b"", b"GET /health HTTP/1.1\r\nHost: lo"):
        with connect(port) as connection:
            connection.sendall(beginning)
            began = time.monotonic()
            assert connection.recv(9) == b""
            assert time.monotonic() - began < 5
    with connect(port) as connection:  # the second request of a connection, too
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(9) == b"HTTP/1.1 "
        time.sleep(0.1)
        connection.recv(65_536)
        connection.sendall(b"GET /health")
        assert connection.recv(9) == b""


def test_connections_beyond_the_limit_are_told_to_come_later(serve, monkeypatch):
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 5)
    _, port = serve()
    held = [connect(port) for _ in range(5)]
    time.sleep(0.2)
    status, head, _ = send(port, "GET", "/health")
    assert status == 503
    assert "retry-after: 1" in head
    for connection in held:
        connection.close()
    time.sleep(0.2)
    assert send(port, "GET", "/health")[0] == 200


def test_work_for_clients_who_left_is_dropped(serve, monkeypatch, served):
    state, port = serve()
    done, is_released = [], threading.Event()

    def slow(*_):
        is_released.wait(20)
        done.append(1)
        return {"items": []}

    monkeypatch.setattr(served, "rank", slow)
    body = json.dumps({"user": 7}).encode()
    head = f"POST /rank HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    head += "Content-Type: application/json\r\n\r\n"
    leaving = [connect(port) for _ in range(30)]
    for connection in leaving:
        connection.sendall(head.encode() + body)
    wait_for(lambda: state.n_waiting == 30 - state.n_threads)
    assert send(port, "GET", "/ready")[0] == 200
    for connection in leaving:
        connection.close()
    wait_for(lambda: state.n_waiting == 0)
    is_released.set()
    assert send(port, "POST", "/rank", {"user": 7})[0] == 200
    assert len(done) <= state.n_threads + 1


def test_more_requests_than_may_wait_are_told_to_come_later(serve, monkeypatch, served):
    monkeypatch.setattr("sklearn_din.server.state.MOST_WAITING", 2)
    monkeypatch.setattr("sklearn_din.server.app.MOST_WAITING", 2)
    state, port = serve()
    is_released = threading.Event()
    monkeypatch.setattr(served, "rank", lambda *_: {"items": [is_released.wait(20) and 1]})
    answers = []
    asking = [
        threading.Thread(target=lambda: answers.append(send(port, "POST", "/rank", {"user": 7})[0]))
        for _ in range(state.n_threads + 2)
    ]
    for thread in asking:
        thread.start()
    wait_for(lambda: state.n_waiting == 2)
    status, head, rest = send(port, "POST", "/rank", {"user": 7})
    assert (status, "retry-after: 1" in head) == (503, True)
    assert json.loads(rest) == {"detail": "2 requests wait already. Ask again in a second."}
    assert send(port, "GET", "/ready")[0] == 503
    is_released.set()
    for thread in asking:
        thread.join()
    assert answers == [200] * len(asking)


def test_a_token_is_asked_for_before_the_body_is_read(serve):
    _, port = serve(token="päss")
    click = {"user": 7, "item": 12, "time": "2024-03-01"}
    head = b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n"
    with connect(port) as connection:
        connection.sendall(head)  # and no body
        answer = connection.recv(65_536).decode().lower()
    assert answer.startswith("http/1.1 401")
    assert 'www-authenticate: bearer realm="sklearn-din"' in answer
    right = {"Authorization": "Bearer p\xe4ss"}
    for given, status in (({"Authorization": "Bearer pass"}, 401), (right, 200)):
        assert send(port, "POST", "/events", {"events": [click]}, **given)[0] == status
    assert send(port, "DELETE", "/events/a")[0] == 401
    assert send(port, "POST", "/rank", {"user": 7})[0] == 200  # reading is free on this machine


def test_reading_needs_the_token_where_it_is_protected(serve):
    _, port = serve(token="word", protects_reading=True)
    right = {"Authorization": "Bearer word"}
    asked = [("POST", "/rank", {"user": 7})]
    asked += [("GET", path, None) for path in ("/page/users", "/openapi.json", "/metrics")]
    for method, path, body in asked:
        assert send(port, method, path, body)[0] == 401
        assert send(port, method, path, body, **right)[0] == 200
    for path in ("/", "/page.js", "/docs", "/health", "/ready"):
        assert send(port, "GET", path)[0] == 200
    _, port = serve(token="", protects_reading=True)  # an empty token is none
    assert send(port, "POST", "/rank", {"user": 7})[0] == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:80", 200), ("127.0.0.1", 200), ("[::1]:8000", 200), ("evil.example", 400),
     ("localhost.evil.example", 400), ("", 400)],
)  # fmt: skip
def test_the_server_answers_by_its_own_names(host, status, serve):
    _, port = serve(hosts=["localhost", "127.0.0.1", "::1"])
    assert send(port, "GET", "/health", Host=host)[0] == status


def test_names_of_hosts_types_and_schemes_know_no_case(serve):
    _, port = serve(hosts=["LocalHost"], token="Word", protects_reading=True)
    own = {"Host": "LOCALHOST", "Content-Type": "Application/JSON", "Authorization": "bEARER Word"}
    assert send(port, "POST", "/rank", {"user": 7}, **own)[0] == 200
    own["Authorization"] = "Bearer word"  # the token itself does
    assert send(port, "POST", "/rank", {"user": 7}, **own)[0] == 401


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PUT", "BREW"])
def test_other_methods_are_refused(method, serve):
    _, port = serve()
    refused, head, _ = send(port, method, "/rank", {"user": 7})
    assert refused == (400 if method == "BREW" else 405)
    assert "connection: close" in head


@pytest.mark.parametrize(("n_bytes", "status"), [(40_000, b"200"), (80_000, b"431")])
def test_headers_have_a_length_however_they_come(serve, n_bytes, status):
    _, port = serve()
    for n_chunks in (1, 20):
        with connect(port) as connection:
            connection.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
            for chunk in [b"x" * (n_bytes // n_chunks)] * n_chunks + [b"\r\n\r\n"]:
                connection.sendall(chunk)
                time.sleep(0.005)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize(
    ("lines", "status"),
    [("Transfer-Encoding: gzip, chunked\r\nConnection: close", b"501"),
     ("Transfer-Encoding: Chunked\r\nConnection: close", b"422"),
     ("Host: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close", b"400"),
     ("Content-Length: 4\r\nTransfer-Encoding: chunked", b"400")],
)  # fmt: skip
def test_codings_but_chunks_hosts_but_one_and_two_lengths_are_refused(serve, lines, status):
    _, port = serve()
    with connect(port) as connection:
        head = "POST /rank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}{lines}\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked", b"gzip, chunked"])
def test_a_body_of_two_lengths_is_refused_whatever_the_parser_lets_through(coding):
    """httptools refuses it too, today: a proxy before the server may read the other length."""
    sent, received = [], iter([{"type": "http.request", "body": b"{}"}])

    async def app(scope, receive, send):
        raise AssertionError("the request was passed on")

    async def receive():
        return next(received, {"type": "http.disconnect"})

    async def send(message):
        sent.append(message)

    lines = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    scope = {"type": "http", "method": "POST", "path": "/rank"}
    scope["headers"] = [*lines, (b"transfer-encoding", coding)]
    asyncio.run(Guard(app, CollectorRegistry())(scope, receive, send))
    start, body = sent
    assert start["status"] == 400
    assert b"a body has one length" in body["body"]
    assert (b"connection", b"close") in start["headers"]


END_OF_BODY = b"POST /rank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
END_OF_BODY += b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"


@pytest.mark.parametrize(
    ("beginning", "rest"),
    [(END_OF_BODY + b"0\r\nX-Long: ", b"x" * 1_000), (END_OF_BODY + b"0\r\n", b"X: y\r\n" * 200),
     (END_OF_BODY + b"1;", b"x" * 1_000), (END_OF_BODY, b"1\r\n \r\n" * 200),
     (b"GET /rank HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n", b" " * 1_000)],
)  # fmt: skip
def test_bytes_of_a_request_are_bounded_wherever_they_stand(serve, beginning, rest):
    """Trailers, extensions of chunks, tiny chunks, and a body that nobody reads."""
    _, port = serve()
    with connect(port) as connection:
        connection.sendall(beginning)
        n_sent = 0
        with contextlib.suppress(ConnectionError, TimeoutError):
            while n_sent < 20_000_000:
                n_sent += connection.send(rest)
                time.sleep(0.0001)
        assert n_sent < 8_000_000  # what lies in buffers is sent, too
        assert send(port, "GET", "/ready")[0] == 200


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/ready", 200), ("/rank", 405)])
def test_head_is_answered_as_get_is_without_the_body(serve, path, status):
    _, port = serve()
    got, head = send(port, "GET", path), send(port, "HEAD", path)
    assert got[0] == head[0] == status
    assert [head[1].count(f"content-length: {len(got[2])}"), head[2]] == [1, b""]


def test_a_proxy_may_show_the_server_under_a_path(serve):
    _, port = serve(root_path="/din", token="word", protects_reading=True)
    assert send(port, "GET", "/health")[0] == 200  # the proxy takes the path off
    assert send(port, "POST", "/rank", {"user": 7})[0] == 401


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    write_served(folder)
    return folder


@pytest.fixture
def ask_the_command(folder, monkeypatch, capsys, one_thread):
    """Run ``serve`` in this process until its port was asked; return what it wrote."""
    run = uvicorn.Server.run

    def serve_and_ask(*options, asks):
        def run_meanwhile(server, sockets):
            thread = threading.Thread(target=run, args=(server, sockets))
            thread.start()
            try:
                asks(sockets[0].getsockname()[1])
            finally:
                server.should_exit = True
                thread.join()

        monkeypatch.setattr(uvicorn.Server, "run", run_meanwhile)
        files = [folder / "model.din", "--catalogue", folder / "items.parquet"]
        main(["serve", *map(str, files), "--port", "0", *options])
        return capsys.readouterr()

    level = LOGGER.level
    for logger in (LOGGER, logging.getLogger("uvicorn.error")):
        monkeypatch.setattr(logger, "handlers", [])
    yield serve_and_ask
    LOGGER.setLevel(level)


def test_a_log_line_says_route_status_and_time(ask_the_command):
    def ask(port):
        assert send(port, "GET", "/health")[0] == 200

    out, errors = ask_the_command(asks=ask)
    assert "now is just after the log's newest event, 20" in out
    assert "counts for its own user alone, unless --now clock (--now)" in out
    line = next(line for line in errors.splitlines() if "/health" in line)
    time, level, route, status, *_ = line.split()
    assert (level, route, status) == ("INFO", "/health", "200,")
    assert pd.Timestamp(time).tz is not None


@pytest.mark.proof
def test_a_process_answers_beside_too_many_connections_and_ends_at_a_signal(folder, tmp_path):
    """More connections than files leave a short log; it ends in six seconds, whatever is asked."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (220, hard))
    try:
        with (tmp_path / "log").open("wb") as log:
            child, port, _ = start_server(folder / "model.din", stderr=log)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with contextlib.ExitStack() as held:
        held.callback(child.communicate)
        held.callback(child.kill)
        many = held.enter_context(contextlib.ExitStack())
        for _ in range(400):
            with contextlib.suppress(ConnectionError):  # of those that are too many
                many.enter_context(connect(port)).sendall(b"GET /health HTTP/1.1\r\nHost: lo")
        time.sleep(2 * connections.SECONDS_TO_READ_A_REFUSAL)  # those refused leave their files
        assert send(port, "GET", "/health")[0] == 503
        many.close()
        wait_for(lambda: send(port, "GET", "/health")[0] == 200)
        assert (tmp_path / "log").stat().st_size < 10_000
        body = json.dumps({"events": [{"item": 1}] * 1_000, "context": {}, "item": 1}).encode()
        head = f"POST /page/why HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        for sent in (*[body] * 8, b"{"):  # the last one is waited for ten seconds
            asked = held.enter_context(connect(port))
            asked.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + sent)
        time.sleep(0.5)
        began = time.monotonic()
        child.send_signal(signal.SIGTERM)
        child.wait(timeout=30)
        assert time.monotonic() - began < 9  # six where the processors are not busy


@pytest.mark.parametrize(
    ("options", "address", "status"),
    [((), "127.0.0.1", 200), (("--host", "::1"), "::1", 200),
     (("--host", "0.0.0.0"), "127.0.0.1", 401),
     (("--host", "0.0.0.0", "--public"), "127.0.0.1", 200)],
)  # fmt: skip
def test_other_machines_need_the_token_for_reading_too(ask_the_command, options, address, status):
    def ask(port):
        own = {"address": address, "Host": f"[{address}]" if ":" in address else address}
        right = own | {"Authorization": "Bearer word"}
        assert send(port, "POST", "/rank", {"user": 7}, **own)[0] == status
        assert send(port, "POST", "/events", {"events": []}, **own)[0] == 401
        assert send(port, "POST", "/rank", {"user": 7}, **right)[0] == 200

    out, _ = ask_the_command("--token", "word", *options, asks=ask)
    is_open = "nothing is encrypted: put a proxy with HTTPS in front\n" in out
    assert is_open == ("0.0.0.0" in options)
