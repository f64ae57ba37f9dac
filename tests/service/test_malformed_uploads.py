"""Thousands of damaged, mixed-up and lying files over real HTTP: the service goes on answering."""

import collections
import io
import random
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from service.model_store.registry import Registry

from ..fuzz.seeds import picture_seeds
from .conftest import model_store
from .test_augmentations_http import photo
from .test_bad_requests import check
from .test_contract import logging_to

CLIENTS = 4
ENDPOINTS = ("/v1/images/augmentations", "/v1/images/variations")
# What a mutated file may get: harmless ones are served.
EXPECTED = {200, 400, 413, 415, 422}
SEEDS = picture_seeds()


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 30)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def flip_head(data: bytes, rng: random.Random) -> bytes:
    return flip(data[:64], rng) + data[64:]


def lose(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randint(1, 200) :]


def repeat(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start : start + 200] * rng.randint(2, 50) + data[start:]


def splice(data: bytes, rng: random.Random) -> bytes:
    other = SEEDS[rng.choice(sorted(SEEDS))]
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def append(data: bytes, rng: random.Random) -> bytes:
    return data + rng.choice([b"<script>alert(1)</script>", b"PK\3\4" * 50, SEEDS["still.gif"]])


def prepend(data: bytes, rng: random.Random) -> bytes:
    return rng.choice([b"%PDF-1.7\n", b"#!/bin/sh\n", b"\0", b"GIF89a", b"\xef\xbb\xbf"]) + data


