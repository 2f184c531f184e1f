"""A server under siege: what was lost, and the slowest answer.

``python -m benchmarks.siege [--seconds 300]``: one client posts clicks and one ranks, all the time;
meanwhile others flood the server with requests that they leave, hold connections whose headers
never end, send bodies that are no requests, replace the model, and kill the server with SIGKILL,
which is started again. Each post that was answered must be in the journal afterwards, and in the
histories. Everything happens on this machine.
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
from contextlib import suppress
from pathlib import Path

import numpy as np

from tests.page_server import start_server
from tests.served_model import write_served

SECONDS_BETWEEN_KILLS, SECONDS_BETWEEN_MODELS = 40.0, 15.0
N_STALLED, N_ABANDONED = 150, 20
GARBAGE = (b"\x00" * 999, b"GET / HTTP/9.9\r\n\r\n", b"POST /rank HTTP/1.1\r\n\r\n{", b"[" * 9_999)
ENOUGH_SECONDS = 30.0  # of one answer


class Siege:
    """A server, what was acknowledged by it, and how long answers took."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.until = folder, time.monotonic() + seconds
        self.acknowledged: list[int] = []
        self.counts: Counter[str] = Counter()
        self.times: list[float] = []
        self._log = (folder / "log").open("wb")
        self.start()

    def start(self) -> None:
        """Start the server, and wait until it listens."""
        journal = ["--events", self.folder / "events.jsonl"]
        self.server, self.port, _ = start_server(
            self.folder / "model.din", *journal, stderr=self._log
        )

    def is_going_on(self) -> bool:
        return time.monotonic() < self.until

    def ask(self, path: str, body: object) -> dict[str, object] | None:
        """Return an answer; None where there was none, or another status than 200."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ENOUGH_SECONDS)
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

    def post_clicks(self) -> None:
        """Post clicks, each with an id; one that was not answered is posted again."""
        for number in itertools.count():
            click = {"user": number % 97, "item": 12, "time": "2024-03-04T00:00:00"}
            while self.is_going_on():
                if self.ask("/events", {"events": [click | {"event_id": number}]}):
                    self.acknowledged.append(number)
                    break
                time.sleep(0.05)
            if not self.is_going_on():
                return

    def rank(self) -> None:
        """Rank for one user after the other."""
        while self.is_going_on():
            self.ask("/rank", {"user": random.randrange(97)})
            time.sleep(0.01)

    def flood(self) -> None:
        """Ask much and leave, and send what is no request."""
        body = json.dumps({"events": [{"item": 12}] * 300, "context": {}, "item": 12})
        head = f"POST /page/why HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        request = f"{head}Content-Type: application/json\r\n\r\n{body}".encode()
        while self.is_going_on():
            for sent in [request] * N_ABANDONED + [*GARBAGE]:
                with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)) as line:
                    line.sendall(sent)
            time.sleep(1)

    def stall(self) -> None:
        """Hold connections whose headers never end."""
        while self.is_going_on():
            held = []
            for _ in range(N_STALLED):
                with suppress(OSError):
                    held.append(socket.create_connection(("127.0.0.1", self.port), timeout=1))
                    held[-1].sendall(b"GET /health HTTP/1.1\r\nHost: lo")
            time.sleep(5)
            for line in held:
                line.close()

    def disturb(self) -> None:
        """Replace the model often, and kill the server now and then."""
        killed = time.monotonic()
        while self.is_going_on():
            time.sleep(SECONDS_BETWEEN_MODELS)
            shutil.copy(self.folder / "model.din", self.folder / "new.din")
            os.replace(self.folder / "new.din", self.folder / "model.din")
            self.counts["models replaced"] += 1
            if time.monotonic() - killed > SECONDS_BETWEEN_KILLS:
                killed = time.monotonic()
                self.server.send_signal(signal.SIGKILL)
                self.server.communicate()
                self.counts["kills"] += 1
                self.start()

    def count_lost(self) -> int:
        """Return how many acknowledged clicks are not there after one more kill."""
        self.server.send_signal(signal.SIGKILL)
        self.server.communicate()
        lines = (self.folder / "events.jsonl").read_text().splitlines()
        kept = {int(json.loads(line)["id"]) for line in lines}
        lost = len({*self.acknowledged} - kept)
        self.start()
        for number in random.sample(self.acknowledged, min(200, len(self.acknowledged))):
            click = {"user": 1, "item": 12, "time": "2024-03-04T00:00:00", "event_id": number}
            lost += self.ask("/events", {"events": [click]})["added"]
        self.server.send_signal(signal.SIGTERM)
        self.server.communicate()
        return lost


def main() -> None:
    """Besiege a server for some minutes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as name:
        write_served(Path(name))
        siege = Siege(Path(name), seconds)
        work = (siege.post_clicks, siege.rank, siege.flood, siege.stall, siege.disturb)
        threads = [threading.Thread(target=one) for one in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lost, log = siege.count_lost(), (Path(name) / "log").stat().st_size
    for what, count in sorted(siege.counts.items()):
        print(f"{what}: {count:,}")
    p50, p99 = 1e3 * np.quantile(siege.times, [0.5, 0.99])
    print(f"answers: p50 {p50:.0f} ms, p99 {p99:.0f} ms, slowest {max(siege.times):.2f} s")
    print(f"log: {log / 1e6:.1f} MB; clicks acknowledged {len(siege.acknowledged):,}, lost {lost}")
    if lost:
        sys.exit(1)


if __name__ == "__main__":
    main()
