"""What becomes of a request whose client left, whose time is up, or that is refused."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.access.api_keys import create_key
from service.api.endpoint import VERIFICATIONS
from service.api.middleware.lifetime import Lifetime
from service.inference.generation import GeneratorSession
from service.settings import load_settings

from .conftest import BACKSTOP_SEC, Held, wait_for
from .live import live_service
from .test_bad_requests import check

URL = "/v1/images/generations"
DATASETS = "/v1/datasets"


@contextmanager
def keyed_service(folder: Path, **environment: str) -> Iterator[httpx.Client]:
    """A live service, and a client whose key has a quota."""
    keys = folder / "keys.json"
    scopes = ["generate", "metrics", "admin"]
    key = create_key(keys, "shop", scopes, None, "100000/day")
    (folder / "other").write_text(create_key(keys, "other", scopes, None, None))
    with (
        live_service(keys_file=str(keys), **environment) as address,
        httpx.Client(base_url=address, timeout=None, headers={"x-api-key": key}) as client,
    ):
        yield client


def leave(client: httpx.Client, body: dict[str, Any], begun: threading.Event, **more: str) -> None:
    """Send a request, and hang up when its first image is being created."""
    data = json.dumps(body).encode()
    headers = {
        "Host": "127.0.0.1",
        "x-api-key": client.headers["x-api-key"],
        "Content-Type": "application/json",
        "Content-Length": str(len(data)),
        **more,
    }
    lines = [f"POST {URL} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as sent:
        sent.sendall("\r\n".join([*lines, "", ""]).encode() + data)
        assert begun.wait(BACKSTOP_SEC)


def pending(client: httpx.Client, queue: str = "generations") -> float:
    wanted = f'catalogan_pending_requests{{queue="{queue}"}}'
    lines = client.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(wanted)).rpartition(" ")[2])


def charged(client: httpx.Client) -> int:
    """What is taken of the quota."""
    quotas = client.get("/v1/usage").json()["quotas"]
    return int(next(quota["used"] for quota in quotas if quota["key"] == "shop"))


def test_whose_client_left_is_stopped_before_its_next_image(
    registered: Path, tmp_path: Path, held: Held
) -> None:
    with keyed_service(tmp_path, workers="1", max_pending_generations="1") as client:
        leave(client, {"n": 10}, held.begun)
        assert charged(client) == 10
        # The image that is being created can't be stopped, and keeps its slot.
        check(client.post(URL, json={}), 429)
        held.release.set()
        wait_for(lambda: pending(client) == 0)
        assert held.painted == [1]
        assert charged(client) == 0
        assert client.post(URL, json={}).status_code == 200


def test_what_may_be_repeated_is_done_once_although_its_client_left(
    registered: Path, tmp_path: Path, held: Held
) -> None:
    with keyed_service(tmp_path, workers="1") as client:
        headers = {"Idempotency-Key": "first"}
        leave(client, {"n": 3}, held.begun, **headers)
        held.release.set()

        def is_done() -> bool:
            again = client.post(URL, json={"n": 3}, headers=headers)
            return again.headers.get("idempotency-replayed") == "true"

        wait_for(is_done)
        assert (len(held.painted), charged(client)) == (3, 3)


@pytest.mark.parametrize("path", [VERIFICATIONS.path, "/v1/images/links/a.b"])
def test_an_idempotency_key_keeps_nothing_alive_whose_response_is_not_stored(path: str) -> None:
    messages: list[Any] = [{"type": "http.request"}, {"type": "http.disconnect"}]
    stopped: list[str] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        try:
            await asyncio.sleep(BACKSTOP_SEC)
        except asyncio.CancelledError:
            stopped.append(scope["path"])
            raise

    async def send(message: Any) -> None:
        raise AssertionError(message)

    scope = {"type": "http", "path": path, "headers": [(b"idempotency-key", b"mine")]}
    asyncio.run(Lifetime(app, load_settings())(scope, receive, send))
    assert stopped == [path]


def test_limits_hold_until_the_work_ends(registered: Path, held: Held, tmp_path: Path) -> None:
    limits = {"request_timeout_sec": "0.3", "max_pending_generations": "1", "workers": "1"}
    with keyed_service(tmp_path, **limits) as client:
        check(client.post(URL, json={"n": 10}), 504)
        # Its thread still works: nothing else may begin.
        check(client.post(URL, json={}), 429)
        assert pending(client) == 1
        held.release.set()
        wait_for(lambda: client.post(URL, json={}).status_code in (200, 504))
        wait_for(lambda: pending(client) == 0)
        assert held.painted[0] == 1
        assert len(held.painted) < 10


def test_the_end_of_the_service_waits_for_what_is_put_back(
    registered: Path, held: Held, tmp_path: Path
) -> None:
    state = {"data_dir": str(tmp_path / "state"), "workers": "1"}
    with keyed_service(tmp_path, request_timeout_sec="0.3", **state) as client:
        check(client.post(URL, json={"n": 10}), 504)
        assert charged(client) == 10
        threading.Timer(0.3, held.release.set).start()
    with live_service(keys_file=str(tmp_path / "keys.json"), **state) as address:
        usage = httpx.get(f"{address}/v1/usage", headers=dict(client.headers)).json()
    assert [quota["used"] for quota in usage["quotas"]] == [0]


def test_only_what_is_delivered_is_charged(
    registered: Path, tmp_path: Path, state_environment: dict[str, str]
) -> None:
    body = {"count": 2_000, "size": "48x32"}
    limits = {"max_pending_datasets": "1", "max_dataset_pictures": "10000", **state_environment}
    with keyed_service(tmp_path, **limits) as client:
        with client.stream("POST", DATASETS, json=body) as got:
            chunks = got.iter_raw()
            assert next(chunks)
            taken = charged(client)
            assert taken == 8_000
            for _ in range(3):
                check(client.post(DATASETS, json={"count": 1}), 429)
            assert charged(client) == taken
        wait_for(lambda: pending(client, "datasets") == 0)
        assert 0 < charged(client) < 8_000
        (used,) = client.get("/v1/usage").json()["data"]
        assert used["pictures"] == charged(client)


def test_what_fails_before_its_first_byte_is_not_charged(
    registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"Idempotency-Key": "first"}
    with keyed_service(tmp_path) as client:
        with monkeypatch.context() as patch:
            patch.setattr(GeneratorSession, "render", lambda *_: 1 / 0)
            check(client.post(DATASETS, json={"count": 1}, headers=headers), 500)
        assert charged(client) == 0
        # Nothing came of it, so that a corrected request may have the key.
        assert client.post(DATASETS, json={"count": 2}, headers=headers).status_code == 200
        assert charged(client) == 8


def test_a_stream_that_began_waits_for_its_workers(
    registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render = GeneratorSession.render
    begun, release, slow = threading.Event(), threading.Event(), 77

    def busy(self: GeneratorSession, specs: Any, *more: Any) -> Any:
        if specs[0].seed == slow:
            begun.set()
            release.wait(BACKSTOP_SEC)
        return render(self, specs, *more)

    monkeypatch.setattr(GeneratorSession, "render", busy)
    limits = {"workers": "1", "max_queue_wait_sec": "0.2", "request_timeout_sec": "1"}
    body = {"count": 150, "size": "48x32", "seed": 1}
    with keyed_service(tmp_path, **limits) as client, ThreadPoolExecutor() as callers:
        with client.stream("POST", DATASETS, json=body) as got:
            chunks = got.iter_raw()
            data = [next(chunks)]
            other = {"x-api-key": (tmp_path / "other").read_text()}
            callers.submit(
                httpx.post, f"{client.base_url}{URL}", json={"seed": slow}, headers=other
            )
            reader = callers.submit(lambda: data.extend(chunks))
            assert begun.wait(BACKSTOP_SEC)
            time.sleep(1.2)
            release.set()
            reader.result()
        assert b"".join(data)[-22:-18] == b"PK\5\6"
        assert charged(client) == 600
