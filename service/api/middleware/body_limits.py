"""How much and how slowly a body may come, and errors in one shape, whatever raised them."""

import asyncio
import logging
import math
from collections import Counter
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.caller import caller_id
from service.api.endpoint import endpoint_at
from service.api.parsing.multipart import is_form
from service.api.responses import error_response
from service.errors import ApiError, Busy, SlowClient, TooLarge
from service.settings import Settings
from service.telemetry.observation import current, note_rejection

logger = logging.getLogger(__name__)

# Boundaries and the other fields of a multipart body.
MULTIPART_OVERHEAD_BYTES: Final = 100_000
# What a client must at least send, and read, once its time for a start is over.
MIN_BYTES_PER_SEC: Final = 1_000
ARRIVAL_RETRY_SEC: Final = 5


class BodyLimits:
    """ASGI middleware around the FastAPI app."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        """Wrap `app`."""
        self._app: Final = app
        self._settings: Final = settings
        largest = settings.max_upload_bytes + MULTIPART_OVERHEAD_BYTES
        self._arriving: Final = _Arriving(math.ceil(settings.max_pending_uploads / 2) * largest)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        exchange = _BoundedExchange(scope, receive, send, self._arriving)
        try:
            exchange.limit_body(
                self._body_limit(scope["path"], exchange.headers), self._settings.body_timeout_sec
            )
            await self._app(scope, exchange.receive, exchange.send)
        except ApiError as error:
            if error.status == TooLarge.status and _takes_photos(scope["path"], exchange.headers):
                note_rejection(error.code)
            await exchange.fail(error)
        except ClientDisconnect:
            pass  # nobody is there to get a response
        except Exception:
            observed = current()
            logger.exception("request %s failed", observed.request_id if observed else "")
            await exchange.fail(ApiError("something went wrong; see the service's log"))
        finally:
            exchange.forget_body()

    def _body_limit(self, path: str, headers: Headers) -> int:
        if _takes_photos(path, headers):
            return self._settings.max_upload_bytes + MULTIPART_OVERHEAD_BYTES
        return self._settings.max_json_bytes


def _takes_photos(path: str, headers: Headers) -> bool:
    endpoint = endpoint_at(path)
    if endpoint is None:
        return False
    return endpoint.body == "form" or (endpoint.body == "json or form" and is_form(headers))


class _Arriving:
    """Bytes of bodies that are not complete, which have no slot in a queue yet.

    A caller may have half of them: slow senders keep nobody else from sending.
    """

    def __init__(self, limit: int) -> None:
        """Hold nothing yet; `limit` is of one caller."""
        self._limit: Final = limit
        self._by_caller: Final = Counter[str]()

    def add(self, name: str, count: int) -> None:
        """Make room for bytes of the caller `name`.

        Raises:
            Busy: There is none.
        """
        own, total = self._by_caller[name] + count, self._by_caller.total() + count
        if own > self._limit or total > 2 * self._limit:
            raise Busy(
                "too many bodies come in slowly: send fewer at a time",
                retry_after_sec=ARRIVAL_RETRY_SEC,
            )
        self._by_caller[name] = own

    def remove(self, name: str, count: int) -> None:
        """Let go of bytes that `add` took."""
        self._by_caller[name] -= count
        if not self._by_caller[name]:
            del self._by_caller[name]


class _BoundedExchange:
    """One request and its response, watched as they pass."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, arriving: _Arriving) -> None:
        self.headers: Final = Headers(scope=scope)
        self._scope: Final = scope
        self._answering = False
        self._receive: Final = receive
        self._send: Final = send
        self._arriving: Final = arriving
        self._limit = 0
        self._held: tuple[str, int] = ("", 0)
        self._received = 0
        self._complete = False
        self._deadline = 0.0

    def limit_body(self, limit: int, start_sec: float) -> None:
        """Refuse bodies over `limit` bytes: at once if declared so, else while they come in.

        One that comes slowly has `start_sec`, and more time for each byte that came.
        """
        self._limit = limit
        self._deadline = asyncio.get_running_loop().time() + start_sec
        declared = self.headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > limit:
            raise _too_large(limit)

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()  # waits for the client to leave
        try:
            deadline = self._deadline + self._received / MIN_BYTES_PER_SEC
            async with asyncio.timeout_at(deadline):
                message = await self._receive()
        except TimeoutError:
            raise SlowClient(
                f"the body came too slowly: {self._received} bytes until now"
            ) from None
        self._received += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self._received > self._limit:
            raise _too_large(self._limit)
        self.forget_body()
        if not self._complete:
            self._hold_body(caller_id(self._scope))
        return message

    def _hold_body(self, name: str) -> None:
        self._arriving.add(name, self._received)
        self._held = (name, self._received)

    def forget_body(self) -> None:
        """Let go of what counts as arriving: all is there, or the request is over."""
        name, count = self._held
        if count:
            self._arriving.remove(name, count)
        self._held = ("", 0)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._answering = True
            headers = MutableHeaders(scope=message)
            headers["X-Content-Type-Options"] = "nosniff"
            headers.setdefault("Cache-Control", "no-store")
        await self._send(message)

    async def fail(self, error: ApiError) -> None:
        """Answer with an error, unless a response has begun."""
        if self._answering:
            return
        await error_response(error)(self._scope, self._receive, self.send)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body has more than {limit} bytes", code="body_too_large")
