"""Marks of everything that is handed out, over HTTP, as readers other than ours see them."""

import base64
import io
import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import c2pa
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.model_store.registry import Registry
from service.provenance.manifests import MAX_KEPT_BYTES
from service.provenance.marker import read_development_key
from service.provenance.signing import ManifestSigner
from service.provenance.signing_keys import create_development_keys
from service.provenance.xmp import Mark

from .conftest import model_store, running_service

SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
Made = tuple[bytes, str]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys") / "made"
    create_development_keys(folder, "Shop Inc")
    return folder


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory, styled_export: Path, keys: Path
) -> Iterator[TestClient]:
    """A service that signs with the operator's key."""
    settings = {
        "marks": "signed",
        "signing_certificate": str(keys / "certificate.pem"),
        "signing_key": str(keys / "key.pem"),
    }
    with model_store(tmp_path_factory.mktemp("bentoml"), **settings):
        Registry().register(styled_export)
        with running_service() as client:
            yield client


def read(data: bytes, media_type: str, root: Path | None = None) -> c2pa.Reader:
    """The file as any C2PA reader sees it, which may know our root."""
    settings: dict[str, Any] = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
    if root is not None:
        settings["trust"] = {"trust_anchors": root.read_text()}
    return c2pa.Reader(media_type, io.BytesIO(data), context=c2pa.Context.from_dict(settings))


def photo(**options: Any) -> bytes:
    pixels = np.random.default_rng(3).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def generated(client: TestClient, output_format: str = "png", accept: str = "image/*") -> Made:
    body = {"seed": 5, "category": "boxes", "output_format": output_format}
    response = client.post("/v1/images/generations", json=body, headers={"Accept": accept})
    assert response.status_code == 200, response.text
    return response.content, response.headers["content-type"]


def augmented(client: TestClient, data: bytes) -> bytes:
    files, accept = {"image": ("my secret name.png", data)}, {"Accept": "image/png"}
    response = client.post("/v1/images/augmentations", files=files, headers=accept)
    assert response.status_code == 200, response.text
    return response.content


def verify(client: TestClient, data: bytes) -> dict[str, Any]:
    response = client.post("/v1/verifications", files={"image": data})
    assert response.status_code == 200, response.text
    return response.json()


def layers(answer: dict[str, Any]) -> dict[str, str]:
    return {one["layer"]: one["status"] for one in answer["layers"]}


def every_kind(client: TestClient) -> dict[str, Made]:
    """One file of each way in which pictures leave the service."""
    made = {kind: generated(client, kind) for kind in ("png", "jpeg", "webp")}
    for kind in ("webp", "gif"):
        body = {"seeds": [1, 2], "frames": 3}
        accept = {"Accept": f"image/{kind}"}
        response = client.post("/v1/images/interpolations", json=body, headers=accept)
        made[f"animated {kind}"] = (response.content, f"image/{kind}")
    response = client.post("/v1/images/generations", json={"seed": 5, "n": 2})
    data = base64.b64decode(response.json()["data"][1]["b64_json"])
    made["json"] = (data, "image/png")
    response = client.post("/v1/images/interpolations", json={"seeds": [1, 2], "frames": 2})
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        made["zip"] = (archive.read("01.png"), "image/png")
    files, accept = {"image": photo()}, {"Accept": "image/png"}
    response = client.post("/v1/images/variations", files=files, headers=accept)
    made["variation"] = (response.content, "image/png")
    made["augmentation"] = (augmented(client, photo()), "image/png")
    return made


def test_every_file_is_signed_and_known_again(shop: TestClient, keys: Path) -> None:
    for name, (data, media_type) in every_kind(shop).items():
        root = keys / "root.pem"
        assert read(data, media_type, root).get_validation_state() == "Trusted", name
        assert read(data, media_type).get_validation_state() == "Valid", name
        assert b"<x:xmpmeta" in data, name
        answer = verify(shop, data)
        assert answer["verdict"] == "ours", name
        assert layers(answer) == {"c2pa": "trusted", "record": "found", "xmp": "found"}, name
        with Image.open(io.BytesIO(data)) as image:
            assert getattr(image, "n_frames", 1) == (3 if "animated" in name else 1)
            image.load()


