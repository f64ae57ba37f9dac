"""No caller keeps others waiting: fair turns at the workers, slots and room for those who come."""

import asyncio
import contextlib
import contextvars
import gc
import json
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, field_validator
from starlette.requests import Request

from service.access.api_keys import create_key
from service.api.parsing.json_body import SMALL_BYTES, read_json
from service.api.queues import Queue
from service.errors import Busy
from service.inference.fair_lock import FairLock
from service.inference.fair_queue import LATELY_SEC, LONG_JOB_SEC, FairQueue, Job
from service.inference.generation import GeneratorSession
from service.inference.workers import Workers, caller, one_at_a_time
from service.telemetry.metrics import Metrics

from .conftest import BACKSTOP_SEC, wait_for
from .live import live_service
from .test_augmentations_http import photo

GENERATIONS = "/v1/images/generations"
VERIFICATIONS = "/v1/verifications"


class Clock:
    """Time that stands still until a job takes some."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def run_all(queue: FairQueue, *named: tuple[str, Callable[[], None]]) -> None:
    for name, work in named:
        queue.add(name, [Job(work)])
    queue.run()


def test_whoever_used_least_comes_next_and_old_use_is_forgotten() -> None:
    clock, order = Clock(), list[str]()

    def job(name: str, seconds: float) -> tuple[str, Callable[[], None]]:
        def work() -> None:
            order.append(name)
            clock.now += seconds

        return name, work

    queue = FairQueue(1, clock)
    run_all(queue, *[job("many", 10.0)] * 3, *[job("few", 1.0)] * 3)
    assert order == ["many", "few", "few", "few", "many", "many"]
    order.clear()
    run_all(queue, job("many", 1.0), job("new", 1.0), job("few", 1.0))
    assert order == ["new", "few", "many"]
    order.clear()
    clock.now += 20 * LATELY_SEC
    run_all(queue, job("few", 1.0))
    run_all(queue, job("few", 1.0), job("many", 1.0))
    assert order == ["few", "many", "few"]


@pytest.mark.parametrize(
    ("seconds", "others_sec_ago", "runs"),
    [
        (2 * LONG_JOB_SEC, None, 2),
        (2 * LONG_JOB_SEC, 1.0, 1),
        (2 * LONG_JOB_SEC, 2 * LATELY_SEC, 2),
        (0.1 * LONG_JOB_SEC, 1.0, 2),
    ],
)
def test_long_jobs_leave_a_worker_free_while_there_are_others(
    seconds: float, others_sec_ago: float | None, runs: int
) -> None:
    """Whoever waits for the end of a long job would wait for as long."""
    clock, release = Clock(), threading.Event()

    def work() -> None:
        clock.now += seconds

    queue = FairQueue(2, clock)
    if others_sec_ago is not None:
        run_all(queue, ("other", lambda: None))
        clock.now += others_sec_ago
    run_all(queue, ("long", work))
    held = [Job(lambda: release.wait(BACKSTOP_SEC)) for _ in range(4)]
    queue.add("long", held)
    threads = [threading.Thread(target=queue.run) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_for(lambda: sum(job.result.running() for job in held) == runs)
    for thread in threads[runs:]:
        thread.join()  # it found nothing that it may run
    assert sum(job.result.running() for job in held) == runs
    release.set()
    for thread in threads:
        thread.join()
    assert all(job.result.done() for job in held)


def test_who_waits_gets_a_worker_before_whoever_holds_one() -> None:
    """Also where what they hold was never counted, as none of it has ended."""
    release, held = threading.Event(), threading.Semaphore(0)
    order: list[str] = []

    def hold() -> None:
        held.release()
        release.wait(BACKSTOP_SEC)

    async def as_caller(workers: Workers, name: str, *jobs: Callable[[], None]) -> None:
        caller.set(name)
        await workers.run(jobs)

    async def test() -> None:
        workers = Workers(2, BACKSTOP_SEC)
        much = [hold, hold, *[lambda: order.append("greedy")] * 20]
        greedy = asyncio.create_task(as_caller(workers, "greedy", *much))
        await asyncio.to_thread(lambda: [held.acquire() for _ in range(2)])
        other = asyncio.create_task(as_caller(workers, "other", lambda: order.append("other")))
        await asyncio.sleep(0.05)
        release.set()
        await asyncio.gather(greedy, other)
        workers.stop()

    asyncio.run(test())
    assert order.index("other") <= 1


def test_threads_that_wait_for_others_take_turns_too_and_leave_the_spare_one() -> None:
    begun, release = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        release.wait(BACKSTOP_SEC)

    async def test() -> None:
        waiting, workers = Workers(4, BACKSTOP_SEC), Workers(2, BACKSTOP_SEC, spare=True)

        async def as_caller(name: str, job: Callable[[], Any]) -> Any:
            caller.set(name)
            (result,) = await waiting.run([lambda: workers.call(job)])
            return result

        held = asyncio.create_task(as_caller("greedy", hold))
        await asyncio.to_thread(begun.wait)
        more = asyncio.create_task(as_caller("greedy", caller.get))
        await asyncio.sleep(0.05)
        assert await as_caller("other", caller.get) == "other"
        assert not more.done()
        release.set()
        assert await more == "greedy"
        await held
        for one in (waiting, workers):
            one.stop()

    asyncio.run(test())


def test_work_that_ends_late_is_waited_for_and_what_waits_never_runs() -> None:
    begun, release, ran = threading.Event(), threading.Event(), list[int]()

    def hold() -> None:
        begun.set()
        release.wait(BACKSTOP_SEC)

    async def test() -> None:
        workers = Workers(1, BACKSTOP_SEC)
        running = asyncio.create_task(workers.run([hold, lambda: ran.append(1)]))
        await asyncio.to_thread(begun.wait)
        running.cancel()
        await asyncio.sleep(0.05)
        assert not running.done()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await workers.run([lambda: ran.append(2)])
        workers.stop()

    asyncio.run(test())
    assert ran == [2]


def test_nobody_is_told_of_an_error_whose_request_was_given_up() -> None:
    begun, release, told = threading.Event(), threading.Event(), list[Any]()

    def fail() -> None:
        begun.set()
        release.wait(BACKSTOP_SEC)
        raise ValueError

    async def test() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        workers = Workers(1, BACKSTOP_SEC)
        running = asyncio.create_task(workers.run([fail]))
        await asyncio.to_thread(begun.wait)
        running.cancel()
        await asyncio.sleep(0.05)
        release.set()
        await asyncio.wait([running])
        assert running.cancelled()
        workers.stop()

    asyncio.run(test())
    gc.collect()
    assert not told


def test_what_a_failed_job_held_is_freed_at_once() -> None:
    """Not when Python next looks for cycles: refused bodies of a megabyte took one gigabyte."""

    class Held:
        """What is large."""

    known = list[weakref.ref[Held]]()

    def fail() -> None:
        held = Held()
        known.append(weakref.ref(held))
        raise ValueError

    async def test() -> None:
        workers = Workers(2, BACKSTOP_SEC)
        for jobs in ([fail], [fail, fail]):
            with contextlib.suppress(ValueError):
                await workers.run(jobs)
        workers.stop()

    gc.disable()
    try:
        asyncio.run(test())
        assert [one() for one in known] == [None] * len(known)
    finally:
        gc.enable()


@pytest.mark.parametrize(("extra", "on_the_loop"), [(0, True), (SMALL_BYTES, False)])
def test_large_json_is_read_off_the_event_loop(extra: int, on_the_loop: bool) -> None:
    class Noting(BaseModel):
        text: str

        @field_validator("text")
        @classmethod
        def _note(cls, text: str) -> str:
            return threading.current_thread().name

    async def test() -> str:
        body = json.dumps({"text": "x" * extra}).encode()
        headers = [(b"content-type", b"application/json")]

        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        workers = Workers(1, BACKSTOP_SEC)
        request = Request({"type": "http", "headers": headers}, receive)
        read = await read_json(request, Noting, workers)
        workers.stop()
        return read.text

    assert (asyncio.run(test()) == threading.current_thread().name) == on_the_loop


def test_a_lock_goes_from_caller_to_caller() -> None:
    order: list[str] = []

    async def hold(lock: FairLock, name: str) -> None:
        caller.set(name)
        async with one_at_a_time(lock):
            order.append(name)
            await asyncio.sleep(0)

    async def test() -> None:
        lock = FairLock()
        names = ["many", "many", "many", "few", "few", "other"]
        tasks = [asyncio.create_task(hold(lock, name)) for name in names]
        await asyncio.sleep(0)
        tasks[1].cancel()  # while it waits
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.wait_for(hold(lock, "last"), BACKSTOP_SEC)

    asyncio.run(test())
    assert order == ["many", "few", "other", "many", "few", "last"]


def test_a_full_queue_admits_those_who_have_nothing_in_it() -> None:
    async def test() -> None:
        queue = Queue("test", 2, Metrics((1,)))
        async with AsyncSlots(queue) as slots:
            await slots.take("one")
            await slots.take("one")
            for name in ("one", "one", "two", "two"):
                refused = name == "one" or slots.taken == 3
                if refused:
                    with pytest.raises(Busy):
                        await slots.take(name)
                else:
                    await slots.take(name)
            await slots.take("three")
            with pytest.raises(Busy):
                await slots.take("four")
        async with queue.slot():
            pass

    asyncio.run(test())


def test_a_full_queue_admits_callers_that_have_less_than_their_share() -> None:
    """Who sends several at a time was refused all but one while another caller filled it."""

    async def test() -> None:
        queue = Queue("test", 8, Metrics((1,)))
        async with AsyncSlots(queue) as slots:
            for name, admitted in (("many", 8), ("few", 4), ("other", 2)):
                for _ in range(admitted):
                    await slots.take(name)
                with pytest.raises(Busy):
                    await slots.take(name)

    asyncio.run(test())


class AsyncSlots:
    """Slots that callers hold until the block ends."""

    def __init__(self, queue: Queue) -> None:
        self.queue, self.taken, self._held = queue, 0, list[Any]()

    async def __aenter__(self) -> "AsyncSlots":
        return self

    async def take(self, name: str) -> None:
        slot = self.queue.slot()
        context = contextvars.copy_context()
        context.run(caller.set, name)
        await asyncio.create_task(slot.__aenter__(), context=context)  # type: ignore[arg-type]
        self.taken += 1
        self._held.append(slot)

    async def __aexit__(self, *_: object) -> None:
        for slot in self._held:
            await slot.__aexit__(None, None, None)


@contextmanager
def two_callers(folder: Path, **environment: str) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """A live service that lets anybody verify, and a client for each of two keys."""
    keys, scopes = folder / "keys.json", ["generate", "metrics"]
    names = [create_key(keys, name, scopes, None, None) for name in ("one", "two")]
    with ExitStack() as stack:
        address = stack.enter_context(
            live_service(keys_file=str(keys), open_verification="6000/minute", **environment)
        )
        clients = [
            httpx.Client(base_url=address, timeout=None, headers={"x-api-key": key})
            for key in names
        ]
        yield stack.enter_context(clients[0]), stack.enter_context(clients[1])


def test_many_expensive_requests_do_not_starve_another_caller(
    registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render, seeds, begun = GeneratorSession.render, list[int](), threading.Event()

    def slow(self: GeneratorSession, specs: Any, *more: Any) -> Any:
        seeds.append(specs[0].seed)
        begun.set()
        wait_for(lambda: 99 in sent)
        return render(self, specs, *more)

    monkeypatch.setattr(GeneratorSession, "render", slow)
    sent: list[int] = []
    with two_callers(tmp_path, workers="2") as (greedy, other):
        threads = [
            threading.Thread(target=greedy.post, args=[GENERATIONS], kwargs={"json": {"n": 10}})
            for _ in range(16)
        ]
        for thread in threads:
            thread.start()
        wait_for(lambda: 'queue="generations"} 16.0' in other.get("/metrics").text)
        asked = threading.Thread(
            target=other.post, args=[GENERATIONS], kwargs={"json": {"seed": 99}}
        )
        asked.start()
        wait_for(lambda: 'queue="generations"} 17.0' in other.get("/metrics").text)
        sent.append(99)
        for thread in (asked, *threads):
            thread.join()
    assert seeds.index(99) <= 3


def begin_upload(client: httpx.Client, path: str, key: str, body_bytes: int) -> socket.socket:
    """Send the beginning of a form, and leave it at that."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Content-Length: {body_bytes + 1000}",
        "Content-Type: multipart/form-data; boundary=x",
        *([f"x-api-key: {key}"] if key else []),
    ]
    sent = socket.create_connection((client.base_url.host, client.base_url.port or 80))
    part = '--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    sent.sendall(("\r\n".join([*lines, "", ""]) + part).encode() + bytes(body_bytes))
    return sent


