"""Fair queues in front of the threads that generate images."""

import asyncio
import contextvars
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from service.errors import Busy
from service.inference.fair_queue import FairQueue, Job
from service.telemetry.observation import note_interval, stage

Result = TypeVar("Result")

# Whose request is being served: the id of its key; empty outside requests.
caller: Final[contextvars.ContextVar[str]] = contextvars.ContextVar("caller", default="")


async def to_the_end(work: Awaitable[Result]) -> Result:
    """Wait for `work` to end, whatever happens; return its result.

    A thread can't be stopped, so what it was given must not be free before it ends, and what it
    took must be known. Whoever is cancelled meanwhile notices when they wait for something else.
    """
    running = asyncio.ensure_future(work)
    cancelled = False
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError:
            cancelled = True
    task = asyncio.current_task()
    if cancelled and task is not None:
        task.uncancel()
        task.cancel()
    return running.result()


class Lock(Protocol):
    """What requests take in turn."""

    async def acquire(self) -> object:
        """Wait for it."""

    def release(self) -> None:
        """Let the next one have it."""


@asynccontextmanager
async def one_at_a_time(lock: Lock) -> AsyncIterator[None]:
    """Hold the turn, and note how long it took to come."""
    with stage("queue"):
        await lock.acquire()
    try:
        yield
    finally:
        lock.release()


class Workers:
    """Runs jobs on a fixed number of threads, which callers share evenly."""

    def __init__(self, threads: int, max_wait_sec: float, *, spare: bool = False) -> None:
        """Start no thread yet.

        Args:
            threads: Jobs that run at a time.
            max_wait_sec: How long a call may wait for its first job to begin.
            spare: Whether each caller leaves one thread free.
        """
        self._max_wait_sec: Final = max_wait_sec
        self._waiting: Final = FairQueue(threads, spare=spare)
        self._threads: Final = ThreadPoolExecutor(threads, thread_name_prefix="worker")

    async def run(
        self, jobs: Sequence[Callable[[], Result]], *, patient: bool = False
    ) -> list[Result]:
        """Run jobs in parallel; give their results in order.

        Jobs that have not begun when one fails, or when the caller is cancelled, never run. Those
        that have are waited for: until then the caller keeps its slot and its locks.

        Args:
            jobs: What to run.
            patient: Wait for a worker as long as it takes, as what was begun must go on.

        Raises:
            Busy: The turn came too late. It is notified of when it comes: a response now would not
                shorten the queue.
        """
        handed_over = self._hand_over(jobs, math.inf if patient else self._max_wait_sec)
        try:
            return list(
                await asyncio.gather(*(asyncio.wrap_future(job.result) for job in handed_over))
            )
        finally:
            begun = [job.result for job in handed_over if not job.result.cancel()]
            running = [asyncio.wrap_future(result) for result in begun if not result.done()]
            for future in running:  # its caller is gone: nobody else looks at what comes of it
                future.add_done_callback(lambda done: done.cancelled() or done.exception())
            if running:
                await to_the_end(asyncio.wait(running))
            del handed_over, begun, running  # an error that passes here leads back to them

    def call(self, job: Callable[[], Result]) -> Result:
        """Run a job for a thread of others, which waits for it; see `run`.

        Raises:
            Busy: The turn came too late.
        """
        (handed_over,) = self._hand_over([job], self._max_wait_sec)
        result: Result = handed_over.result.result()
        return result

    def _hand_over(self, jobs: Sequence[Callable[[], Any]], max_wait_sec: float) -> list[Job]:
        wait = _Wait(max_wait_sec)
        # A copy each, so that what a job notes is noted of this request.
        handed_over = [Job(partial(contextvars.copy_context().run, wait.run, job)) for job in jobs]
        self._waiting.add(caller.get(), handed_over)
        for _ in handed_over:
            self._threads.submit(self._waiting.run)
        return handed_over

    def stop(self) -> None:
        """End the threads once their present jobs are done; those that wait never run."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._waiting.cancel()


class _Wait:
    """The wait of jobs that were handed over together: until the first of them begins."""

    def __init__(self, max_wait_sec: float) -> None:
        self._max_wait_sec: Final = max_wait_sec
        self._handed_over_ns: Final = time.perf_counter_ns()
        self._first: Final = [True]

    def run(self, job: Callable[[], Result]) -> Result:
        try:
            self._first.pop()  # one of several threads gets it
        except IndexError:
            return job()
        note_interval("queue", self._handed_over_ns)
        waited_sec = (time.perf_counter_ns() - self._handed_over_ns) / 1e9
        if waited_sec > self._max_wait_sec:
            raise Busy(
                f"no worker was free for {waited_sec:.0f} s",
                retry_after_sec=min(60, math.ceil(waited_sec / 2)),
            )
        return job()
