"""A load on a server, from a process of its own.

    python bench/load.py PORT KEY CLIENTS SERVER_PID

Reads lines from stdin, answers each with a line of JSON, and ends with stdin:

"closed SECONDS" keeps CLIENTS requests under way for so long, each client on its own
kept-alive connection; answered with {pictures, seconds, cpu_s, rss_mb, client_cpu_s}. What
is counted lies between two moments at which all clients are at work.

"open KIND RATE SECONDS" sends RATE requests a second whether or not earlier ones are
answered, "even" or at random ("poisson"); answered as `OpenLoad.run` says.

"picture SEED" is answered with what `unsigned_sha256` gives of the body.
"""

import itertools
import json
import random
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
from unsigned import unsigned_sha256

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
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = (
            "POST /v1/images/generations HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: image/png\r\n"
            f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        )

    def picture(self, seed: int) -> bytes:
        """Ask for one picture.

        Raises:
            RuntimeError: The answer is no PNG.
        """
        body = json.dumps({"n": 1, "seed": seed})
        self._connection.sendall(f"{self._head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._receive()
        head, _, content = received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").lower().split("\r\n")
        length = next(int(s.split(":")[1]) for s in lines if s.startswith("content-length:"))
        parts, missing = [content], length - len(content)
        while missing > 0:
            parts.append(self._receive())
            missing -= len(parts[-1])
        content = b"".join(parts)
        if " 200 " not in lines[0] or not content.startswith(b"\x89PNG"):
            raise RuntimeError(f"the service answered {lines[0]}: {content[:200]!r}")
        return content

    def _receive(self) -> bytes:
        data = self._connection.recv(1 << 18)
        if not data:
            raise RuntimeError("the service closed the connection")
        return data

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class ClosedLoad:
    """Clients that ask again as soon as they are answered."""

    def __init__(self, port: int, key: str, clients: int) -> None:
        self._address = (port, key)
        self._count = clients
        self._seeds = itertools.count()
        self.made = 0
        self.failures: list[Exception] = []
        self._stop = threading.Event()
        self._counting = threading.Lock()

    def _work(self) -> None:
        try:
            client = Client(*self._address)
            while not self._stop.is_set():
                client.picture(next(self._seeds))
                with self._counting:
                    self.made += 1
            client.close()
        except Exception as error:  # handed to the caller of run
            self.failures.append(error)

    def run(self, seconds: float, server: psutil.Process) -> dict[str, float]:
        """Load the service; see the module."""
        self._stop.clear()
        threads = [threading.Thread(target=self._work) for _ in range(self._count)]
        for thread in threads:
            thread.start()
        time.sleep(RAMP_SEC)
        start, made, cpu, own = time.perf_counter(), self.made, cpu_s(server), time.process_time()
        self._wait(start + seconds, made + self._count)
        result = {
            "pictures": self.made - made,
            "seconds": time.perf_counter() - start,
            "cpu_s": cpu_s(server) - cpu,
            "rss_mb": rss_mb(server),
            "client_cpu_s": time.process_time() - own,
        }
        self._stop.set()
        for thread in threads:
            thread.join()
        if self.failures:
            raise self.failures[0]
        return result

    def _wait(self, until: float, made: int) -> None:
        """Until a time, and on a very busy machine for longer, until so many are made."""
        while not self.failures and (time.perf_counter() < until or self.made < made):
            time.sleep(min(0.05, max(0.001, until - time.perf_counter())))


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


class OpenLoad:
    """Clients that do not wait for each other's answers.

    A latency counts from when the request was to be sent: one that finds no connection free,
    as all wait for a slow server, has waited, too.
    """

    def __init__(self, port: int, key: str) -> None:
        self._address = (port, key)
        self._seeds = itertools.count()
        self._rng = random.Random(0)

    def run(self, kind: str, rate: float, seconds: float, server: psutil.Process) -> dict[str, Any]:
        """Load the server.

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
        clients = [Client(*self._address) for _ in range(CONNECTIONS)]
        start = time.perf_counter()
        due = (start + at for at in planned)
        taking = threading.Lock()
        arguments = (due, taking, latencies, failures)
        threads = [threading.Thread(target=self._work, args=(c, *arguments)) for c in clients]
        for thread in threads:
            thread.start()
        rss = []
        for index in range(1, RSS_SAMPLES + 1):
            _sleep_until(start + seconds * index / RSS_SAMPLES)
            rss.append(rss_mb(server))
        for thread in threads:
            thread.join()
        return {
            "latencies_ms": [round(1000 * latency, 3) for latency in latencies],
            "errors": len(failures),
            "messages": failures[:3],
            "seconds": seconds,
            "rss_mb": rss,
        }

    def _work(
        self,
        client: Client | None,
        due: Iterator[float],
        taking: threading.Lock,
        latencies: list[float],
        failures: list[str],
    ) -> None:
        while True:
            with taking:
                moment = next(due, None)
            if moment is None:
                break
            _sleep_until(moment)
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


def _sleep_until(moment: float) -> None:
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
    """Serve stdin."""
    port, key, clients = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    server = psutil.Process(int(sys.argv[4]))
    closed, opened = ClosedLoad(port, key, clients), OpenLoad(port, key)
    for line in sys.stdin:
        answer: Any
        match line.split():
            case ["picture", seed]:
                client = Client(port, key)
                answer = unsigned_sha256(client.picture(int(seed)))
                client.close()
            case ["closed", seconds]:
                answer = closed.run(float(seconds), server)
            case ["open", kind, rate, seconds]:
                answer = opened.run(kind, float(rate), float(seconds), server)
            case _:
                sys.exit(f"load: {line!r} is no command")
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
