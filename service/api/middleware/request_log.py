"""The outermost layer of the public API: request ids, log lines, metrics, timings and traces."""

import logging
import re
import uuid
from collections.abc import Sequence
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.endpoint import METRICS
from service.telemetry import observation
from service.telemetry.metrics import Metrics, known_method
from service.telemetry.observation import Observation
from service.telemetry.tracing import Span, Tracing

logger = logging.getLogger(__name__)

UNMATCHED: Final = "unmatched"
# What a client that left before its response began is counted as; nobody gets to see it.
CLIENT_CLOSED: Final = 499
# Requested every few seconds by a machine: counted, not logged.
UNLOGGED: Final = frozenset({METRICS.path})
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class RequestLog:
    """ASGI middleware around all that serves requests."""

    def __init__(
        self, app: ASGIApp, routes: Sequence[BaseRoute], metrics: Metrics, tracing: Tracing | None
    ) -> None:
        """Wrap `app`; `routes` are its routes, whose templates name what is refused early."""
        self._app: Final = app
        self._templates: Final = [
            (route.path_regex, route.path) for route in routes if isinstance(route, Route)
        ]
        self._metrics: Final = metrics
        self._tracing: Final = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _ObservedExchange(scope, receive, send)
        span = self._tracing.begin(exchange.headers) if self._tracing else None
        exchange.observed.trace_id = span.trace_id if span else None
        token = observation.begin(exchange.observed)
        self._metrics.in_progress.inc()
        try:
            await self._app(scope, exchange.receive, exchange.send)
        finally:
            self._metrics.in_progress.dec()
            self._record(scope, exchange, span)
            observation.end(token)

    def _record(self, scope: Scope, exchange: "_ObservedExchange", span: Span | None) -> None:
        method, route = known_method(scope["method"]), self._template(scope)
        status, observed = exchange.status or CLIENT_CLOSED, exchange.observed
        self._metrics.observe(route, method, status, observed)
        if span is not None:
            span.finish(method, route, status, observed)
        if route not in UNLOGGED:
            fields = _log_fields(exchange, method, route, status)
            logger.info("%s %s %d", method, route, status, extra={"fields": fields})

    def _template(self, scope: Scope) -> str:
        """The route's template, also where the request was refused before it was routed."""
        matched = getattr(scope.get("route"), "path", "")
        if matched:
            return str(matched)
        path = scope["path"]
        return next((known for regex, known in self._templates if regex.match(path)), UNMATCHED)


class _ObservedExchange:
    """One request and its response, watched as they pass."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers: Final = Headers(scope=scope)
        given = self.headers.get("x-request-id", "")
        self.observed: Final = Observation(
            given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        )
        self.status: int | None = None
        self.bytes_in = 0
        self.bytes_out = 0
        self._receive: Final = receive
        self._send: Final = send

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and self.status is None:
            self.status = CLIENT_CLOSED
        self.bytes_in += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = self.status or message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.observed.request_id
            headers["Server-Timing"] = server_timing(self.observed)
        self.bytes_out += len(message.get("body", b""))
        await self._send(message)


def server_timing(observed: Observation) -> str:
    """The header of that name, in ms: the stages so far, and the total till now."""
    spent = [*observed.stage_seconds().items(), ("total", observed.seconds())]
    return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in spent)


def _log_fields(
    exchange: _ObservedExchange, method: str, route: str, status: int
) -> dict[str, Any]:
    observed = exchange.observed
    fields = {
        "method": method,
        "route": route,
        "status": status,
        "duration_ms": round(observed.seconds() * 1000, 1),
        "bytes_in": exchange.bytes_in,
        "bytes_out": exchange.bytes_out,
        "key": observed.key,
        "model": observed.model,
        "rejection": observed.rejection,
        **{f"{name}_ms": round(s * 1000, 1) for name, s in observed.stage_seconds().items()},
    }
    return {name: value for name, value in fields.items() if value is not None}
