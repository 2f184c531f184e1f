"""A fresh process of Python, and two of one group, by the variables that Slurm's recipe sets."""

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from unittest.mock import patch

HOUSE = Path(__file__).resolve().parents[1]
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
# Imported once, in a process that forks the others; it takes seconds.
SLOW_IMPORTS = ["torch.distributed", "skorch", "skops.io", "pandas", "sklearn.pipeline"]


def run_python(code, *arguments, **variables):
    """Run code in a process of its own; return how it ended, and what it wrote."""
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), *map(str, arguments)]
    options = {"cwd": HOUSE, "env": os.environ | variables, "timeout": 240}
    return subprocess.run(command, capture_output=True, text=True, **options)


def run_together(script, folder, *cases):
    """Run a script of ``tests/`` in two processes; return how each ended."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(SLOW_IMPORTS)
    arguments = [str(HOUSE / "tests" / script), str(folder), *cases]
    children = [
        context.Process(
            target=run_script, args=(arguments, variables | {"RANK": str(rank)}), daemon=True
        )
        for rank in (0, 1)
    ]
    with patch.dict(os.environ, ONE_THREAD):
        for child in children:
            child.start()
    for child in children:
        child.join(timeout=900)
    return [child.exitcode for child in children]


def run_script(arguments, variables):
    os.environ.update(variables)
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")
