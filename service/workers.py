"""A bounded queue in front of the threads that make pictures."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from service.errors import Busy, NotReady, TimedOut
from service.metrics import Metrics
from service.settings import Settings

Made = TypeVar("Made")


class Workers:
    """Runs jobs on a fixed number of threads; refuses what would wait too long.

    Attributes:
        draining: Set when the service shuts down; new requests are refused from then on.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        """Start no thread yet."""
        self._settings: Final = settings
        self._metrics: Final = metrics
        self._threads: Final = ThreadPoolExecutor(settings.workers, thread_name_prefix="worker")
        self._pending = 0
        self._request_sec = 0.1
        self.draining = False

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place in the queue for one request, for at most the time limit.

        Raises:
            Busy: The queue is full.
            NotReady: The service is shutting down.
            TimedOut: What was done inside took longer than the limit.
        """
        if self.draining:
            raise NotReady("the service is shutting down", retry_after_sec=5)
        if self._pending >= self._settings.max_pending_requests:
            wait_sec = self._pending * self._request_sec / self._settings.workers
            raise Busy(
                f"{self._pending} requests wait already",
                retry_after_sec=min(60, max(1, math.ceil(wait_sec))),
            )
        self._pending += 1
        self._metrics.pending.set(self._pending)
        limit_sec = self._settings.request_timeout_sec
        try:
            async with asyncio.timeout(limit_sec):
                yield
        except TimeoutError:
            raise TimedOut(f"it took longer than {limit_sec:g} s") from None
        finally:
            self._pending -= 1
            self._metrics.pending.set(self._pending)

    async def run(self, jobs: Sequence[Callable[[], Made]]) -> list[Made]:
        """Run jobs on the threads, in parallel; give their results in order.

        Jobs that have not begun when one fails, or at the time limit, never run.
        """
        started = time.perf_counter()
        loop = asyncio.get_running_loop()
        waiting = [loop.run_in_executor(self._threads, job) for job in jobs]
        try:
            results = list(await asyncio.gather(*waiting))
        finally:
            for future in waiting:
                future.cancel()
        self._request_sec += 0.1 * (time.perf_counter() - started - self._request_sec)
        return results

    def stop(self) -> None:
        """End the threads once their present jobs are done."""
        self.draining = True
        self._threads.shutdown(wait=False, cancel_futures=True)
