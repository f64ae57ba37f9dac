"""Keys, probes, draining, logs, metrics and hot swaps of the running service."""

import base64
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate
from starlette.testclient import TestClient

import service.app
from service.cli.generate import Batch, write_images
from service.inference.generation import GeneratorSession
from service.model_store.registry import Registry

from .conftest import running_service, wait_for
from .test_augmentations_http import photo
from .test_bad_requests import check

URL = "/v1/images/generations"
KEY = "secret-key-of-the-test"


@pytest.fixture
def guarded(registered: Path) -> Iterator[TestClient]:
    with running_service(api_key=KEY) as client:
        yield client


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": f"Bearer {KEY}"}, {"authorization": f"bearer {KEY}"}, {"X-API-Key": KEY}],
)
def test_the_key_opens_from_any_address(guarded: TestClient, headers: dict[str, str]) -> None:
    headers["Host"] = "shop.example.org"
    assert guarded.post(URL, json={}, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"X-API-Key": ""},
        {"X-API-Key": "ä".encode("latin-1")},
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/openapi.json", "/nothing", "/"])
def test_no_key_no_answer(guarded: TestClient, path: str, headers: dict[str, Any]) -> None:
    response = guarded.get(path, headers=headers)
    assert check(response, 401)["type"] == "authentication_error"
    assert response.headers["www-authenticate"] == "Bearer"


def test_no_body_is_read_without_the_key(guarded: TestClient) -> None:
    def endless() -> Iterator[bytes]:
        pytest.fail("the body was read")
        yield b""

    assert guarded.post(URL, content=endless()).status_code == 401


def test_probes_stay_open(guarded: TestClient) -> None:
    for path in ("/livez", "/readyz"):
        assert guarded.get(path).status_code == 200


def test_metrics_are_not_for_everybody(guarded: TestClient) -> None:
    check(guarded.get("/metrics"), 401)
    assert guarded.get("/metrics", headers={"X-API-Key": KEY}).status_code == 200


def test_metrics_can_be_left_open(registered: Path) -> None:
    with running_service(api_key=KEY, open_metrics="true") as client:
        assert client.get("/metrics").status_code == 200
        check(client.get("/v1/models"), 401)


def test_without_a_key_only_this_machine_is_served(registered: Path) -> None:
    with running_service() as client:
        for host in ("localhost", "localhost:3000", "127.0.0.1", "[::1]:3000"):
            assert client.get("/v1/models", headers={"Host": host}).status_code == 200
        assert "security" not in client.get("/v1/openapi.json").json()
        for host in ("evil.example.org", "192.168.1.5", "localhost.evil.org", "[::2]"):
            check(client.get("/v1/models", headers={"Host": host}), 401)
        outside = TestClient(client.app, base_url="http://10.0.0.5:3000")
        check(outside.get("/v1/models", headers={"Host": "localhost"}), 401)


