"""Runs the BentoML service in this process: one Python start, one process to supervise."""

import asyncio
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Final

import uvicorn

from service.errors import OperatorError
from service.exposure import check_exposure
from service.server.connections import Watch, end_overdue, watched_protocol
from service.settings import Settings

# uvicorn ticks ten times a second.
TICKS_PER_WATCH: Final = 5


class _WatchingServer(uvicorn.Server):
    """Notifies the service first when it has to stop, and ends what clients hold too long."""

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop: Final = on_stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to shut down; a second signal ends at once."""
        self._on_stop()
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Look after the connections."""
        if counter % TICKS_PER_WATCH == 0:
            end_overdue(self.server_state.connections, asyncio.get_running_loop().time())
        return await super().on_tick(counter)


def serve(settings: Settings, host: str, port: int, on_listening: Callable[[int], None]) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what is being worked on.

    Args:
        settings: As the environment sets them to the service.
        host: Address to listen on.
        port: 0 takes a free one.
        on_listening: Is notified of the port, before a model is loaded.

    Raises:
        OperatorError: The address is taken, others could reach it without a key, the keys or
            the database can't be used, or the service could not be set up.
    """
    check_exposure(settings, host)
    listening = _listen(host, port)
    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, _leave)
    on_listening(listening.getsockname()[1])
    from service.app import gateway
    from service.bento import asgi_app

    gateway.prepare()
    config = uvicorn.Config(
        asgi_app(),
        http=watched_protocol(Watch(settings, gateway.count_ended_connection)),
        ws="none",
        timeout_keep_alive=settings.keep_alive_timeout_sec,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # middleware/peers.py reads them, of the proxies in the settings
        timeout_graceful_shutdown=settings.shutdown_timeout_sec,
    )
    server = _WatchingServer(config, gateway.drain)
    server.run(sockets=[listening])
    if not server.started:
        raise OperatorError("the service did not start; the log above says why")


def _leave(_: int, __: FrameType | None) -> None:
    """End with status 0: before the server runs, and when uvicorn passes its signal on after."""
    raise SystemExit(0)


def _listen(host: str, port: int) -> socket.socket:
    listening: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
        listening.setblocking(False)
    except OSError as error:
        if listening is not None:
            listening.close()
        raise OperatorError(
            f"can't listen on {host}:{port}: {error.strerror or error}; choose another --port"
        ) from error
    return listening
