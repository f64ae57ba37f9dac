"""The whole service in this process, behind a real socket, and a client that holds it up."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
import uvicorn

import service.bento

from .conftest import wait_for


@contextmanager
def live_service(**environment: str) -> Iterator[str]:
    """Serve the present model store; gives the address."""
    with pytest.MonkeyPatch.context() as patch, socket.socket() as listening:
        for name, value in environment.items():
            patch.setenv(f"CATALOGAN_{name.upper()}", value)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        config = uvicorn.Config(
            service.bento.asgi_app(),
            log_config=None,
            ws="none",
            lifespan="on",
            proxy_headers=False,  # as service/server/runner.py has it
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            wait_for(lambda: server.started or not thread.is_alive())
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def slow_upload(address: str, key: str = "") -> Iterator[socket.socket]:
    """A form that never ends, which holds the only place for uploads."""
    host, _, port = address.removeprefix("http://").partition(":")
    head = (
        "POST /v1/images/variations HTTP/1.1",
        f"Host: {host}",
        f"X-API-Key: {key}",
        "Content-Length: 1000",
        "Content-Type: multipart/form-data; boundary=x",
    )
    held = 'catalogan_pending_requests{queue="uploads"}'

    def wait_until(pending: int) -> None:
        headers, wanted = {"X-API-Key": key}, f"{held} {pending}.0"
        wait_for(
            lambda: wanted in httpx.get(f"{address}/metrics", headers=headers, timeout=None).text
        )

    wait_until(0)  # an answered request may still have the place
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall("\r\n".join((*head, "", "--x")).encode())
        wait_until(1)
        yield connection
