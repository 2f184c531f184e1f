"""Requests over HTTP to ``python -m sklearn_din serve``: rates, times, memory.

``python -m benchmarks.http_load [--kind din]``: a user with 50 events of two attributes and 200
items in each request, 1, 4 and 16 clients that wait for each answer; the last row while ``update``
trains the model on 1,000 rows and replaces the file, three times. The file is an ONNX one, or that
of ``save``; the clients run on the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from benchmarks.guard import fit_one_epoch, log_and_histories
from sklearn_din import export_onnx, load, save, update

N_EVENTS, N_ITEMS, N_UPDATES = 50, 200, 3
OF_CANDIDATES = ["item", "category", "price"]


def make_model(folder: Path, kind: str) -> pd.DataFrame:
    """Fit a model, write what the server needs, and keep the model for updates."""
    frame, y = log_and_histories(10_000, n_items=50_000)
    frame, y = frame.iloc[:20_000], y[:20_000]
    model = fit_one_epoch(frame, y)
    catalogue = frame.drop_duplicates("item")[OF_CANDIDATES]
    catalogue.to_parquet(folder / "items.parquet")
    save(model, folder / "trained.din")
    write(model, folder, kind)
    frame.iloc[:1_000].assign(y=y[:1_000]).to_pickle(folder / "rows.pkl")
    return catalogue


def write(model: Pipeline, folder: Path, kind: str) -> None:
    """Write the file that is served, in one move."""
    if kind == "onnx":
        export_onnx(model, folder / "model.onnx", layout="ranking")
    else:
        save(model, folder / "model.din")


def update_often(folder: Path, kind: str) -> None:
    """Train the model and replace the file, at a lower priority than the server."""
    os.nice(10)
    model, rows = load(folder / "trained.din"), pd.read_pickle(folder / "rows.pkl")
    for _ in range(N_UPDATES):
        model = update(model, rows.drop(columns="y"), rows["y"])
        write(model, folder, kind)


def make_requests(catalogue: pd.DataFrame, port: int) -> list[bytes]:
    """Return requests as they go over the line."""
    rng, requests = np.random.default_rng(0), []
    for _ in range(200):
        events = catalogue.iloc[rng.integers(0, len(catalogue), N_EVENTS)]
        user = {"device": "phone", "hist_item": events["item"].tolist()}
        user["hist_category"] = events["category"].tolist()
        items = catalogue["item"].iloc[rng.choice(len(catalogue), N_ITEMS, replace=False)]
        body = json.dumps({"user": user, "items": items.tolist()}).encode()
        head = (
            f"POST /rank HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\n"
        )
        requests.append(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return requests


async def ask(
    port: int, requests: list[bytes], is_going_on: Callable[[], bool], times: list[float]
) -> None:
    """One client: the next request goes when the last one is answered."""
    reader, writer = await asyncio.open_connection("localhost", port)
    number = id(reader)
    while is_going_on():
        number += 1
        began = time.perf_counter()
        writer.write(requests[number % len(requests)])
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        answer = await reader.readexactly(length)
        times.append(time.perf_counter() - began)
        if not head.startswith(b"HTTP/1.1 200") or len(json.loads(answer)["items"]) != 10:
            raise RuntimeError(f"not an answer: {head + answer!r:.300}")
    writer.close()


def measure(
    port: int, requests: list[bytes], n_clients: int, is_going_on: Callable[[], bool]
) -> dict[str, float]:
    """Ask by several clients at once."""
    times: list[float] = []

    async def ask_all() -> None:
        await asyncio.gather(*(ask(port, requests, is_going_on, times) for _ in range(n_clients)))

    began = time.perf_counter()
    asyncio.run(ask_all())
    seconds = time.perf_counter() - began
    p50, p99 = 1e3 * np.quantile(times, [0.5, 0.99])
    return {"requests/s": len(times) / seconds, "p50 ms": p50, "p99 ms": p99}


def lasts(seconds: float) -> Callable[[], bool]:
    """Return what is true for so many seconds from now."""
    until = time.perf_counter() + seconds
    return lambda: time.perf_counter() < until


def memory(pid: int) -> float:
    """Return the MB of a process and its children, shared pages divided among them."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    total = 0
    for number in [pid, *map(int, children)]:
        lines = Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def wait_for(port: int) -> None:
    """Wait until the server takes connections."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with socket.socket() as connection:
            if connection.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise RuntimeError("the server did not start")


def main() -> None:
    """Start the server, ask it, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=["onnx", "din"], default="onnx")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--updates", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.updates:
        update_often(options.updates, options.kind)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        catalogue = make_model(folder, options.kind)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "sklearn_din", "serve", f"{folder}/model.{options.kind}"]
        command += ["--catalogue", f"{folder}/items.parquet", "--port", str(port)]
        server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            wait_for(port)
            requests, rows = make_requests(catalogue, port), []
            measure(port, requests, 4, lasts(2.0))
            for n_clients in (1, 4, 16):
                row = {"clients": n_clients, "updates": 0}
                row |= measure(port, requests, n_clients, lasts(options.seconds))
                rows.append(row | {"MB": memory(server.pid)})
            command = [sys.executable, "-m", "benchmarks.http_load", "--kind", options.kind]
            trainer = subprocess.Popen([*command, "--updates", folder])
            row = measure(port, requests, 16, lambda: trainer.poll() is None)
            if trainer.returncode:
                raise RuntimeError("the updates failed")
            row = {"clients": 16, "updates": N_UPDATES} | row
            rows.append(row | {"MB": memory(server.pid)})
        finally:
            server.terminate()
            server.wait()
    print(f"load {os.getloadavg()[0]:.1f}")
    print(pd.DataFrame(rows).round(1).to_string(index=False))


if __name__ == "__main__":
    main()