def test_slow_senders_hold_no_slot(registered: Path, tmp_path: Path) -> None:
    limits = {"max_pending_uploads": "2", "max_upload_bytes": "100000"}
    files = {"image": photo()}
    with two_callers(tmp_path, **limits) as (client, _), ExitStack() as slow:
        for _ in range(8):
            slow.enter_context(begin_upload(client, VERIFICATIONS, "", 1_100))
        for headers in ({}, {"x-api-key": client.headers["x-api-key"]}):
            answered = httpx.post(
                f"{client.base_url}{VERIFICATIONS}", files=files, headers=headers, timeout=None
            )
            assert answered.status_code == 200, answered.text


def test_bodies_that_come_in_are_bounded_by_caller(registered: Path, tmp_path: Path) -> None:
    limits = {"max_pending_uploads": "2", "max_upload_bytes": "100000"}
    files, key = {"image": photo()}, "x-api-key"
    with two_callers(tmp_path, **limits) as (one, two), ExitStack() as slow:
        held = [slow.enter_context(begin_upload(one, VERIFICATIONS, one.headers[key], 90_000))]
        wait_for(lambda: _is_refused(one, slow))
        assert two.post(VERIFICATIONS, files=files).status_code == 200
        held[0].close()
        wait_for(lambda: not _is_refused(one, slow))


def _is_refused(client: httpx.Client, slow: ExitStack) -> bool:
    """Whether there is no room for as many bytes again, which never come to their end."""
    with begin_upload(client, VERIFICATIONS, client.headers["x-api-key"], 120_000) as sent:
        sent.settimeout(0.5)
        try:
            return b"HTTP/1.1 429" in sent.recv(4_000)
        except TimeoutError:
            return False
