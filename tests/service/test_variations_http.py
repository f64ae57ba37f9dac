"""POST /v1/images/variations: a photo's style, found by the encoder, and pictures near it."""

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.inference.generation import GeneratorSession, ImageSpec
from service.model_store.exports import read_export
from service.model_store.registry import Registry

from .conftest import write_styled_export
from .small_graphs import encoder_file, generator_graph, with_offset
from .test_augmentations_http import photo, png_header
from .test_bad_requests import check
from .test_encoding import IPTC, OURS, read_xmp
from .test_generations_http import decoded, pixels

URL = "/v1/images/variations"
NATIVE = (24, 16)


def post(client: TestClient, data: bytes, accept: str = "", **fields: Any) -> Any:
    headers = {"Accept": accept} if accept else {}
    return client.post(URL, files={"image": ("p.png", data)}, data=fields, headers=headers)


def vary(client: TestClient, data: bytes, **fields: Any) -> Any:
    response = post(client, data, **fields)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.fixture(scope="module")
def session(styled_export: Path) -> GeneratorSession:
    manifest, files = read_export(styled_export)
    others = {name: files[name] for name in ("mapping.onnx", "encoder.onnx")}
    return GeneratorSession(files["generator.onnx"], manifest, others=others, device="cpu")


def test_strength_0_is_the_reconstruction_whatever_the_seed(
    styled: TestClient, session: GeneratorSession
) -> None:
    data = photo(NATIVE)
    offset = session.encode(pixels(data), 2)
    (expected,) = session.render([ImageSpec(0, 2, 0.0, offset)])
    answer = vary(styled, data, category="boxes", strength="0", n="3")
    for picture in decoded(answer):
        np.testing.assert_array_equal(picture, expected)
    error = np.mean(((expected.astype(float) - pixels(data)) / 127.5) ** 2)
    assert answer["reconstruction_error"] == pytest.approx(error, rel=1e-6)


def test_strength_leads_away_from_the_reconstruction(styled: TestClient) -> None:
    def painted(strength: str) -> np.ndarray:
        answer = vary(styled, photo(NATIVE), category="boxes", strength=strength, seeds="[1,2,3]")
        return np.stack(decoded(answer)).astype(float)

    base = painted("0")
    distances = [np.abs(painted(strength) - base).mean() for strength in ("0.1", "0.5", "1")]
    assert 0 < distances[0] < distances[1] < distances[2]


def test_the_answer_says_what_was_made_and_how_well_the_photo_is_known(
    styled: TestClient,
) -> None:
    data = photo((60, 40), "JPEG")
    answer = vary(styled, data, category=" BOXES", n="2", seed="5", user="me", size="48x32")
    model = Registry().get("styled")
    assert (answer["model"], answer["model_hash"]) == (model.model_id, model.manifest.model_hash)
    assert (answer["size"], answer["output_format"]) == ("48x32", "png")
    assert [p["seed"] for p in answer["data"]] == [5, 6]
    assert {(p["category"], p["strength"]) for p in answer["data"]} == {("boxes", 0.5)}
    assert {p["photo_sha256"] for p in answer["data"]} == {hashlib.sha256(data).hexdigest()}
    assert answer["reconstruction_error"] > 0
    assert answer["validation_errors"] == {
        "photos": 30,
        "reconstruction": 0.1,
        "nearest_photo": 0.2,
        "mean_photo": 0.3,
    }
    assert {picture.shape for picture in decoded(answer)} == {(32, 48, 3)}


def test_by_default_the_category_that_fits_best_is_taken(styled: TestClient) -> None:
    for data in (photo(NATIVE), photo((90, 20)), photo((20, 90), "JPEG")):
        errors = {
            name: vary(styled, data, category=name)["reconstruction_error"]
            for name in ("mugs", "shoe boxes", "boxes", "café lamps")
        }
        answer = vary(styled, data, seed="1")
        best = min(errors, key=lambda name: errors[name])
        assert answer["data"][0]["category"] == best
        assert answer["reconstruction_error"] == errors[best]
        assert answer["data"] == vary(styled, data, seed="1", category=best)["data"]


