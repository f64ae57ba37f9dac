"""A labelled set that is coming: taken chunk by chunk, or saved."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import httpx

from catalogan_client.errors import connection_error
from catalogan_client.results import DatasetFacts


class _Coming:
    """What both kinds of set share."""

    def __init__(self, facts: DatasetFacts, response: httpx.Response) -> None:
        """Take an answer that has just begun."""
        self.facts: Final = facts
        self._response: Final = response


class Dataset(_Coming):
    """The archive's bytes, once; made by the service as they are taken."""

    def __iter__(self) -> Iterator[bytes]:
        """Give the archive chunk by chunk.

        Raises:
            APIConnectionError: It broke off.
        """
        with _breaking_off():
            yield from self._response.iter_bytes()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the archive; a file of this name is there only when it is whole.

        Raises:
            APIConnectionError: It broke off.
        """
        with _whole_file(Path(path)) as file:
            for chunk in self:
                file.write(chunk)
        return Path(path)


class AsyncDataset(_Coming):
    """As `Dataset`, for asyncio."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Give the archive chunk by chunk.

        Raises:
            APIConnectionError: It broke off.
        """
        with _breaking_off():
            async for chunk in self._response.aiter_bytes():
                yield chunk

    async def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the archive; a file of this name is there only when it is whole.

        Raises:
            APIConnectionError: It broke off.
        """
        with _whole_file(Path(path)) as file:
            async for chunk in self:
                await asyncio.to_thread(file.write, chunk)
        return Path(path)


@contextmanager
def _breaking_off() -> Iterator[None]:
    try:
        yield
    except httpx.RequestError as error:
        raise connection_error(error) from error


@contextmanager
def _whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that gets its name when all is written, and is gone where that fails."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