def test_exiftool_reads_where_pictures_are_from(shop: TestClient, tmp_path: Path) -> None:
    if shutil.which("exiftool") is None:
        pytest.skip("ExifTool is not installed: apt-get install libimage-exiftool-perl")
    made = every_kind(shop)
    for name, (data, media_type) in made.items():
        (tmp_path / f"{name}.{media_type.removeprefix('image/')}").write_bytes(data)
    command = ["exiftool", "-json", "-struct", "-G1", str(tmp_path)]
    read_back = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert len(read_back) == len(made)
    for found in read_back:
        name = Path(found["SourceFile"]).stem
        told = ("algorithmicallyEnhanced", "trainedAlgorithmicMedia")[name != "augmentation"]
        assert found["XMP-iptcExt:DigitalSourceType"] == SOURCE_TYPES + told, name
        painted_by = None if name == "augmentation" else "Catalogan"
        assert found.get("XMP-iptcExt:AISystemUsed") == painted_by, name
        assert not {"ExifTool:Warning", "ExifTool:Error"} & found.keys(), (name, found)


def manifest_of(data: bytes) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """Actions, our assertion, and the whole."""
    manifest = read(data, "image/png").get_active_manifest()
    assert manifest is not None
    found = {one["label"]: one["data"] for one in manifest["assertions"]}
    return found["c2pa.actions.v2"]["actions"], found["org.catalogan.picture"], manifest


def test_a_generated_picture_says_what_made_it(shop: TestClient) -> None:
    (action,), facts, manifest = manifest_of(generated(shop)[0])
    model = shop.get("/v1/models").json()["data"][0]
    assert action["action"] == "c2pa.created"
    assert action["digitalSourceType"] == SOURCE_TYPES + "trainedAlgorithmicMedia"
    assert action["softwareAgent"]["name"] == "Catalogan"
    assert facts == {
        "model": f"styled:{model['version']}",
        "model_sha256": model["model_hash"],
        "seed": 5,
        "category": "boxes",
        "truncation_psi": model["truncation_psi"],
    }
    assert manifest["claim_generator_info"][0]["name"] == "Catalogan"
    assert "thumbnail" not in json.dumps(manifest)
    assert model["marks"] == {"xmp": True, "signed_by": "operator", "watermark": False}
    claims = verify(shop, generated(shop)[0])["claims"]
    assert (claims["seed"], claims["category"]) == (5, "boxes")


def test_all_that_a_manifest_says_is_created_by_its_signer(shop: TestClient) -> None:
    """As C2PA's conformance program wants it: nothing is "gathered", and no action left out."""
    for name in ("png", "variation", "augmentation"):
        data, media_type = every_kind(shop)[name]
        reader = read(data, media_type)
        label, manifests = reader.get_active_manifest()["label"], json.loads(reader.detailed_json())
        manifest = manifests["manifests"][label]
        claim, actions = manifest["claim"], manifest["assertion_store"]["c2pa.actions.v2"]
        created = {one["url"].rpartition("/")[2] for one in claim["created_assertions"]}
        ingredients = {"c2pa.ingredient.v3"} if name != "png" else set()
        assert created == {
            "c2pa.actions.v2",
            "org.catalogan.picture",
            "c2pa.hash.data",
            *ingredients,
        }
        assert not claim.get("gathered_assertions")
        assert actions["allActionsIncluded"] is True
        assert claim["claim_generator_info"]["specVersion"] == "2.4.0"


def test_a_variation_is_created_with_a_photo_as_input(shop: TestClient) -> None:
    (action,), facts, manifest = manifest_of(every_kind(shop)["variation"][0])
    assert action["action"] == "c2pa.created"
    assert action["digitalSourceType"] == SOURCE_TYPES + "trainedAlgorithmicMedia"
    (ingredient,) = manifest["ingredients"]
    assert ingredient["relationship"] == "inputTo"
    assert len(facts["photo_sha256"]) == 64


