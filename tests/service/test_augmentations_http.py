"""POST /v1/images/augmentations: what it does is what it says, and every upload is hostile."""

import base64
import io
import json
import struct
import zipfile
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from service.augmentation.operations import OPERATIONS
from starlette.testclient import TestClient

from service.augmentation.augmentation import MAX_OUTPUT_SIDE_PX, apply_parameters

from .test_bad_requests import check
from .test_imaging import IPTC, OURS, read_xmp

URL = "/v1/images/augmentations"
EVERYTHING = [{"name": name, "probability": 1.0} for name in OPERATIONS]


def photo(size: tuple[int, int] = (60, 40), image_format: str = "PNG", **options: Any) -> bytes:
    image = Image.new("RGB", size, (250, 250, 245))
    draw = ImageDraw.Draw(image)
    draw.rectangle((size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2), fill=(200, 30, 30))
    draw.ellipse((size[0] // 2, 2, size[0] - 3, size[1] // 2), fill=(20, 60, 200))
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def post(client: TestClient, data: bytes, accept: str = "", **fields: Any) -> Any:
    if "operations" in fields and not isinstance(fields["operations"], str):
        fields["operations"] = json.dumps(fields["operations"])
    headers = {"Accept": accept} if accept else {}
    return client.post(URL, files={"image": ("p.png", data)}, data=fields, headers=headers)


def decoded(picture: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture["b64_json"]))))


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_does_exactly_what_the_answer_lists(client: TestClient, name: str) -> None:
    data = photo()
    asked = [{"name": name, "probability": 1.0}]
    answer = post(client, data, operations=asked, seed=3, n=2).json()
    original = Image.open(io.BytesIO(data))
    changed = False
    for picture in answer["data"]:
        assert [step["name"] for step in picture["operations"]] == [name]
        again = apply_parameters(original, picture["operations"])
        np.testing.assert_array_equal(decoded(picture), again)
        changed |= not np.array_equal(again, np.asarray(original))
    assert changed
    assert answer["size"] == "60x40"


def test_a_seed_belongs_to_a_picture(client: TestClient) -> None:
    together = post(client, photo(), operations=EVERYTHING, seed=10, n=4).json()["data"]
    assert [picture["seed"] for picture in together] == [10, 11, 12, 13]
    alone = post(client, photo(), operations=EVERYTHING, seed=12).json()["data"]
    assert alone == together[2:3]
    assert together[0]["operations"] != together[1]["operations"]


def test_ranges_are_kept(client: TestClient) -> None:
    operations = [{"name": "rotate", "degrees": [5, 5]}, {"name": "flip", "probability": 0}]
    for picture in post(client, photo(), operations=operations, n=3).json()["data"]:
        assert picture["operations"] == [{"name": "rotate", "degrees": 5.0}]


def test_new_corners_take_the_backdrops_colour(client: TestClient) -> None:
    operations = [{"name": "rotate", "degrees": [45, 45]}]
    (picture,) = post(client, photo(), operations=operations).json()["data"]
    assert decoded(picture)[0, 0].tolist() == [250, 250, 245]


def test_bare_pictures_and_archives_carry_the_mark_of_an_edit(client: TestClient) -> None:
    bare = post(client, photo(), "image/webp", seed=5)
    assert bare.headers["content-type"] == "image/webp"
    assert json.loads(bare.headers["x-catalogan-operations"].replace("%22", '"'))
    packed = post(client, photo(), "application/zip", seed=5, n=2, output_format="jpeg")
    archive = zipfile.ZipFile(io.BytesIO(packed.content))
    for data in (bare.content, archive.read("00.jpeg")):
        found = read_xmp(data)
        assert found[IPTC + "DigitalSourceType"].endswith("/algorithmicallyEnhanced")
        assert found[OURS + "seed"] == "5"
        assert OURS + "model" not in found


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF"])
def test_accepted_formats(client: TestClient, image_format: str) -> None:
    assert post(client, photo(image_format=image_format)).status_code == 200


def test_large_photos_come_back_at_a_bounded_size(client: TestClient) -> None:
    answer = post(client, photo((4000, 1000), "JPEG"), "image/jpeg", n=1)
    assert Image.open(io.BytesIO(answer.content)).size == (MAX_OUTPUT_SIDE_PX, 512)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds almost nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    idat = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + idat + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 415),
        (b"not a picture", 415),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
        (b"%PDF-1.7", 415),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", 415),
        (photo(image_format="BMP"), 415),
        (photo()[:200], 422),
        (photo(image_format="JPEG")[:400], 422),
        (png_header(100, 100), 422),
        (png_header(20_000, 20_000), 413),
        (png_header(2**31 - 1, 2**31 - 1), 413),
        (photo((8, 8)), 400),
    ],
    ids=range(12),
)
def test_uploads_that_cannot_be_used(client: TestClient, data: bytes, status: int) -> None:
    check(post(client, data), status, "image")


