"""POST /v1/images/generations: lists of seeds, mixtures, mixed styles, sizes and backgrounds."""

import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.model_store.registry import Registry

from .conftest import write_styled_export
from .small_graphs import NUM_WS
from .test_bad_requests import check
from .test_encoding import OURS, read_xmp
from .test_generations_http import decoded, pixels

URL = "/v1/images/generations"


def made(client: TestClient, **body: Any) -> list[np.ndarray]:
    response = client.post(URL, json=body)
    assert response.status_code == 200, response.text
    return decoded(response.json())


def test_listed_seeds_give_a_picture_each(styled: TestClient) -> None:
    seeds = [7, 2**53 - 1, 7, 0]
    response = styled.post(URL, json={"category": "mugs", "seeds": seeds, "n": 4})
    assert [p["seed"] for p in response.json()["data"]] == seeds
    for seed, picture in zip(seeds, decoded(response.json()), strict=True):
        np.testing.assert_array_equal(made(styled, category="mugs", seed=seed), [picture])


def test_listed_seeds_take_their_own_turn_of_the_categories(styled: TestClient) -> None:
    answer = styled.post(URL, json={"seeds": [2, 0, 6]}).json()
    assert [p["category"] for p in answer["data"]] == ["boxes", "mugs", "boxes"]
    bare = styled.post(URL, json={"seeds": [2]}, headers={"Accept": "image/png"})
    assert bare.headers["x-catalogan-seed"] == "2"
    check(styled.post(URL, json={"seeds": [2, 3]}, headers={"Accept": "image/png"}), 400, "n")


def test_a_mixture_of_one_category_is_that_category(styled: TestClient) -> None:
    alone = styled.post(URL, json={"category": "boxes", "seed": 4, "n": 2}).json()
    mixed = styled.post(URL, json={"categories": {" BOXES": 3}, "seed": 4, "n": 2}).json()
    assert mixed["data"] == alone["data"]


def test_a_mixture_says_what_was_mixed_and_can_be_asked_for_again(styled: TestClient) -> None:
    body = {"categories": {"boxes": 1, "Mugs": 3.0}, "seed": 4}
    response = styled.post(URL, json=body)
    (picture,) = response.json()["data"]
    assert picture["category"] == "75 % mugs + 25 % boxes"
    assert picture["categories"] == {"mugs": 0.75, "boxes": 0.25}
    bare = styled.post(URL, json=body, headers={"Accept": "image/webp"})
    assert unquote(bare.headers["x-catalogan-category"]) == "75 % mugs + 25 % boxes"
    assert json.loads(unquote(bare.headers["x-catalogan-categories"])) == picture["categories"]
    mark = read_xmp(bare.content)
    assert mark[OURS + "category"] == "75 % mugs + 25 % boxes"
    assert json.loads(mark[OURS + "recipe"]) == {"categories": picture["categories"]}
    again = styled.post(URL, json={"categories": picture["categories"], "seed": 4}).json()
    assert again["data"] == [picture]
    ends = [made(styled, category=name, seed=4)[0] for name in ("mugs", "boxes")]
    assert not any(np.array_equal(decoded(response.json())[0], end) for end in ends)


def test_the_order_of_a_mixture_changes_nothing(styled: TestClient) -> None:
    names = {"mugs": 0.1, "boxes": 0.2, "shoe boxes": 0.3, "café lamps": 0.7}
    turned = dict(reversed(names.items()))
    first, second = (styled.post(URL, json={"categories": c, "seed": 1}) for c in (names, turned))
    assert first.json()["data"] == second.json()["data"]


def mixing(coarse: int, fine: int, crossover: int | None = None) -> dict[str, Any]:
    asked = {"coarse": coarse, "fine": fine}
    return asked if crossover is None else {**asked, "crossover": crossover}


def test_mixing_a_style_with_itself_is_the_plain_picture(styled: TestClient) -> None:
    for psi in (0.0, 0.7, 1.0):
        body = {"category": "mugs", "truncation_psi": psi}
        plain = made(styled, **body, seed=3)
        np.testing.assert_array_equal(made(styled, **body, style_mixing=mixing(3, 3)), plain)


