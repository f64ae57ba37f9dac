"""A real server of a few lines that answers as a test says: what no well-behaved service does."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MADE: dict[str, Any] = {
    "created": 1,
    "model": "shop:1",
    "model_hash": "0",
    "output_format": "png",
    "size": "1x1",
    "truncation_psi": 1,
    "data": [{"b64_json": "aGk=", "seed": 1, "category": "mugs", "added": "later"}],
    "added": ["later"],
}
Answer = Callable[[BaseHTTPRequestHandler], None]


def answer(
    status: int, body: Any = MADE, cut: int | None = None, **headers: str
) -> Callable[[BaseHTTPRequestHandler], None]:
    """An answer of the scripted server; cut = bytes of the body after which it hangs up."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response_only(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(data)))
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(data[:cut])

    return send


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """No answer at all."""
    handler.connection.shutdown(socket.SHUT_RDWR)


class Script:
    """A real server that gives its answers in order, and remembers what it was asked."""

    def __init__(self, address: str, answers: list[Answer]) -> None:
        self.address = address
        self.answers = answers
        self.bodies: list[bytes] = []
        self.keys: list[str | None] = []
        self.times: list[float] = []


@contextmanager
def scripted(*answers: Answer) -> Iterator[Script]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            script.times.append(time.monotonic())
            script.keys.append(self.headers.get("Idempotency-Key"))
            self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            script.bodies.append(self.body)
            self.close_connection = True
            script.answers.pop(0)(self)

        do_GET = do_POST

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        script = Script(f"http://127.0.0.1:{server.server_port}", list(answers))
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield script
        finally:
            server.shutdown()
            thread.join()
