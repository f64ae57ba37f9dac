"""Bounded queues in front of the threads that make pictures."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from service.errors import Busy, NotReady, TimedOut
from service.http.metrics import Metrics

Made = TypeVar("Made")


@asynccontextmanager
async def time_limit(limit_sec: float) -> AsyncIterator[None]:
    """Turn what takes longer into an error.

    Raises:
        TimedOut: After `limit_sec`.
    """
    try:
        async with asyncio.timeout(limit_sec):
            yield
    except TimeoutError:
        raise TimedOut(f"it took longer than {limit_sec:g} s") from None


class Queue:
    """Counts the requests of one kind that are being served; refuses those over a limit."""

    def __init__(self, name: str, limit: int, metrics: Metrics) -> None:
        """Be empty.

        Args:
            name: The kind of request, for the metrics.
            limit: Requests that may be there at a time.
            metrics: Is told the queue's length.
        """
        self._limit: Final = limit
        self._length: Final = metrics.pending.labels(name)
        self._pending = 0
        self._mean_sec = 0.2
        self.draining = False

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place for one request.

        Raises:
            Busy: The queue is full; Retry-After says when half of it should be done.
            NotReady: The service is shutting down.
        """
        if self.draining:
            raise NotReady("the service is shutting down", retry_after_sec=5)
        if self._pending >= self._limit:
            wait_sec = min(60, max(1, math.ceil(self._mean_sec / 2)))
            raise Busy(f"{self._pending} requests wait already", retry_after_sec=wait_sec)
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._pending += 1
        self._length.set(self._pending)
        try:
            yield
        finally:
            self._pending -= 1
            self._length.set(self._pending)
            self._mean_sec += 0.1 * (loop.time() - started - self._mean_sec)


class Workers:
    """Runs jobs on a fixed number of threads."""

    def __init__(self, threads: int) -> None:
        """Start no thread yet."""
        self._threads: Final = ThreadPoolExecutor(threads, thread_name_prefix="worker")

    async def run(self, jobs: Sequence[Callable[[], Made]]) -> list[Made]:
        """Run jobs in parallel; give their results in order.

        Jobs that have not begun when one fails, or when the caller is cancelled, never run.
        """
        loop = asyncio.get_running_loop()
        waiting = [loop.run_in_executor(self._threads, job) for job in jobs]
        try:
            return list(await asyncio.gather(*waiting))
        finally:
            for future in waiting:
                future.cancel()

    def stop(self) -> None:
        """End the threads once their present jobs are done."""
        self._threads.shutdown(wait=False, cancel_futures=True)