def numbers(data: bytes, rng: random.Random) -> bytes:
    """Boundary values of 2 and 4 bytes, where sizes and offsets may be."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        value = rng.choice([0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF])
        packed = struct.pack(rng.choice(["<I", ">I"]), value)[: rng.choice([2, 4])]
        at = rng.randrange(max(1, min(len(changed), 200)))
        changed[at : at + len(packed)] = packed
    return bytes(changed)


def lie(data: bytes, rng: random.Random) -> bytes:
    """A small file that promises a huge picture."""
    width, height = rng.choice([(100_000, 100_000), (16_383, 16_383), (1, 2**31 - 1), (2**30, 9)])
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(bytes(9999)))
    side = struct.pack("<I", min(width, 2**24) - 1)[:3]
    vp8x = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + side + side
    anim = b"ANIM" + struct.pack("<I", 6) + bytes(6)
    webp = b"WEBP" + vp8x + anim
    gif = b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + SEEDS["still.gif"][10:]
    jpeg = SEEDS["baseline.jpg"]
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg = jpeg[:at] + b"\xff\xff\xff\xff" + jpeg[at + 4 :]
    return rng.choice([png, b"RIFF" + struct.pack("<I", len(webp)) + webp, gif, jpeg])


def bomb(data: bytes, rng: random.Random) -> bytes:
    """Compressed text or a profile that grows a thousandfold, in a good picture."""
    name = rng.choice([b"iCCP", b"zTXt"])
    packed = zlib.compress(bytes(rng.choice([2_000_000, 30_000_000])), 9)
    good = SEEDS["clear.png"]
    return good[:33] + _chunk(name, b"x\0\0" + packed) + good[33:]


def nothing(data: bytes, rng: random.Random) -> bytes:
    return rng.choice([b"", b"\xff\xd8\xff", data[:4], rng.randbytes(500), data[:12] + bytes(500)])


MUTATIONS: list[Callable[[bytes, random.Random], bytes]] = [
    *[cut, flip, flip_head, lose, repeat, splice, append, prepend, numbers, lie, bomb, nothing]
]
TYPES = ["image/png", "image/jpeg", "text/html", "application/x-php", "image/svg+xml", ""]


def _chunk(name: bytes, data: bytes) -> bytes:
    crc = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)


def malformed(index: int) -> tuple[str, bytes, str]:
    """File number `index`: its name, bytes and declared type. The same ones in every run."""
    rng = random.Random(index)
    name = sorted(SEEDS)[index % len(SEEDS)]
    mutate = MUTATIONS[index // len(SEEDS) % len(MUTATIONS)]
    data = mutate(SEEDS[name], rng)
    return f"{mutate.__name__} {name}", data, rng.choice(TYPES)


class Flood:
    """Sends a range of malformed files with several clients; keeps what came of each."""

    def __init__(self, url: str, indexes: range) -> None:
        self.statuses: collections.Counter[tuple[str, int]] = collections.Counter()
        self.unexpected: list[str] = []
        self.slowest: tuple[float, str] = (0.0, "")
        self._url, self._indexes, self._lock = url, iter(indexes), threading.Lock()
        threads = [threading.Thread(target=self._send_all) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _send_all(self) -> None:
        with httpx.Client(base_url=self._url, timeout=None) as client:
            while True:
                with self._lock:
                    index = next(self._indexes, None)
                if index is None:
                    return
                self._send(client, index)

    def _send(self, client: httpx.Client, index: int) -> None:
        name, data, media = malformed(index)
        started = time.monotonic()
        try:
            files = {"image": ("../../x.png", data, media)}
            answer = client.post(ENDPOINTS[index % 2], files=files, data={"n": "1"})
            if answer.status_code != 200:
                check(answer, answer.status_code, "image")
        except (httpx.TransportError, AssertionError) as error:
            with self._lock:
                self.unexpected.append(f"{index} {name}: {error!r}")
            return
        with self._lock:
            self.statuses[name.split()[0], answer.status_code] += 1
            self.slowest = max(self.slowest, (time.monotonic() - started, f"{index} {name}"))
            if answer.status_code not in EXPECTED:
                self.unexpected.append(f"{index} {name}: {answer.status_code} {answer.text[:300]}")


def resident_mb(url: str) -> float:
    lines = httpx.get(f"{url}/metrics", timeout=None).text.splitlines()
    return next(float(s.split()[1]) for s in lines if s.startswith("process_resident_m")) / 1e6


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, styled_export: Path) -> Iterator[str]:
    log = tmp_path_factory.mktemp("log") / "service.log"
    with model_store(tmp_path_factory.mktemp("bentoml")):
        Registry().register(styled_export)
        with logging_to(log) as base:
            yield base
    assert "Traceback" not in log.read_text()


def test_large_photos_leave_no_memory_behind(url: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (4500, 4500), (9, 9, 9, 9)).save(buffer, "WEBP", method=0)
    good = httpx.post(url + ENDPOINTS[0], files={"image": photo()}, timeout=None)
    assert good.status_code == 200
    before = resident_mb(url)
    for endpoint in ENDPOINTS:
        answer = httpx.post(url + endpoint, files={"image": buffer.getvalue()}, timeout=None)
        assert answer.status_code == 200, answer.text
    assert resident_mb(url) < before + 40


@pytest.mark.parametrize(
    "files", [len(SEEDS) * len(MUTATIONS), pytest.param(10_000, marks=pytest.mark.slow)]
)
def test_every_malformed_file_gets_its_answer(
    url: str, files: int, record_property: Callable[[str, Any], None]
) -> None:
    Flood(url, range(files, files + 100))  # buffers and code that any upload needs
    before = resident_mb(url)
    flood = Flood(url, range(files))
    after = resident_mb(url)
    record_property("statuses", dict(collections.Counter(flood.statuses.elements())))
    print(f"\n{files} files; slowest {flood.slowest}; {before:.0f} -> {after:.0f} MB")
    for status in sorted(EXPECTED):
        kinds = {kind: n for (kind, code), n in sorted(flood.statuses.items()) if code == status}
        print(f"{status}: {sum(kinds.values())} {kinds}")
    assert not flood.unexpected, flood.unexpected[:20]
    assert sum(flood.statuses.values()) == files
    assert after < before + 50
    assert httpx.get(f"{url}/readyz", timeout=None).status_code == 200
    for endpoint in ENDPOINTS:
        good = httpx.post(url + endpoint, files={"image": photo()}, timeout=None)
        assert good.status_code == 200, good.text
