"""Token buckets: how fast each key may call."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from service.access.api_keys import ApiKey

MINUTE_SEC: Final = 60.0


@dataclass(frozen=True)
class Allowance:
    """What a bucket says of one request.

    Attributes:
        limit: Requests a minute, and at once after a minute's rest.
        remaining: Requests that could follow at once.
        reset_sec: Until the bucket is full.
        wait_sec: Until this request may be sent again; 0 = it may pass.
    """

    limit: int
    remaining: int
    reset_sec: float
    wait_sec: float

    @property
    def headers(self) -> dict[str, str]:
        """As the OpenAI API names them; clients know these."""
        return {
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(self.remaining),
            "x-ratelimit-reset-requests": f"{self.reset_sec:.2f}s",
        }


class Rates:
    """The buckets of all keys of this process; only the event loop uses them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with full buckets."""
        self._clock: Final = clock
        self._spent: dict[str, tuple[float, float]] = {}

    def take(self, key: ApiKey) -> Allowance | None:
        """Count a request of `key`; None where it has no rate."""
        if key.rate is None:
            return None
        limit = int(key.rate.partition("/")[0])
        per_sec = limit / MINUTE_SEC
        now = self._clock()
        spent, then = self._spent.get(key.id, (0.0, now))
        spent = max(0.0, spent - (now - then) * per_sec)
        wait_sec = max(0.0, (spent + 1 - limit) / per_sec)
        if wait_sec == 0:
            spent += 1
        self._spent[key.id] = (spent, now)
        return Allowance(limit, int(limit - spent), spent / per_sec, wait_sec)
