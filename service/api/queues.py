"""Bounded queues of requests, none of which one caller can fill for all."""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from service.errors import Busy, NotReady
from service.inference.workers import caller
from service.telemetry.metrics import Metrics


class Queue:
    """Counts the requests of one kind that are being served; refuses those over a limit.

    A full queue still admits callers that have less than their share in it, one request at least,
    up to as many again: nobody waits for whoever filled it.
    """

    def __init__(self, name: str, limit: int, metrics: Metrics) -> None:
        """Be empty.

        Args:
            name: The kind of request, for the metrics.
            limit: Requests that may be there at a time.
            metrics: Is notified of the queue's length.
        """
        self._limit: Final = limit
        self._length: Final = metrics.pending.labels(name)
        self._by_caller: Final = Counter[str]()
        self._mean_sec = 0.2
        self.draining = False

    def check(self) -> None:
        """Refuse what would get no slot, before its body is read for nothing.

        Raises:
            Busy: The queue is full; Retry-After says when half of it should be done.
            NotReady: The service is shutting down.
        """
        if self.draining:
            raise NotReady("the service is shutting down", retry_after_sec=5)
        pending = self._by_caller.total()
        if pending < self._limit:
            return
        own = self._by_caller.get(caller.get(), 0)
        share = max(1, self._limit // (len(self._by_caller) + (own == 0)))
        if own >= share or pending >= 2 * self._limit:
            wait_sec = min(60, max(1, math.ceil(self._mean_sec / 2)))
            raise Busy(f"{pending} requests wait already", retry_after_sec=wait_sec)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold a slot for one request.

        Raises:
            Busy, NotReady: As of `check`.
        """
        self.check()
        loop = asyncio.get_running_loop()
        started, name = loop.time(), caller.get()
        self._count(name, 1)
        try:
            yield
        finally:
            self._count(name, -1)
            self._mean_sec += 0.1 * (loop.time() - started - self._mean_sec)

    def _count(self, name: str, change: int) -> None:
        self._by_caller[name] += change
        if not self._by_caller[name]:
            del self._by_caller[name]
        self._length.set(self._by_caller.total())
