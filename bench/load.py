"""Clients that put a load on a server."""

import asyncio
import itertools
import random
import time
from typing import Any

import aiohttp
import httpx
import psutil

from service.settings import load_settings

# Until all clients are active; counting begins after that.
RAMP_SEC = 0.5
# More than the service's queue holds, so that refusals become visible.
CONNECTIONS = load_settings().max_pending_generations + 32
# Enough for a median even where a machine is very slow.
MIN_REQUESTS = 10
RSS_SAMPLES = 6


def arrivals(kind: str, rate: float, seconds: float, rng: random.Random) -> list[float]:
    """Times at which requests are sent, in seconds from the start.

    Args:
        kind: "even", or "poisson": from independent clients, whose times, given their number,
            are uniform.
        rate: Requests per second.
        seconds: Duration; it is longer if there would be fewer than MIN_REQUESTS.
        rng: Chooses the times.
    """
    count = max(MIN_REQUESTS, round(rate * seconds))
    if kind == "even":
        return [index / rate for index in range(count)]
    return sorted(rng.uniform(0, count / rate) for _ in range(count))


class Load:
    """Clients of one server; seeds never repeat.

    Attributes:
        start_s: How many seconds the server took to start.
        port: Where it listens, on loopback.
    """

    def __init__(self, port: int, key: str, clients: int, server_pid: int, start_s: float) -> None:
        self.start_s, self.port = start_s, port
        self._url, self._key = f"http://127.0.0.1:{port}/v1/images/generations", key
        self._clients, self._server = clients, psutil.Process(server_pid)
        self._seeds, self._rng = itertools.count(), random.Random(0)

    def check(self) -> None:
        """Refuse to measure a server that does not check keys and requests.

        Raises:
            RuntimeError: It does not.
        """
        for key, field, expected in (("wrong", "seed", {401}), (self._key, "sede", {400, 422})):
            headers = {"Authorization": f"Bearer {key}"}
            status = httpx.post(self._url, json={field: 0}, headers=headers).status_code
            if status not in expected:
                raise RuntimeError(f"{self._url} returned {status}, not one of {expected}")

    def image(self, seed: int) -> bytes:
        """Request the PNG of one seed."""

        async def request() -> bytes:
            async with self._session() as session:
                return await self._image(session, seed)

        return asyncio.run(request())

    def closed(self, seconds: float) -> dict[str, float]:
        """Run clients that send the next request as soon as they have the response.

        Returns:
            {images, seconds, cpu_s, rss_mb, client_cpu_s}, counted between two moments at which
            all clients are active.
        """
        return asyncio.run(self._closed(seconds))

    def open(self, kind: str, rate: float, seconds: float) -> dict[str, Any]:
        """Run clients that do not wait for each other's responses.

        A latency counts from the time at which the request was due: it includes waiting for a free
        connection, when all are waiting for a slow server.

        Returns:
            latencies_ms: Latency of each request that succeeded.
            errors: Number of requests that failed.
            messages: Messages of the first few failures.
            seconds: How long requests were sent.
            rss_mb: The server's memory at RSS_SAMPLES evenly spaced moments.
        """
        return asyncio.run(self._open(arrivals(kind, rate, seconds, self._rng), rate))

    def rss_mb(self) -> float:
        """The server's memory now, its processes' too."""
        return rss_mb(self._server)

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            headers={"Accept": "image/png", "Authorization": f"Bearer {self._key}"},
            connector=aiohttp.TCPConnector(limit=CONNECTIONS),
            timeout=aiohttp.ClientTimeout(total=None),
        )

    async def _image(self, session: aiohttp.ClientSession, seed: int) -> bytes:
        """Request one image.

        Raises:
            RuntimeError: The response is not a PNG.
            aiohttp.ClientError: There is no response.
        """
        async with session.post(self._url, json={"n": 1, "seed": seed}) as response:
            content = await response.read()
        if response.status != 200 or not content.startswith(b"\x89PNG"):
            raise RuntimeError(f"the service returned {response.status}: {content[:200]!r}")
        return content

    async def _closed(self, seconds: float) -> dict[str, float]:
        received, stopped = 0, False

        async def client() -> None:
            nonlocal received
            while not stopped:
                await self._image(session, next(self._seeds))
                received += 1

        async with self._session() as session, asyncio.TaskGroup() as group:
            for _ in range(self._clients):
                group.create_task(client())
            await asyncio.sleep(RAMP_SEC)
            start, before = time.perf_counter(), received
            cpu, own = cpu_s(self._server), time.process_time()
            await asyncio.sleep(seconds)
            # Longer on a very busy machine: until each client has received one.
            while received < before + self._clients:
                await asyncio.sleep(0.01)
            result = {
                "images": received - before,
                "seconds": time.perf_counter() - start,
                "cpu_s": cpu_s(self._server) - cpu,
                "rss_mb": rss_mb(self._server),
                "client_cpu_s": time.process_time() - own,
            }
            stopped = True
        return result

    async def _open(self, planned: list[float], rate: float) -> dict[str, Any]:
        seconds = len(planned) / rate
        latencies: list[float] = []
        failures: list[str] = []
        rss: list[float] = []
        start = time.perf_counter()

        async def request(due: float) -> None:
            await sleep_until(due)
            try:
                await self._image(session, next(self._seeds))
                latencies.append(time.perf_counter() - due)
            except (aiohttp.ClientError, OSError, RuntimeError) as error:
                failures.append(str(error))

        async with self._session() as session, asyncio.TaskGroup() as group:
            for moment in planned:
                group.create_task(request(start + moment))
            for index in range(1, RSS_SAMPLES + 1):
                await sleep_until(start + seconds * index / RSS_SAMPLES)
                rss.append(await asyncio.to_thread(rss_mb, self._server))
        return {
            "latencies_ms": [round(1000 * latency, 3) for latency in latencies],
            "errors": len(failures),
            "messages": failures[:3],
            "seconds": seconds,
            "rss_mb": rss,
        }


async def sleep_until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.perf_counter()))


def _family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def cpu_s(process: psutil.Process) -> float:
    """CPU time of a process and its children so far."""
    return sum(sum(p.cpu_times()[:2]) for p in _family(process))


def rss_mb(process: psutil.Process) -> float:
    """Resident memory of a process and its children, in MB."""
    return sum(p.memory_info().rss for p in _family(process)) / 1e6
