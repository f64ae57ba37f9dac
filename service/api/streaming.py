"""A response that is created while it is sent."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Final

from fastapi.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from service.api.runtime import Runtime

logger = logging.getLogger(__name__)

_BODY: Final = "http.response.body"


class DatasetStream(StreamingResponse):
    """A response whose next chunk is created when the last has been read.

    There is no limit on the whole, but one on the client's reading each chunk.
    """

    def __init__(
        self, runtime: Runtime, chunks: AsyncGenerator[bytes, None], headers: dict[str, str]
    ) -> None:
        super().__init__(chunks, headers=headers)
        self._chunks: Final = chunks
        self._held = AsyncExitStack()
        self._endings: Final = runtime.metrics.streams
        self._limit_sec: Final = runtime.settings.request_timeout_sec
        self._ending = "disconnected"

    def hold(self, held: AsyncExitStack) -> None:
        """Close `held`, such as a slot in a queue, when all is sent or the client is gone."""
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; whoever notices that the client is gone cancels this."""
        async with self._held, aclosing(self._chunks):
            try:
                await self.stream_response(send)
            except _Stalled:
                pass  # the server closes the connection of a response without an end
            finally:
                self._endings.labels(self._ending).inc()
                if self._ending != "complete":
                    logger.warning("a dataset's stream broke off: %s", self._ending)

    async def stream_response(self, send: Send) -> None:
        """Send chunk by chunk; what fails before the first still gets a response of its own."""
        chunk = await self._next()
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await self._send(send, start)
        while chunk is not None:
            await self._send(send, {"type": _BODY, "body": chunk, "more_body": True})
            chunk = await self._next()
        await self._send(send, {"type": _BODY, "body": b"", "more_body": False})
        self._ending = "complete"

    async def _next(self) -> bytes | None:
        try:
            return await anext(self._chunks, None)
        except Exception:
            self._ending = "failed"
            raise

    async def _send(self, send: Send, message: Message) -> None:
        try:
            async with asyncio.timeout(self._limit_sec):
                await send(message)
        except TimeoutError:
            self._ending = "stalled"
            raise _Stalled from None


class _Stalled(Exception):
    """The client takes nothing any more."""
