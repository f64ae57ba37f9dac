"""What the client does when the service is busy, gone, or not a Catalogan service."""

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest

import catalogan_client.retries
from catalogan_client import (
    APIConnectionError,
    APIStatusError,
    AsyncCatalogan,
    BrokenAnswerError,
    Catalogan,
    ConflictError,
    InternalServerError,
    NotReadyError,
    RateLimitError,
    RequestTimeoutError,
)
from catalogan_client.retries import Attempts, retry_after_sec
from service.model_store.registry import Registry

from .conftest import BACKSTOP_SEC, model_store
from .live import held_upload, live_service
from .scripted import MADE, Answer, answer, hang_up, scripted
from .test_augmentations_http import photo


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogan_client.retries, "FIRST_BACKOFF_SEC", 0.01)


def run_sync(address: str, use: Callable[[Any], Any], **options: Any) -> Any:
    with Catalogan(address, **options) as client:
        return use(client)


def run_async(address: str, use: Callable[[Any], Any], **options: Any) -> Any:
    async def main() -> Any:
        async with AsyncCatalogan(address, **options) as client:
            return await use(client)

    return asyncio.run(main())


both = pytest.mark.parametrize("run", [run_sync, run_async])


@both
@pytest.mark.usefixtures("no_backoff")
def test_passing_failures_are_tried_again_with_the_same_key_and_body(run: Any) -> None:
    script = [answer(503), answer(429), hang_up, answer(200, cut=30), answer(504), answer(502)]
    with scripted(*script, answer(200), answer(200)) as server:
        made = run(server.address, lambda c: c.images.generate(n=1), max_retries=6)
        run(server.address, lambda c: c.images.generate(n=1))
    assert made.images[0].data == b"hi"
    *tries, other = server.keys
    assert len(tries) == 7
    assert len(set(tries)) == 1
    assert other not in (None, tries[0])
    assert set(server.bodies) == {b'{"n":1}'}


@both
@pytest.mark.usefixtures("no_backoff")
def test_files_are_sent_whole_in_each_try(run: Any, tmp_path: Path) -> None:
    path, data = tmp_path / "p.png", photo()
    path.write_bytes(data)
    script = scripted(answer(503), hang_up, answer(400, {}))
    with script as server, path.open("rb") as file, pytest.raises(APIStatusError):
        run(server.address, lambda c: c.images.vary(file, n=2))
    assert len(server.bodies) == 3
    assert len(set(server.bodies)) == 1
    assert data in server.bodies[0]


@both
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, APIStatusError),
        (408, APIStatusError),
        (409, ConflictError),
        (500, InternalServerError),
        (501, InternalServerError),
        (301, APIStatusError),
    ],
)
def test_lasting_failures_are_told_at_once(run: Any, status: int, kind: Any) -> None:
    headers = {"Location": "/elsewhere", "X_Request_Id": "abc"}
    script = scripted(answer(status, b"<html>", **headers), answer(200))
    with script as server, pytest.raises(kind) as caught:
        run(server.address, lambda c: c.images.generate())
    assert len(server.bodies) == 1
    assert (caught.value.status, caught.value.code) == (status, None)
    assert caught.value.request_id == "abc"


@both
@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize(
    ("status", "kind"), [(429, RateLimitError), (503, NotReadyError), (504, RequestTimeoutError)]
)
def test_the_last_failure_is_told(run: Any, status: int, kind: Any) -> None:
    error = {"error": {"code": "busy", "message": "later", "param": None, "type": "t"}}
    with scripted(*[answer(status, error)] * 3) as server, pytest.raises(kind) as caught:
        run(server.address, lambda c: c.models.list())
    assert len(server.bodies) == 3
    assert (caught.value.code, caught.value.message, caught.value.param) == ("busy", "later", None)
    assert server.keys == [None] * 3  # a GET makes nothing


@both
@pytest.mark.usefixtures("no_backoff")
def test_an_own_first_try_that_still_runs_is_waited_for(run: Any) -> None:
    error = {"error": {"code": "idempotency_in_progress", "message": "it runs"}}
    with scripted(hang_up, answer(409, error), answer(200)) as server:
        assert run(server.address, lambda c: c.images.generate(idempotency_key="mine")).images
    assert server.keys == ["mine"] * 3


@both
@pytest.mark.usefixtures("no_backoff")
def test_nobody_listens(run: Any) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        with pytest.raises(APIConnectionError, match="ConnectError"):
            run(f"http://127.0.0.1:{probe.getsockname()[1]}", lambda c: c.models.list())


@both
def test_a_server_that_says_nothing(run: Any) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(APIConnectionError, match="ReadTimeout"):
            run(address, lambda c: c.models.list(), timeout=0.1, max_retries=0)


BEHIND = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)  # a server's clock that is far behind ours
DATES = {
    "Retry_After": format_datetime(BEHIND + timedelta(seconds=1), usegmt=True),
    "Date": format_datetime(BEHIND, usegmt=True),
}


@pytest.mark.parametrize(("run", "told"), [(run_sync, {"Retry_After": "1"}), (run_async, DATES)])
@pytest.mark.usefixtures("no_backoff")
def test_retry_after_is_the_least_wait(run: Any, told: dict[str, str]) -> None:
    with scripted(answer(429, **told), answer(200)) as server:
        run(server.address, lambda c: c.images.generate())
    first, second = server.times
    assert second - first >= 1