def test_the_crossovers_ends_are_the_two_seeds_pictures(styled: TestClient) -> None:
    coarse, fine = (made(styled, category="mugs", seed=seed)[0] for seed in (3, 8))
    (none,) = made(styled, category="mugs", style_mixing=mixing(3, 8, NUM_WS))
    np.testing.assert_array_equal(none, coarse)
    (everything,) = made(styled, category="mugs", style_mixing=mixing(3, 8, 0))
    # w1 + (w2 - w1) is w2 but for its last bit.
    assert np.abs(everything.astype(int) - fine).max() <= 1
    between = [made(styled, category="mugs", style_mixing=mixing(3, 8, x))[0] for x in (1, 2)]
    assert len({picture.tobytes() for picture in [coarse, fine, *between]}) == 4


def test_the_default_crossover_is_half_of_the_layers_and_is_reported(styled: TestClient) -> None:
    body = {"categories": {"mugs": 1, "boxes": 1}, "style_mixing": mixing(3, 8), "n": 3}
    answer = styled.post(URL, json=body).json()
    used = [{"coarse": 3 + k, "fine": 8, "crossover": NUM_WS // 2} for k in range(3)]
    assert [p["style_mixing"] for p in answer["data"]] == used
    assert [p["seed"] for p in answer["data"]] == [3, 4, 5]
    for asked, together in zip(used, answer["data"], strict=True):
        alone = styled.post(URL, json={**body, "n": 1, "style_mixing": asked}).json()["data"]
        assert alone == [together]
    bare = styled.post(URL, json={**body, "n": 1}, headers={"Accept": "image/png"})
    recipe = json.loads(read_xmp(bare.content)[OURS + "recipe"])
    assert recipe["style_mixing"] == used[0]


def test_the_noise_is_the_coarse_seeds(styled: TestClient, tmp_path: Path) -> None:
    Registry().register(write_styled_export(tmp_path / "noisy", noise_scale=1.0, name="noisy"))
    body = {"model": "noisy", "category": "mugs"}
    plain, fine = made(styled, **body, seeds=[3, 8])
    (itself,) = made(styled, **body, style_mixing=mixing(3, 3))
    (other,) = made(styled, **body, style_mixing=mixing(3, 8, 0))
    np.testing.assert_array_equal(plain, itself)
    assert np.abs(other.astype(int) - fine).max() > 1


def test_a_model_without_mapping_says_so(styled: TestClient) -> None:
    body = {"model": "shop", "style_mixing": mixing(1, 2)}
    error = check(styled.post(URL, json=body), 400, "style_mixing")
    listed = {m["id"]: m["style_layers"] for m in styled.get("/v1/models").json()["data"]}
    assert (listed["styled"], listed["shop"]) == (NUM_WS, None)
    assert error["code"] == "no_mapping"
    assert "mapping.onnx" in error["message"]


@pytest.mark.parametrize("accept", ["image/png", "image/webp", "image/jpeg"])
@pytest.mark.parametrize("size", ["48x32", "36x24", "24x16"])
def test_sizes(styled: TestClient, size: str, accept: str) -> None:
    body = {"category": "mugs", "seed": 1, "size": size}
    response = styled.post(URL, json=body, headers={"Accept": accept})
    assert response.headers["x-catalogan-size"] == size
    shown = Image.open(io.BytesIO(response.content))
    assert f"{shown.width}x{shown.height}" == size
    if accept == "image/png":
        native = Image.fromarray(made(styled, category="mugs", seed=1)[0])
        expected = native.resize(shown.size, Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(pixels(response.content), np.asarray(expected))


def test_backgrounds(styled: TestClient) -> None:
    body = {"model": "clear", "category": "mugs", "seed": 1}
    (plain,) = made(styled, **body)
    assert plain[..., 3].min() < 255
    for same in ("auto", "transparent"):
        np.testing.assert_array_equal(made(styled, **body, background=same)[0], plain)
    alpha = plain[..., 3:].astype(float) / 255
    for name, colour in (("opaque", 255), ("white", 255), ("#FF8000", (255, 128, 0))):
        (shown,) = made(styled, **body, background=name)
        expected = plain[..., :3] * alpha + np.array(colour) * (1 - alpha)
        assert shown.shape == (16, 24, 3)
        assert np.abs(shown - expected).max() <= 1
    both = made(styled, **body, background="#ff8000", size="48x32")[0]
    assert both.shape == (32, 48, 3)


def test_opaque_pictures_need_no_background(styled: TestClient) -> None:
    body = {"category": "mugs", "seed": 1}
    for background in ("auto", "opaque"):
        answer = made(styled, **body, background=background)
        np.testing.assert_array_equal(answer, made(styled, **body))
    for background in ("transparent", "white", "#ffffff"):
        response = styled.post(URL, json={**body, "background": background})
        assert "no transparency" in check(response, 400, "background")["message"]


def test_jpeg_does_not_pretend_to_be_transparent(styled: TestClient) -> None:
    body = {"model": "clear", "background": "transparent", "output_format": "jpeg"}
    assert "png or webp" in check(styled.post(URL, json=body), 400, "background")["message"]
    assert styled.post(URL, json={**body, "background": "auto"}).status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"seeds": []}, "seeds"),
        ({"seeds": list(range(11))}, "seeds"),
        ({"seeds": [-1]}, "seeds.0"),
        ({"seeds": [1, 2**53]}, "seeds.1"),
        ({"seeds": [True]}, "seeds.0"),
        ({"seeds": ["1"]}, "seeds.0"),
        ({"seeds": 1}, "seeds"),
        ({"seeds": [1], "seed": 1}, "seeds"),
        ({"seeds": [1, 2], "n": 1}, "n"),
        ({"categories": {}}, "categories"),
        ({"categories": {f"c{k}": 1 for k in range(17)}}, "categories"),
        ({"categories": ["mugs"]}, "categories"),
        ({"categories": {"mugs": 0}}, "categories.mugs"),
        ({"categories": {"mugs": -1}}, "categories.mugs"),
        ({"categories": {"mugs": "1"}}, "categories.mugs"),
        ({"categories": {"mugs": True}}, "categories.mugs"),
        ({"categories": {"mugs": None}}, "categories.mugs"),
        ({"categories": {"mugs": 1e7}}, "categories.mugs"),
        ({"categories": {"mugs": 10**30}}, "categories.mugs"),
        ({"categories": {"spoons": 1}}, "categories"),
        ({"categories": {"": 1}}, "categories"),
        ({"categories": {"mugs": 1, "MUGS ": 1}}, "categories"),
        ({"categories": {"mugs": 1}, "category": "mugs"}, "categories"),
        ({"style_mixing": {}}, "style_mixing.coarse"),
        ({"style_mixing": mixing(1, -1)}, "style_mixing.fine"),
        ({"style_mixing": mixing(2**53, 1)}, "style_mixing.coarse"),
        ({"style_mixing": mixing(1, 2, -1)}, "style_mixing.crossover"),
        ({"style_mixing": mixing(1, 2, NUM_WS + 1)}, "style_mixing.crossover"),
        ({"style_mixing": {**mixing(1, 2), "crossover": 1.5}}, "style_mixing.crossover"),
        ({"style_mixing": {**mixing(1, 2), "medium": 3}}, "style_mixing.medium"),
        ({"style_mixing": [1, 2]}, "style_mixing"),
        ({"style_mixing": mixing(1, 2), "seed": 1}, "style_mixing"),
        ({"style_mixing": mixing(1, 2), "seeds": [1]}, "style_mixing"),
        ({"background": "#12345"}, "background"),
        ({"background": "#12345g"}, "background"),
        ({"background": "white\n"}, "background"),
        ({"background": "rgb(0,0,0)"}, "background"),
        ({"background": 5}, "background"),
        ({"size": "48x33"}, "size"),
        ({"size": "99x66"}, "size"),
        ({"size": 48}, "size"),
    ],
    ids=str,
)
def test_bad_fields(styled: TestClient, body: dict[str, Any], param: str) -> None:
    check(styled.post(URL, json=body), 400, param)


def test_a_long_or_odd_name_in_a_mixture(styled: TestClient) -> None:
    for name in ("x" * 201, "\ud800", "\x00"):
        response = styled.post(
            URL,
            content=json.dumps({"categories": {name: 1}}),
            headers={"Content-Type": "application/json"},
        )
        error = response.json()["error"]
        check(response, 400, error["param"])
        assert error["param"].startswith("categories")