def test_same_pixels_alone_or_together(styled: TestClient) -> None:
    together = vary(styled, photo(), n="4", seed="7")["data"]
    for index, picture in enumerate(together):
        assert vary(styled, photo(), seed=str(7 + index))["data"] == [picture]
    listed = vary(styled, photo(), seeds="[9, 7]")["data"]
    assert listed == [together[2], together[0]]
    assert vary(styled, photo())["data"][0]["seed"] != vary(styled, photo())["data"][0]["seed"]


def test_photos_are_cut_to_the_models_proportions(styled: TestClient) -> None:
    data = photo(NATIVE)
    wide = Image.new("RGB", (24 + 40, 16), "black")
    wide.paste(Image.open(io.BytesIO(data)), (20, 0))
    buffer = io.BytesIO()
    wide.save(buffer, "PNG")
    expected = decoded(vary(styled, data, seed="1", category="mugs"))
    np.testing.assert_array_equal(
        decoded(vary(styled, buffer.getvalue(), seed="1", category="mugs")), expected
    )


def test_photos_are_turned_upright_first(styled: TestClient) -> None:
    upright = Image.open(io.BytesIO(photo((48, 32))))
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned to the left: turn it right
    buffer = io.BytesIO()
    turned.save(buffer, "PNG", exif=exif)
    expected = decoded(vary(styled, photo((48, 32)), seed="1"))
    np.testing.assert_array_equal(decoded(vary(styled, buffer.getvalue(), seed="1")), expected)


def test_transparent_models_see_transparency(styled: TestClient) -> None:
    clear = Image.new("RGBA", NATIVE, (200, 30, 30, 0))
    buffer = io.BytesIO()
    clear.save(buffer, "PNG")
    seen = vary(styled, buffer.getvalue(), model="clear", seed="1", category="mugs")
    white = vary(styled, photo_of_white(), model="clear", seed="1", category="mugs")
    assert decoded(seen)[0].shape == (16, 24, 4)
    assert seen["reconstruction_error"] != white["reconstruction_error"]
    flat = vary(styled, buffer.getvalue(), seed="1", category="mugs")
    assert (
        decoded(flat)[0].tolist()
        == decoded(vary(styled, photo_of_white(), seed="1", category="mugs"))[0].tolist()
    )


def photo_of_white() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", NATIVE, "white").save(buffer, "PNG")
    return buffer.getvalue()


def test_greyscale_models(styled: TestClient, tmp_path: Path) -> None:
    folder = write_styled_export(tmp_path / "grey", channels=1, name="grey")
    Registry().register(folder)
    (picture,) = decoded(vary(styled, photo(), model="grey"))
    assert picture.shape == (16, 24)


def test_bare_pictures_and_archives_are_marked_as_generated(styled: TestClient) -> None:
    bare = post(styled, photo(), "image/webp", seed="5", category="mugs")
    assert bare.headers["content-type"] == "image/webp"
    assert float(bare.headers["x-catalogan-reconstruction-error"]) > 0
    packed = post(styled, photo(), "application/zip", seeds="[5]", output_format="jpeg")
    archive = zipfile.ZipFile(io.BytesIO(packed.content))
    assert json.loads(archive.read("manifest.json"))["validation_errors"]["photos"] == 30
    for data in (bare.content, archive.read("00.jpeg")):
        found = read_xmp(data)
        assert found[IPTC + "DigitalSourceType"].endswith("/trainedAlgorithmicMedia")
        assert found[OURS + "model"].startswith("styled:")
        recipe = json.loads(found[OURS + "recipe"])
        assert recipe == {"strength": 0.5, "photo_sha256": hashlib.sha256(photo()).hexdigest()}


def test_models_without_an_encoder_say_so(styled: TestClient) -> None:
    error = check(post(styled, photo(), model="shop"), 400, "model")
    assert error["code"] == "no_encoder"
    assert "train-encoder" in error["message"]
    listed = {m["id"]: m["encoder"] for m in styled.get("/v1/models").json()["data"]}
    assert (listed["styled"], listed["shop"]) == (True, False)


