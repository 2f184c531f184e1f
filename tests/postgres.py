"""A PostgreSQL of its own for tests: a cluster in a temporary folder, on a socket."""

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

OWNER = "nobody"  # who may run it where the tests are root's


def find_programs():
    """Folder of initdb and pg_ctl; None where PostgreSQL is not installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[::-1]
    found = shutil.which("initdb", path=":".join(map(str, [*folders, os.environ.get("PATH", "")])))
    return None if found is None else Path(found).resolve().parent


@contextmanager
def start_postgres():
    """The address of a database that ends with the context."""
    programs = find_programs()
    folder = Path(tempfile.mkdtemp(prefix="din-pg-"))
    own = {"user": OWNER, "cwd": folder} if os.geteuid() == 0 else {"cwd": folder}
    if "user" in own:
        shutil.chown(folder, OWNER)

    def run(program, *arguments):
        command = [programs / program, "-D", folder / "cluster", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **own)

    try:
        run("initdb", "--username=din", "--auth=trust", "--no-sync", "--encoding=UTF8")
        settings = f"-c listen_addresses='' -c unix_socket_directories={folder}"
        run("pg_ctl", "--wait", "--log", folder / "log", "--options", settings, "start")
        try:
            yield f"postgresql://din@/postgres?host={folder}"
        finally:
            run("pg_ctl", "--mode=immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
