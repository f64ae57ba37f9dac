"""A lock that callers take in turn, however many requests each has waiting."""

import asyncio
from collections import deque
from itertools import count
from typing import Final

from service.inference.workers import caller


class FairLock:
    """Held by one request at a time; next comes the caller who last had it longest ago."""

    def __init__(self) -> None:
        """Be free."""
        self._held = False
        self._waiting: Final[dict[str, deque[asyncio.Future[None]]]] = {}
        self._order: Final = count(1)
        self._last: Final[dict[str, int]] = {}

    async def acquire(self) -> None:
        """Wait for the lock."""
        name = caller.get()
        if not self._held:
            self._held = True
            self._last[name] = next(self._order)
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it came in the same moment
                self.release()
            raise

    def release(self) -> None:
        """Hand it to whose turn it is."""
        while self._waiting:
            name = min(self._waiting, key=lambda name: self._last.get(name, 0))
            turns = self._waiting[name]
            turn = turns.popleft()
            if not turns:
                del self._waiting[name]
            if not turn.done():
                self._last[name] = next(self._order)
                turn.set_result(None)
                return
        self._held = False
