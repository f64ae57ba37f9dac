"""Bounded queues in front of the threads that generate images."""

import asyncio
import contextvars
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from service.errors import Busy
from service.telemetry.observation import note_interval, stage

Result = TypeVar("Result")


@asynccontextmanager
async def one_at_a_time(lock: asyncio.Semaphore) -> AsyncIterator[None]:
    """Hold the turn, and note how long it took to come."""
    with stage("queue"):
        await lock.acquire()
    try:
        yield
    finally:
        lock.release()


class Workers:
    """Runs jobs on a fixed number of threads."""

    def __init__(self, threads: int, max_wait_sec: float) -> None:
        """Start no thread yet.

        Args:
            threads: Jobs that run at a time.
            max_wait_sec: How long a call may wait for its first job to begin.
        """
        self._max_wait_sec: Final = max_wait_sec
        self._threads: Final = ThreadPoolExecutor(threads, thread_name_prefix="worker")

    async def run(self, jobs: Sequence[Callable[[], Result]]) -> list[Result]:
        """Run jobs in parallel; give their results in order.

        Jobs that have not begun when one fails, or when the caller is cancelled, never run.

        Raises:
            Busy: The turn came too late. It is notified of when it comes: a response now would not
                shorten the queue.
        """
        loop = asyncio.get_running_loop()
        wait = _Wait(self._max_wait_sec)
        waiting = [
            # A copy each, so that what a job notes is noted of this request.
            loop.run_in_executor(self._threads, contextvars.copy_context().run, wait.run, job)
            for job in jobs
        ]
        try:
            return list(await asyncio.gather(*waiting))
        finally:
            for future in waiting:
                future.cancel()

    def stop(self) -> None:
        """End the threads once their present jobs are done."""
        self._threads.shutdown(wait=False, cancel_futures=True)


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
