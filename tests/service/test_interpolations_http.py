"""POST /v1/images/interpolations: ways through the pictures of seeds and photos."""

import hashlib
import io
import json
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image, ImageSequence
from starlette.testclient import TestClient

from service.model_store.registry import Registry
from service.provenance.marker import Marker
from service.provenance.xmp import GENERATED, Mark, xmp_packet
from service.rendering.animation import Timing, encode_animation

from .conftest import write_styled_export
from .small_graphs import mapping_file
from .test_augmentations_http import photo, png_header
from .test_bad_requests import check
from .test_encoding import IPTC, OURS, read_xmp
from .test_generations_http import decoded, pixels

URL = "/v1/images/interpolations"
GENERATIONS = "/v1/images/generations"
VARIATIONS = "/v1/images/variations"


def way(client: TestClient, **body: Any) -> tuple[list[np.ndarray], dict[str, Any]]:
    """The frames of a ZIP, and its manifest."""
    response = client.post(URL, json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/zip"
    archive = zipfile.ZipFile(io.BytesIO(response.content))
    manifest = json.loads(archive.read("manifest.json"))
    assert archive.namelist() == ["manifest.json", *(one["file"] for one in manifest["data"])]
    return [pixels(archive.read(one["file"])) for one in manifest["data"]], manifest


def pictures(client: TestClient, **body: Any) -> list[np.ndarray]:
    return decoded(client.post(GENERATIONS, json=body).json())


def animation(data: bytes) -> list[np.ndarray]:
    with Image.open(io.BytesIO(data)) as image:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]


def test_waypoints_are_the_seeds_own_pictures(styled: TestClient) -> None:
    frames, manifest = way(styled, seeds=[3, 8, 5], frames=4, category="boxes")
    assert len(frames) == manifest["frame_count"] == 7
    expected = pictures(styled, category="boxes", seeds=[3, 8, 5])
    for index, picture in zip((0, 3, 6), expected, strict=True):
        np.testing.assert_array_equal(frames[index], picture)


def test_between_two_seeds_the_way_is_straight_in_styles(styled: TestClient) -> None:
    frames, _ = way(styled, seeds=[3, 8], frames=9, category="boxes")
    back, _ = way(styled, seeds=[8, 3], frames=9, category="boxes")
    steps = [np.abs(a.astype(int) - b).mean() for a, b in pairwise(frames)]
    assert min(steps) > 0
    assert max(steps) < np.abs(frames[0].astype(int) - frames[-1]).mean()
    for there, again in zip(frames, reversed(back), strict=True):
        assert np.abs(there.astype(int) - again).max() <= 1


def test_a_loop_leads_back_and_shows_no_frame_twice(styled: TestClient) -> None:
    frames, manifest = way(styled, seeds=[3, 8], frames=5, loop=True, category="boxes")
    assert (len(frames), manifest["loop"]) == (8, True)
    half, _ = way(styled, seeds=[3, 8], frames=5, category="boxes")
    back, _ = way(styled, seeds=[8, 3], frames=5, category="boxes")
    np.testing.assert_array_equal(frames, half[:-1] + back[:-1])


def test_more_frames_come_in_order_and_are_the_same(styled: TestClient) -> None:
    many, manifest = way(styled, seeds=[1, 2, 3], frames=60, category="mugs")
    assert len(many) == 119
    assert [one["file"] for one in manifest["data"]] == [f"{k:03d}.png" for k in range(119)]
    few, _ = way(styled, seeds=[1, 2], frames=60, category="mugs")
    np.testing.assert_array_equal(many[:60], few)
    again, _ = way(styled, seeds=[1, 2, 3], frames=60, category="mugs")
    np.testing.assert_array_equal(many, again)


def test_the_manifest_says_what_was_made(styled: TestClient) -> None:
    body = {"seeds": [6, 8], "frames": 3, "truncation_psi": 0.4}
    _, manifest = way(styled, **body)
    model = Registry().get("styled")
    assert (manifest["model"], manifest["model_hash"]) == (
        model.model_id,
        model.manifest.model_hash,
    )
    assert (manifest["size"], manifest["truncation_psi"]) == ("24x16", 0.4)
    assert manifest["seeds"] == [6, 8]
    assert {one["category"] for one in manifest["data"]} == {"boxes"}  # the first seed's turn
    places = [(one["seed"], one["interpolation"]) for one in manifest["data"]]
    assert places == [
        (6, {"to": 8, "share": 0.0, "noise_seed": 6}),
        (6, {"to": 8, "share": 0.5, "noise_seed": 6}),
        (8, {"to": 8, "share": 0.0, "noise_seed": 6}),
    ]


