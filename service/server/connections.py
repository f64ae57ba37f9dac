"""Connections that can't be held for nothing: slow, endless and unread ones are ended.

uvicorn bounds a connection only while it idles between requests. Here each one,
when checked, ends itself if its client has used up its time:

head   the first request or a new one is awaited or coming in; ends in 408, or 431 if too long
body   the app has the request, and its middleware watches the body
rest   it got its response before its body had come: what still comes is thrown away, for a while,
       as a client that gets a reset might never see the response
idle   between requests
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.middleware.body_limits import MIN_BYTES_PER_SEC
from service.errors import ApiError, BadRequest, HeadTooLarge, NotReady, SlowClient
from service.settings import Settings

MAX_HEAD_BYTES: Final = 64_000
# Of chunks' extensions and of headers behind a body, at a stretch: nobody needs either.
MAX_BARE_BYTES: Final = 500_000
Phase = Literal["head", "body", "rest", "idle"]


@dataclass(frozen=True)
class Watch:
    """What connections are measured by.

    Attributes:
        settings: The service's.
        on_end: Is notified of in a word why a connection was ended.
    """

    settings: Settings
    on_end: Callable[[str], None]


def watched_protocol(watch: Watch) -> type["WatchedConnection"]:
    """The protocol class for uvicorn, which creates the instances itself."""
    return type("Connection", (WatchedConnection,), {"watch": watch})


def end_overdue(connections: Iterable[Any], now: float) -> None:
    """Check all connections; call it once or twice a second. `now` is of the event loop's clock."""
    for connection in list(connections):
        if isinstance(connection, WatchedConnection):
            connection.end_if_overdue(now)


class WatchedConnection(HttpToolsProtocol):
    """One connection of uvicorn's, with an eye on its client."""

    watch: ClassVar[Watch]

    def connection_made(self, transport: Any) -> None:
        """Await a first request; make room for it where there are too many connections."""
        super().connection_made(transport)
        self._phase: Phase = "head"
        self._since = self.loop.time()
        self._head_bytes = 0
        self._bare_bytes = 0
        self._unread: tuple[int, float] | None = None
        self._serving: Any = None
        if len(self.connections) > self.watch.settings.max_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that is being served, too, where others have come behind it."""
        super().connection_lost(exc)
        if self._serving is not None and not self._serving.response_complete:
            self._serving.disconnected = True
            self._serving.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Parse what came; of a head only so much."""
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._phase in ("body", "rest"):
            self._bare_bytes += len(data)
            if self._bare_bytes > MAX_BARE_BYTES:
                self._end("bare_body", None)
        elif self._phase == "head":
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._end(
                    "head_too_large", HeadTooLarge(f"the headers have over {MAX_HEAD_BYTES} bytes")
                )

    def on_message_begin(self) -> None:
        """A head begins to come in."""
        super().on_message_begin()
        if self._phase != "head":
            self._enter("head")

    def on_headers_complete(self) -> None:
        """Hand the request over."""
        self._enter("body")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Hand a part of the body over."""
        super().on_body(body)
        self._bare_bytes = 0

    def on_message_complete(self) -> None:
        """Nothing more is owed by the client for now."""
        super().on_message_complete()
        self._enter("idle")

    def on_response_complete(self) -> None:
        """Await the rest of the body, or the next request."""
        super().on_response_complete()
        if self._phase in ("body", "idle"):
            self._enter("rest" if self._phase == "body" else "idle")

    def resume_writing(self) -> None:
        """The client reads."""
        self._unread = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, in the shape of all errors."""
        self._end("invalid_http", BadRequest("the request is not valid HTTP", code="invalid_http"))

    def end_if_overdue(self, now: float) -> None:
        """End the connection if its client has used up its time."""
        settings = self.watch.settings
        if self._is_unread(now, settings.send_timeout_sec):
            self.watch.on_end("unread_answer")
            self.transport.abort()
        elif self.transport.is_closing() or self._is_served():
            return
        elif self._phase == "idle" and now - self._since > settings.keep_alive_timeout_sec:
            self.transport.close()
        elif self._phase in ("head", "rest") and now - self._since > settings.head_timeout_sec:
            if self._phase == "rest":
                self._end("body_after_answer", None)
            elif self._head_bytes == 0:
                self.transport.close()  # it never said anything: a browser's spare connection
            else:
                self._end("slow_head", SlowClient("the request's headers came too slowly"))

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._since = self.loop.time()
        if phase == "idle":
            self._head_bytes = self._bare_bytes = 0

    def _is_served(self) -> bool:
        """Whether the app has a request that has no response yet."""
        return self._serving is not None and not self._serving.response_complete

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Note which request is served: the last one that came may have to wait for it."""
        self._serving = cycle
        super()._start_asgi_task(cycle, app)

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: a request to upgrade is served as any other."""

    def _is_unread(self, now: float, limit_sec: float) -> bool:
        """Whether a response lies here for `limit_sec` and the client reads too little of it."""
        pending = self.transport.get_write_buffer_size()
        if pending == 0:
            self._unread = None
        elif self._unread is None:
            self._unread = (pending, now)
        elif now - self._unread[1] > limit_sec:
            owed, since = self._unread
            if pending > owed - MIN_BYTES_PER_SEC * (now - since):
                return True
            self._unread = (pending, now)
        return False

    def _make_room(self) -> None:
        """End the connection that has waited longest without a request, or else this one."""
        waiting = [
            one
            for one in self.connections
            if isinstance(one, WatchedConnection)
            and one is not self
            and one._phase in ("head", "idle")
            and not one._is_served()
            and not one.transport.is_closing()
        ]
        if waiting:
            self.watch.on_end("made_room")
            min(waiting, key=lambda one: one._since).transport.close()
        else:
            error = NotReady("too many connections", retry_after_sec=1)
            error.code = "too_many_connections"
            self._end("too_many", error)

    def _end(self, reason: str, error: ApiError | None) -> None:
        """Close the connection, with a response where none is under way."""
        self.watch.on_end(reason)
        if error is not None and not self._is_served():
            self.transport.write(_raw_response(error))
        self.transport.close()


def _raw_response(error: ApiError) -> bytes:
    body = error.body()
    headers = {
        **error.headers,
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    lines = [f"HTTP/1.1 {error.status} {type(error).__name__}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