def test_many_categories_are_not_tried(styled: TestClient, tmp_path: Path) -> None:
    names = tuple(f"category {index}" for index in range(33))
    Registry().register(
        write_styled_export(
            tmp_path / "many",
            model=with_offset(generator_graph(categories=33)),
            others={"encoder.onnx": encoder_file(categories=33)},
            categories=names,
            name="many",
        )
    )
    error = check(post(styled, photo(), model="many"), 400, "category")
    assert error["code"] == "missing_field"
    assert vary(styled, photo(), model="many", category="category 32")["data"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 415),
        (b"not a picture", 415),
        (b"8BPS" + bytes(200), 415),
        (photo()[:200], 422),
        (photo(image_format="JPEG")[:400], 422),
        (png_header(20_000, 20_000), 413),
        (b"\0" * 25_000_001, 413),
        (photo((8, 8)), 400),
    ],
    ids=range(8),
)
def test_uploads_that_cannot_be_used(styled: TestClient, data: bytes, status: int) -> None:
    check(post(styled, data), status, "image")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": "0"}, "n"),
        ({"n": "11"}, "n"),
        ({"n": "1.0"}, "n"),
        ({"n": ""}, "n"),
        ({"n": "2", "seeds": "[1]"}, "n"),
        ({"seed": "-1"}, "seed"),
        ({"seed": str(2**53)}, "seed"),
        ({"seed": "1", "seeds": "[1]"}, "seeds"),
        ({"seeds": "1"}, "seeds"),
        ({"seeds": "[1,"}, "seeds"),
        ({"seeds": "[]"}, "seeds"),
        ({"seeds": "[1.5]"}, "seeds.0"),
        ({"seeds": str(list(range(11)))}, "seeds"),
        ({"strength": "-0.1"}, "strength"),
        ({"strength": "1.01"}, "strength"),
        ({"strength": "NaN"}, "strength"),
        ({"strength": "1e-1"}, "strength"),
        ({"strength": "٠"}, "strength"),
        ({"strength": ""}, "strength"),
        ({"category": "spoons"}, "category"),
        ({"category": ""}, "category"),
        ({"size": "100x100"}, "size"),
        ({"output_format": "gif"}, "output_format"),
        ({"output_compression": "101"}, "output_compression"),
        ({"response_format": "url"}, "response_format"),
        ({"truncation_psi": "0.5"}, "truncation_psi"),
        ({"mask": "x"}, "mask"),
    ],
    ids=str,
)
def test_fields_out_of_range(styled: TestClient, fields: dict[str, str], param: str) -> None:
    check(post(styled, photo(), **fields), 400, param)


def test_other_bad_requests(styled: TestClient) -> None:
    check(styled.post(URL, files={"n": (None, "1")}), 400, "image")
    check(styled.post(URL, json={}), 400, "Content-Type")
    check(styled.get(URL), 405)
    check(post(styled, photo(), model="none"), 404, "model")
    check(post(styled, photo(), "image/png", n="2"), 400, "n")
    check(post(styled, photo(), "text/html"), 400, "Accept")


def test_all_fields_at_once(styled: TestClient) -> None:
    fields = {
        "n": "1", "size": "auto", "model": "styled", "response_format": "b64_json", "user": "me",
        "category": "mugs", "seed": "1", "strength": "1", "output_format": "webp",
        "output_compression": "100",
    }  # fmt: skip
    assert vary(styled, photo(), **fields)["output_format"] == "webp"


def test_an_encoder_that_fails_is_a_500_in_shape(styled: TestClient, tmp_path: Path) -> None:
    # Zeros, which registration tries, have a root; a photo's mixture may be below them.
    others = {"encoder.onnx": encoder_file("Sqrt")}
    Registry().register(write_styled_export(tmp_path / "broken", others=others, name="broken"))
    assert check(post(styled, photo(), model="broken"), 500)["code"] == "internal_error"
