"""What one augmentation request may cost on its way, however it is put together."""

import io
import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.api.endpoint import AUGMENTATIONS
from service.api.routes import augmentations as route
from service.augmentation.jobs import MAX_RESPONSE_PIXELS
from service.augmentation.matrices import about_centre, rotation, scaling, translation
from service.augmentation.operations.geometry import Canvas
from service.augmentation.pipeline import Photo, compose, draw_operations, work_pixels
from service.augmentation.policies import POLICIES, with_canvas
from service.augmentation.resampling import View, resampled_pixels, warp

from .test_augmentations_http import photo, post
from .test_bad_requests import check

WORK = AUGMENTATIONS.work
assert WORK is not None
SIDE = 2048
FAR = {"name": "canvas", "size": "16x16", "placement": [400.5, -400_000, -400_000]}


def large_photo() -> Photo:
    return Photo("image", (SIDE, SIDE), "", np.zeros((SIDE, SIDE, 3), dtype=np.uint8))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("side", "images"), [(512, 160), (1024, 40), (2048, 10)])
def test_as_many_images_as_a_response_may_have_are_within_the_limit(
    policy: Any, side: int, images: int
) -> None:
    assert side * side * images <= MAX_RESPONSE_PIXELS
    canvas = Canvas(size=f"{side}x{side}", fit="contain")
    operations = [
        operation.model_copy(update={"probability": 1.0})
        for operation in with_canvas(POLICIES[policy], canvas)
    ]
    photo, most = large_photo(), 0
    for seed in range(10):
        steps = draw_operations(operations, seed, photo)
        most = max(most, work_pixels(photo, steps, compose(steps, photo)))
    assert most * images <= WORK.pixels


@pytest.mark.parametrize("size", [(16, 16), (200, 100)])
@pytest.mark.parametrize("scale", [0.05, 0.4, 1.3, 40.0])
def test_only_what_is_seen_is_resampled(size: tuple[int, int], scale: float) -> None:
    """A photo of 2048 px was brought to 4,100 each time, for images of 16 px too."""
    matrix = translation(-scale * SIDE / 2, -scale * SIDE / 2) @ scaling(scale, scale)
    view = View(matrix @ about_centre(rotation(10), (SIDE, SIDE)), size)
    assert resampled_pixels((SIDE, SIDE), view) < 60 * size[0] * size[1] + 40_000


def test_what_is_seen_is_the_same_as_of_the_whole() -> None:
    """A window of the image, resampled alone, has the very pixels that all of it had there."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (300, 400, 3)).astype(np.uint8))
    for scale, degrees in ((1.7, 20), (0.9, 45), (0.3, 7), (3.2, 0)):
        matrix = about_centre(rotation(degrees) @ scaling(scale, scale * 1.01), (400, 300))
        whole = warp(image, View(matrix, (400, 300)), (9, 9, 9))
        for left, top in ((100, 77), (211, 150), (0, 0), (333, 250)):
            window = View(translation(-left, -top) @ matrix, (60, 40))
            part = warp(image, window, (9, 9, 9))
            expected = whole.crop((left, top, min(left + 60, 400), min(top + 40, 300)))
            seen = np.asarray(part.crop((0, 0, *expected.size))).astype(int)
            inner = np.abs(seen - np.asarray(expected))[3:-3, 3:-3]  # of what ends there
            assert inner.max() <= 1


def test_far_placements_cost_next_to_nothing(client: TestClient) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), "white").save(buffer, "JPEG")
    replay = [{"operations": [FAR]}] * 40
    begun = time.process_time()
    response = post(client, buffer.getvalue(), replay=replay, output_format="jpeg")
    assert response.status_code == 200, response.text
    assert time.process_time() - begun < 5  # 40 resamplings of 4,100 x 4,100 took 15 s


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 3}, "n"),
        ({"replay": [{"operations": [{"name": "rotate", "degrees": 5}]}] * 3}, "replay"),
    ],
)
def test_pixels_over_the_limit_are_refused(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], param: str
) -> None:
    limited = replace(AUGMENTATIONS, work=replace(WORK, pixels=40_000))
    monkeypatch.setattr(route, "AUGMENTATIONS", limited)
    error = check(post(client, photo(), **fields), 400, param)
    assert error["code"] == "too_many_pixels"
    assert "40000 pixels" in error["message"]
    assert "smaller canvas" in error["message"]
    single = {"replay": fields["replay"][:1]} if param == "replay" else {"n": 1}
    assert post(client, photo(), **single).status_code == 200


def ring(points: int) -> list[float]:
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.column_stack([30 + 20 * np.cos(angles), 20 + 15 * np.sin(angles)]).ravel().tolist()


def test_annotations_that_grow_with_every_image_are_refused(client: TestClient) -> None:
    """106 kB of annotations became 56 MB of JSON."""
    known = {"polygons": [[round(value, 1) for value in ring(2000)]] * 5}
    assert len(json.dumps(known)) < 130_000
    replay = [{"operations": []}]
    parts: dict[str, Any] = {"annotations": [known]}
    assert post(client, photo(), replay=replay * 2, **parts).status_code == 200
    error = check(post(client, photo(), replay=replay * 160, **parts), 400, "annotations")
    assert error["code"] == "too_many_points"
    assert "1600000 points" in error["message"]
    assert "fewer images" in error["message"]
    boxes = {"boxes": [[1, 1, 30, 30]] * 1000}
    check(post(client, photo(), replay=replay * 160, annotations=[boxes]), 400, "annotations")


def test_long_labels_count_as_well(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    limited = replace(AUGMENTATIONS, work=replace(WORK, annotation_bytes=100_000))
    monkeypatch.setattr(route, "AUGMENTATIONS", limited)
    known = {"boxes": [[1, 1, 30, 30]] * 60, "labels": ["ü" * 200] * 60}
    replay = [{"operations": []}]
    assert post(client, photo(), replay=replay * 3, annotations=[known]).status_code == 200
    error = check(post(client, photo(), replay=replay * 5, annotations=[known]), 400, "annotations")
    assert "100000 bytes" in error["message"]
    assert "shorter labels" in error["message"]


def test_a_horizon_seen_again_and_again_is_refused_at_once(client: TestClient) -> None:
    """All of the photo is resampled for each such image, however small: over the true limit."""
    insets = [[0.3, 0.3], [0.3, 0.0], [0.0, 0.3], [0.0, 0.3]]
    tilted = [
        {"name": "scale", "factor": 4},
        {"name": "perspective", "strength": 0, "insets": insets},
        {"name": "translate", "x": 0, "y": 0.9},
        {"name": "canvas", "size": "16x16", "placement": [1, 0, 0]},
    ]
    buffer = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), "white").save(buffer, "JPEG")
    begun = time.process_time()
    response = post(client, buffer.getvalue(), replay=[{"operations": tilted}] * 160)
    error = check(response, 400, "replay")
    assert error["code"] == "too_many_pixels"
    assert "less perspective" in error["message"]
    assert time.process_time() - begun < 3
