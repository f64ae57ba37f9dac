"""POST /v1/images/augmentations: what it does is what it says, and every upload is hostile."""

import base64
import hashlib
import io
import json
import struct
import zipfile
import zlib
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image, ImageDraw
from starlette.testclient import TestClient

from service.augmentation.operations.geometry import MAX_SIDE_PX
from service.augmentation.pipeline import Photo, compose, render
from service.augmentation.policies import POLICIES, AnyOperation
from service.augmentation.requests import AugmentationRequest

from .test_bad_requests import check
from .test_encoding import IPTC, OURS, read_xmp

URL = "/v1/images/augmentations"
NAMES = [
    get_args(kind.model_fields["name"].annotation)[0]
    for kind in get_args(get_args(AnyOperation)[0])
]
EVERYTHING = [
    {"name": name, "probability": 1.0} for name in NAMES if name not in ("background", "canvas")
]


def photo(size: tuple[int, int] = (60, 40), image_format: str = "PNG", **options: Any) -> bytes:
    image = Image.new("RGB", size, (250, 250, 245))
    draw = ImageDraw.Draw(image)
    draw.rectangle((size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2), fill=(200, 30, 30))
    draw.ellipse((size[0] // 2, 2, size[0] - 3, size[1] // 2), fill=(20, 60, 200))
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


JSON_FIELDS = ("operations", "canvas", "replay", "annotations")


def post(client: TestClient, data: bytes | list[Any], accept: str = "", **fields: Any) -> Any:
    """Send one photo, or a list of parts."""
    for name in JSON_FIELDS:
        if name in fields and not isinstance(fields[name], str):
            fields[name] = json.dumps(fields[name])
    headers = {"Accept": accept} if accept else {}
    files = data if isinstance(data, list) else [("image", ("p.png", data))]
    return client.post(URL, files=files, data=fields, headers=headers)


def decoded(picture: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture["b64_json"]))))


def do_again(data: bytes, steps: list[dict[str, Any]]) -> np.ndarray:
    """Do to a photo what an answer lists."""
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    replay = [{"operations": steps}]
    (entry,) = AugmentationRequest.model_validate({"replay": replay}).replay or ()
    opened = Photo("image", (pixels.shape[1], pixels.shape[0]), "", pixels)
    return render(opened, entry.operations, compose(entry.operations, opened))


@pytest.mark.parametrize("name", NAMES)
def test_each_operation_does_exactly_what_the_answer_lists(client: TestClient, name: str) -> None:
    data = photo()
    asked = {"name": name, "probability": 1.0}
    if name == "canvas":
        asked["aspect"] = "1:1"
    answer = post(client, data, operations=[asked], seed=3, n=2).json()
    original = Image.open(io.BytesIO(data))
    changed = False
    for picture in answer["data"]:
        assert [step["name"] for step in picture["operations"]] == [name]
        again = do_again(data, picture["operations"])
        np.testing.assert_array_equal(decoded(picture), again)
        changed |= not np.array_equal(again, np.asarray(original))
    assert changed
    assert answer["size"] == ("60x60" if name == "canvas" else "60x40")


def test_a_seed_belongs_to_a_picture(client: TestClient) -> None:
    together = post(client, photo(), operations=EVERYTHING, seed=10, n=4).json()["data"]
    assert [picture["seed"] for picture in together] == [10, 11, 12, 13]
    alone = post(client, photo(), operations=EVERYTHING, seed=12).json()["data"]
    assert alone == together[2:3]
    assert together[0]["operations"] != together[1]["operations"]


