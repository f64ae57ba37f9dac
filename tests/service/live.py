"""The whole service in this process, behind a real socket, and a request that holds it up."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn

import service.bento
from service.inference.generation import GeneratorSession

from .conftest import BACKSTOP_SEC, wait_for


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
def held_upload(address: str, photo: bytes, key: str = "") -> Iterator[threading.Event]:
    """An upload that is worked on until the event is set, and holds the only slot for uploads."""
    release, render = threading.Event(), GeneratorSession.render
    headers = {"X-API-Key": key}
    held = 'catalogan_pending_requests{queue="uploads"}'

    def wait_and_render(self: GeneratorSession, *given: Any) -> Any:
        release.wait(BACKSTOP_SEC)
        return render(self, *given)

    def wait_until(pending: int) -> None:
        wanted = f"{held} {pending}.0"
        wait_for(
            lambda: wanted in httpx.get(f"{address}/metrics", headers=headers, timeout=None).text
        )

    wait_until(0)  # an answered request may still have the slot
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as callers:
        patch.setattr(GeneratorSession, "render", wait_and_render)
        url, files = f"{address}/v1/images/variations", {"image": photo}
        callers.submit(httpx.post, url, files=files, headers=headers, timeout=None)
        try:
            wait_until(1)
            yield release
        finally:
            release.set()
