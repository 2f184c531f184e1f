"""Servers in a thread or in a process, and a browser that looks at their page."""

import re
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager

import uvicorn

from sklearn_din.server.app import create_app
from sklearn_din.server.connections import BoundedProtocol
from sklearn_din.server.state import State

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def find_browser():
    """Path of a Chromium of the system; None where there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@contextmanager
def serve_app(answers, root_path="", **options):
    """The state and the port of a server that answers so."""
    state = State(lambda: answers)
    app = create_app(state, **options)
    quiet = {"port": 0, "log_level": "critical", "root_path": root_path, "timeout_keep_alive": 2}
    server = uvicorn.Server(uvicorn.Config(app, http=BoundedProtocol, **quiet))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.05)
    try:
        yield state, server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def serve_page(answers, **options):
    """The address of a server that answers so."""
    with serve_app(answers, **options) as (_, port):
        yield f"http://127.0.0.1:{port}/"


def start_server(model, *options, stderr=subprocess.PIPE, code=None):
    """A process of ``serve`` that listens at a free port, the port, and the lines it printed."""
    program = ["-m", "sklearn_din"] if code is None else ["-c", code]
    command = [sys.executable, *program, "serve", model, "--port", "0"]
    command += ["--catalogue", model.parent / "items.parquet", *options]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    printed = []
    for line in iter(child.stdout.readline, ""):
        printed.append(line)
        if line.startswith("the page:"):
            return child, int(re.search(r":(\d+)/", line)[1]), printed
    raise AssertionError([*printed, child.communicate()[1]])