def test_ranges_are_kept(client: TestClient) -> None:
    operations = [{"name": "rotate", "degrees": [5, 5]}, {"name": "flip", "probability": 0}]
    for picture in post(client, photo(), operations=operations, n=3).json()["data"]:
        assert picture["operations"] == [{"name": "rotate", "probability": 1.0, "degrees": 5.0}]


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
    assert Image.open(io.BytesIO(answer.content)).size == (MAX_SIDE_PX, 512)


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
        (b"8BPS" + bytes(200), 415),
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
        ({"operations": [{"name": "flip"}] * 25}, "operations"),
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
        ({"operations": [{"name": "rotate", "degrees": "5"}]}, "operations.0.rotate.degrees"),
        ({"operations": [{"name": "rotate", "degrees": 181}]}, "operations.0.rotate.degrees"),
        (
            {"operations": [{"name": "shear", "x_degrees": 45, "y_degrees": 45}]},
            "operations.0.shear",
        ),
        ({"operations": [{"name": "canvas", "size": "0x15"}]}, "operations.0.canvas.size"),
        ({"operations": [{"name": "canvas", "size": "4096x16"}]}, "operations.0.canvas.size"),
        ({"operations": [{"name": "canvas", "aspect": "9:1"}]}, "operations.0.canvas.aspect"),
        ({"operations": [{"name": "canvas", "background": "red"}]}, "operations.0.canvas"),
        ({"operations": [{"name": "background", "fills": ["url(x)"]}]}, "operations.0.background"),
        ({"operations": [{"name": "scale", "factor": 0.2}] * 8}, "operations"),
        ({"canvas": {"size": "32x32", "aspect": "1:1"}}, "canvas"),
        ({"canvas": []}, "canvas"),
        ({"policy": "wild"}, "policy"),
        ({"policy": "light", "operations": EVERYTHING}, "operations"),
        ({"min_visible": "1.5"}, "min_visible"),
        ({"min_visible": "NaN"}, "min_visible"),
        ({"replay": []}, "replay"),
        ({"replay": [{"operations": []}], "policy": "light"}, "replay"),
        ({"replay": [{"operations": []}], "n": "2"}, "replay"),
        ({"replay": [{"operations": [], "photo": 1}]}, "replay.0.photo"),
        ({"replay": [{"operations": [], "photo_sha256": "0" * 64}]}, "image"),
        ({"replay": [{"operations": [], "photo_sha256": "0"}]}, "replay.0.photo_sha256"),
        ({"replay": [{"operations": [{"name": "flip"}]}]}, "replay.0.operations.0.probability"),
        (
            {"replay": [{"operations": [{"name": "jpeg", "quality": [3, 4]}]}]},
            "replay.0.operations.0.quality",
        ),
        (
            {"replay": [{"operations": [{"name": "noise", "sigma": 0}]}]},
            "replay.0.operations.0.seed",
        ),
        ({"annotations": "{}"}, "annotations"),
        ({"annotations": "[[]]"}, "annotations.0"),
        ({"annotations": [{}, {}]}, "annotations"),
        ({"annotations": [{"boxes": [[1, 2, 3]]}]}, "annotations.0.boxes.0"),
        ({"annotations": [{"boxes": [[1, 2, 3, "4"]]}]}, "annotations.0.boxes.0.3"),
        ({"annotations": '[{"boxes":[[1,2,3,NaN]]}]'}, "annotations"),
        ({"annotations": '[{"boxes":[[1,2,3,1e999]]}]'}, "annotations.0.boxes.0.3"),
        ({"annotations": [{"boxes": [[0, 0, 9, 9], [1, 2, 99, 4]]}]}, "annotations.0.boxes.1"),
        ({"annotations": [{"boxes": [[0.5, 0.5, 0.2, 0.3]]}]}, "annotations.0.boxes"),
        ({"annotations": [{"boxes": [[9, 9, 9, 0]]}]}, "annotations.0.boxes.0"),
        ({"annotations": [{"format": "xyxy", "boxes": [[9, 9, 5, 20]]}]}, "annotations.0.boxes.0"),
        ({"annotations": [{"boxes": [[1, 2, 3, 4]], "labels": []}]}, "annotations.0"),
        ({"annotations": [{"polygons": [[1, 2, 3, 4]]}]}, "annotations.0.polygons.0"),
        ({"annotations": [{"polygons": [[1, 2, 3, 4, 5, 6, 7]]}]}, "annotations.0.polygons.0"),
        ({"annotations": [{"polygons": [[1, 2, 3, 4, 5, 600]]}]}, "annotations.0.polygons.0"),
        ({"annotations": [{"keypoints": [[[1, 2, 3]]]}]}, "annotations.0.keypoints.0.0.2"),
        ({"annotations": [{"keypoints": [[[1, 200, 2]]]}]}, "annotations.0.keypoints.0"),
        ({"annotations": [{"keypoints": [[[1, 2, 2]]], "flip_pairs": [[0, 1]]}]}, "annotations.0"),
        ({"annotations": [{"colour": "red"}]}, "annotations.0.colour"),
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


