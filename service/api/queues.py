"""Bounded queues, and the time that a request may take."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from service.errors import Busy, NotReady, TimedOut
from service.telemetry.metrics import Metrics


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
            metrics: Is notified of the queue's length.
        """
        self._limit: Final = limit
        self._length: Final = metrics.pending.labels(name)
        self._pending = 0
        self._mean_sec = 0.2
        self.draining = False

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold a slot for one request.

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
