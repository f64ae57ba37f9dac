"""Servers that are started, awaited and ended."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import httpx

POLL_SEC = 0.01


def usable_port(preferred: int = 0) -> int:
    """`preferred` if nothing listens there, else a free one.

    Raises:
        RuntimeError: No port is free.
    """
    for port in (preferred, 0):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)) as probe:
            return int(probe.getsockname()[1])
    raise RuntimeError("no port is free")


@contextmanager
def running(
    command: Sequence[str],
    client: httpx.Client,
    probe: str,
    limit_sec: float,
    log: int | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A server, ready; ended on leaving, with all that it started.

    Args:
        command: Starts it.
        client: Of its address.
        probe: Path that answers 200 once it is ready.
        limit_sec: How long it may take to get ready, and to end.
        log: File descriptor for its output, in place of this process's.

    Raises:
        RuntimeError: It ended instead, or is not ready in time.
    """
    # A group of its own: what a server of several processes leaves is ended, too.
    server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_until_ready(server, client, probe, limit_sec)
        yield server
    finally:
        server.terminate()
        try:
            server.wait(limit_sec)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)


def _wait_until_ready(
    server: subprocess.Popen[bytes], client: httpx.Client, probe: str, limit_sec: float
) -> None:
    end = time.monotonic() + limit_sec
    while time.monotonic() < end:
        if server.poll() is not None:
            raise RuntimeError(f"the service ended with {server.returncode}")
        with suppress(httpx.TransportError):
            if client.get(probe).status_code == 200:
                return
        time.sleep(POLL_SEC)
    raise RuntimeError(f"the service did not get ready within {limit_sec:g} s")
