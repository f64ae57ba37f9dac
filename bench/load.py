"""A closed-loop load on a service, from a process of its own.

    python bench/load.py PORT KEY CLIENTS SERVER_PID

Reads a line with a number of seconds from stdin, keeps CLIENTS requests under way for so
long, each client on its own kept-alive connection, and answers with a JSON line
{pictures, seconds, cpu_s, rss_mb, client_cpu_s}; ends with stdin. What is counted lies
between two moments at which all clients are at work. The line "picture SEED" is answered
with what `unsigned_sha256` gives of the body.
"""

import itertools
import json
import socket
import sys
import threading
import time

import psutil
from unsigned import unsigned_sha256

# Clients are at work all before counting begins.
RAMP_SEC = 0.5


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


class Load:
    """All clients together."""

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
    load = Load(port, key, clients)
    for line in sys.stdin:
        if line.startswith("picture "):
            client = Client(port, key)
            digest = unsigned_sha256(client.picture(int(line.split()[1])))
            client.close()
            print(json.dumps(digest), flush=True)
        else:
            print(json.dumps(load.run(float(line), server)), flush=True)


if __name__ == "__main__":
    main()
