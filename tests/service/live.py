"""The whole service in this process, behind a real socket."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn

import service.api

from .conftest import wait_for


@contextmanager
def live_service(**environment: str) -> Iterator[str]:
    """Serve the present model store; gives the address."""
    with pytest.MonkeyPatch.context() as patch, socket.socket() as listening:
        for name, value in environment.items():
            patch.setenv(f"CATALOGAN_{name.upper()}", value)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        config = uvicorn.Config(service.api.asgi_app(), log_config=None, ws="none", lifespan="on")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            wait_for(lambda: server.started or not thread.is_alive())
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