def test_noise_is_the_first_seeds_all_the_way(styled: TestClient, tmp_path: Path) -> None:
    Registry().register(write_styled_export(tmp_path / "noisy", noise_scale=1.0, name="noisy"))
    body = {"model": "noisy", "category": "mugs"}
    (still, _) = way(styled, **body, seeds=[3, 8, 3], frames=2)
    np.testing.assert_array_equal(still[0], pictures(styled, **body, seed=3)[0])
    np.testing.assert_array_equal(still[2], still[0])
    assert not np.array_equal(still[1], pictures(styled, **body, seed=8)[0])


def test_mixtures_sizes_and_backgrounds(styled: TestClient) -> None:
    body = {"categories": {"mugs": 1, "boxes": 1}, "size": "48x32"}
    frames, manifest = way(styled, **body, seeds=[3, 8], frames=2)
    assert manifest["category"] == "50 % mugs + 50 % boxes" == manifest["data"][0]["category"]
    assert manifest["categories"] == {"mugs": 0.5, "boxes": 0.5}
    np.testing.assert_array_equal(frames, pictures(styled, **body, seeds=[3, 8]))
    for background, shape in (("auto", (16, 24, 4)), ("#ff0000", (16, 24, 3))):
        body = {"model": "clear", "background": background, "category": "mugs"}
        frames, _ = way(styled, **body, seeds=[3, 8], frames=2)
        assert frames[0].shape == shape
        np.testing.assert_array_equal(frames, pictures(styled, **body, seeds=[3, 8]))


def test_each_frame_is_marked(styled: TestClient) -> None:
    response = styled.post(URL, json={"seeds": [3, 8], "frames": 3})
    archive = zipfile.ZipFile(io.BytesIO(response.content))
    found = read_xmp(archive.read("01.png"))
    assert found[IPTC + "DigitalSourceType"].endswith("/trainedAlgorithmicMedia")
    assert found[OURS + "seed"] == "3"
    recipe = json.loads(found[OURS + "recipe"])
    assert recipe == {"interpolation": {"to": 8, "share": 0.5, "noise_seed": 3}}


@pytest.mark.parametrize("kind", ["webp", "gif"])
@pytest.mark.parametrize("model", ["styled", "clear"])
def test_animations(styled: TestClient, kind: str, model: str) -> None:
    body = {"model": model, "seeds": [3, 8], "frames": 5, "category": "boxes", "loop": True}
    body |= {"frame_duration_ms": 120, "size": "48x32"}
    response = styled.post(URL, json={**body, "output_format": kind})
    assert response.headers["content-type"] == f"image/{kind}"
    assert response.headers["x-catalogan-frame-count"] == "8"
    assert json.loads(unquote(response.headers["x-catalogan-seeds"])) == [3, 8]
    assert response.headers["x-catalogan-category"] == "boxes"
    with Image.open(io.BytesIO(response.content)) as image:
        assert (image.format, image.size) == (kind.upper(), (48, 32))
        assert (image.n_frames, image.info["loop"]) == (8, 0)
        image.seek(1)
        image.load()
        assert image.info["duration"] == 120
    background = "auto" if model == "styled" else "white"
    expected, _ = way(styled, **body, background=background)
    if model == "styled" or kind == "gif":
        for frame, picture in zip(animation(response.content), expected, strict=True):
            assert np.abs(frame.astype(int) - picture).mean() < 16
    by_accept = styled.post(URL, json=body, headers={"Accept": f"image/{kind}"})
    assert by_accept.content == response.content


@pytest.mark.parametrize("kind", ["webp", "gif"])
def test_animations_are_marked_and_play_once_unless_looped(styled: TestClient, kind: str) -> None:
    body = {"seeds": [3, 8], "frames": 3, "category": "boxes", "output_format": kind}
    data = styled.post(URL, json=body).content
    found = read_xmp(data)
    assert found[IPTC + "DigitalSourceType"].endswith("/trainedAlgorithmicMedia")
    assert found[OURS + "model"].startswith("styled:")
    recipe = json.loads(found[OURS + "recipe"])
    assert recipe == {"interpolation": {"seeds": [3, 8], "frames": 3, "loop": False}}
    with Image.open(io.BytesIO(data)) as image:
        assert image.info.get("loop", 1) == 1
        if kind == "gif":
            assert b"trainedAlgorithmicMedia" in image.info["comment"]
        else:
            assert image.info["xmp"] in data


