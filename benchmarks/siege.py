"""Two servers under siege: what was lost, and the slowest answer.

``python -m benchmarks.siege [--store postgresql] [--seconds 300]``: two servers share a store, a
file of SQLite or a PostgreSQL of its own. One client posts clicks and one ranks at each, all the
time; meanwhile others flood the servers with requests that they leave, hold connections whose
headers never end, send bodies that are no requests, replace the model, and kill one server after
the other with SIGKILL, which is started again. Each post that was answered must be in the store
afterwards, once, and in the histories of both. ``--starts`` measures starts instead: processor
seconds by the number of posted events. Everything happens on this machine.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

from sklearn_din.server.answers import Answers
from sklearn_din.server.posts import Posts
from sklearn_din.server.store import Posted, Store
from tests.page_server import start_server
from tests.postgres import start_postgres
from tests.served_model import fit_served, write_served

SECONDS_BETWEEN_KILLS, SECONDS_BETWEEN_MODELS = 40.0, 15.0
N_STALLED, N_ABANDONED = 150, 20
TRAILER = b"POST /rank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
TRAILER += b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Long: " + b"x" * 9_999_999  # without end
GARBAGE = (b"\x00" * 999, b"GET / HTTP/9.9\r\n\r\n", b"POST /rank HTTP/1.1\r\n\r\n{", TRAILER)
ENOUGH_SECONDS = 30.0  # of one answer


class Siege:
    """A server, what was acknowledged by it, and how long answers took."""

    def __init__(self, folder: Path, url: str, seconds: float) -> None:
        self.folder, self.url = folder, url
        self.servers, self.ports = [None, None], [0, 0]
        self.acknowledged: list[int] = []
        self.counts: Counter[str] = Counter()
        self.times: list[float] = []
        self._log = (folder / "log").open("wb")
        for which in (0, 1):
            self.start(which)
        self.until = time.monotonic() + seconds

    def start(self, which: int) -> None:
        """Start one of the servers, and wait until it listens."""
        self.servers[which], self.ports[which], _ = start_server(
            self.folder / "model.din", "--events", self.url, stderr=self._log
        )

    def kill(self, which: int, number: int = signal.SIGKILL) -> None:
        """End one of the servers."""
        self.servers[which].send_signal(number)
        self.servers[which].communicate()

    def is_going_on(self) -> bool:
        return time.monotonic() < self.until

    def ask(self, which: int, path: str, body: object) -> dict[str, object] | None:
        """Return an answer; None where there was none, or another status than 200."""
        line = http.client.HTTPConnection("127.0.0.1", self.ports[which], timeout=ENOUGH_SECONDS)
        began = time.monotonic()
        try:
            line.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            response = line.getresponse()
            answer = json.load(response)
        except (OSError, ValueError, http.client.HTTPException):  # killed meanwhile
            return None
        finally:
            line.close()
        self.times.append(time.monotonic() - began)
        self.counts[f"{path} {response.status}"] += 1
        return answer if response.status == 200 else None

    def post_clicks(self, which: int) -> None:
        """Post clicks, each with an id; one that was not answered is posted again."""
        for number in itertools.count(which, 2):
            click = {"user": number % 97, "item": 12, "time": "2024-03-04T00:00:00"}
            while self.is_going_on():
                if self.ask(which, "/events", {"events": [click | {"event_id": number}]}):
                    self.acknowledged.append(number)
                    break
                time.sleep(0.05)
            if not self.is_going_on():
                return

    def rank(self, which: int) -> None:
        """Rank for one user after the other."""
        while self.is_going_on():
            self.ask(which, "/rank", {"user": random.randrange(97)})
            time.sleep(0.01)

    def flood(self, which: int) -> None:
        """Ask much and leave, and send what is no request."""
        body = json.dumps({"events": [{"item": 12}] * 300, "context": {}, "item": 12})
        head = f"POST /page/why HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        request = f"{head}Content-Type: application/json\r\n\r\n{body}".encode()
        while self.is_going_on():
            for sent in [request] * N_ABANDONED + [*GARBAGE]:
                with (
                    suppress(OSError),
                    socket.create_connection(("127.0.0.1", self.ports[which])) as line,
                ):
                    line.sendall(sent)
            time.sleep(1)

    def stall(self, which: int) -> None:
        """Hold connections whose headers never end."""
        while self.is_going_on():
            held = []
            for _ in range(N_STALLED):
                with suppress(OSError):
                    address = "127.0.0.1", self.ports[which]
                    held.append(socket.create_connection(address, timeout=1))
                    held[-1].sendall(b"GET /health HTTP/1.1\r\nHost: lo")
            time.sleep(5)
            for line in held:
                line.close()

    def disturb(self) -> None:
        """Replace the model often, and kill one server after the other now and then."""
        killed = time.monotonic()
        while self.is_going_on():
            time.sleep(SECONDS_BETWEEN_MODELS)
            shutil.copy(self.folder / "model.din", self.folder / "new.din")
            os.replace(self.folder / "new.din", self.folder / "model.din")
            self.counts["models replaced"] += 1
            if time.monotonic() - killed > SECONDS_BETWEEN_KILLS:
                killed = time.monotonic()
                which = self.counts["kills"] % 2
                self.kill(which)
                self.counts["kills"] += 1
                self.start(which)

    def count_wrong(self) -> dict[str, int]:
        """Count acknowledged clicks that are lost, twice there, or seen by one server alone."""
        time.sleep(2)
        n_events = [self.count_events(which) for which in (0, 1)]
        self.kill(0)
        store = Store(self.url)
        ids = [int(event_id) for (event_id,) in store.ask("SELECT event_id FROM events")]
        store.close()
        self.start(0)
        n_events.append(self.count_events(0))
        for which in (0, 1):
            self.kill(which, signal.SIGTERM)
        late = max(n_events) - min(n_events)
        lost, twice = len({*self.acknowledged} - {*ids}), len(ids) - len({*ids})
        return {"lost": lost, "twice": twice, "late for ever": late}

    def count_events(self, which: int) -> int:
        """Return how many events the histories of a server have."""
        line = http.client.HTTPConnection("127.0.0.1", self.ports[which], timeout=ENOUGH_SECONDS)
        line.request("GET", "/health")
        return json.load(line.getresponse())["events"]


def measure_starts(url: str) -> None:
    """Print the processor time until posted events have joined the histories."""
    model, clicks = fit_served()
    catalogue = clicks.drop_duplicates("item")[["item", "category"]]
    store, n = Store(url), 0
    for n_events in (10**3, 10**4, 10**5, 10**6):
        while n < n_events:
            with store.transaction():
                texts = '"2024-03-04T00:00:00+00:00"', "12", None, '{"category":1}'
                new = range(n, min(n + 10_000, n_events))
                store.add([Posted(f"{i}", f"{i % 9_973}", *texts) for i in new], "made")
                n = new.stop
        posts, began = Posts(Answers(model, catalogue), store), time.process_time()
        posts.catch_up()
        n_joined = posts.answers.histories.n_events - len(clicks)
        used, wal = time.process_time() - began, store.n_bytes() / 1e6
        print(f"{n_events:,} events: {used:.2f} s, {n_joined:,} joined, {wal:.0f} MB", flush=True)
    store.close()


def main() -> None:
    """Besiege a server for some minutes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--store", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--starts", action="store_true")
    options = parser.parse_args()
    with ExitStack() as started:
        name = started.enter_context(tempfile.TemporaryDirectory())
        url = str(Path(name, "events.db"))
        if options.store == "postgresql":
            url = started.enter_context(start_postgres())
        if options.starts:
            measure_starts(url)
            return
        write_served(Path(name))
        siege = Siege(Path(name), url, options.seconds)
        work = (siege.post_clicks, siege.rank, siege.flood, siege.stall)
        threads = [threading.Thread(target=one, args=(which,)) for one in work for which in (0, 1)]
        threads.append(threading.Thread(target=siege.disturb))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wrong, log = siege.count_wrong(), (Path(name) / "log").stat().st_size
    for what, count in sorted(siege.counts.items()):
        print(f"{what}: {count:,}")
    p50, p99 = 1e3 * np.quantile(siege.times, [0.5, 0.99])
    print(f"answers: p50 {p50:.0f} ms, p99 {p99:.0f} ms, slowest {max(siege.times):.2f} s")
    print(f"log: {log / 1e6:.1f} MB; clicks acknowledged {len(siege.acknowledged):,}: {wrong}")
    if any(wrong.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
