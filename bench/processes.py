"""Starts servers, waits until they are ready, and ends them."""

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
    """Run a server while the block runs, once it is ready; then end it and its processes.

    Args:
        command: Command that starts it.
        client: Client with its address.
        probe: Path that returns 200 once it is ready.
        limit_sec: How long it may take to become ready, and to end.
        log: File descriptor for its output; by default this process's.

    Raises:
        RuntimeError: It ended, or is not ready in time.
    """
    # In a process group of its own, so that all processes of the server are ended.
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
    raise RuntimeError(f"the service was not ready within {limit_sec:g} s")
