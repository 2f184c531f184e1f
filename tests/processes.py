"""Two processes of one group, without torchrun: by the variables that Slurm's recipe sets."""

import os
import socket
import subprocess
import sys
from pathlib import Path

HOUSE = Path(__file__).resolve().parents[1]


def run_together(script, folder, *cases):
    """Run a script of ``tests/`` in two processes; return how each ended and what it said."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    variables |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HOUSE)}
    children = [
        subprocess.Popen(
            [sys.executable, HOUSE / "tests" / script, folder, *cases],
            env=os.environ | variables | {"RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    told = [child.communicate(timeout=900)[1] for child in children]
    return [child.returncode for child in children], told
