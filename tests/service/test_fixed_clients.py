"""Clients that can't be changed: they name OpenAI's models, OpenAI's sizes, and want URLs."""

import base64
import io
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.access.links import Links
from service.errors import SettingsError
from service.generation.requests import GenerationRequest
from service.model_store.registry import Registry
from service.settings import load_settings

from .conftest import BACKSTOP_SEC, Held, model_store, running_service
from .live import live_service
from .test_augmentations_http import photo
from .test_bad_requests import check
from .test_openai_client import vary

KEY = "secret-key-of-the-test"
AUTH = {"Authorization": f"Bearer {KEY}"}
URL = "/v1/images/generations"
ADDRESS = "https://images.example/catalogue"
LINKS = {"public_url": ADDRESS, "link_key": "k" * 32}
SETTINGS = {
    "api_key": KEY,
    "model_aliases": "gpt-image-1=styled,dall-e-3=styled,other=shop",
    "round_sizes": "1",
    **LINKS,
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, styled_export: Path, export: Path) -> Any:
    with model_store(tmp_path_factory.mktemp("bentoml")) as home:
        Registry().register(styled_export)
        Registry().register(export)
        yield home


def test_the_openai_package(store: Path) -> None:
    with live_service(**SETTINGS) as address:
        with openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0) as client:
            made = client.images.generate(
                model="gpt-image-1", prompt="a mug", size="1024x1024", n=2, response_format="url"
            )
            assert client.models.retrieve("dall-e-3").id == "styled"
            varied = vary(client, image=photo(), model="gpt-image-1", size="1024x1024", n=1)
        assert varied.size == "96x64"
        assert made.size == "96x64"
        for one in made.data or []:
            assert one.b64_json is None
            assert one.url
            image = httpx.get(address + path_of(one.url))  # without the key
            assert image.headers["content-type"] == "image/png"
            assert image.headers["cache-control"] == "private, max-age=3600"
            assert pixels(image.content)[:2] == ("PNG", (96, 64))


def test_only_the_operator_turns_this_on(store: Path) -> None:
    with running_service() as client:
        url = client.post(URL, json={"response_format": "url"})
        assert url.json()["error"]["param"] == "response_format"
        assert "send b64_json, or leave it out" in url.json()["error"]["message"]
        assert client.post(URL, json={"size": "1024x1024"}).json()["error"]["param"] == "size"
        assert client.post(URL, json={"model": "gpt-image-1"}).status_code == 404
        assert client.get("/v1/images/links/a.b").status_code == 404


