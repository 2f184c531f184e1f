"""A server of the page in a thread, and a browser that looks at it."""

import shutil
import threading
from contextlib import contextmanager

import uvicorn

from sklearn_din.server.app import create_app
from sklearn_din.server.state import State

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def find_browser():
    """Path of a Chromium of the system; None where there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@contextmanager
def serve_page(answers, **options):
    """The address of a server that answers so."""
    app = create_app(State(lambda: answers), **options)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.05)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join()
