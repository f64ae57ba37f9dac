"""Uploaded photos, decoded a few at a time and apart from the threads that generate images."""

from collections.abc import Callable
from typing import Final, TypeVar

from models.images import ImageLimits
from service.decoding.processes import DecodingProcesses
from service.inference.workers import Workers
from service.telemetry.observation import stage

Decoded = TypeVar("Decoded")

# One file that takes long never holds up all others; more would only take memory.
_FEWEST: Final = 2
_MOST: Final = 4


class Decoder:
    """Decodes uploads in processes of their own; a thread of its own waits for each."""

    def __init__(self, cores: int, max_wait_sec: float, limits: ImageLimits) -> None:
        """Start no process yet.

        Args:
            cores: Number of a caller's files to decode at a time, within reason.
            max_wait_sec: How long an upload may wait for its turn.
            limits: Of each file.
        """
        # And one that the next caller never waits for, whatever one caller's files take.
        count = max(_FEWEST, min(cores, _MOST)) + 1
        self._threads: Final = Workers(count, max_wait_sec, spare=True)
        self._processes: Final = DecodingProcesses(count, limits)

    async def run(self, how: Callable[[DecodingProcesses], Decoded]) -> Decoded:
        """Run `how` on a thread when it is this upload's turn.

        Raises:
            Busy: The turn came too late.
        """
        (decoded,) = await self._threads.run([lambda: self._decode(how)])
        return decoded

    def call(self, how: Callable[[DecodingProcesses], Decoded]) -> Decoded:
        """As `run`, for a thread, which waits.

        Raises:
            Busy: The turn came too late.
        """
        return self._threads.call(lambda: self._decode(how))

    def stop(self) -> None:
        """End processes and threads; what is being decoded is given up."""
        self._processes.close()
        self._threads.stop()

    def _decode(self, how: Callable[[DecodingProcesses], Decoded]) -> Decoded:
        with stage("decode"):
            return how(self._processes)
