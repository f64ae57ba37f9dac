"""Hostile clients of one server, in a process of their own: what each of them gets is counted.

They have a key of their own, a wrong one or none, and take turns with what costs a service most
for the least effort: files that decoders choke on, requests that nobody waits for, bodies that
come drop by drop, guesses of keys, annotations and replays at their limits, streams that nobody
reads, foreign pages, JSON that is all mistakes, and bytes that are no HTTP.
"""

import io
import itertools
import json
import multiprocessing
import random
import secrets
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection

import httpx
import numpy as np
from measuring import REPOSITORY
from PIL import Image

# Clients at a time; each begins with another attack.
CLIENTS = 4
PAUSE_SEC = 0.2
HOLD_SEC = 5.0
PATIENCE_SEC = 120.0
AUGMENTATIONS = "/v1/images/augmentations"
GENERATIONS = "/v1/images/generations"
VERIFICATIONS = "/v1/verifications"
# What may come of a hostile request: refused, or served within limits; never a 500.
SERVED = {"200", "400", "413", "415", "422", "429", "504"}
# Each attack, and the outcomes that are right.
ATTACKS = {
    "costly uploads": SERVED,
    "damaged uploads": SERVED,
    "abandoned requests": {"left"},
    "slow senders": {"left", "refused"},
    "wrong keys": {"401"},
    "huge annotations": SERVED,
    "expensive replays": SERVED,
    "stalled streams": {"left", "429"},
    "foreign origins": {"401", "403"},
    "wrong names": {"400"},
    "no HTTP": {"400", "431", "closed"},
}
FAR = {"name": "canvas", "size": "16x16", "placement": [400.5, -400_000, -400_000]}

# name -> outcome -> how often; an outcome is a status, or what became of the connection.
Tally = dict[str, dict[str, int]]


class Attacker:
    """One client; each attack returns the outcomes of its requests."""

    def __init__(self, port: int, key: str, seed: int) -> None:
        self._port, self._key, self._rng = port, key, random.Random(seed)
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            headers={"x-api-key": key},
            timeout=PATIENCE_SEC,
        )
        self._costly, self._photo = itertools.cycle(_hostile_files()), _photo()

    def attack(self, name: str) -> Iterator[str]:
        """Do one of ATTACKS; its method has its name."""
        outcomes: Iterator[str] = getattr(self, name.replace(" ", "_").lower())()
        return outcomes

    def costly_uploads(self) -> Iterator[str]:
        """Files of some kilobytes that would take minutes or gigabytes."""
        yield self._augment(next(self._costly))

    def damaged_uploads(self) -> Iterator[str]:
        """Photos with a few bytes changed, or cut off."""
        for _ in range(10):
            data = bytearray(self._photo[: self._rng.randrange(100, len(self._photo))])
            for _ in range(self._rng.randrange(20)):
                data[self._rng.randrange(len(data))] = self._rng.randrange(256)
            yield self._post(VERIFICATIONS, files={"image": bytes(data)})
            yield self._augment(bytes(data))

    def abandoned_requests(self) -> Iterator[str]:
        """Many images, for a client that leaves at once."""
        body = json.dumps({"n": 10, "seed": self._rng.randrange(2**31)}).encode()
        for _ in range(10):
            with self._connection() as connection:
                connection.sendall(self._head(GENERATIONS, len(body)) + body)
                yield "left"

    def slow_senders(self) -> Iterator[str]:
        """Uploads without a key that come drop by drop."""
        senders = []
        for _ in range(8):
            sender = self._connection()
            with suppress(OSError):
                sender.sendall(
                    self._head(VERIFICATIONS, 1_000_000, "multipart/form-data; boundary=x")
                )
            senders.append(sender)
        outcomes = ["left"] * len(senders)
        for _ in range(round(HOLD_SEC)):
            time.sleep(1)
            for index, sender in enumerate(senders):
                try:
                    sender.sendall(b"x" * 1_100)
                except OSError:
                    outcomes[index] = "refused"
        for sender in senders:
            sender.close()
        yield from outcomes

    def wrong_keys(self) -> Iterator[str]:
        """Guesses."""
        for _ in range(20):
            yield self._post(GENERATIONS, json={}, headers={"x-api-key": secrets.token_urlsafe(9)})

    def huge_annotations(self) -> Iterator[str]:
        """As many shapes as there may be, taken along to ten images; then more."""
        for count in (990, 5_000):
            boxes = [[1 + index % 90, 1, 2, 2] for index in range(count)]
            known = [{"boxes": boxes, "labels": ["x" * 60] * count}]
            yield self._augment(self._photo, n="10", annotations=json.dumps(known))

    def expensive_replays(self) -> Iterator[str]:
        """Images far outside of the photo, and the strongest policy at the largest size."""
        yield self._augment(self._photo, replay=json.dumps([{"operations": [FAR]}] * 160))
        size = json.dumps({"size": "1024x1024"})
        yield self._augment(self._photo, n="10", policy="strong", canvas=size)

    def stalled_streams(self) -> Iterator[str]:
        """Sets that are begun to be read, and then not."""
        body = json.dumps({"count": 1000, "seed": self._rng.randrange(2**31)}).encode()
        with self._connection() as connection:
            connection.sendall(self._head("/v1/datasets", len(body)) + body)
            status = connection.recv(4096).split(b" ")[1].decode()
            if status == "200":
                time.sleep(HOLD_SEC)
            yield "left" if status == "200" else status

    def foreign_origins(self) -> Iterator[str]:
        """What a browser sends for another page, which has no key."""
        for origin in ("http://evil.example", "null"):
            headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
            with httpx.Client(base_url=self._client.base_url, timeout=PATIENCE_SEC) as page:
                yield _outcome(lambda: page.post(GENERATIONS, json={}, headers=headers))  # noqa: B023

    def wrong_names(self) -> Iterator[str]:
        """A megabyte of fields that there aren't, and one of brackets."""
        names = {f"name {index}": 1 for index in range(9_999)}
        for body in (names, {"categories": names}, {"user": {f"{i}": 1 for i in range(70_000)}}):
            yield self._post(GENERATIONS, json=body)
        headers = {"Content-Type": "application/json"}
        yield self._post(GENERATIONS, content=b"[" * 900_000, headers=headers)

    def no_http(self) -> Iterator[str]:
        """Noise, and headers without end."""
        for data in (secrets.token_bytes(2_000), b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100_000):
            with self._connection() as connection:
                try:
                    connection.sendall(data)
                    yield connection.recv(4096).split(b" ")[1].decode()
                except (OSError, IndexError):
                    yield "closed"

    def _augment(self, photo: bytes, **fields: str) -> str:
        return self._post(AUGMENTATIONS, files={"image": photo}, data=fields)

    def _post(self, path: str, **request: object) -> str:
        return _outcome(lambda: self._client.post(path, **request))  # type: ignore[arg-type]

    def _connection(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE_SEC)

    def _head(self, path: str, length: int, media: str = "application/json") -> bytes:
        key = [] if path == VERIFICATIONS else [f"x-api-key: {self._key}"]
        lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Type: {media}"]
        return "\r\n".join([*lines, *key, f"Content-Length: {length}", "", ""]).encode()


