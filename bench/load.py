"""A load on a server, from a process of its own.

    python bench/load.py PORT KEY CLIENTS SERVER_PID

Reads lines from stdin, answers each with a line of JSON, and ends with stdin:

"closed SECONDS" keeps CLIENTS requests under way for so long, each client on its own
kept-alive connection; answered with {pictures, seconds, cpu_s, rss_mb, client_cpu_s}. What
is counted lies between two moments at which all clients are at work.

"open KIND RATE SECONDS" sends RATE requests a second whether or not earlier ones are
answered, "even" or at random ("poisson"); answered as `Load.open` says.

"picture SEED" is answered with what `unsigned_sha256` gives of the body.
"""

import itertools
import json
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
from measuring import unsigned_sha256

from service.settings import load_settings

# Clients are at work all before counting begins.
RAMP_SEC = 0.5
# More than the service lets wait: its refusals show, and no client hides them.
CONNECTIONS = load_settings().max_pending_generations + 32
# Enough for a median even where a machine is very slow.
MIN_REQUESTS = 10
RSS_SAMPLES = 6


class Client:
    """One connection."""

    def __init__(self, port: int, key: str) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port))
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self._connection.makefile("rb")
        self._head = (
            "POST /v1/images/generations HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: image/png\r\n"
            f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        )

    def picture(self, seed: int) -> bytes:
        """Ask for one image.

        Raises:
            RuntimeError: The answer is no PNG.
        """
        body = json.dumps({"n": 1, "seed": seed})
        self._connection.sendall(f"{self._head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        status = self._answers.readline()
        length = 0
        while (line := self._answers.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        content = self._answers.read(length)
        if b" 200 " not in status or len(content) < length or not content.startswith(b"\x89PNG"):
            raise RuntimeError(f"the service answered {status!r}: {content[:200]!r}")
        return content

    def close(self) -> None:
        self._connection.close()


def arrivals(kind: str, rate: float, seconds: float, rng: random.Random) -> list[float]:
    """When requests are sent, in seconds from the start on.

    Args:
        kind: "even", or "poisson": of independent clients, whose moments, once their number
            is given, are uniform.
        rate: Requests a second.
        seconds: For so long; for longer where there would be fewer than MIN_REQUESTS.
        rng: Chooses the moments.
    """
    count = max(MIN_REQUESTS, round(rate * seconds))
    if kind == "even":
        return [index / rate for index in range(count)]
    return sorted(rng.uniform(0, count / rate) for _ in range(count))


def in_threads(count: int, work: Callable[[], None]) -> list[threading.Thread]:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


class Load:
    """Clients of one server; seeds never repeat."""

    def __init__(self, port: int, key: str, clients: int, server: psutil.Process) -> None:
        self._address, self._clients, self._server = (port, key), clients, server
        self._seeds, self._rng = itertools.count(), random.Random(0)

    def picture(self, seed: int) -> bytes:
        """One image, on a connection of its own."""
        client = Client(*self._address)
        content = client.picture(seed)
        client.close()
        return content

    def closed(self, seconds: float) -> dict[str, float]:
        """Clients that ask again as soon as they are answered; see the module."""
        made: list[None] = []  # appending is safe in threads
        failures: list[Exception] = []
        stop = threading.Event()

        def work() -> None:
            try:
                client = Client(*self._address)
                while not stop.is_set():
                    client.picture(next(self._seeds))
                    made.append(None)
                client.close()
            except Exception as error:  # raised below
                failures.append(error)

        threads = in_threads(self._clients, work)
        time.sleep(RAMP_SEC)
        start, before = time.perf_counter(), len(made)
        cpu, own = cpu_s(self._server), time.process_time()
        # On a very busy machine for longer, until each client has made one.
        while not failures and (
            time.perf_counter() < start + seconds or len(made) < before + self._clients
        ):
            time.sleep(min(0.05, max(0.001, start + seconds - time.perf_counter())))
        result = {
            "pictures": len(made) - before,
            "seconds": time.perf_counter() - start,
            "cpu_s": cpu_s(self._server) - cpu,
            "rss_mb": rss_mb(self._server),
            "client_cpu_s": time.process_time() - own,
        }
        stop.set()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return result

    def open(self, kind: str, rate: float, seconds: float) -> dict[str, Any]:
        """Clients that do not wait for each other's answers.

        A latency counts from when the request was to be sent: one that finds no connection free,
        as all wait for a slow server, has waited, too.

        Returns:
            latencies_ms: Of each answered request.
            errors: Number of those that failed.
            messages: Of the first few failures.
            seconds: How long requests were sent.
            rss_mb: The server's memory at RSS_SAMPLES moments, evenly spread.
        """
        planned = arrivals(kind, rate, seconds, self._rng)
        seconds = len(planned) / rate
        latencies: list[float] = []
        failures: list[str] = []
        waiting = [Client(*self._address) for _ in range(CONNECTIONS)]
        start, taking = time.perf_counter(), threading.Lock()
        due: Iterator[float] = (start + at for at in planned)

        def work() -> None:
            client: Client | None = waiting.pop()
            while True:
                with taking:
                    moment = next(due, None)
                if moment is None:
                    break
                sleep_until(moment)
                try:
                    client = client or Client(*self._address)
                    client.picture(next(self._seeds))
                    latencies.append(time.perf_counter() - moment)
                except (OSError, RuntimeError) as error:
                    failures.append(str(error))
                    if client:
                        client.close()
                    client = None
            if client:
                client.close()

        threads, rss = in_threads(CONNECTIONS, work), []
        for index in range(1, RSS_SAMPLES + 1):
            sleep_until(start + seconds * index / RSS_SAMPLES)
            rss.append(rss_mb(self._server))
        for thread in threads:
            thread.join()
        return {
            "latencies_ms": [round(1000 * latency, 3) for latency in latencies],
            "errors": len(failures),
            "messages": failures[:3],
            "seconds": seconds,
            "rss_mb": rss,
        }


def sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.perf_counter()))


def _family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def cpu_s(process: psutil.Process) -> float:
    """CPU time of a process and its children so far."""
    return sum(sum(p.cpu_times()[:2]) for p in _family(process))


def rss_mb(process: psutil.Process) -> float:
    """Resident memory of a process and its children, in MB."""
    return sum(p.memory_info().rss for p in _family(process)) / 1e6


def main() -> None:
    port, key, clients, server = sys.argv[1:]
    load = Load(int(port), key, int(clients), psutil.Process(int(server)))
    for line in sys.stdin:
        answer: Any
        match line.split():
            case ["picture", seed]:
                answer = unsigned_sha256(load.picture(int(seed)))
            case ["closed", seconds]:
                answer = load.closed(float(seconds))
            case ["open", kind, rate, seconds]:
                answer = load.open(kind, float(rate), float(seconds))
            case _:
                sys.exit(f"load: {line!r} is no command")
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
