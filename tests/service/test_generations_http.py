"""POST /v1/images/generations, as clients use it, through the whole BentoML service."""

import base64
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.model_store.registry import Registry

URL = "/v1/images/generations"
CATEGORIES = ["mugs", "shoe boxes", "boxes", "café lamps"]


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def decoded(answer: Any) -> list[np.ndarray]:
    return [pixels(base64.b64decode(picture["b64_json"])) for picture in answer["data"]]


def test_the_answer_has_openais_shape_and_says_what_was_made(client: TestClient) -> None:
    response = client.post(URL, json={"prompt": "a red mug", "n": 3, "seed": 5})
    assert response.status_code == 200
    answer = response.json()
    model = Registry().get("shop")
    assert answer["model"] == model.model_id
    assert answer["model_hash"] == model.manifest.model_hash
    assert (answer["output_format"], answer["size"]) == ("png", "24x16")
    assert answer["truncation_psi"] == 0.7
    assert abs(answer["created"] - 1_767_000_000) < 10**9
    assert [p["seed"] for p in answer["data"]] == [5, 6, 7]
    assert {p["category"] for p in answer["data"]} == {"mugs"}
    assert {picture.shape for picture in decoded(answer)} == {(16, 24, 3)}


def test_openais_other_fields_and_nulls_change_nothing(client: TestClient) -> None:
    plain = client.post(URL, json={"prompt": "mug", "seed": 1}).json()
    full = {
        "prompt": "mug",
        "seed": 1,
        "model": None,
        "n": None,
        "size": "auto",
        "output_format": None,
        "output_compression": 100,
        "response_format": "b64_json",
        "background": "opaque",
        "quality": "high",
        "style": "vivid",
        "moderation": "low",
        "stream": False,
        "partial_images": 0,
        "user": "someone",
        "category": None,
        "truncation_psi": None,
    }
    assert client.post(URL, json=full).json()["data"] == plain["data"]


def test_same_seed_same_pixels_alone_or_together(client: TestClient) -> None:
    together = decoded(client.post(URL, json={"category": "boxes", "n": 7, "seed": 40}).json())
    for index, picture in enumerate(together):
        alone = client.post(URL, json={"category": "boxes", "seed": 40 + index}).json()
        np.testing.assert_array_equal(decoded(alone)[0], picture)


def test_seeds_wrap_where_json_numbers_end(client: TestClient) -> None:
    answer = client.post(URL, json={"category": "boxes", "n": 2, "seed": 2**53 - 1}).json()
    assert [p["seed"] for p in answer["data"]] == [2**53 - 1, 0]


def test_without_seed_pictures_differ_and_can_be_had_again(client: TestClient) -> None:
    first, second = (client.post(URL, json={"category": "boxes"}).json() for _ in range(2))
    seed = first["data"][0]["seed"]
    assert seed != second["data"][0]["seed"]
    again = client.post(URL, json={"category": "boxes", "seed": seed}).json()
    assert again["data"] == first["data"]


@pytest.mark.parametrize("body", [{}, {"prompt": ""}, {"prompt": "  "}, {"prompt": None}])
def test_without_category_all_take_turns(client: TestClient, body: dict[str, Any]) -> None:
    answer = client.post(URL, json={**body, "n": 5, "seed": 6}).json()
    found = [p["category"] for p in answer["data"]]
    assert found == [CATEGORIES[(6 + index) % 4] for index in range(5)]


def test_category_wins_over_prompt_and_is_found_in_any_case(client: TestClient) -> None:
    body = {"prompt": "a mug", "category": " CAFÉ lamps ", "seed": 1}
    assert client.post(URL, json=body).json()["data"][0]["category"] == "café lamps"


def test_the_mark_says_all_that_the_picture_can_be_made_of_again(client: TestClient) -> None:
    body = {"category": "boxes", "seed": 3, "truncation_psi": 0.3}
    data = client.post(URL, json=body, headers={"Accept": "image/png"}).content
    packet = Image.open(io.BytesIO(data)).info["XML:com.adobe.xmp"]
    for said in ('catalogan:seed="3"', 'catalogan:truncationPsi="0.3"', 'category="boxes"'):
        assert said in packet


def test_an_unknown_field_of_a_field_is_not_told_the_outer_ones(client: TestClient) -> None:
    body = {"style_mixing": {"coarse": 1, "fine": 2, "crossovr": 1}}
    response = client.post(URL, json=body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, "style_mixing.crossovr")
    assert "prompt" not in error["message"]


def test_truncation_changes_pixels(client: TestClient) -> None:
    body = {"category": "boxes", "seed": 1}
    low, high = (
        decoded(client.post(URL, json=body | {"truncation_psi": psi}).json()) for psi in (0, 1.0)
    )
    assert not np.array_equal(low[0], high[0])