def test_a_long_retry_after_is_told_rather_than_waited_for() -> None:
    script = scripted(answer(429, Retry_After="3600"), answer(200))
    with script as server, pytest.raises(RateLimitError) as caught:
        run_sync(server.address, lambda c: c.images.generate())
    assert caught.value.retry_after == 3600
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        (" 17 ", 17.0),
        ("9" * 5000, 999_999_999_999_999.0),
        ("Wed, 21 Oct 2015 07:28:10 GMT", 10.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("²", None),
    ],
)
def test_forms_of_retry_after(text: str, seconds: float | None) -> None:
    headers = httpx.Headers(
        {"Date": "Wed, 21 Oct 2015 07:28:00 GMT", "Retry-After": text.encode("utf-8")}  # type: ignore[dict-item]
    )
    assert retry_after_sec(headers) == seconds


def test_a_date_without_a_date_header_is_of_our_clock() -> None:
    now = datetime.now(UTC)
    text = format_datetime(now + timedelta(seconds=30), usegmt=True)  # of whole seconds
    found = retry_after_sec(httpx.Headers({"Retry-After": text}))
    since = (datetime.now(UTC) - now).total_seconds()
    assert found is not None
    assert max(0, 29 - since) <= found <= 30


def test_backoff_doubles_up_to_a_bound_with_full_jitter() -> None:
    ceilings = [0.5, 1, 2, 4, 8, 8]
    drawn = [
        [attempts.wait_after(httpx.Response(503)) for _ in ceilings]
        for attempts in (Attempts(6) for _ in range(300))
    ]
    for waits, ceiling in zip(zip(*drawn, strict=True), ceilings, strict=True):
        assert all(wait is not None and 0 <= wait <= ceiling for wait in waits)
        assert min(waits) < 0.1 * ceiling
        assert max(waits) > 0.9 * ceiling
    spent = Attempts(0)
    assert spent.wait_after(httpx.Response(503)) is None


FACTS = {
    "X_Catalogan_Model": "shop:1",
    "X_Catalogan_Model_Hash": "0",
    "X_Catalogan_Seed": "1",
    "X_Catalogan_Count": "2",
}


@pytest.mark.usefixtures("no_backoff")
def test_a_set_that_breaks_off_leaves_no_file(tmp_path: Path) -> None:
    whole = answer(200, bytes(2_000_000), **FACTS)
    broken = answer(200, bytes(2_000_000), cut=1_500_000, **FACTS)

    async def save_async(address: str) -> None:
        client = AsyncCatalogan(address)
        async with client, client.datasets.create(count=1) as dataset:
            await dataset.save(tmp_path / "set.zip")

    with scripted(answer(503), broken, broken, whole) as server:
        breaks_off = pytest.raises(APIConnectionError, match="RemoteProtocolError")
        client = Catalogan(server.address)
        with client, client.datasets.create(count=1) as dataset, breaks_off:
            dataset.save(tmp_path / "set.zip")
        assert len(server.bodies) == 2  # what has begun is not asked for again
        with pytest.raises(APIConnectionError, match="RemoteProtocolError"):
            asyncio.run(save_async(server.address))
        assert not list(tmp_path.iterdir())
        asyncio.run(save_async(server.address))
    assert (tmp_path / "set.zip").stat().st_size == 2_000_000


def test_who_leaves_a_set_hangs_up() -> None:
    noticed = [threading.Event(), threading.Event()]

    def endless(event: threading.Event) -> Answer:
        def send(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response_only(200)
            for name, value in FACTS.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.end_headers()
            with suppress(ConnectionError):
                while True:
                    handler.wfile.write(bytes(100_000))
            event.set()

        return send

    async def leave(client: AsyncCatalogan) -> bool:
        async with client.datasets.create(count=1) as dataset:
            chunks = aiter(dataset)
            await anext(chunks)
        return await asyncio.to_thread(noticed[1].wait, BACKSTOP_SEC)

    with scripted(*map(endless, noticed)) as server:
        client = Catalogan(server.address)
        with client.datasets.create(count=1) as dataset:
            chunks = iter(dataset)
            next(chunks)
        assert noticed[0].wait(BACKSTOP_SEC)
        client.close()
        assert run_async(server.address, leave)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        [],
        {},
        {"data": 1},
        MADE | {"data": [{"b64_json": "?", "seed": 1, "category": "mugs"}]},
        MADE | {"data": [{"b64_json": "aGk=", "seed": "1", "category": "mugs"}]},
        MADE | {"created": True},
        MADE | {"size": None},
        {name: value for name, value in MADE.items() if name != "model"},
    ],
    ids=str,
)
def test_answers_of_something_else(body: Any) -> None:
    fails = pytest.raises(BrokenAnswerError, match=r"the response|not JSON")
    with scripted(answer(200, body)) as server, fails:
        run_sync(server.address, lambda c: c.images.generate())


@pytest.mark.parametrize(
    "broken", [answer(200, b"PK", content_type="application/zip"), answer(200, b"GIF")]
)
def test_interpolations_of_something_else(broken: Answer) -> None:
    with scripted(broken) as server, pytest.raises(BrokenAnswerError):
        run_sync(server.address, lambda c: c.images.interpolate([1, 2]))


def test_a_full_queue_of_the_real_service_is_waited_for(
    tmp_path: Path, styled_export: Path
) -> None:
    with model_store(tmp_path / "bentoml"):
        Registry().register(styled_export)
        with (
            live_service(max_pending_uploads="1") as address,
            held_upload(address, photo()) as release,
        ):
            assert refusal(address) == ("queue_full", 1)
            threading.Timer(0.2, release.set).start()
            made = run_sync(address, lambda c: c.images.vary(photo(), seed=1), max_retries=100)
    assert made.images[0].seed == 1


def refusal(address: str) -> tuple[str | None, float | None] | None:
    try:
        run_sync(address, lambda c: c.images.vary(photo()), max_retries=0)
    except RateLimitError as error:
        return error.code, error.retry_after
    return None