@pytest.mark.parametrize("channels", [1, 3])
def test_the_xmp_in_a_gif_leads_readers_to_its_end(channels: int) -> None:
    mark = Mark(GENERATED, 1, "shop:1", "f" * 64, "日本" * 200)
    frames = [np.full((8, 8, channels), level, dtype=np.uint8) for level in (0, 200)]
    data = encode_animation(frames, "gif", Timing(20, loop=False), mark, Marker(xmp=True))
    assert read_xmp(data)[OURS + "category"] == "日本" * 200
    # A reader that knows no XMP jumps from sub-block to sub-block, wherever that leads it.
    packet = xmp_packet(mark)
    for start in range(len(packet)):
        position = data.index(packet) + start
        while data[position]:
            position += data[position] + 1
        assert data[position:] == b"\0;"
    assert len(animation(data)) == 2


def test_the_header_decides_between_formats(styled: TestClient) -> None:
    body = {"seeds": [3, 8], "frames": 2}
    for accept, media in (
        ("*/*", "application/zip"),
        ("image/*", "image/webp"),
        ("image/gif, image/webp;q=0.5", "image/gif"),
    ):
        response = styled.post(URL, json=body, headers={"Accept": accept})
        assert response.headers["content-type"] == media
    gif = {**body, "output_format": "gif"}
    assert styled.post(URL, json=gif, headers={"Accept": "image/*"}).status_code == 200
    refused = styled.post(URL, json=gif, headers={"Accept": "image/webp"})
    assert "image/gif" in check(refused, 400, "output_format")["message"]
    check(styled.post(URL, json=body, headers={"Accept": "application/json"}), 400, "Accept")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "seeds"),
        ({"seeds": [1]}, "seeds"),
        ({"seeds": list(range(11))}, "seeds"),
        ({"seeds": [1, -1]}, "seeds.1"),
        ({"seeds": [1, "2"]}, "seeds.1"),
        ({"frames": 1}, "frames"),
        ({"frames": 61}, "frames"),
        ({"frames": 2.0}, "frames"),
        ({"frames": None}, "frames"),
        ({"seeds": list(range(10)), "frames": 60}, "frames"),
        ({"seeds": list(range(6)), "frames": 60, "loop": True}, "frames"),
        ({"loop": 1}, "loop"),
        ({"category": "spoons"}, "category"),
        ({"categories": {"spoons": 1}}, "categories"),
        ({"categories": {"mugs": 1}, "category": "mugs"}, "categories"),
        ({"truncation_psi": 1.1}, "truncation_psi"),
        ({"frame_duration_ms": 19}, "frame_duration_ms"),
        ({"frame_duration_ms": 1001}, "frame_duration_ms"),
        ({"frame_duration_ms": 80.5}, "frame_duration_ms"),
        ({"size": "100x100"}, "size"),
        ({"background": "transparent"}, "background"),
        ({"background": "pink"}, "background"),
        ({"model": "clear", "background": "transparent", "output_format": "gif"}, "background"),
        ({"output_format": "png"}, "output_format"),
        ({"output_format": "mp4"}, "output_format"),
        ({"seed": 1}, "seed"),
        ({"n": 1}, "n"),
    ],
    ids=str,
)
def test_bad_fields(styled: TestClient, body: dict[str, Any], param: str) -> None:
    valid: dict[str, Any] = {} if body == {} else {"seeds": [1, 2]}
    check(styled.post(URL, json=valid | body), 400, param)


def test_other_bad_requests(styled: TestClient) -> None:
    body = {"seeds": [1, 2]}
    error = check(styled.post(URL, json={**body, "model": "shop"}), 400, "model")
    assert error["code"] == "no_mapping"
    check(styled.post(URL, json={**body, "model": "none"}), 404, "model")
    check(styled.post(URL, content=b"{", headers={"Content-Type": "application/json"}), 400)
    error = check(styled.post(URL, content=b"{}"), 400, "Content-Type")
    assert "multipart/form-data" in error["message"]
    check(styled.get(URL), 405)


def test_as_many_frames_as_are_allowed(styled: TestClient) -> None:
    body = {"seeds": list(range(6)), "frames": 60, "output_format": "webp"}
    response = styled.post(URL, json=body)  # 5 legs of 59, and the last seed
    assert response.headers["x-catalogan-frame-count"] == "296"