@pytest.mark.parametrize("output_format", ["png", "webp", "jpeg"])
def test_a_bare_picture(client: TestClient, output_format: str) -> None:
    body = {"category": "café lamps", "seed": 9, "output_compression": 100}
    response = client.post(URL, json=body, headers={"Accept": f"image/{output_format}"})
    assert response.status_code == 200
    assert response.headers["content-type"] == f"image/{output_format}"
    assert response.headers["x-catalogan-seed"] == "9"
    assert response.headers["x-catalogan-model"].startswith("shop:")
    assert response.headers["x-catalogan-category"] == "caf%C3%A9 lamps"
    assert Image.open(io.BytesIO(response.content)).format == output_format.upper()
    reference = decoded(client.post(URL, json=body).json())[0]
    if output_format == "jpeg":
        assert np.abs(pixels(response.content).astype(int) - reference).mean() < 20
    else:
        np.testing.assert_array_equal(pixels(response.content), reference)


def test_an_archive(client: TestClient) -> None:
    body = {"category": "boxes", "seed": 3, "n": 2, "output_format": "webp"}
    response = client.post(URL, json=body, headers={"Accept": "application/zip"})
    archive = zipfile.ZipFile(io.BytesIO(response.content))
    assert archive.namelist() == ["manifest.json", "00.webp", "01.webp"]
    assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
    manifest = json.loads(archive.read("manifest.json"))
    assert [p["seed"] for p in manifest["data"]] == [3, 4]
    reference = decoded(client.post(URL, json=body).json())
    for picture, expected in zip(manifest["data"], reference, strict=True):
        np.testing.assert_array_equal(pixels(archive.read(picture["file"])), expected)


def test_models_can_be_named(client: TestClient) -> None:
    version = Registry().get("shop").version
    for name in ("shop", f"shop:{version}"):
        body = {"category": "boxes", "seed": 3, "model": name}
        assert client.post(URL, json=body).json()["model"] == f"shop:{version}"


@pytest.mark.parametrize("name", ["gpt-image-1", "shop:000000000000", "", ":", "../x", "a" * 128])
def test_unknown_models_are_404_and_list_the_known(client: TestClient, name: str) -> None:
    response = client.post(URL, json={"category": "boxes", "model": name})
    assert response.status_code == 404
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert "Served: shop:" in error["message"]


def test_other_promoted_models_load_on_demand(
    client: TestClient, make_export: Any, tmp_path: Path
) -> None:
    Registry().register(make_export(name="second", size=(24, 16, 1), seed=9))
    answer = client.post(URL, json={"model": "second", "seed": 1}).json()
    assert answer["size"] == "16x24"
    assert {picture.shape for picture in decoded(answer)} == {(24, 16)}
    listed = client.get("/v1/models").json()["data"]
    assert [(m["id"], m["default"]) for m in listed] == [("shop", True), ("second", False)]
    assert client.get("/v1/models/second").json() == listed[1]
    third = Registry().register(make_export(name="second", size=(24, 16, 1), seed=10))
    assert client.get(f"/v1/models/{third.model_id}").status_code == 404
    body = {"model": third.model_id, "seed": 1}
    assert client.post(URL, json=body).status_code == 404  # registered, not promoted


def test_prompts_may_use_synonyms(make_export: Any, bento_home: Path) -> None:
    from .conftest import running_service

    synonyms = {"mugs": ["cup", "Becher"], "boxes": ["carton"]}
    Registry().register(make_export(synonyms=synonyms))
    with running_service() as own:
        for prompt, category in (("two red CUPS", "mugs"), ("a shoe box", "shoe boxes")):
            answer = own.post(URL, json={"prompt": prompt, "seed": 1}).json()
            assert answer["data"][0]["category"] == category
        refused = own.post(URL, json={"prompt": "a cup beside a carton"})
        assert "several categories, mugs, boxes" in refused.json()["error"]["message"]
        none = own.post(URL, json={"prompt": "a spoon"}).json()["error"]
        assert "known are mugs, shoe boxes, boxes, café lamps" in none["message"]
        (listed,) = own.get("/v1/models").json()["data"]
        assert listed["synonyms"] == synonyms


def test_greyscale_and_transparent_models(make_export: Any, bento_home: Path) -> None:
    from .conftest import running_service

    Registry().register(make_export(name="clear", size=(16, 24, 4)))
    with running_service() as own:
        body = {"seed": 1, "background": "transparent"}
        (picture,) = decoded(own.post(URL, json=body).json())
        assert picture.shape == (16, 24, 4)