def test_a_way_through_photos_has_these_as_inputs(shop: TestClient) -> None:
    files = [("image", ("a", photo())), ("image", ("b", photo(compress_level=1)))]
    response = shop.post("/v1/images/interpolations", files=files, data={"frames": "3"})
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        frames = [archive.read(f"{index:02d}.png") for index in range(3)]
    inputs = []
    for frame in frames:
        (action,), _, manifest = manifest_of(frame)
        assert action["action"] == "c2pa.created"
        assert {one["relationship"] for one in manifest["ingredients"]} == {"inputTo"}
        assert len(action["parameters"]["ingredients"]) == len(manifest["ingredients"])
        inputs.append(len(manifest["ingredients"]))
        assert read(frame, "image/png").get_validation_state() == "Valid"
    assert inputs == [1, 2, 1]


def test_an_augmented_photo_is_opened_and_edited(shop: TestClient) -> None:
    data = augmented(shop, photo())
    (opened, edited), facts, manifest = manifest_of(data)
    assert (opened["action"], edited["action"]) == ("c2pa.opened", "c2pa.edited")
    assert edited["digitalSourceType"] == SOURCE_TYPES + "algorithmicallyEnhanced"
    (ingredient,) = manifest["ingredients"]
    assert ingredient["relationship"] == "parentOf"
    assert "model" not in facts
    assert b"secret name" not in data


def varied(client: TestClient, data: bytes) -> bytes:
    files, accept = {"image": data}, {"Accept": "image/png"}
    response = client.post("/v1/images/variations", files=files, headers=accept)
    assert response.status_code == 200, response.text
    return response.content


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> ManifestSigner:
    """Somebody else's, whom we need not trust."""
    folder = tmp_path_factory.mktemp("camera") / "made"
    create_development_keys(folder, "Camera Inc")
    return ManifestSigner(read_development_key(folder))


@pytest.mark.parametrize(
    ("make", "relationship"), [(augmented, "parentOf"), (varied, "inputTo")], ids=["edit", "vary"]
)
def test_a_photos_own_manifest_is_kept(
    shop: TestClient,
    keys: Path,
    camera: ManifestSigner,
    make: Callable[[TestClient, bytes], bytes],
    relationship: str,
) -> None:
    captured = camera.sign(photo(), "image/png", Mark(SOURCE_TYPES + "digitalCapture", 7, "c:1"))
    label = manifest_of(captured)[2]["label"]
    data = make(shop, captured)
    (*_, action), _, manifest = manifest_of(data)
    (ingredient,) = manifest["ingredients"]
    assert (ingredient["relationship"], ingredient["active_manifest"]) == (relationship, label)
    kept = json.loads(read(data, "image/png").json())["manifests"][label]
    assert kept["signature_info"]["issuer"] == "Camera Inc"
    assert read(data, "image/png", keys / "root.pem").get_validation_state() == "Trusted"
    answer = verify(shop, data)
    assert (answer["verdict"], layers(answer)["c2pa"]) == ("ours", "trusted")
    assert answer["claims"]["source_type"] == action["digitalSourceType"]
    # And once more, by our own.
    again = make(shop, data)
    assert len(json.loads(read(again, "image/png").json())["manifests"]) == 3
    assert verify(shop, again)["verdict"] == "ours"


@pytest.mark.parametrize("make", [augmented, varied], ids=["edit", "vary"])
def test_a_manifest_that_is_changed_or_large_is_not_kept(
    shop: TestClient, camera: ManifestSigner, make: Callable[[TestClient, bytes], bytes]
) -> None:
    captured = camera.sign(photo(), "image/png", Mark(SOURCE_TYPES + "digitalCapture", 7, "c:1"))
    size = int.from_bytes(captured[33:37], "big") + 12
    elsewhere = photo(compress_level=1)
    moved = elsewhere[:33] + captured[33 : 33 + size] + elsewhere[33:]
    long = Mark(SOURCE_TYPES + "digitalCapture", 7, "c:1", category="x" * MAX_KEPT_BYTES)
    for data in (moved, camera.sign(photo(), "image/png", long)):
        made = make(shop, data)
        (ingredient,) = manifest_of(made)[2]["ingredients"]
        assert "active_manifest" not in ingredient
        assert len(made) < 60_000
        assert verify(shop, made)["verdict"] == "ours"


