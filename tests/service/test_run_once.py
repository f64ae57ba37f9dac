"""What a request that creates images takes, and gives back however it ends."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.requests import Request
from starlette.responses import Response

from service.access.api_keys import ApiKey
from service.api.caller import set_key
from service.api.endpoint import GENERATIONS
from service.api.queues import Queue
from service.api.run_once import Created, Creation, run_once
from service.api.runtime import Runtime
from service.errors import Busy, Conflict
from service.generation.requests import GenerationRequest
from service.settings import load_settings
from service.storage.quotas import Quota, utc_now
from service.storage.state import State
from service.telemetry.metrics import Metrics

KEY = ApiKey(name="shop", sha256="0" * 64, scopes=frozenset({"generate"}), quota="5/day")


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    metrics = Metrics((1,))
    with closing(State(load_settings(data_dir=tmp_path))) as state:
        yield cast(Runtime, SimpleNamespace(state=state, metrics=metrics))


def creation(queue: Queue, images: int = 3) -> Creation:
    headers = [(b"idempotency-key", b"first"), (b"host", b"localhost")]
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": GENERATIONS.path}
    scope |= {"query_string": b"", "headers": headers}
    set_key(scope, KEY)
    return Creation(
        endpoint=GENERATIONS,
        request=Request(scope),
        body=GenerationRequest(),
        images=images,
        queue=queue,
    )


async def taken(runtime: Runtime) -> int:
    quota = Quota.of(KEY, utc_now())
    assert quota is not None
    return (await runtime.state.quotas.taken({KEY.id: quota.period})).get(KEY.id, 0)


async def done() -> Created:
    return Created(response=Response("done"))


def run(runtime: Runtime, test: Callable[[Queue], Awaitable[None]]) -> None:
    async def with_queue() -> None:
        await test(Queue("generations", 1, runtime.metrics))

    asyncio.run(with_queue())


def test_a_replay_takes_neither_slot_nor_quota(runtime: Runtime) -> None:
    async def test(queue: Queue) -> None:
        assert (await run_once(creation(queue), runtime, done)).body == b"done"
        assert await taken(runtime) == 3
        async with queue.slot():
            again = await run_once(creation(queue), runtime, done)
        assert (again.body, again.headers["Idempotency-Replayed"]) == (b"done", "true")
        assert await taken(runtime) == 3

    run(runtime, test)


@pytest.mark.parametrize("ending", ["cancelled", "failed"])
def test_what_does_not_come_to_its_end_gives_all_back(runtime: Runtime, ending: str) -> None:
    async def test(queue: Queue) -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def work() -> Created:
            begun.set()
            await go_on.wait()
            raise ZeroDivisionError

        first = asyncio.create_task(run_once(creation(queue), runtime, work))
        await begun.wait()
        assert await taken(runtime) == 3
        with pytest.raises(Conflict):
            await run_once(creation(queue), runtime, done)
        if ending == "cancelled":
            first.cancel()
        go_on.set()
        with pytest.raises((asyncio.CancelledError, ZeroDivisionError)):
            await first
        assert await taken(runtime) == 0
        assert (await run_once(creation(queue), runtime, done)).body == b"done"

    run(runtime, test)


def test_a_full_queue_or_quota_leaves_the_key_free(runtime: Runtime) -> None:
    async def test(queue: Queue) -> None:
        async with queue.slot():
            with pytest.raises(Busy):
                await run_once(creation(queue), runtime, done)
        with pytest.raises(Busy, match="quota"):
            await run_once(creation(queue, images=6), runtime, done)
        assert await taken(runtime) == 0
        assert (await run_once(creation(queue), runtime, done)).body == b"done"

    run(runtime, test)
