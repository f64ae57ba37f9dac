"""Uploaded photos, decoded one at a time."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from models.images import ImageLimits
from service.inference.workers import Workers, one_at_a_time
from service.telemetry.observation import stage

Decoded = TypeVar("Decoded")


class Decoder:
    """Decodes one upload at a time: a photo takes up to half a gigabyte on its way."""

    def __init__(self, workers: Workers, limits: ImageLimits) -> None:
        """Decode on `workers`, within `limits`."""
        self._workers: Final = workers
        self._lock: Final = asyncio.Semaphore(1)
        self.limits: Final = limits

    async def decode(self, how: Callable[[bytes, ImageLimits], Decoded], data: bytes) -> Decoded:
        """Run `how` on a worker when it is this upload's turn."""
        async with one_at_a_time(self._lock):
            (decoded,) = await self._workers.run([partial(_decode, how, data, self.limits)])
        return decoded


def _decode(
    how: Callable[[bytes, ImageLimits], Decoded], data: bytes, limits: ImageLimits
) -> Decoded:
    with stage("decode"):
        return how(data, limits)
