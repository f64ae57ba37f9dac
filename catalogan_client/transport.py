"""Sends calls, with retries: once for threads, once for asyncio."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, TypeVar

import httpx

from catalogan_client.calls import Call
from catalogan_client.datasets import AsyncDataset, Dataset
from catalogan_client.errors import connection_error, status_error
from catalogan_client.results import DatasetFacts
from catalogan_client.retries import Attempts, Outcome

Result = TypeVar("Result")


class Transport:
    """Sends from any number of threads."""

    def __init__(self, http: httpx.Client, max_retries: int) -> None:
        """Send by `http`, which is closed with this."""
        self.http: Final = http
        self._max_retries: Final = max_retries

    def send(self, call: Call[Result]) -> Result:
        """Make one call, in up to `max_retries` more tries."""
        with self._answer(call) as response:
            return call.read(response)

    @contextmanager
    def stream(self, call: Call[DatasetFacts]) -> Iterator[Dataset]:
        """Make a call whose response is taken as it comes; no retry once it has begun."""
        with self._answer(call, stream=True) as response:
            yield Dataset(call.read(response), response)

    @contextmanager
    def _answer(self, call: Call[Result], *, stream: bool = False) -> Iterator[httpx.Response]:
        request = self.http.build_request(call.method, call.path, **call.arguments())
        attempts = Attempts(self._max_retries)
        while True:
            outcome = self._try(request, stream)
            wait_sec = attempts.wait_after(outcome)
            if wait_sec is None:
                break
            time.sleep(wait_sec)
        response = _accept(outcome)
        try:
            yield response
        finally:
            response.close()

    def _try(self, request: httpx.Request, stream: bool) -> Outcome:
        try:
            response = self.http.send(request, stream=stream)
            if not response.is_success:
                response.read()
            return response
        except httpx.RequestError as error:
            return error


class AsyncTransport:
    """Sends from one event loop of asyncio."""

    def __init__(self, http: httpx.AsyncClient, max_retries: int) -> None:
        """Send by `http`, which is closed with this."""
        self.http: Final = http
        self._max_retries: Final = max_retries

    async def send(self, call: Call[Result]) -> Result:
        """Make one call, in up to `max_retries` more tries."""
        async with self._answer(call) as response:
            return call.read(response)

    @asynccontextmanager
    async def stream(self, call: Call[DatasetFacts]) -> AsyncIterator[AsyncDataset]:
        """Make a call whose response is taken as it comes; no retry once it has begun."""
        async with self._answer(call, stream=True) as response:
            yield AsyncDataset(call.read(response), response)

    @asynccontextmanager
    async def _answer(
        self, call: Call[Result], *, stream: bool = False
    ) -> AsyncIterator[httpx.Response]:
        # Files are read from a disk: not on the event loop's time.
        arguments = await asyncio.to_thread(call.arguments) if call.files else call.arguments()
        request = self.http.build_request(call.method, call.path, **arguments)
        attempts = Attempts(self._max_retries)
        while True:
            outcome = await self._try(request, stream)
            wait_sec = attempts.wait_after(outcome)
            if wait_sec is None:
                break
            await asyncio.sleep(wait_sec)
        response = _accept(outcome)
        try:
            yield response
        finally:
            await response.aclose()

    async def _try(self, request: httpx.Request, stream: bool) -> Outcome:
        try:
            response = await self.http.send(request, stream=stream)
            if not response.is_success:
                await response.aread()
            return response
        except httpx.RequestError as error:
            return error


def _accept(outcome: Outcome) -> httpx.Response:
    """Take a response that is a success.

    Raises:
        CataloganError: It is none.
    """
    if isinstance(outcome, httpx.RequestError):
        raise connection_error(outcome) from outcome
    if not outcome.is_success:
        raise status_error(outcome)
    return outcome
