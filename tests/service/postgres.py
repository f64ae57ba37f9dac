"""A PostgreSQL of one's own, from the system's binaries."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def find_binaries() -> Path | None:
    """The folder of `initdb`, which Debian keeps out of PATH."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = shutil.which("initdb")
    return installed[-1].parent if installed else Path(found).parent if found else None


@contextmanager
def running_postgres() -> Iterator[str]:
    """A cluster in a folder of its own; gives the URL of its server, without a database."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:  # the server refuses to run as root
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("tests run as root, and there is no user `postgres` to run the server")
        as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="catalogan-postgres-", dir="/tmp") as folder:
        if as_user:
            os.chown(folder, as_user["user"], as_user["group"])
        quiet: dict[str, Any] = {"cwd": folder, "capture_output": True, "check": True, **as_user}
        data = f"{folder}/data"
        initialise = [binaries / "initdb", "-D", data, "-U", "catalogan", "-A", "trust", "-N"]
        subprocess.run(initialise, **quiet)
        options = (
            f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off -c synchronous_commit=off "
            "-c full_page_writes=off -c max_connections=100 -c shared_buffers=16MB"
        )
        control = [binaries / "pg_ctl", "-D", data, "-w"]
        # Its output goes to a file: a pipe would stay open as long as the server runs.
        subprocess.run([*control, "-l", f"{folder}/log", "-o", options, "start"], **quiet)
        try:
            yield f"postgresql://catalogan@127.0.0.1:{port}"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], **quiet)