@pytest.mark.parametrize("charset", ["punycode", "idna", "utf-7", "zlib", '"utf-16"'])
def test_no_client_chooses_the_codec(client: TestClient, charset: str) -> None:
    """Decoding a field's name of 500 kB as Punycode took the event loop for minutes."""
    media = f"multipart/form-data; boundary=b; charset={charset}"
    name = b"a" * 20_000
    body = b'--b\r\nContent-Disposition: form-data; name="' + name + b'"\r\n\r\nx\r\n--b--\r\n'
    check(client.post(URL, content=body, headers={"Content-Type": media}), 400, "Content-Type")


def test_a_form_may_say_that_it_is_utf_8(client: TestClient) -> None:
    head = 'Content-Disposition: form-data; name="image"; filename="größe.png"\r\n\r\n'.encode()
    body = b"--b\r\n" + head + photo() + b"\r\n--b--\r\n"
    media = "multipart/form-data; boundary=b; charset=UTF-8"
    response = client.post(URL, content=body, headers={"Content-Type": media})
    assert response.status_code == 200, response.text


def test_many_fields_and_large_fields(client: TestClient) -> None:
    check(client.post(URL, files={f"f{i}": (None, "1") for i in range(100)}), 400)
    check(client.post(URL, files={"operations": (None, " " * 1_100_000)}), 400, "operations")


def test_uploads_over_the_cap(client: TestClient) -> None:
    assert check(post(client, b"\0" * 25_000_001), 413, "image")
    declared = {"Content-Length": "99999999", "Content-Type": "multipart/form-data; boundary=b"}
    check(client.post(URL, content=b"--b", headers=declared), 413)


MARKED = {
    "label": "boxes",
    "boxes": [[15, 10, 15, 10]],
    "labels": ["red box"],
    "polygons": [[15, 10, 30, 10, 30, 20, 15, 20]],
    "keypoints": [[[15, 10, 2], [30, 10, 1], [0, 0, 0]]],
    "flip_pairs": [[0, 1]],
}


