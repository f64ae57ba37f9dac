"""Clients that are slow, endless or deaf, and bytes that are no HTTP, over real sockets."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from service.model_store.registry import Registry

from .conftest import BACKSTOP_SEC, model_store, wait_for
from .test_cli import COMMAND, free_port, get, serving

URL = "/v1/images/generations"
SHORT = {
    "CATALOGAN_HEAD_TIMEOUT_SEC": "0.5",
    "CATALOGAN_BODY_TIMEOUT_SEC": "0.5",
    "CATALOGAN_KEEP_ALIVE_TIMEOUT_SEC": "1",
}
# What is small is sent at once, and meets no limit.
OTHERS = {"CATALOGAN_SEND_TIMEOUT_SEC": "0.5", "CATALOGAN_MAX_CONNECTIONS": "20"}
MODELS = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory, styled_export: Path) -> Iterator[int]:
    """The port of a service that ends what takes its time, be it a busy machine's."""
    yield from running(tmp_path_factory.mktemp("bentoml"), styled_export, SHORT)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory, styled_export: Path) -> Iterator[int]:
    """That of one which gives all the time that a busy machine needs."""
    yield from running(tmp_path_factory.mktemp("bentoml"), styled_export, OTHERS)


def running(home: Path, export: Path, settings: dict[str, str]) -> Iterator[int]:
    with model_store(home):
        Registry().register(export)
        found = free_port()
        with serving([*COMMAND, "serve", "--port", str(found)], found, **settings) as process:
            yield found
            process.terminate()
            output = process.communicate()[0]
    assert "Traceback" not in output, output


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=BACKSTOP_SEC) as connection:
        yield connection


def read_all(connection: socket.socket) -> bytes:
    """What comes until the server closes; fails where it does not."""
    received = b""
    while True:
        try:
            part = connection.recv(1 << 16)
        except ConnectionResetError:
            return received
        if not part:
            return received
        received += part


def said(hasty: int, send: Callable[[socket.socket], None]) -> bytes:
    """All that it says to what is sent; again where it closed before anything was."""
    answer = b""
    while not answer:
        with connected(hasty) as connection:
            with suppress(OSError):
                send(connection)
            answer = read_all(connection)
    return answer


@contextmanager
def answered(hasty: int, request: bytes) -> Iterator[tuple[socket.socket, bytes]]:
    """A connection with a first request's answer; another where it closed before that."""
    while True:
        with connected(hasty) as connection:
            answer = b""
            with suppress(OSError):
                connection.sendall(request)
                answer = read_answer(connection)
            if answer:
                yield connection, answer
                return


def read_answer(connection: socket.socket) -> bytes:
    """One answer, while the connection stays open; nothing where it was closed before."""
    received = b""
    while b"\r\n\r\n" not in received:
        part = connection.recv(1 << 16)
        if not part:
            return b""
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
    while len(body) < length:
        body += connection.recv(1 << 16)
    return head + b"\r\n\r\n" + body


def is_cut_off(connection: socket.socket, sent: bytes) -> bool:
    """Whether the server ends the connection, though something is sent all the while."""
    end = time.monotonic() + BACKSTOP_SEC
    while time.monotonic() < end:
        try:
            connection.sendall(sent)
        except OSError:
            return True
        time.sleep(0.05)
    return False


def error_of(answer: bytes, status: int) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), answer[:500]
    assert b"application/json" in head
    error: dict[str, Any] = json.loads(body)["error"]
    assert set(error) == {"code", "message", "param", "type"}
    return error


def metrics(port: int) -> str:
    return str(get(f"http://127.0.0.1:{port}/metrics").decode())


def ended(port: int, reason: str) -> float:
    name = f'catalogan_connections_ended_total{{reason="{reason}"}} '
    return sum(
        float(line.split()[-1]) for line in metrics(port).splitlines() if line.startswith(name)
    )


def test_a_head_that_comes_slowly(hasty: int) -> None:
    def send(connection: socket.socket) -> None:
        connection.sendall(f"POST {URL} HTTP/1.1\r\nHost: localhost\r\n".encode())
        for _ in range(20):  # a header now and then does not help
            connection.sendall(b"X-More: x\r\n")
            time.sleep(0.15)

    assert error_of(said(hasty, send), 408)["code"] == "request_timeout"
    assert ended(hasty, "slow_head") >= 1


def test_a_second_head_that_comes_slowly(hasty: int) -> None:
    answers = said(hasty, lambda one: one.sendall(MODELS + MODELS[:10]))
    assert answers.startswith(b"HTTP/1.1 200")
    error_of(answers[answers.index(b"HTTP/1.1 408") :], 408)


def test_a_connection_that_says_nothing_is_closed_without_a_word(hasty: int) -> None:
    with connected(hasty) as connection:
        assert read_all(connection) == b""


def test_a_connection_that_idles_after_an_answer_is_closed(hasty: int) -> None:
    with answered(hasty, MODELS) as (connection, answer):
        assert answer.startswith(b"HTTP/1.1 200")
        assert read_all(connection) == b""


def test_empty_lines_do_not_keep_a_connection_alive(hasty: int) -> None:
    with answered(hasty, MODELS) as (connection, answer):
        assert answer.startswith(b"HTTP/1.1 200")
        assert is_cut_off(connection, b"\r\n")


def test_a_body_that_comes_slowly(hasty: int) -> None:
    head = f"POST {URL} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for more in ("Content-Length: 5000\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"):
        sent = (head + more).encode()
        error = error_of(said(hasty, lambda one, sent=sent: one.sendall(sent)), 408)
        assert "too slowly: 1 bytes" in error["message"]