def test_the_declared_type_is_not_believed(client: TestClient) -> None:
    files = {"image": ("x.svg", photo(), "image/svg+xml")}
    assert client.post(URL, files=files).status_code == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": "0"}, "n"),
        ({"n": "11"}, "n"),
        ({"n": "1.0"}, "n"),
        ({"n": "٣"}, "n"),
        ({"n": ""}, "n"),
        ({"seed": "-1"}, "seed"),
        ({"seed": str(2**53)}, "seed"),
        ({"seed": "9" * 400}, "seed"),
        ({"output_format": "bmp"}, "output_format"),
        ({"output_compression": "101"}, "output_compression"),
        ({"response_format": "url"}, "response_format"),
        ({"url": "http://127.0.0.1/x.png"}, "url"),
        ({"operations": "["}, "operations"),
        ({"operations": "{}"}, "operations"),
        ({"operations": "[]"}, "operations"),
        ({"operations": '[{"name":"rotate","degrees":[0,NaN]}]'}, "operations"),
        ({"operations": [{"name": "explode"}]}, "operations.0"),
        ({"operations": [{"degrees": [0, 1]}]}, "operations.0"),
        ({"operations": [{"name": "flip"}] * 17}, "operations"),
        ({"operations": [{"name": "rotate", "degrees": [1]}]}, None),
        ({"operations": [{"name": "rotate", "degrees": [-200, 0]}]}, None),
        ({"operations": [{"name": "rotate", "degrees": [9, 3]}]}, "operations.0.rotate.degrees"),
        ({"operations": [{"name": "rotate", "degrees": ["0", "1"]}]}, None),
        ({"operations": [{"name": "blur", "radius_px": [0, 1000]}]}, None),
        ({"operations": [{"name": "crop", "scale": [0, 1]}]}, None),
        ({"operations": [{"name": "jpeg", "quality": [0.5, 2]}]}, None),
        ({"operations": [{"name": "flip", "axis": "both"}]}, "operations.0.flip.axis"),
        ({"operations": [{"name": "flip", "often": 1}]}, "operations.0.flip.often"),
        ({"operations": [{"name": "flip", "probability": 2}]}, "operations.0.flip.probability"),
    ],
)
def test_fields_out_of_range(client: TestClient, fields: dict[str, Any], param: str | None) -> None:
    response = post(client, photo(), **fields)
    error = response.json()["error"]
    check(response, 400, error["param"])
    assert (error["param"] or "").startswith(param or "operations.0.")


def test_the_file_must_be_a_file(client: TestClient) -> None:
    for body in ({"data": {"image": "http://127.0.0.1:9/x.png"}}, {"files": {"photo": photo()}}):
        response = client.post(URL, **body)
        assert response.status_code == 400
    check(client.post(URL, files={"image": (None, "http://127.0.0.1:9/x.png")}), 400, "image")
    check(client.post(URL, files={"n": (None, "1")}), 400, "image")
    two = [("image", ("a.png", photo())), ("image", ("b.png", photo()))]
    check(client.post(URL, files=two), 400)
    twice = [("image", ("a.png", photo())), ("n", (None, "1")), ("n", (None, "2"))]
    check(client.post(URL, files=twice), 400, "n")


@pytest.mark.parametrize(
    ("media", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=", b"x"),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", b"nonsense"),
        ("multipart/form-data; boundary=b", b"--b\r\nnonsense\r\n\r\nx\r\n--b--\r\n"),
        (
            "multipart/form-data; boundary=b",
            b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--",
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\ntruncated',
        ),
        ("multipart/form-data; boundary=" + "b" * 5000, b"--" + b"b" * 5000),
        ("application/json", b"{}"),
        ("image/png", b"\x89PNG"),
        ("", b""),
    ],
)
def test_malformed_forms(client: TestClient, media: str, body: bytes) -> None:
    response = client.post(URL, content=body, headers={"Content-Type": media})
    check(response, 400, response.json()["error"]["param"])


def test_many_fields_and_large_fields(client: TestClient) -> None:
    check(client.post(URL, files={f"f{i}": (None, "1") for i in range(100)}), 400)
    check(client.post(URL, files={"operations": (None, " " * 60_000)}), 400)


def test_uploads_over_the_cap(client: TestClient) -> None:
    assert check(post(client, b"\0" * 25_000_001), 413, "image")
    declared = {"Content-Length": "99999999", "Content-Type": "multipart/form-data; boundary=b"}
    check(client.post(URL, content=b"--b", headers=declared), 413)
