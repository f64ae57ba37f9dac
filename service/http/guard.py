"""The outermost layer of the public API: body caps, request ids, logs and metrics."""

import json
import logging
import re
import time
import uuid
from collections.abc import Mapping
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ApiError, TooLarge
from service.http.metrics import Metrics
from service.settings import Settings

logger = logging.getLogger(__name__)

UPLOAD_PATHS: Final = frozenset({"/v1/images/augmentations", "/v1/images/variations"})
# Boundaries and the other fields of a multipart body.
MULTIPART_OVERHEAD_BYTES: Final = 100_000
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Guard:
    """ASGI middleware around the FastAPI app."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        """Wrap `app`."""
        self._app: Final = app
        self._settings: Final = settings
        self._metrics: Final = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        exchange = _Exchange(scope, receive, send)
        started = time.perf_counter()
        try:
            exchange.limit_body(self._body_limit(scope["path"]))
            await self._app(scope, exchange.receive, exchange.send)
        except ApiError as error:
            await exchange.fail(error)
        except Exception:
            logger.exception("request %s failed", exchange.request_id)
            await exchange.fail(ApiError("something went wrong; the log knows more"))
        finally:
            self._record(scope, exchange, time.perf_counter() - started)

    def _body_limit(self, path: str) -> int:
        if path in UPLOAD_PATHS:
            return self._settings.max_upload_bytes + MULTIPART_OVERHEAD_BYTES
        return self._settings.max_json_bytes

    def _record(self, scope: Scope, exchange: "_Exchange", seconds: float) -> None:
        # BentoML's mount leaves an empty one behind where none of our routes matched.
        route = getattr(scope.get("route"), "path", "") or "unmatched"
        method, status = scope["method"], exchange.status or 499
        self._metrics.observe(route, method, status, seconds)
        if route != "/metrics":
            logger.info(
                "%s %s %d %.1f ms id=%s",
                method[:10],
                route,
                status,
                seconds * 1000,
                exchange.request_id,
            )


class _Exchange:
    """One request and its answer, watched as they pass."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers: Final = Headers(scope=scope)
        given = self.headers.get("x-request-id", "")
        self.request_id: Final = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        self.status: int | None = None
        self._receive: Final = receive
        self._send: Final = send
        self._limit = 0
        self._received = 0

    def limit_body(self, limit: int) -> None:
        """Refuse bodies over `limit` bytes: at once if declared so, else while they come in."""
        self._limit = limit
        declared = self.headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > limit:
            raise _too_large(limit)

    async def receive(self) -> Message:
        message = await self._receive()
        self._received += len(message.get("body", b""))
        if self._received > self._limit:
            raise _too_large(self._limit)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.request_id
            headers["X-Content-Type-Options"] = "nosniff"
            headers.setdefault("Cache-Control", "no-store")
        await self._send(message)

    async def fail(self, error: ApiError) -> None:
        """Answer with an error, unless an answer has begun."""
        if self.status is not None:
            return
        # ASCII escapes hold even the lone surrogates that JSON requests can carry.
        body = json.dumps(error.body()).encode("ascii")
        headers: Mapping[str, str] = {
            **error.headers,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
        }
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": error.status, "headers": raw})
        await self.send({"type": "http.response.body", "body": body})


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body has more than {limit} bytes", code="body_too_large")