def test_an_edit_does_not_take_the_mark_of_a_synthetic_picture(shop: TestClient) -> None:
    data = augmented(shop, augmented(shop, generated(shop)[0]))
    (_, edited), _, _ = manifest_of(data)
    assert edited["digitalSourceType"] == SOURCE_TYPES + "trainedAlgorithmicMedia"
    assert verify(shop, data)["claims"]["source_type"] == edited["digitalSourceType"]


def test_pixels_are_equal_where_bytes_are_not(shop: TestClient) -> None:
    first, second = (generated(shop)[0] for _ in range(2))
    assert first != second
    pixels = [np.asarray(Image.open(io.BytesIO(data))) for data in (first, second)]
    np.testing.assert_array_equal(*pixels)


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_one_changed_bit_is_seen(shop: TestClient, output_format: str) -> None:
    data = bytearray(generated(shop, output_format)[0])
    data[-30] ^= 1  # of the pixels, in all three
    if output_format == "webp":
        data = bytearray(generated(shop, output_format)[0])
        data[data.index(b"VP8 ") + 40] ^= 1
    answer = verify(shop, bytes(data))
    assert (answer["verdict"], answer["ours"]) == ("tampered", False)
    assert layers(answer) == {
        "c2pa": "tampered",
        "record": "absent",
        "watermark": "unavailable",
        "xmp": "found",
    }


def test_what_is_left_after_saving_anew(shop: TestClient) -> None:
    image = Image.open(io.BytesIO(generated(shop)[0]))
    image.load()
    kept, bare = io.BytesIO(), io.BytesIO()
    image.save(kept, "JPEG", xmp=image.info["xmp"])
    image.save(bare, "JPEG", xmp=b"")
    answer = verify(shop, kept.getvalue())
    assert layers(answer) == {
        "c2pa": "absent",
        "record": "absent",
        "watermark": "unavailable",
        "xmp": "found",
    }
    assert (answer["verdict"], answer["claims"]["seed"]) == ("claimed", 5)
    answer = verify(shop, bare.getvalue())
    assert layers(answer) == {
        "c2pa": "absent",
        "record": "absent",
        "watermark": "unavailable",
        "xmp": "absent",
    }
    assert answer["verdict"] == "unknown"


def test_a_strangers_signature_is_not_ours(shop: TestClient, tmp_path: Path) -> None:
    create_development_keys(tmp_path / "other", "Shop Inc")
    mark = Mark(SOURCE_TYPES + "trainedAlgorithmicMedia", 7, "styled:1", "f" * 64, "boxes")
    data = ManifestSigner(read_development_key(tmp_path / "other")).sign(photo(), "image/png", mark)
    answer = verify(shop, data)
    assert layers(answer) == {
        "c2pa": "untrusted",
        "record": "absent",
        "watermark": "unavailable",
        "xmp": "absent",
    }
    assert (answer["verdict"], answer["claims"]["seed"]) == ("claimed", 7)
    changed = bytearray(data)
    changed[-30] ^= 1
    answer = verify(shop, bytes(changed))
    assert layers(answer)["c2pa"] == "tampered"
    assert answer["verdict"] == "claimed"  # but never ours


def test_a_request_can_not_turn_marks_off(shop: TestClient) -> None:
    for field in ("marks", "mark", "xmp", "c2pa", "sign"):
        response = shop.post("/v1/images/generations", json={"seed": 1, field: False})
        assert response.status_code == 400


def test_uploads_that_can_not_be_verified(shop: TestClient) -> None:
    def status(**options: Any) -> tuple[int, str]:
        response = shop.post("/v1/verifications", **options)
        return response.status_code, response.json()["error"]["code"]

    assert status(files={"image": b"no picture"}) == (415, "unsupported_image")
    assert status(data={"image": "http://example.com/a.png"}) == (400, "invalid_value")
    assert status(files={"image": photo()}, data={"trust": "me"})[0] == 400
    assert status(json={}) == (400, "invalid_value")
    assert status(files={"image": b"\x89PNG\r\n\x1a\n" + bytes(25_000_001)}) == (413, "too_large")