def test_frames_that_would_fill_the_memory_are_refused(
    styled: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.generation.interpolations.MAX_PIXELS", 10 * 24 * 16)
    assert styled.post(URL, json={"seeds": [1, 2], "frames": 10}).status_code == 200
    for body in ({"frames": 11}, {"frames": 10, "size": "48x32"}):
        error = check(styled.post(URL, json={"seeds": [1, 2], **body}), 400, "frames")
        assert "smaller size" in error["message"]


def photos_way(client: TestClient, files: dict[str, bytes], accept: str = "", **fields: str) -> Any:
    sent = [("image", (name, data)) for name, data in files.items()]
    return client.post(URL, files=sent, data=fields, headers={"Accept": accept} if accept else {})


def unzipped(response: Any) -> tuple[list[np.ndarray], dict[str, Any]]:
    assert response.status_code == 200, response.text
    archive = zipfile.ZipFile(io.BytesIO(response.content))
    manifest = json.loads(archive.read("manifest.json"))
    return [pixels(archive.read(one["file"])) for one in manifest["data"]], manifest


def reconstruction(client: TestClient, data: bytes, **fields: str) -> Any:
    """A photo's own picture, and what /variations says of it."""
    fields = {"strength": "0", "seed": "0", **fields}
    answer = client.post(VARIATIONS, files={"image": ("p", data)}, data=fields).json()
    return decoded(answer)[0], answer


def test_a_way_leads_through_photos_reconstructions(styled: TestClient) -> None:
    files = {"a.png": photo((24, 16)), "b.jpg": photo((20, 90), "JPEG")}
    frames, manifest = unzipped(photos_way(styled, files, frames="5"))
    first, of_first = reconstruction(styled, files["a.png"])
    last, of_last = reconstruction(styled, files["b.jpg"])
    np.testing.assert_array_equal(frames[0], first)
    np.testing.assert_array_equal(frames[4], last)
    steps = [np.abs(a.astype(int) - b).mean() for a, b in pairwise(frames)]
    assert 0 < min(steps) <= max(steps) < np.abs(first.astype(int) - last).mean()
    assert manifest["waypoints"] == ["a.png", "b.jpg"]
    assert manifest["validation_errors"] == of_first["validation_errors"]
    for found, name, known in zip(manifest["photos"], files, (of_first, of_last), strict=True):
        assert found == {
            "photo": name,
            "photo_sha256": hashlib.sha256(files[name]).hexdigest(),
            "category": known["data"][0]["category"],
        }
    known_errors = [known["reconstruction_error"] for known in (of_first, of_last)]
    assert manifest["reconstruction_errors"] == known_errors
    assert "truncation_psi" not in manifest  # it is of seeds


def test_photos_and_seeds_on_one_way(styled: TestClient) -> None:
    data = photo((24, 16))
    answer = photos_way(
        styled,
        {"mug.png": data},
        waypoints='[7, "mug.png", 7]',
        frames="3",
        category="boxes",
        truncation_psi="0.5",
    )
    frames, manifest = unzipped(answer)
    assert len(frames) == manifest["frame_count"] == 5
    (seed,) = pictures(styled, category="boxes", seed=7, truncation_psi=0.5)
    np.testing.assert_array_equal(frames[0], seed)
    np.testing.assert_array_equal(frames[4], seed)
    shown, _ = reconstruction(styled, data, category="boxes", seed="7")
    np.testing.assert_array_equal(frames[2], shown)
    there = frames[1].astype(int)
    assert np.abs(there - frames[3]).max() <= 1
    assert min(np.abs(there - frames[0]).mean(), np.abs(there - frames[2]).mean()) > 0
    name = hashlib.sha256(data).hexdigest()
    to_photo = {"to_category": "boxes", "to_truncation_psi": 0.0, "noise_seed": 7}
    to_seed = {"to_category": "boxes", "to_truncation_psi": 0.5, "noise_seed": 7}
    assert [(one["interpolation"], one.get("photo_sha256")) for one in manifest["data"]] == [
        ({"to": name, "share": 0.0, **to_photo}, None),
        ({"to": name, "share": 0.5, **to_photo}, name),
        ({"from": name, "to": 7, "share": 0.0, **to_seed}, name),
        ({"from": name, "to": 7, "share": 0.5, **to_seed}, name),
        ({"to": 7, "share": 0.0, "noise_seed": 7}, None),
    ]


def nearest_category(client: TestClient, data: bytes) -> str:
    _, answer = reconstruction(client, data)
    name: str = answer["data"][0]["category"]
    return name


@pytest.fixture(scope="module")
def unlike(styled: TestClient) -> dict[str, bytes]:
    """Photos of different nearest categories, by these."""
    found: dict[str, bytes] = {}
    for grey in range(0, 256, 15):
        buffer = io.BytesIO()
        Image.new("RGB", (24, 16), (grey, 255 - grey, grey // 2)).save(buffer, "PNG")
        found.setdefault(nearest_category(styled, buffer.getvalue()), buffer.getvalue())
    assert len(found) > 1
    return found


def test_each_photo_has_its_category_and_seeds_the_first_photos(
    styled: TestClient, unlike: dict[str, bytes]
) -> None:
    (last, of_last), (first, of_first) = list(unlike.items())[:2]
    files = {"last": of_last, "first": of_first}
    way = {"waypoints": '[0, "first", "last"]', "frames": "2", "truncation_psi": "0.4"}
    frames, manifest = unzipped(photos_way(styled, files, **way))
    assert [one["category"] for one in manifest["data"]] == [first, first, last]
    assert [one["category"] for one in manifest["photos"]] == [first, last]
    for frame, photo_sent in zip(frames[1:], (of_first, of_last), strict=True):
        np.testing.assert_array_equal(frame, reconstruction(styled, photo_sent)[0])
    expected = pictures(styled, category=first, seed=0, truncation_psi=0.4)
    np.testing.assert_array_equal(frames[0], expected[0])
    assert manifest["data"][1]["interpolation"]["to_category"] == last
    one_for_all, manifest = unzipped(photos_way(styled, files, **way, category=last))
    assert {one["category"] for one in manifest["data"]} == {last}
    assert not np.array_equal(one_for_all[1], frames[1])


def test_a_frame_names_the_photos_that_are_in_it(
    styled: TestClient, unlike: dict[str, bytes]
) -> None:
    first, last = list(unlike.values())[:2]
    answer = photos_way(styled, {"a": first, "b": last}, frames="5")
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    hashes = [hashlib.sha256(data).hexdigest() for data in (first, last)]
    near = [read_xmp(archive.read(f"{k:02d}.png"))[OURS + "photoSha256"] for k in range(5)]
    assert near == [hashes[0]] * 3 + [hashes[1]] * 2


def test_what_a_mark_says_tells_frames_apart(styled: TestClient) -> None:
    """Two ways to the same seed at different truncation are different pictures."""
    recipes = []
    for psi in ("0.4", "1"):
        fields = {"waypoints": '["a", 7]', "frames": "3", "truncation_psi": psi}
        answer = photos_way(styled, {"a": photo()}, **fields)
        archive = zipfile.ZipFile(io.BytesIO(answer.content))
        recipes.append(read_xmp(archive.read("01.png"))[OURS + "recipe"])
    assert recipes[0] != recipes[1]
    moving = photos_way(styled, {"a": photo()}, "image/webp", **fields)
    assert read_xmp(moving.content)[OURS + "truncationPsi"] == "1.0"
    assert moving.headers["x-catalogan-truncation-psi"] == "1.0"


def test_noise_of_photos_is_the_first_seeds(styled: TestClient, tmp_path: Path) -> None:
    name = "grainy"
    Registry().register(write_styled_export(tmp_path / name, noise_scale=1.0, name=name))
    sent = {"model": name, "category": "mugs"}
    answer = photos_way(styled, {"a": photo()}, waypoints='["a", 8, 3]', frames="2", **sent)
    frames, _ = unzipped(answer)
    shown, _ = reconstruction(styled, photo(), seed="8", **sent)
    np.testing.assert_array_equal(frames[0], shown)
    np.testing.assert_array_equal(frames[1], pictures(styled, seed=8, **sent)[0])


def test_an_animation_of_many_photos_tells_their_errors(styled: TestClient) -> None:
    files = {f"a photo with quite a long name {k}.png": photo((20 + k, 30)) for k in range(10)}
    answer = photos_way(styled, files, "image/webp", frames="2")
    errors = json.loads(unquote(answer.headers["x-catalogan-reconstruction-errors"]))
    assert len(errors) == 10
    assert min(errors) > 0


def test_the_same_key_with_files_elsewhere_is_another_request(styled: TestClient) -> None:
    headers = {"Idempotency-Key": "one-key"}
    two = [("image", ("a", photo())), ("image", ("b", photo((30, 30))))]
    assert styled.post(URL, files=two, headers=headers).status_code == 200
    again = styled.post(URL, files=two, headers=headers)
    assert again.headers["idempotency-replayed"] == "true"
    for files, fields in (
        ([two[1], two[0]], {}),
        (two, {"frames": "3"}),
        ([*two, ("image", ("user", b"x"))], {}),
        (two, {"user": "x"}),
    ):
        check(styled.post(URL, files=files, data=fields, headers=headers), 409, "Idempotency-Key")


def test_a_loop_of_photos_as_an_animation_names_its_photos(styled: TestClient) -> None:
    files = {"a": photo((24, 16)), "b": photo((90, 20))}
    answer = photos_way(styled, files, "image/webp", frames="4", loop="true", size="48x32")
    assert answer.headers["content-type"] == "image/webp"
    assert answer.headers["x-catalogan-frame-count"] == "6"
    assert json.loads(unquote(answer.headers["x-catalogan-waypoints"])) == ["a", "b"]
    found = read_xmp(answer.content)
    names = [hashlib.sha256(data).hexdigest() for data in files.values()]
    assert found[OURS + "photoSha256"] == names[0]
    recipe = json.loads(found[OURS + "recipe"])["interpolation"]
    categories = recipe.pop("categories")
    assert recipe == {"waypoints": names, "frames": 4, "loop": True}
    assert categories[0] == unquote(answer.headers["x-catalogan-category"])
    with Image.open(io.BytesIO(answer.content)) as image:
        assert (image.size, image.info["loop"]) == ((48, 32), 0)


@pytest.mark.parametrize(
    ("names", "fields", "param", "says"),
    [
        (["a"], {}, "image", "another `image`"),
        (["a", "a"], {"waypoints": '["a", 1]'}, "image", "same file name"),
        (["a"], {"waypoints": '[1, "b"]'}, "waypoints.1", "file name"),
        (["a", "b"], {"waypoints": '["a", 1]'}, "waypoints", "1 of the photos"),
        (["a"], {"waypoints": '["a"]'}, "waypoints", "2 or more"),
        (["a"], {"waypoints": json.dumps(["a"] * 11)}, "waypoints", "at most 10"),
        (["a"], {"waypoints": "a, 1"}, "waypoints", "JSON"),
        (["a"], {"waypoints": '["a", -1]'}, "waypoints.1", "a seed"),
        (["a"], {"waypoints": '["a", 1.5]'}, "waypoints.1", "a seed"),
        (["a"], {"waypoints": '["a", ""]'}, "waypoints.1", "file name"),
        (["a"], {"waypoints": '["a", true]'}, "waypoints.1", "file name"),
        (["a", "b"], {"seeds": "[1, 2]"}, "seeds", "unknown field"),
        (["a", "b"], {"categories": '{"mugs": 1}'}, "categories", "unknown field"),
        (["a", "b"], {"loop": "yes"}, "loop", "JSON"),
        (["a", "b"], {"frames": "x"}, "frames", "whole number"),
        (["a", "b"], {"category": "spoons"}, "category", "known are"),
        ([str(k) for k in range(11)], {}, "image", "over 10"),
        ([str(k) for k in range(10)], {"frames": "60"}, "frames", "at most 300"),
    ],
    ids=str,
)
def test_bad_ways_of_photos(
    styled: TestClient, names: list[str], fields: dict[str, str], param: str, says: str
) -> None:
    sent = [("image", (name, photo())) for name in names]
    error = check(styled.post(URL, files=sent, data=fields), 400, param)
    assert says in error["message"]


def test_a_model_without_encoder_knows_no_photos(styled: TestClient, tmp_path: Path) -> None:
    others = {"mapping.onnx": mapping_file()}
    export = write_styled_export(tmp_path / "blind", name="blind", others=others, encoder=None)
    Registry().register(export)
    two = {"a": photo(), "b": photo((30, 30))}
    refused = check(photos_way(styled, two, model="blind"), 400, "model")
    assert refused["code"] == "no_encoder"


def test_other_bad_ways_of_photos(styled: TestClient) -> None:
    two = {"a": photo(), "b": photo((30, 30))}
    check(photos_way(styled, {**two, "b": b"no photo"}), 415, "image.1")
    check(photos_way(styled, {**two, "b": photo()[:200]}), 422, "image.1")
    large = {**two, "b": png_header(60_000, 60_000)}
    check(photos_way(styled, large), 413, "image.1")
    body = json.dumps({"seeds": [1, 2], "user": "x" * 2_000_000}).encode()
    refused = styled.post(URL, content=body, headers={"Content-Type": "application/json"})
    check(refused, 413)  # no more than other JSON may have, though photos may