def test_the_openapi_document_is_valid_and_complete(guarded: TestClient) -> None:
    document = guarded.get("/v1/openapi.json", headers={"X-API-Key": KEY}).json()
    validate(document)
    assert document["openapi"].startswith("3.1")
    assert document["security"] == [{"key": []}]
    assert set(document["paths"]) == {
        "/v1/datasets",
        "/v1/images/generations",
        "/v1/images/augmentations",
        "/v1/images/interpolations",
        "/v1/images/variations",
        "/v1/models",
        "/v1/models/{model}",
        "/v1/usage",
        "/v1/verifications",
    }
    assert {"StyleMixing", "GeneratedImage", "UsedStyleMixing"} <= document["components"][
        "schemas"
    ].keys()
    statuses = document["paths"][URL]["post"]["responses"]
    assert set(statuses) == {
        "200",
        *["400", "401", "403", "404", "408", "409", "413", "429", "500", "503", "504"],
    }
    led = document["paths"]["/v1/images/interpolations"]["post"]
    assert set(led["responses"]) == set(statuses) | {"415", "422"}
    files = {"application/zip", "image/webp", "image/gif"}
    assert set(led["responses"]["200"]["content"]) == files
    led_by = led["requestBody"]["content"]["application/json"]["schema"]
    assert {"seeds", "frames", "loop", "categories"} <= led_by["properties"].keys()
    led_by = led["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert {"image", "waypoints", "frames", "loop"} <= led_by["properties"].keys()
    made = document["paths"]["/v1/datasets"]["post"]
    assert set(made["responses"]) == set(statuses)
    assert set(made["responses"]["200"]["content"]) == {"application/zip", "application/x-tar"}
    assert "AskedShard" in document["components"]["schemas"]
    varied = document["paths"]["/v1/images/variations"]["post"]
    assert set(varied["responses"]) == set(statuses) | {"415", "422"}
    assert varied["responses"]["200"]["content"].keys() >= {"application/json", "image/png"}
    assert {"VariationResponse", "ValidationErrors"} <= document["components"]["schemas"].keys()
    body = varied["requestBody"]["content"]["multipart/form-data"]
    assert {"image", "strength", "seeds"} <= body["schema"]["properties"].keys()


def test_the_document_is_the_same_each_time_and_valid(client: TestClient) -> None:
    first, second = (client.get("/v1/openapi.json").json() for _ in range(2))
    assert second == first
    validate(second)


def test_without_a_model_it_lives_but_is_not_ready(bento_home: Path, export: Path) -> None:
    with running_service(poll_interval_sec="0.05") as client:
        assert client.get("/livez").status_code == 200
        for response in (client.get("/readyz"), client.post(URL, json={})):
            assert int(response.headers["retry-after"]) > 0
            assert response.status_code == 503
            assert set(response.json()) == {"error"}
        assert client.get("/v1/models").json()["data"] == []
        Registry().register(export)
        wait_for(lambda: client.get("/readyz").status_code == 200)
        assert client.post(URL, json={}).status_code == 200


def test_draining_refuses_new_work(registered: Path) -> None:
    with running_service() as client:
        service.app.gateway.drain()
        for response in (
            client.get("/readyz"),
            client.post(URL, json={}),
            client.post("/v1/images/interpolations", json={"seeds": [1, 2]}),
            client.post("/v1/images/augmentations", files={"image": photo()}),
            client.post("/v1/images/variations", files={"image": photo()}),
        ):
            assert response.status_code == 503
            assert int(response.headers["retry-after"]) > 0
        assert client.get("/livez").status_code == 200


def test_a_promotion_is_taken_over_under_load(
    bento_home: Path, make_export: Callable[..., Path]
) -> None:
    first, second = (Registry().register(make_export(seed=seed)) for seed in (1, 2))
    with running_service(poll_interval_sec="0.05") as client:
        stop, failures, seen = threading.Event(), [], []

        def ask() -> None:
            while not stop.is_set():
                response = client.post(URL, json={"category": "boxes", "seed": 1})
                if response.status_code != 200:
                    failures.append(response.text)
                else:
                    seen.append((response.json()["model"], response.json()["data"][0]["b64_json"]))

        asking = [threading.Thread(target=ask) for _ in range(2)]
        for thread in asking:
            thread.start()
        try:
            for wanted in (second, first, second):
                Registry().promote(wanted.model_id)
                wait_for(lambda wanted=wanted: seen[-1:] and seen[-1][0] == wanted.model_id)
        finally:
            stop.set()
            for thread in asking:
                thread.join()
    assert not failures
    assert len({picture for model, picture in seen if model == first.model_id}) == 1
    assert {model for model, _ in seen} == {first.model_id, second.model_id}


def test_a_promoted_model_that_cannot_load_leaves_the_old_one(
    bento_home: Path, make_export: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (Registry().register(make_export(seed=seed)) for seed in (1, 2))
    # A file that was changed after registration, and a pointer that was set by hand.
    (second.folder / "generator.onnx").write_bytes(b"broken")
    with running_service(poll_interval_sec="0.05") as client:
        Registry().promotions.promote("shop", second.version)
        wait_for(lambda: "can't be loaded" in caplog.text)
        assert client.get("/readyz").status_code == 200
        assert client.post(URL, json={}).json()["model"] == first.model_id


def test_a_pinned_version_is_served_whatever_is_promoted(
    bento_home: Path, make_export: Callable[..., Path]
) -> None:
    first, second = (Registry().register(make_export(seed=seed)) for seed in (1, 2))
    with running_service(model=second.model_id) as client:
        assert client.post(URL, json={}).json()["model"] == second.model_id
    with running_service(model="shop") as client:
        assert client.post(URL, json={}).json()["model"] == first.model_id


def test_a_bug_is_500_in_shape_and_the_log_has_it(
    registered: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("inner secret")

    with running_service() as client:
        monkeypatch.setattr(GeneratorSession, "render", broken)
        response = client.post(URL, json={}, headers={"X-Request-Id": "my-id.1"})
    error = check(response, 500)
    assert "secret" not in error["message"]
    assert response.headers["x-request-id"] == "my-id.1"
    assert "inner secret" in caplog.text
    assert "my-id.1" in caplog.text


def test_request_ids_are_ours_unless_plain(guarded: TestClient) -> None:
    for given in ("a b", "x" * 65, "ü".encode("latin-1"), ""):
        response = guarded.get("/v1/models", headers={"X-Request-Id": given})
        assert len(response.headers["x-request-id"]) == 32


def test_logs_hold_neither_keys_nor_pictures_nor_paths(
    guarded: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="service"):
        headers = {"Authorization": f"Bearer {KEY}"}
        body = {"prompt": "boxes of private things", "user": "somebody"}
        picture = guarded.post(URL, json=body, headers=headers).json()["data"][0]["b64_json"]
        guarded.get("/secret-path", headers=headers)
    assert "POST /v1/images/generations 200" in caplog.text
    for private in (KEY, picture[:40], "private", "somebody", "secret-path"):
        assert private not in caplog.text


def test_metrics_are_labelled_by_template(guarded: TestClient) -> None:
    headers = {"X-API-Key": KEY}
    for index in range(20):
        guarded.get(f"/v1/models/none{index}", headers=headers)
        guarded.get(f"/nothing/{index}", headers=headers)
        guarded.request(f"BREW{index}", "/v1/models", headers=headers)
    guarded.post(URL, json={"n": 3}, headers=headers)
    text = guarded.get("/metrics", headers=headers).text
    assert "none1" not in text
    assert "nothing" not in text
    assert "BREW" not in text
    assert (
        'catalogan_http_requests_total{method="GET",route="/v1/models/{model}",status="404"} 20.0'
        in text
    )
    assert 'route="unmatched",status="404"} 20.0' in text
    assert 'method="other",route="/v1/models",status="405"} 20.0' in text
    assert 'catalogan_pictures_total{kind="generation",model="shop:' in text
    assert "catalogan_ready 1.0" in text


def test_the_service_knows_no_torch() -> None:
    code = (
        "import sys, service.bento, service.model_store.inspection; "
        "import service.cli.serve, service.cli.generate, service.cli.verify; "
        "print([m for m in ('torch', 'torchvision', 'training') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_http_and_command_line_give_the_same_pixels(
    guarded: TestClient, tmp_path: Path, export: Path
) -> None:
    batch = Batch(count=12, category="boxes", seed=2**53 - 3, truncation_psi=0.9)
    write_images(batch, tmp_path / "registered")
    write_images(batch, tmp_path / "export", export=export)
    body = {"n": 10, "category": "boxes", "seed": 2**53 - 3, "truncation_psi": 0.9}
    answer = guarded.post(URL, json=body, headers={"X-API-Key": KEY}).json()
    assert len(list((tmp_path / "export").iterdir())) == 12
    for picture in answer["data"]:
        data = base64.b64decode(picture["b64_json"])
        for folder in ("registered", "export"):
            assert (tmp_path / folder / f"boxes-{picture['seed']}.png").read_bytes() == data
