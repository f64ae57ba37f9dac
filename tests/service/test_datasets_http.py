"""POST /v1/datasets over real connections: what comes, how it ends, and what it costs."""

import io
import json
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

import service.app
from service.inference.generation import GeneratorSession
from service.model_store.registry import Registry

from . import live
from .conftest import BACKSTOP_SEC, wait_for
from .test_bad_requests import check
from .test_cli import COMMAND, free_port, serving
from .test_datasets import read_tar, read_zip
from .test_generations_http import decoded, pixels
from .test_synthesize import synthesize

URL = "/v1/datasets"
GENERATIONS = "/v1/images/generations"


@contextmanager
def live_service(**environment: str) -> Iterator[httpx.Client]:
    """A client of the live service."""
    with (
        live.live_service(**environment) as address,
        httpx.Client(base_url=address, timeout=None) as client,
    ):
        yield client


@pytest.fixture
def registered(bento_home: Path, export: Path) -> Path:
    Registry().register(export)
    return export


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one for each picture that is painted."""
    render, seen = GeneratorSession.render, []

    def counting(self: GeneratorSession, specs: Any, *more: Any) -> Any:
        seen.append(specs[0].seed)
        return render(self, specs, *more)

    monkeypatch.setattr(GeneratorSession, "render", counting)
    return seen


def metric(client: httpx.Client, line: str) -> float:
    text = client.get("/metrics").text
    found = [one for one in text.splitlines() if one.startswith(line)]
    return float(found[0].rpartition(" ")[2]) if found else 0.0


PENDING = 'catalogan_pending_requests{queue="datasets"}'
ENDED = 'catalogan_streams_total{{ending="{}"}}'


def test_every_picture_can_be_asked_for_again(styled: TestClient) -> None:
    body = {
        "categories": {"boxes": 3, "café lamps": 12},
        "seed": 7,
        "truncation_psi": 0.9,
        "size": "48x32",
        "output_format": "webp",
        "output_compression": 100,
    }
    response = styled.post(URL, json=body)
    assert response.status_code == 200, response.text
    found = read_zip(response.content)
    shared = {key: body[key] for key in body if key not in ("categories", "seed")}
    told = [json.loads(line) for line in found["metadata.jsonl"].splitlines()]
    assert len(told) == 15
    for line in told:
        again = styled.post(
            GENERATIONS, json={**shared, "category": line["category"], "seed": line["seed"]}
        )
        (picture,) = decoded(again.json())
        np.testing.assert_array_equal(pixels(found[line["file_name"]]), picture)
    # And a category's pictures together, from its first seed on.
    lamps = next(
        one
        for one in json.loads(found["manifest.json"])["categories"]
        if one["name"] == "café lamps"
    )
    asked = {**shared, "category": "café lamps", "seed": lamps["first_seed"], "n": 10}
    pictures = decoded(styled.post(GENERATIONS, json=asked).json())
    names = [line["file_name"] for line in told if line["category"] == "café lamps"][:10]
    np.testing.assert_array_equal([pixels(found[name]) for name in names], pictures)


@pytest.mark.parametrize("layout", ["folder", "coco", "webdataset"])
@pytest.mark.parametrize("container", ["zip", "tar"])
def test_the_command_line_writes_the_same_bytes(
    client: TestClient, export: Path, tmp_path: Path, layout: str, container: str
) -> None:
    body = {"count": 2, "seed": 5, "layout": layout, "shard": {"index": 1, "of": 2}}
    response = client.post(URL, json={**body, "container": container})
    out = tmp_path / f"set.{container}"
    synthesize(export, out, "--count", 2, "--layout", layout, "--shard", "1/2")
    assert response.content == out.read_bytes()
    media = {"zip": "application/zip", "tar": "application/x-tar"}[container]
    assert response.headers["content-type"] == media
    assert response.headers["x-catalogan-seed"] == "5"
    assert response.headers["content-disposition"].endswith(f"-5-00001-of-00002.{container}")


def test_without_a_seed_a_random_one_is_told(client: TestClient) -> None:
    first, second = (client.post(URL, json={"count": 1}) for _ in range(2))
    seed = int(first.headers["x-catalogan-seed"])
    assert seed != int(second.headers["x-catalogan-seed"])
    assert client.post(URL, json={"count": 1, "seed": seed}).content == first.content


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "categories"),
        ({"count": 1, "surprise": 1}, 400, "surprise"),
        ({"categories": {"spoons": 1}}, 400, "categories"),
        ({"count": 25_001}, 400, "count"),
        ({"count": 10**30}, 400, "count"),
        ({"count": 1, "model": "nobody"}, 404, "model"),
    ],
)
def test_bad_requests(client: TestClient, body: Any, status: int, param: str) -> None:
    check(client.post(URL, json=body), status, param)


def has_ended(client: httpx.Client, ending: str) -> bool:
    """Whether the one stream has, and has given its place back."""
    return metric(client, ENDED.format(ending)) == 1 and metric(client, PENDING) == 0


def test_it_comes_to_its_end(registered: Path, rendered: list[int]) -> None:
    with live_service(workers="2") as client:
        with client.stream("POST", URL, json={"count": 100}) as got:
            assert "content-length" not in got.headers
            data = b"".join(got.iter_raw())
        wait_for(lambda: has_ended(client, "complete"))
    assert len(rendered) == 400
    assert data.endswith(b"PK\5\6" + data[-18:])


def large(client: httpx.Client) -> Any:
    return client.stream("POST", URL, json={"count": 20_000, "size": "48x32"})


def stands_still(rendered: list[int]) -> bool:
    """Whether nothing more is painted."""
    before = len(rendered)
    time.sleep(0.3)
    return len(rendered) == before


def test_a_client_that_does_not_read_holds_back_the_making_and_nobody_else(
    registered: Path, rendered: list[int]
) -> None:
    with live_service(workers="2") as client, large(client) as got:
        assert got.status_code == 200  # it comes while it is made
        wait_for(lambda: stands_still(rendered))
        made = len(rendered)
        assert made < 20_000  # what the two sockets' buffers hold
        assert metric(client, PENDING) == 1
        for seed in range(5):
            assert client.post(GENERATIONS, json={"seed": seed}).status_code == 200
        chunks = got.iter_raw()
        while len(rendered) <= made + 100:
            next(chunks)


def test_a_client_that_goes_stops_the_making(
    registered: Path, rendered: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    with live_service(workers="2") as client:
        with large(client) as got:
            next(got.iter_raw())
        wait_for(lambda: has_ended(client, "disconnected"))
        wait_for(lambda: stands_still(rendered))
        assert len(rendered) < 80_000
    assert "a dataset's stream broke off: disconnected" in caplog.text


def test_a_client_that_stalls_loses_its_place(registered: Path, rendered: list[int]) -> None:
    """The limit is one on making each chunk as well, which a busy machine must keep."""
    with live_service(workers="2", request_timeout_sec="3") as client, large(client) as got:
        wait_for(lambda: has_ended(client, "stalled"))
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
            got.read()


def collect(got: httpx.Response, data: bytearray) -> None:
    for chunk in got.iter_raw():
        data += chunk


@pytest.mark.parametrize("container", ["zip", "tar"])
def test_a_failure_on_the_way_is_never_taken_for_the_whole(
    registered: Path, monkeypatch: pytest.MonkeyPatch, container: str, caplog: Any
) -> None:
    render, left = GeneratorSession.render, iter(range(40))

    def failing(self: GeneratorSession, specs: Any, *more: Any) -> Any:
        if next(left, None) is None:
            raise ZeroDivisionError("on the way")
        return render(self, specs, *more)

    with live_service(workers="1") as client:
        monkeypatch.setattr(GeneratorSession, "render", failing)
        data = bytearray()
        with client.stream("POST", URL, json={"count": 20, "container": container}) as got:
            assert got.status_code == 200
            with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
                collect(got, data)
        wait_for(lambda: has_ended(client, "failed"))
    assert "on the way" in caplog.text
    if container == "zip":
        with pytest.raises(zipfile.BadZipFile):
            zipfile.ZipFile(io.BytesIO(data))
    else:
        assert "manifest.json" not in read_tar(data)


def test_a_failure_before_the_first_byte_is_an_answer(
    registered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with live_service() as client:
        monkeypatch.setattr(GeneratorSession, "render", lambda *_: 1 / 0)
        check(client.post(URL, json={"count": 1}), 500)
        wait_for(lambda: metric(client, PENDING) == 0)


def test_what_takes_too_long_to_make_breaks_off(
    registered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    with live_service(request_timeout_sec="0.3") as client:
        with monkeypatch.context() as patch:
            patch.setattr(GeneratorSession, "render", lambda *_: release.wait(BACKSTOP_SEC) and [])
            check(client.post(URL, json={"count": 1}), 504)
            release.set()
        # On a busy machine the next one may take too long as well, in the place it was given.
        wait_for(lambda: client.post(URL, json={"count": 1}).status_code in (200, 504))


def test_the_places_and_the_pictures_are_bounded(registered: Path) -> None:
    with live_service(max_pending_datasets="1", max_dataset_pictures="10") as client:
        check(client.post(URL, json={"count": 3}), 400, "count")
        shard = {"index": 2, "of": 3}
        assert client.post(URL, json={"count": 3, "seed": 1, "shard": shard}).status_code == 200
    with live_service(max_pending_datasets="1") as client, large(client):
        refused = client.post(URL, json={"count": 1})
        assert check(refused, 429)["code"] == "queue_full"
        assert int(refused.headers["retry-after"]) >= 1
        service.app.gateway.drain()
        assert client.post(URL, json={"count": 1}).status_code == 503


def resident_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["coco", "webdataset"])
def test_the_servers_memory_stays_flat(bento_home: Path, export: Path, layout: str) -> None:
    """Thousands of tiny pictures, whose files together are far larger than what it may grow."""
    Registry().register(export)
    port = free_port()
    with serving([*COMMAND, "serve", "--port", str(port)], port) as process:
        body = {"count": 4_000, "layout": layout, "container": "zip", "seed": 1}
        url, size, seen = f"http://127.0.0.1:{port}{URL}", 0, []
        for warm in ({**body, "count": 500}, body):
            with httpx.stream("POST", url, json=warm, timeout=None) as got:
                for chunk in got.iter_raw():
                    size += len(chunk)
                    seen.append(resident_kb(process.pid))
            if warm != body:
                before, size, seen = seen[-1], 0, []
    assert size > 20_000_000
    # A good part of what was sent; the allocator alone moves it by some megabytes.
    assert max(seen) - before < 16_000


@pytest.mark.slow
def test_curl_says_that_it_broke_off(
    registered: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    render, left = GeneratorSession.render, iter(range(40))
    with live_service(workers="1") as client:
        monkeypatch.setattr(
            GeneratorSession,
            "render",
            lambda self, *given: render(self, *given) if next(left, None) is not None else 1 / 0,
        )
        command = ["curl", "-sS", "-o", tmp_path / "set.zip", f"{client.base_url}{URL}"]
        command += ["-H", "Content-Type: application/json", "-d", '{"count": 20}']
        ran = subprocess.run(command, capture_output=True)
        assert ran.returncode != 0, (tmp_path / "set.zip").read_bytes()[:500]
