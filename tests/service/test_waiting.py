"""Who waits for pictures, and for how long: full queues, bursts, time limits."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.api.queues import Queue
from service.errors import Busy
from service.telemetry.metrics import Metrics

from .conftest import BACKSTOP_SEC, Held, running_service, wait_for
from .test_bad_requests import check

URL = "/v1/images/generations"


def waiting(count: int) -> str:
    """The line of the metrics that says how many generations there are."""
    return f'queue="generations"}} {count}.0'


def test_a_full_queue_gives_its_places_back() -> None:
    async def fill() -> None:
        queue = Queue("test", 2, Metrics((1, 2)))
        async with queue.slot(), queue.slot():
            with pytest.raises(Busy):
                async with queue.slot():
                    pass
        async with queue.slot():
            pass

    asyncio.run(fill())


def test_a_full_queue_answers_429(registered: Path, held: Held) -> None:
    with (
        running_service(max_pending_generations="1") as client,
        ThreadPoolExecutor() as callers,
    ):
        first = callers.submit(client.post, URL, json={})
        assert held.begun.wait(BACKSTOP_SEC)
        refused = client.post(URL, json={})
        assert client.get("/livez").status_code == 200
        held.release.set()
        assert check(refused, 429)["type"] == "rate_limit_error"
        assert int(refused.headers["retry-after"]) >= 1
        assert first.result().status_code == 200
        assert client.post(URL, json={}).status_code == 200


def test_a_burst_of_a_hundred_is_served(registered: Path, held: Held) -> None:
    with running_service() as client, ThreadPoolExecutor(100) as callers:
        asked = [callers.submit(client.post, URL, json={}) for _ in range(100)]
        try:
            wait_for(lambda: waiting(100) in client.get("/metrics").text)
        finally:
            held.release.set()
        assert {one.result().status_code for one in asked} == {200}


def test_what_takes_too_long_is_504_and_gives_its_place_back(registered: Path, held: Held) -> None:
    limits = {"request_timeout_sec": "0.3", "max_pending_generations": "1"}
    with running_service(**limits) as client:
        check(client.post(URL, json={"n": 10}), 504)
        held.release.set()
        # On a busy machine the next one may take too long as well, in the place it was given.
        wait_for(lambda: client.post(URL, json={}).status_code in (200, 504))


def test_who_waits_too_long_for_a_worker_is_429(registered: Path, held: Held) -> None:
    with (
        running_service(workers="1", max_queue_wait_sec="0.2") as client,
        ThreadPoolExecutor() as callers,
    ):
        # Its pictures wait for each other, which is no reason to refuse them.
        first = callers.submit(client.post, URL, json={"n": 3})
        assert held.begun.wait(BACKSTOP_SEC)
        late = callers.submit(client.post, URL, json={})
        wait_for(lambda: waiting(2) in client.get("/metrics").text)
        time.sleep(0.3)
        held.release.set()
        assert len(first.result().json()["data"]) == 3
        assert "worker" in check(late.result(), 429)["message"]
        assert int(late.result().headers["retry-after"]) >= 1
        wait_for(lambda: client.post(URL, json={}).status_code == 200)