def _outcome(request: Callable[[], httpx.Response]) -> str:
    try:
        return str(request().status_code)
    except httpx.HTTPError as error:
        return type(error).__name__


def _hostile_files() -> list[bytes]:
    """The files of the tests, which made services of before hang."""
    sys.path.append(str(REPOSITORY / "tests"))
    import hostile_files as files

    return [
        files.staged_png(),
        files.scanned_jpeg(20_000),
        files.tiled_tiff(),
        files.lying_avif(),
    ]


def _photo() -> bytes:
    rough = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(rough).resize((800, 600), Image.Resampling.BICUBIC).save(stream, "JPEG")
    return stream.getvalue()


def _attack(port: int, key: str, stop: Connection) -> None:
    """Attack until the other end says so, then send it what came of it."""
    counts: dict[str, Counter[str]] = {}
    stopped = threading.Event()

    def client(number: int) -> None:
        attacker = Attacker(port, key, number)
        names = list(ATTACKS)
        first = number * len(names) // CLIENTS
        for name in itertools.cycle(names[first:] + names[:first]):
            try:
                counts.setdefault(name, Counter()).update(attacker.attack(name))
            except OSError as error:  # the service is gone, or takes no connection
                counts.setdefault(name, Counter())[type(error).__name__] += 1
            if stopped.wait(PAUSE_SEC):
                return

    threads = [threading.Thread(target=client, args=[number]) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    stop.send("begun")
    with suppress(EOFError):
        stop.recv()
    stopped.set()
    for thread in threads:
        thread.join()
    with suppress(OSError):
        stop.send({name: dict(counts[name]) for name in sorted(counts)})


def surprises(tally: Tally) -> list[str]:
    """Outcomes that should not be, in words."""
    return [
        f"{name}: {count} times {outcome}"
        for name, outcomes in tally.items()
        for outcome, count in outcomes.items()
        if outcome not in ATTACKS[name]
    ]


@contextmanager
def hostile_clients(port: int, key: str) -> Iterator[Tally]:
    """Attack a server while the block runs; the tally is filled when it ends."""
    tally: Tally = {}
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe()
    process = spawning.Process(target=_attack, args=(port, key, theirs))
    process.start()
    theirs.close()
    try:
        ours.recv()
        yield tally
        ours.send("stop")
        tally |= ours.recv()
    finally:
        ours.close()
        process.join()