def test_who_follows_links_fills_no_queue_of_others(store: Path, held: Held) -> None:
    with (
        running_service(**SETTINGS, max_pending_generations="1") as client,
        ThreadPoolExecutor() as callers,
    ):
        client.headers.update(AUTH)
        (one,) = generate(client, category="mugs", seed=1, response_format="url")["data"]
        followed = callers.submit(client.get, path_of(one["url"]))
        assert held.begun.wait(BACKSTOP_SEC)
        pending = client.get("/metrics").text
        assert client.get(path_of(one["url"])).status_code == 429
        held.release.set()
        assert followed.result().status_code == 200
        assert 'catalogan_pending_requests{queue="generations"} 0.0' in pending


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"public_url": ADDRESS}, "CATALOGAN_PUBLIC_URL and CATALOGAN_LINK_KEY together"),
        ({"link_key": "k" * 32}, "CATALOGAN_PUBLIC_URL and CATALOGAN_LINK_KEY together"),
        ({"public_url": "images.example", "link_key": "k" * 32}, "CATALOGAN_PUBLIC_URL"),
        ({**LINKS, "link_key": "short"}, "CATALOGAN_LINK_KEY"),
        ({"model_aliases": "gpt-image-1"}, "CATALOGAN_MODEL_ALIASES"),
        ({"model_aliases": "a=b,=c"}, "CATALOGAN_MODEL_ALIASES"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        load_settings(**settings)
    assert "k" * 32 not in str(caught.value)


@pytest.fixture(scope="module")
def service(store: Path) -> Iterator[TestClient]:
    with running_service(**SETTINGS) as client:
        client.headers.update(AUTH)
        yield client


def path_of(url: str) -> str:
    assert url.startswith(ADDRESS + "/v1/images/links/")
    return url.removeprefix(ADDRESS)


def generate(service: TestClient, **body: Any) -> dict[str, Any]:
    response = service.post(URL, json=body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def pixels(data: bytes) -> tuple[str | None, tuple[int, int], bytes]:
    with Image.open(io.BytesIO(data)) as image:
        return image.format, image.size, image.tobytes()


def test_open_webui(service: TestClient) -> None:
    """What it sends by default, and with models for which it leaves response_format out."""
    asked = {"model": "dall-e-3", "prompt": "some mugs", "n": 1, "size": "512x512"}
    for body in ({**asked, "response_format": "b64_json"}, {**asked, "model": "gpt-image-1"}):
        (image,) = generate(service, **body)["data"]
        assert pixels(base64.b64decode(image["b64_json"]))[0] == "PNG"
    answer = service.post(f"{URL}?api-version=2026-01-01", json=asked)
    assert answer.status_code == 200
    assert [model["id"] for model in service.get("/v1/models").json()["data"]] == ["styled", "shop"]


@pytest.mark.parametrize(
    "more",
    [
        {"category": "boxes", "seed": 3},
        {"categories": {"mugs": 0.25, "café lamps": 0.5}, "seeds": [9, 2**53 - 1]},
        {"style_mixing": {"coarse": 4, "fine": 8}, "n": 2, "category": "mugs"},
        {"seed": 11, "n": 3, "truncation_psi": 0.25, "size": "48x32"},
        {"seed": 1, "output_format": "webp", "output_compression": 100, "model": "other"},
    ],
)
def test_a_link_is_the_image(service: TestClient, more: dict[str, Any]) -> None:
    linked = generate(service, **more, response_format="url")
    whole = generate(service, **more)
    for one, image in zip(linked.pop("data"), whole.pop("data"), strict=True):
        fetched = service.get(path_of(one.pop("url")), headers={"Authorization": ""})
        assert fetched.status_code == 200
        assert pixels(fetched.content) == pixels(base64.b64decode(image.pop("b64_json")))
        assert one == image
        assert fetched.headers["X-Catalogan-Seed"] == str(image["seed"])
    assert linked | {"created": 0} == whole | {"created": 0}


def test_who_follows_a_link_stores_nothing_and_is_in_the_records(service: TestClient) -> None:
    (one,) = generate(service, category="mugs", seed=1, response_format="url")["data"]
    for _ in range(2):
        image = service.get(path_of(one["url"]), headers={"Idempotency-Key": "mine"})
        assert image.status_code == 200
        assert not {"idempotency-replayed", "idempotency-stored"} & image.headers.keys()
    found = service.post("/v1/verifications", files={"image": image.content}).json()
    assert found["verdict"] == "ours"


def test_what_is_wrong_is_said_before_there_is_a_link(service: TestClient) -> None:
    for body, param in (({"prompt": "a spoon"}, "prompt"), ({"category": "x"}, "category")):
        refused = service.post(URL, json={**body, "response_format": "url"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    bare = service.post(
        URL, json={"response_format": "url"}, headers={"Accept": "image/png", **AUTH}
    )
    assert bare.json()["error"]["param"] == "response_format"


def test_a_link_that_was_not_signed_here_is_nothing(service: TestClient) -> None:
    (one,) = generate(service, category="mugs", seed=1, response_format="url")["data"]
    path = path_of(one["url"])
    payload, _, signature = path.rpartition("/")[2].partition(".")
    content = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert time.time() < content["expires"] <= time.time() + 3600
    other = base64.urlsafe_b64encode(json.dumps({**content, "seed": 2}).encode()).decode()
    foreign = Links(load_settings(public_url=ADDRESS, link_key="x" * 32))
    stolen = path_of(foreign.sign("/v1/images/links/", content))
    for link in (
        *(f"{other.rstrip('=')}.{signature}", f"{payload}.{signature[:-2]}", f"{payload}."),
        *(payload, f"{payload}.{signature}A", f"{payload}.{signature}=", "x", ".x", "%00.%00"),
        stolen.rpartition("/")[2],
    ):
        refused = service.get(f"/v1/images/links/{link}")
        assert refused.status_code == 404, link
        assert refused.json()["error"]["code"] == "link_expired"
    assert service.get(path).status_code == 200
    assert check(service.post(path), 405)["message"] == "this path takes GET alone"


def test_a_link_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    links = Links(load_settings(**LINKS))
    link = links.sign("/", {"seed": 1}).rpartition("/")[2]
    assert links.read(link) == {"seed": 1}
    now = time.time()
    for after, content in ((3590, {"seed": 1}), (3601, None)):
        monkeypatch.setattr(time, "time", lambda after=after: now + after)
        assert links.read(link) == content


def test_null_is_as_left_out(service: TestClient) -> None:
    optional = dict.fromkeys(GenerationRequest.model_fields)
    assert len(generate(service, **optional)["data"]) == 1