def test_an_upload_that_comes_slowly_gives_its_place_back(hasty: int) -> None:
    head = (
        "POST /v1/images/augmentations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
    )
    error_of(said(hasty, lambda one: one.sendall(head.encode())), 408)
    wait_for(lambda: 'catalogan_pending_requests{queue="uploads"} 0.0' in metrics(hasty))


def test_a_body_that_goes_on_after_its_answer_is_cut_off(hasty: int) -> None:
    head = f"POST {URL} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"
    with answered(hasty, head.encode()) as (connection, answer):
        assert answer.startswith(b"HTTP/1.1 413")
        assert is_cut_off(connection, b"x" * 1000)
    assert ended(hasty, "body_after_answer") >= 1


def test_a_client_that_sends_too_much_gets_to_see_its_answer(port: int) -> None:
    body = b" " * 3_000_000
    with connected(port) as connection:
        connection.sendall(
            f"POST {URL} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            "Content-Type: application/json\r\n\r\n".encode()
        )
        connection.sendall(body)
        assert read_answer(connection).startswith(b"HTTP/1.1 413")
        connection.sendall(MODELS)
        assert read_answer(connection).startswith(b"HTTP/1.1 200")


def test_an_answer_that_nobody_reads_is_dropped(port: int) -> None:
    """More is asked for than the kernel's buffers hold."""
    body = json.dumps({"seeds": list(range(6)), "frames": 60, "size": "48x32"}).encode()
    request = (
        "POST /v1/images/interpolations HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(BACKSTOP_SEC)
        connection.connect(("127.0.0.1", port))
        connection.sendall(request * 20)
        wait_for(lambda: ended(port, "unread_answer") >= 1)
        assert read_all(connection).count(b"HTTP/1.1 200") < 20


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS hello
        b"GET /v1/models HTTP/9.9\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nA B: c\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n",
    ],
)
def test_what_is_no_request_of_ours(port: int, sent: bytes) -> None:
    with connected(port) as connection:
        connection.sendall(sent)
        assert error_of(read_all(connection), 400)["code"] == "invalid_http"


def test_a_head_without_end(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(f"GET {URL} HTTP/1.1\r\nHost: localhost\r\n".encode())
        answer = b""
        try:
            for index in range(100_000):
                connection.sendall(b"X-%d: " % index + b"x" * 1000 + b"\r\n")
            pytest.fail("the head was taken")
        except OSError:
            answer = read_all(connection)
    if answer:  # a client that still sends may miss it
        error_of(answer, 431)
    assert ended(port, "head_too_large") >= 1


CHUNKED = (
    f"POST {URL} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    "Transfer-Encoding: chunked\r\n\r\n"
).encode()


def test_some_headers_behind_a_body_are_nothing_to_us(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(CHUNKED + b"2;some=thing\r\n{}\r\n0\r\n")
        connection.sendall(b"X-Trailer: x\r\n" * 100 + b"\r\n")
        assert read_answer(connection).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("begun", [b"2\r\n{}\r\n0\r\nX-Trailer: ", b"2;name="])
def test_what_is_no_body_ends(port: int, begun: bytes) -> None:
    """A trailer or a chunk's extension without end: the parser would keep or skip it for ever."""
    with connected(port) as connection:
        connection.sendall(CHUNKED + begun)
        assert is_cut_off(connection, b"x" * 100_000)
    assert ended(port, "bare_body") >= 1


@pytest.mark.parametrize("upgrade", ["websocket", "h2c"])
def test_no_other_protocol_is_spoken(port: int, upgrade: str) -> None:
    head = f"GET /v1/nothing HTTP/1.1\r\nHost: localhost\r\nUpgrade: {upgrade}\r\n"
    more = "Connection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n"
    with connected(port) as connection:
        connection.sendall((head + more).encode())
        error_of(read_answer(connection), 404)


def test_too_many_connections_make_room_for_new_ones(port: int) -> None:
    """Twice as many as there may be wait for nothing; those who ask are still served."""
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
    try:
        for _ in range(5):
            with connected(port) as connection:
                connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert read_all(connection).startswith(b"HTTP/1.1 200")
    finally:
        for one in idle:
            one.close()
    assert ended(port, "made_room") >= 20


def test_where_all_are_busy_a_new_connection_is_refused(port: int) -> None:
    head = (
        f"POST {URL} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Content-Length: 100\r\nExpect: 100-continue\r\n\r\n"
    )
    busy = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    try:
        for one in busy:
            one.sendall(head.encode())
            assert one.recv(100).startswith(b"HTTP/1.1 100 ")  # the service waits for its body
        with connected(port) as connection:
            assert error_of(read_all(connection), 503)["code"] == "too_many_connections"
    finally:
        for one in busy:
            one.close()
    wait_for(lambda: has_room(port))


def has_room(port: int) -> bool:
    """Whether the service has noticed that others have left."""
    try:
        return "catalogan_http_requests_in_progress 1.0" in metrics(port)
    except OSError:
        return False


def test_a_client_that_leaves_is_no_error(port: int) -> None:
    head = f"POST {URL} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with connected(port) as connection:
        connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
    wanted = f'catalogan_http_requests_total{{method="POST",route="{URL}",status="499"}}'
    wait_for(lambda: wanted in metrics(port))
    assert 'status="500"' not in metrics(port)