def mask_file(size: tuple[int, int] = (60, 40), mode: str = "L", **options: Any) -> bytes:
    """Class 3 where the photo's rectangle is."""
    image = Image.new(mode, size, 0)
    if mode == "P":
        image.putpalette([0, 0, 0, 9, 9, 9, 8, 8, 8, 255, 0, 0])
    box = (size[0] // 4, size[1] // 4, size[0] // 2 - 1, size[1] // 2 - 1)
    ImageDraw.Draw(image).rectangle(
        box, fill={"RGB": (3, 3, 3), "RGBA": (3, 3, 3, 255)}.get(mode, 3)
    )
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def numbered(count: int) -> list[Any]:
    return [("image", (f"{i}.png", photo((60 + 4 * i, 40)))) for i in range(count)]


def test_sixteen_photos_each_get_their_pictures(client: TestClient) -> None:
    annotations = [dict(MARKED, label=i) if i % 2 else None for i in range(16)]
    parts = numbered(16)
    answer = post(client, parts, n=2, seed=100, annotations=annotations).json()
    assert "size" not in answer
    assert [picture["photo"] for picture in answer["data"]] == [i // 2 for i in range(32)]
    assert [picture["seed"] for picture in answer["data"]] == list(range(100, 132))
    for picture in answer["data"]:
        height, width = decoded(picture).shape[:2]
        assert picture["size"] == f"{width}x{height}" == f"{60 + 4 * picture['photo']}x40"
        found = picture.get("annotations", {}).get("label")
        assert found == (picture["photo"] if picture["photo"] % 2 else None)
    alone = post(client, parts[3:4], n=2, seed=106, annotations=annotations[3:4]).json()["data"]
    assert [{**picture, "photo": 3} for picture in alone] == answer["data"][6:8]


def test_seventeen_photos_are_too_many(client: TestClient) -> None:
    check(post(client, numbered(17)), 400, "image")
    masks = [("mask", (f"{i}.png", mask_file())) for i in range(17)]
    check(post(client, [*numbered(1), *masks]), 400, "mask")


def test_arrays_may_be_named_as_openai_clients_do(client: TestClient) -> None:
    parts = [("image[]", file) for _, file in numbered(2)]
    assert [picture["photo"] for picture in post(client, parts).json()["data"]] == [0, 1]


def test_the_photo_at_fault_is_named(client: TestClient) -> None:
    parts = numbered(3)
    parts[2] = ("image", ("c.png", photo()[:200]))
    check(post(client, parts), 422, "image.2")
    parts[2] = ("image", ("c.png", b"GIF"))
    check(post(client, parts), 415, "image.2")
    annotations = [None, {"boxes": [[0, 0, 9, 9], [1, 2, 99, 4]]}, None]
    check(post(client, numbered(3), annotations=annotations), 400, "annotations.1.boxes.1")
    wood = Image.effect_noise((80, 80), 90).convert("RGB")
    buffer = io.BytesIO()
    wood.save(buffer, "PNG")
    parts[2] = ("image", ("c.png", buffer.getvalue()))
    error = check(post(client, parts, policy="marketplace"), 400, "image.2")
    assert error["code"] == "subject_not_found"


def test_annotations_go_the_way_of_the_pixels(client: TestClient) -> None:
    operations = [{"name": "flip", "probability": 1}]
    parts = [("image", ("a.png", photo())), ("mask", ("a.png", mask_file()))]
    (picture,) = post(client, parts, operations=operations, annotations=[MARKED]).json()["data"]
    assert picture["annotations"] == {
        "label": "boxes",
        "format": "coco",
        "boxes": [[30, 10, 15, 10]],
        "labels": ["red box"],
        "visible": [1],
        "polygons": [[45, 10, 30, 10, 30, 20, 45, 20]],
        "keypoints": [[[30, 10, 1], [45, 10, 2], [0, 0, 0]]],
        "dropped": {"boxes": [], "polygons": []},
    }
    assert picture["matrix"] == [[-1, 0, 60], [0, 1, 0], [0, 0, 1]]
    np.testing.assert_array_equal(
        decoded(picture), np.asarray(Image.open(io.BytesIO(photo())))[:, ::-1]
    )
    mask = decoded({"b64_json": picture["mask_b64_json"]})
    np.testing.assert_array_equal(np.argwhere(mask == 3)[[0, -1]], [[10, 30], [19, 44]])


@pytest.mark.parametrize("known", ["polygon", "mask"])
def test_a_rotated_box_is_tight_around_its_polygon_or_mask(client: TestClient, known: str) -> None:
    parts: list[Any] = [("image", ("a.png", photo()))]
    corners = [[30, 10], [40, 20], [30, 30], [20, 20]]
    annotation: dict[str, Any] = {"boxes": [[20, 10, 20, 20]]}
    if known == "polygon":
        annotation["polygons"] = [[value for corner in corners for value in corner]]
    else:
        mask, buffer = Image.new("L", (60, 40)), io.BytesIO()
        ImageDraw.Draw(mask).polygon([tuple(corner) for corner in corners], fill=5)
        mask.save(buffer, "PNG")
        parts.append(("mask", ("a.png", buffer.getvalue())))
    fields = {"annotations": [annotation], "operations": [{"name": "rotate", "degrees": 45}]}
    (picture,) = post(client, parts, **fields).json()["data"]
    ((left, top, width, height),) = picture["annotations"]["boxes"]
    side = 20 / 2**0.5  # of the diamond, which now lies as a square
    for value, expected in ((left, 30 - side / 2), (top, 20 - side / 2), (width, side)):
        assert value == pytest.approx(expected, abs=0.01 if known == "polygon" else 1.6)
    assert height == pytest.approx(width, abs=1.6)


def test_coordinates_are_those_of_the_upright_photo(client: TestClient) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise: 40 x 60
    data = photo(image_format="JPEG", exif=exif, quality=95)
    asked = {"operations": [{"name": "gamma", "gamma": 1}]}
    box = {"boxes": [[20, 15, 10, 15]]}
    (picture,) = post(client, data, annotations=[box], **asked).json()["data"]
    assert picture["size"] == "40x60"
    assert decoded(picture)[22, 25].tolist() == pytest.approx([200, 30, 30], abs=12)
    beyond = post(client, data, annotations=[{"boxes": [[45, 5, 9, 9]]}], **asked)
    check(beyond, 400, "annotations.0.boxes.0")


def test_coordinates_are_those_of_the_file_even_when_it_is_scaled_down(client: TestClient) -> None:
    data = photo((4000, 1000), "JPEG")
    operations = [{"name": "gamma", "gamma": 1}]
    annotations = [{"boxes": [[1000, 250, 1000, 250]]}]
    (picture,) = post(client, data, operations=operations, annotations=annotations).json()["data"]
    assert picture["annotations"]["boxes"] == [[512, 128, 512, 128]]


def test_boxes_out_of_sight_are_dropped_by_index(client: TestClient) -> None:
    operations = [{"name": "translate", "x": -0.5, "y": 0}]
    boxes = [[0, 0, 20, 20], [40, 20, 10, 10], [28, 0, 8, 10], [25, 30, 10, 10]]
    asked = {"operations": operations, "annotations": [{"boxes": boxes, "labels": [0, 1, 2, 3]}]}
    found = post(client, photo(), **asked).json()["data"][0]["annotations"]
    assert found["boxes"] == [[10, 20, 10, 10], [0, 0, 6, 10], [0, 30, 5, 10]]
    assert found["labels"] == [1, 2, 3]
    assert found["visible"] == [1, 0.75, 0.5]
    assert found["dropped"]["boxes"] == [0]
    fewer = post(client, photo(), min_visible=0.6, **asked).json()["data"][0]["annotations"]
    assert fewer["dropped"]["boxes"] == [0, 3]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_replay_gives_the_same_pixels_and_annotations(client: TestClient, policy: str) -> None:
    parts = [
        *numbered(2),
        ("mask", ("1.png", mask_file((64, 40)))),
    ]
    annotations = [None, MARKED]
    fields = {"annotations": annotations, "canvas": {"size": "48x48"}}
    first = post(client, parts, policy=policy, n=2, seed=2**53 - 4, **fields).json()["data"]
    listed = ("photo", "photo_sha256", "mask_sha256", "seed", "operations")
    replay = [{k: picture[k] for k in listed if k in picture} for picture in reversed(first)]
    again = post(client, parts, replay=replay, annotations=annotations).json()["data"]
    assert again == list(reversed(first))
    assert all(picture["size"] == "48x48" for picture in first)


def test_a_replay_of_another_photo_is_refused(client: TestClient) -> None:
    parts = [("image", ("a.png", photo())), ("mask", ("m.png", mask_file()))]
    (picture,) = post(client, parts).json()["data"]
    listed = ("photo_sha256", "mask_sha256", "operations")
    replay = [{k: picture[k] for k in listed}]
    assert post(client, parts, replay=replay).status_code == 200
    for others in (
        [("image", ("a.png", photo((64, 40)))), ("mask", ("m.png", mask_file((64, 40))))],
        [parts[0], ("mask", ("m.png", mask_file(compress_level=0)))],
        parts[:1],
    ):
        assert check(post(client, others, replay=replay), 400, "image")["code"] == "another_photo"


def test_marketplace_pictures_are_the_product_alone_on_white(client: TestClient) -> None:
    data = photo((300, 200))
    masks = [("image", ("a.png", data)), ("mask", ("m.png", mask_file((300, 200))))]
    (picture,) = post(client, masks, policy="marketplace", seed=1).json()["data"]
    pixels = decoded(picture)
    assert picture["subject"] == "mask"
    assert picture["size"] == "300x300"
    shown = np.argwhere((pixels < 200).any(axis=2))
    low, high = shown.min(axis=0), shown.max(axis=0) + 1
    assert max(high - low) / 300 == pytest.approx(0.85, abs=0.03)
    np.testing.assert_allclose((low + high) / 2, 150, atol=2)
    assert (pixels[:10] == 255).all()
    assert (pixels[:, -10:] == 255).all()
    (plain,) = post(client, data, policy="marketplace", seed=1).json()["data"]
    assert plain["subject"] == "backdrop"
    assert (decoded(plain)[0] == 255).all()


def test_transparency_is_kept_where_it_is_asked_for(client: TestClient) -> None:
    image = Image.open(io.BytesIO(photo())).convert("RGBA")
    image.paste((0, 255, 0, 0), (0, 0, 60, 10))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    data = buffer.getvalue()
    plain = [{"name": "gamma", "gamma": 1}]
    (over_white,) = post(client, data, operations=plain).json()["data"]
    assert decoded(over_white)[5, 5].tolist() == [255, 255, 255]
    canvas = {"background": "transparent", "aspect": "1:1"}
    (clear,) = post(client, data, operations=plain, canvas=canvas).json()["data"]
    assert decoded(clear).shape == (60, 60, 4)
    assert decoded(clear)[5, 30, 3] == decoded(clear)[15, 30, 3] == 0
    assert decoded(clear)[30, 1].tolist() == [250, 250, 245, 255]
    cut = [{"name": "background", "fills": ["#0000ff"]}]
    (blue,) = post(client, data, operations=cut).json()["data"]
    assert blue["subject"] == "alpha"
    assert decoded(blue)[5, 30].tolist() == [0, 0, 255]
    response = post(client, data, operations=plain, canvas=canvas, output_format="jpeg")
    check(response, 400, "background")


@pytest.mark.parametrize(
    ("mask", "status"),
    [
        (b"", 415),
        (photo(image_format="JPEG"), 415),
        (mask_file()[:60], 422),
        (mask_file()[:20], 422),
        (mask_file((61, 40)), 400),
        (png_header(20_000, 20_000), 400),
        (png_header(60, 40), 400),
        (mask_file(mode="RGB"), 400),
        (mask_file(mode="RGBA"), 400),
        (mask_file(mode="I;16"), 400),
    ],
    ids=range(10),
)
def test_masks_that_cannot_be_used(client: TestClient, mask: bytes, status: int) -> None:
    parts = [("image", ("a.png", photo())), ("mask", ("a.png", mask))]
    check(post(client, parts), status, "mask")
    both = [("image", (f"{name}.png", photo())) for name in "ab"]
    masks = [("mask", ("a.png", mask_file())), ("mask", ("b.png", mask))]
    check(post(client, [*both, *masks]), status, "mask.1")


def test_masks_find_their_photos(client: TestClient) -> None:
    photos = [("image", (f"{name}.jpg", photo())) for name in "ab"]
    marks = {name: mask_file(compress_level=level) for name, level in (("a", 0), ("b", 9))}
    plain = [{"name": "gamma", "gamma": 1}]

    def digests(parts: list[Any]) -> list[str | None]:
        answer = post(client, [*photos, *parts], operations=plain).json()
        return [picture.get("mask_sha256") for picture in answer["data"]]

    a, b = (hashlib.sha256(mark).hexdigest() for mark in marks.values())
    named = {name: ("mask", (f"{name}.png", mark)) for name, mark in marks.items()}
    assert digests([named["b"], named["a"]]) == [a, b]
    assert digests([named["b"]]) == [None, b]
    others = [("mask", ("x.png", marks["a"])), ("mask[]", ("y.png", marks["b"]))]
    for parts in (others, others[:1], [named["a"], others[0]], [named["a"], named["a"]]):
        check(post(client, [*photos, *parts]), 400, "mask")
    message = check(post(client, [*photos, *others]), 400, "mask")["message"]
    assert all(f'"{name}"' in message for name in ("x.png", "y.png", "a.jpg", "b.jpg"))


def test_a_palette_stays_a_palette(client: TestClient) -> None:
    parts = [("image", ("a.png", photo())), ("mask", ("a.png", mask_file(mode="P")))]
    operations = [{"name": "rotate", "degrees": 20}]
    (picture,) = post(client, parts, operations=operations).json()["data"]
    mask = Image.open(io.BytesIO(base64.b64decode(picture["mask_b64_json"])))
    assert mask.mode == "P"
    assert set(np.unique(mask)) == {0, 3}
    assert mask.getpalette()[9:12] == [255, 0, 0]


def test_archives_hold_the_masks(client: TestClient) -> None:
    parts = [*numbered(2), ("mask", ("1.png", mask_file((64, 40))))]
    packed = post(client, parts, "application/zip", annotations=[MARKED, None])
    archive = zipfile.ZipFile(io.BytesIO(packed.content))
    assert set(archive.namelist()) == {"manifest.json", "00.png", "01.png", "01-mask.png"}
    listed = json.loads(archive.read("manifest.json"))["data"]
    assert [entry.get("mask_file") for entry in listed] == [None, "01-mask.png"]
    assert listed[0]["annotations"]["label"] == "boxes"
    assert Image.open(io.BytesIO(archive.read("01-mask.png"))).size == (64, 40)


def test_the_mark_says_what_was_done(client: TestClient) -> None:
    bare = post(client, photo(), "image/png", policy="strong", seed=5)
    recipe = json.loads(read_xmp(bare.content)[OURS + "recipe"])
    again = post(client, photo(), "image/png", replay=[{**recipe, "seed": 5}])
    assert again.content == bare.content


def test_the_pixels_of_an_answer_are_bounded(client: TestClient) -> None:
    canvas = {"size": "2048x2048"}
    parts = numbered(11)
    error = check(post(client, parts, canvas=canvas, output_format="jpeg"), 400, "n")
    assert error["code"] == "too_many_pixels"
    check(post(client, photo(), canvas=canvas, n=11), 400, "n")


def test_the_document_names_every_operation(client: TestClient) -> None:
    document = client.get("/v1/openapi.json").json()
    form = document["paths"][URL]["post"]["requestBody"]["content"]["multipart/form-data"]
    properties = form["schema"]["properties"]
    assert properties["image"]["maxItems"] == properties["mask"]["maxItems"] == 16
    assert set(JSON_FIELDS) == set(form["encoding"])
    assert properties.keys() >= {"policy", "min_visible", "n", "seed", *JSON_FIELDS}
    for name in NAMES:
        (schema,) = [
            one
            for one in document["components"]["schemas"].values()
            if one.get("properties", {}).get("name", {}).get("const") == name
        ]
        assert schema["description"]
