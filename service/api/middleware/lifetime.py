"""How long a request is served: while its client is there, and no longer than its time."""

import asyncio
import logging
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.caller import caller_id
from service.api.endpoint import endpoint_at
from service.api.responses import error_response
from service.errors import TimedOut
from service.inference.workers import caller
from service.settings import Settings

logger = logging.getLogger(__name__)

# At the end of the process, when all other requests have ended.
FINISH_SEC: Final = 5.0


class Lifetime:
    """ASGI middleware: serves each request in a task of its own, which can be cancelled.

    What is cancelled stops before its next image. It keeps its slots and locks until the image
    that is being created has ended, but a client whose time is up hears so at once.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        """Wrap `app`."""
        self._app: Final = app
        self._limit_sec: Final = settings.request_timeout_sec
        self._ending: Final = set[asyncio.Task[None]]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, until its client leaves or its time is up.

        One with an Idempotency-Key is served although its client left: a retry gets the response.
        """
        exchange = _Exchange(receive, send, watched=not _may_be_retried(scope))
        serving = exchange.serve(self._app, scope)
        try:
            await asyncio.wait([serving], timeout=self._limit_sec)
            if serving.done() or exchange.begun or exchange.left:
                await asyncio.wait([serving])
            else:
                self._abandon(serving, exchange)
                error = TimedOut(f"it took longer than {self._limit_sec:g} s")
                await error_response(error)(scope, receive, send)
                return
        except asyncio.CancelledError:
            self._abandon(serving, exchange)
            raise
        finally:
            exchange.stop_watching()
        if not (exchange.left and serving.cancelled()):  # then nobody gets to see what became of it
            serving.result()

    async def finish(self) -> None:
        """Wait, for a while, until those that were answered with a 504 have put all back."""
        if self._ending:
            await asyncio.wait(self._ending, timeout=FINISH_SEC)

    def _abandon(self, serving: asyncio.Task[None], exchange: "_Exchange") -> None:
        exchange.over = True
        serving.cancel()
        self._ending.add(serving)  # asyncio itself would forget it
        serving.add_done_callback(self._note_end)

    def _note_end(self, ended: asyncio.Task[None]) -> None:
        self._ending.discard(ended)
        if not ended.cancelled() and (error := ended.exception()) is not None:
            logger.error("a request failed after its time was up", exc_info=error)


def _may_be_retried(scope: Scope) -> bool:
    """Whether a response is stored for an Idempotency-Key: of what creates images for a key."""
    endpoint = endpoint_at(scope["path"])
    creates = endpoint is not None and endpoint.scope == "generate"
    return creates and "idempotency-key" in Headers(scope=scope)


class _Exchange:
    """One request and its response, watched as they pass.

    Attributes:
        begun: The response has begun.
        left: The client is gone.
        over: What the application still sends goes nowhere.
    """

    def __init__(self, receive: Receive, send: Send, *, watched: bool) -> None:
        self.begun = False
        self.left = False
        self.over = False
        self._receive: Final = receive
        self._send: Final = send
        self._watched: Final = watched
        self._serving: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None

    def serve(self, app: ASGIApp, scope: Scope) -> asyncio.Task[None]:
        """Start the task that serves the request for its caller."""

        async def serve() -> None:
            caller.set(caller_id(scope))
            await app(scope, self.receive, self.send)

        self._serving = asyncio.create_task(serve())
        return self._serving

    async def receive(self) -> Message:
        message = await self._receive()
        complete = message["type"] == "http.request" and not message.get("more_body", False)
        if complete and self._watched:
            self._start_watching()
        return message

    async def send(self, message: Message) -> None:
        if self.over:
            return
        self.begun = True
        if message.get("more_body", False):
            self._start_watching()  # whoever leaves a stream gets none of the rest
        elif message["type"] == "http.response.body":
            self.stop_watching()  # a client may leave with its response
        await self._send(message)

    def _start_watching(self) -> None:
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch())

    def stop_watching(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()

    async def _watch(self) -> None:
        """Cancel the serving when the client leaves."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left = True
        if self._serving is not None:
            self._serving.cancel()
