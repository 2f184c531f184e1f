"""Run a Python module and end it as soon as it asks a network for anything.

    python -m tests.offline sphinx -W -b html docs build/html

Status 3 and one line say what was asked. Sockets between processes of one machine are let pass.
"""

from __future__ import annotations

import os
import runpy
import sys

QUESTIONS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
THIS_MACHINE = ("127.0.0.1", "::1", "localhost", None)


def refuse_networks() -> None:
    """End the process at the first question to another machine, from now on."""
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple) -> None:
    if event not in QUESTIONS:
        return
    address = arguments[0] if event.startswith("socket.get") else arguments[1]
    host = address[0] if isinstance(address, tuple) else address
    is_file = event.endswith(("connect", "sendto")) and not isinstance(address, tuple)
    if not is_file and host not in THIS_MACHINE:
        sys.stderr.write(f"{event} was asked for {host!r}, but nothing may ask a network\n")
        sys.stderr.flush()
        os._exit(3)


if __name__ == "__main__":
    refuse_networks()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
