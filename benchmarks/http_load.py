"""Requests over HTTP to ``python -m sklearn_din serve``: rates, times, processor time, memory.

``python -m benchmarks.http_load [--kinds onnx din] [--events 2000000]``: an ONNX file, then that of
``save``, ranks 200 items for users with 50 events of two attributes; 1, 4 and 16 clients wait for
each answer, and 16 while the file is replaced every five seconds. With ``--events`` users are known
by ids and a history of so many events, and one more client posts clicks; then 1 and 16 clients do
nothing else. With ``--store events.db`` or ``postgresql`` they are kept there. The clients run on
the same cores; "server ms" is the processor time of the server per request.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.guard import fit_one_epoch, log_and_histories
from sklearn_din import export_onnx, save
from tests.page_server import start_server
from tests.postgres import start_postgres

N_EVENTS, N_ITEMS, N_REQUESTS = 50, 200, 200
EVENTS_PER_USER = 20  # of a long history
SECONDS_BETWEEN_MODELS = 5.0


def write_files(folder: Path, n_events: int) -> pd.DataFrame:
    """Write a model of both kinds, its catalogue, and a history; return the catalogue."""
    frame, y = log_and_histories(10_000, n_items=50_000)
    model = fit_one_epoch(frame.iloc[:20_000], y[:20_000])
    save(model, folder / "model.din")
    export_onnx(model, folder / "model.onnx", layout="ranking")
    catalogue = frame.iloc[:20_000].drop_duplicates("item")[["item", "category", "price"]]
    catalogue.to_parquet(folder / "items.parquet")
    rng = np.random.default_rng(0)
    log = catalogue.iloc[rng.integers(0, len(catalogue), n_events)][["item", "category"]]
    seconds = pd.to_timedelta(rng.integers(0, 100 * 86_400, n_events), unit="s")
    users = rng.integers(0, max(n_events // EVENTS_PER_USER, 1), n_events)
    log = log.assign(user=users, time=pd.Timestamp("2024-01-01") + seconds, device="phone")
    log.to_parquet(folder / "log.parquet")
    return catalogue


def as_sent(path: str, body: object) -> bytes:
    """Return a request as it goes over the line."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


def rankings(catalogue: pd.DataFrame, n_users: int) -> Iterator[bytes]:
    """Return requests without end, for users of a history where there is one."""
    rng, requests = np.random.default_rng(0), []
    for _ in range(N_REQUESTS):
        events = catalogue.iloc[rng.integers(0, len(catalogue), N_EVENTS)]
        columns = {"device": "phone", "hist_item": events["item"].tolist()}
        columns["hist_category"] = events["category"].tolist()
        user = int(rng.integers(n_users)) if n_users else columns
        items = catalogue["item"].iloc[rng.choice(len(catalogue), N_ITEMS, replace=False)]
        requests.append(as_sent("/rank", {"user": user, "items": items.tolist()}))
    return itertools.cycle(requests)


def clicks(catalogue: pd.DataFrame, n_users: int) -> Iterator[bytes]:
    """Return clicks of users, each with an id of its own, without end."""
    client, items = os.urandom(4).hex(), itertools.cycle(catalogue["item"].tolist())
    for number, item in enumerate(items):
        event = {"user": number % n_users, "item": item, "time": "2024-04-10"}
        event["event_id"] = f"{client}-{number}"
        yield as_sent("/events", {"events": [event]})


async def ask(port: int, requests: Iterator[bytes], until: float, times: list[float]) -> None:
    """One client: the next request goes when the last one is answered."""
    reader, writer = await asyncio.open_connection("localhost", port)
    while (began := time.perf_counter()) < until:
        writer.write(next(requests))
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        answer = await reader.readexactly(length)
        times.append(time.perf_counter() - began)
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"not an answer: {head + answer!r:.300}")
    writer.close()


def measure(
    server: subprocess.Popen, port: int, clients: dict[str, list[Iterator[bytes]]], seconds: float
) -> list[dict[str, object]]:
    """Ask by several clients at once; return a row for each name of what they ask."""
    times: dict[str, list[float]] = {name: [] for name in clients}
    until = time.perf_counter() + seconds

    async def ask_all() -> None:
        each = [(requests, times[name]) for name, some in clients.items() for requests in some]
        await asyncio.gather(*(ask(port, requests, until, own) for requests, own in each))

    used = processor_seconds(server.pid)
    asyncio.run(ask_all())
    used = (processor_seconds(server.pid) - used) / sum(map(len, times.values()))
    rows: list[dict[str, object]] = []
    for name, own in times.items():
        p50, p99, slowest = 1e3 * np.quantile(own, [0.5, 0.99, 1])
        rate = {"clients": len(clients[name]), "requests/s": len(own) / seconds}
        answered = {"p50 ms": p50, "p99 ms": p99, "slowest ms": slowest, "server ms": 1e3 * used}
        rows.append({"asked": name} | rate | answered | {"MB": memory(server.pid)})
    return rows


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> float:
    """Return the MB of a process, pages that others have too divided among them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def replace_often(path: Path, is_over: threading.Event) -> None:
    """Put a copy of a file in its place now and then."""
    while not is_over.wait(SECONDS_BETWEEN_MODELS):
        shutil.copy(path, path.with_suffix(".new"))
        os.replace(path.with_suffix(".new"), path)


def load_server(
    model: Path, catalogue: pd.DataFrame, n_events: int, seconds: float, store: list[str]
) -> None:
    """Print a table of what a server of one file answered."""
    n_users, rows, is_over = n_events // EVENTS_PER_USER, [], threading.Event()
    history = ["--history", model.parent / "log.parquet"] if n_events else []
    server, port, _ = start_server(model, *history, *store, stderr=subprocess.DEVNULL)
    ranked = rankings(catalogue, n_users)
    clicked = {"/events": [clicks(catalogue, n_users)]} if n_events else {}
    replacing = threading.Thread(target=replace_often, args=(model, is_over))
    try:
        measure(server, port, {"/rank": [ranked] * 4} | clicked, 2.0)
        for n in (1, 4, 16):
            rows += measure(server, port, {"/rank": [ranked] * n} | clicked, seconds)
        for n in (1, 16) if n_events else ():
            posted = {"/events": [clicks(catalogue, n_users) for _ in range(n)]}
            rows += measure(server, port, posted, seconds)
        replacing.start()
        clients = {f"{path}, new models": some for path, some in clicked.items()}
        clients["/rank, new models"] = [ranked] * 16
        rows += measure(server, port, clients, seconds)
    finally:
        is_over.set()
        server.terminate()
        server.communicate()
    print(f"{model.suffix}, load {os.getloadavg()[0]:.1f}")
    print(pd.DataFrame(rows).round(1).to_string(index=False), flush=True)


def main() -> None:
    """Start servers, ask them, print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", choices=["onnx", "din"], nargs="+", default=["onnx", "din"])
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--events", type=int, default=0)
    parser.add_argument("--store", help="a file, or postgresql for a cluster of its own")
    options = parser.parse_args()
    with ExitStack() as started:
        name, url = started.enter_context(tempfile.TemporaryDirectory()), options.store
        if url == "postgresql":
            url = started.enter_context(start_postgres())
        store = ["--events", url] if url else []
        catalogue = write_files(Path(name), options.events)
        for kind in options.kinds:
            load_server(
                Path(name, f"model.{kind}"), catalogue, options.events, options.seconds, store
            )


if __name__ == "__main__":
    main()
