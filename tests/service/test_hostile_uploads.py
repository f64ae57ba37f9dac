"""Hostile uploads over real HTTP: they get a clear response, and everybody else goes on."""

import itertools
import os
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image

from service.access.api_keys import create_key
from service.model_store.registry import Registry

from ..hostile_files import (
    encoded,
    lying_avif,
    scanned_jpeg,
    staged_png,
    tiled_tiff,
)
from ..processes import started
from .conftest import model_store, wait_for
from .live import live_service
from .test_bad_requests import check
from .test_cli import COMMAND, ROOT, free_port

ENDPOINTS = ("/v1/images/augmentations", "/v1/images/variations")
MAX_P99_SEC = 2.0
MAX_REST_BYTES = 60e6


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, styled_export: Path) -> Iterator[str]:
    with model_store(tmp_path_factory.mktemp("bentoml")):
        Registry().register(styled_export)
        with live_service() as address:
            yield address


def photo(side_px: int = 64) -> bytes:
    return encoded(Image.new("RGB", (side_px, side_px), (10, 200, 30)), "PNG")


def send(url: str, data: bytes, endpoint: str = ENDPOINTS[0], **more: Any) -> httpx.Response:
    files = {"image": ("photo", data)}
    return httpx.post(url + endpoint, files=files, data={"n": "1"}, timeout=None, **more)


def generate(url: str, **more: Any) -> httpx.Response:
    return httpx.post(f"{url}/v1/images/generations", json={"seed": 1}, timeout=None, **more)


def callers(keys_file: Path) -> list[dict[str, str]]:
    """Headers of two keys."""
    names = ("friend", "stranger")
    return [{"X-API-Key": create_key(keys_file, name, ["generate"], None, None)} for name in names]


def decoding(parent: int) -> list[psutil.Process]:
    children = psutil.Process(parent).children(recursive=True)
    return [child for child in children if "service.decoding.child" in " ".join(child.cmdline())]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    ("data", "told"),
    [
        (scanned_jpeg(60_000), "scans"),
        (tiled_tiff(), "tiles"),
        (lying_avif(), "AVIF that states 64 x 64"),
    ],
    ids=["scans", "tiles", "avif"],
)
def test_what_would_cost_too_much_is_named(url: str, data: bytes, told: str, endpoint: str) -> None:
    error = check(send(url, data, endpoint), 422, "image")
    assert told in error["message"]
    assert send(url, photo(), endpoint).status_code == 200


def test_a_profile_of_many_stages_is_passed_over(url: str) -> None:
    assert send(url, staged_png()).status_code == 200


def test_a_held_up_decoder_holds_up_nobody_else(tmp_path: Path, registered: Path) -> None:
    keys_file = tmp_path / "keys.json"
    friend, stranger = callers(keys_file)
    environment = {"keys_file": str(keys_file), "workers": "2", "open_metrics": "true"}
    others = decoding(os.getpid())
    with live_service(**environment) as url, ThreadPoolExecutor(3) as threads:
        assert send(url, photo(), headers=stranger).status_code == 200
        (first,) = set(decoding(os.getpid())) - set(others)
        first.suspend()
        held = [threads.submit(send, url, photo(), headers=stranger)]
        try:
            wait_for(lambda: pending(url) == 1)
            assert send(url, photo(), headers=stranger).status_code == 200
            (second,) = set(decoding(os.getpid())) - {first, *others}
            second.suspend()
            # A caller leaves a process to others, however much they send.
            held += [threads.submit(send, url, photo(), headers=stranger) for _ in range(2)]
            wait_for(lambda: pending(url) == 3)
            for _ in range(3):
                assert generate(url, headers=friend).status_code == 200
                assert send(url, photo(), headers=friend).status_code == 200
            assert not [one for one in held if one.done()]
            first.send_signal(signal.SIGSEGV)
        finally:
            for process in set(decoding(os.getpid())) - set(others):
                process.resume()
        responses = [one.result() for one in held]
        assert sorted(one.status_code for one in responses) == [200, 200, 422]
        (refused,) = (one for one in responses if one.status_code == 422)
        assert "SIGSEGV" in check(refused, 422, "image")["message"]
        assert not first.is_running()


@contextmanager
def serving(log: Path, **environment: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """`catalogan serve` as a process of its own: its address, and the process."""
    port = free_port()
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    env |= {f"CATALOGAN_{name.upper()}": value for name, value in environment.items()}
    command = [*COMMAND, "serve", "--port", str(port)]
    with log.open("wb") as out, started(command, env=env, stdout=out, stderr=out) as server:

        def is_ready() -> bool:
            assert server.poll() is None, log.read_text()
            try:
                return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=None).is_success
            except httpx.TransportError:
                return False

        wait_for(is_ready)
        yield f"http://127.0.0.1:{port}", server


@pytest.mark.slow
def test_decoding_processes_end_with_the_service(tmp_path: Path, registered: Path) -> None:
    """By SIGTERM, while a file is being decoded."""
    with serving(tmp_path / "log", shutdown_timeout_sec="1") as (url, server):
        assert send(url, photo()).status_code == 200
        (child,) = decoding(server.pid)
        child.suspend()
        with ThreadPoolExecutor(1) as threads:
            held = threads.submit(send, url, photo())
            wait_for(lambda: pending(url) == 1)
            server.terminate()
            server.wait()
            assert held.exception() is not None or held.result().status_code >= 500
        wait_for(lambda: not child.is_running())


@pytest.mark.slow
def test_others_are_served_in_time_beside_hostile_uploads(tmp_path: Path, registered: Path) -> None:
    keys_file = tmp_path / "keys.json"
    friend, stranger = callers(keys_file)
    hostile = [scanned_jpeg(99, 6_000), scanned_jpeg(60_000), tiled_tiff(), staged_png()]
    over, statuses, seconds = threading.Event(), set[int](), list[float]()

    def attack(first: int) -> None:
        for index in itertools.count(first):
            if over.is_set():
                return
            statuses.add(send(url, hostile[index % len(hostile)], headers=stranger).status_code)

    with serving(tmp_path / "log", keys_file=str(keys_file)) as (url, server):
        assert send(url, photo(), headers=stranger).status_code == 200
        with ThreadPoolExecutor(4) as threads:
            attacks = [threads.submit(attack, first) for first in range(4)]
            for _ in range(200):
                begun = time.perf_counter()
                assert generate(url, headers=friend).status_code == 200
                seconds.append(time.perf_counter() - begun)
            over.set()
            assert not [done.exception() for done in attacks if done.exception()]
        resting = [child.memory_info().rss for child in decoding(server.pid)]
    assert statuses <= {200, 422, 429}
    assert statistics.quantiles(seconds, n=100)[98] < MAX_P99_SEC
    assert max(resting) < MAX_REST_BYTES


def pending(url: str) -> float:
    lines = httpx.get(f"{url}/metrics", timeout=None).text.splitlines()
    name = 'catalogan_pending_requests{queue="uploads"}'
    return next(float(line.split()[1]) for line in lines if line.startswith(name))
