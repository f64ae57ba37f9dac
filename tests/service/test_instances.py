"""Boxes stay tight around what is known of their instances, however the photo is moved."""

import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from service.augmentation.annotations import Annotation, check_annotation
from service.augmentation.instances import find_instances
from service.augmentation.matrices import about_centre, rotation, scaling, translation
from service.augmentation.pipeline import Photo, compose, draw_operations
from service.augmentation.projection import Annotated, carry
from service.augmentation.resampling import View, warp_labels
from service.errors import BadRequest

from .test_augmentation_properties import GEOMETRY, parsed

SIZE = (160, 120)


def disc(x: float, y: float, radius: float, corners: int = 90) -> np.ndarray:
    angles = np.linspace(0, 2 * math.pi, corners, endpoint=False)
    return np.column_stack([x + radius * np.cos(angles), y + radius * np.sin(angles)])


def flat(points: np.ndarray) -> list[float]:
    return np.clip(points, 0, SIZE).ravel().tolist()


def box_of(points: np.ndarray) -> list[float]:
    return [*points.min(axis=0).tolist(), *points.max(axis=0).tolist()]


def drawn(*outlines: np.ndarray) -> Image.Image:
    """A mask with a number for each outline."""
    mask = Image.new("L", SIZE)
    for number, points in enumerate(outlines, 1):
        ImageDraw.Draw(mask).polygon([tuple(p - 0.5) for p in points], fill=number)
    return mask


def known(mask: Image.Image | None = None, **fields: Any) -> Annotated:
    annotation = Annotation.model_validate({"format": "xyxy", **fields})
    check_annotation(annotation, SIZE, "annotations.0")
    return Annotated(annotation, SIZE, find_instances(annotation, SIZE, mask))


def turned(degrees: float) -> View:
    return View(about_centre(rotation(degrees), SIZE), SIZE)


def boxes(annotated: Annotated, view: View) -> list[list[float]]:
    found = carry(annotated, view, 0)
    assert not found["dropped"]["boxes"]
    return list(found["boxes"])


@pytest.mark.parametrize("source", ["polygon", "mask", "both"])
@pytest.mark.parametrize("degrees", [10, 45, 123])
def test_a_rotated_box_is_tight_around_what_came_with_it(source: str, degrees: float) -> None:
    outline = disc(80, 60, 30)
    annotated = known(
        drawn(outline) if source != "polygon" else None,
        boxes=[box_of(outline)],
        polygons=[flat(outline)] if source != "mask" else [],
    )
    (box,) = boxes(annotated, turned(degrees))
    # Corners of a mask's pixels stand out where it is rotated.
    np.testing.assert_allclose(box, [50, 30, 110, 90], atol=0.1 if source == "polygon" else 2)
    (loose,) = boxes(known(boxes=[box_of(outline)]), turned(45))
    assert loose[2] - loose[0] == pytest.approx(60 * math.sqrt(2), abs=0.1)


def test_every_box_has_its_own_polygons_in_any_order() -> None:
    one, other, part, logo = disc(40, 60, 30), disc(120, 40, 20), disc(120, 95, 20), disc(45, 55, 8)
    both = np.concatenate([other, part])
    annotated = known(
        boxes=[box_of(both), box_of(one), box_of(logo)],
        polygons=[flat(points) for points in (one, part, logo, other)],
    )
    assert [list(instance.polygons) for instance in annotated.instances] == [[1, 3], [0], [2]]
    view = turned(30)
    moved = [box_of(points @ view.matrix[:2, :2].T + view.matrix[:2, 2]) for points in (one, logo)]
    np.testing.assert_allclose(boxes(annotated, view)[1:], moved, atol=0.01)


def test_equal_boxes_keep_their_polygons_apart() -> None:
    diamond, upright = disc(80, 60, 30, 4), disc(80, 60, 30)
    annotated = known(boxes=[[50, 30, 110, 90]] * 2, polygons=[flat(diamond), flat(upright)])
    assert [list(instance.polygons) for instance in annotated.instances] == [[0], [1]]
    wide = [box[2] - box[0] for box in boxes(annotated, turned(45))]
    assert wide == pytest.approx([60 / math.sqrt(2), 60], abs=0.1)


@pytest.mark.parametrize("gap", [0, 12])
def test_what_does_not_fill_a_box_does_not_shrink_it(gap: int) -> None:
    """A logo on a product, or a mask of a part of it."""
    logo = disc(70, 55, 8)
    box = [50 - gap, 30 - gap, 110, 90]
    plain = boxes(known(boxes=[box]), turned(20))
    assert boxes(known(drawn(logo), boxes=[box], polygons=[flat(logo)]), turned(20)) == plain
    assert boxes(known(Image.new("L", SIZE), boxes=[box]), turned(20)) == plain


def test_a_mask_of_several_things_is_looked_at_box_by_box() -> None:
    one, other = disc(40, 60, 30), disc(110, 60, 25)
    annotated = known(drawn(one, other), boxes=[box_of(one), box_of(other)])
    view = View(about_centre(rotation(90) @ rotation(-45), SIZE), SIZE)
    for box, points in zip(boxes(annotated, view), (one, other), strict=True):
        moved = points @ view.matrix[:2, :2].T + view.matrix[:2, 2]
        expected = np.clip(box_of(moved), 0, [*SIZE, *SIZE])
        np.testing.assert_allclose(box, expected, atol=2)  # corners of the mask's pixels


def test_a_box_that_stays_upright_keeps_its_sides() -> None:
    outline = disc(80, 60, 28)  # the box was drawn more loosely
    annotated = known(drawn(outline), boxes=[[50, 30, 110, 90]], polygons=[flat(outline)])
    for matrix, expected in (
        (translation(5, 6), [55, 36, 115, 96]),
        (about_centre(scaling(-1, 1), SIZE), [50, 30, 110, 90]),
        (scaling(0.5, 0.25), [25, 7.5, 55, 22.5]),
        (translation(0, 160) @ rotation(90), [30, 50, 90, 110]),
    ):
        (box,) = boxes(annotated, View(matrix, (200, 200)))
        assert box == pytest.approx(expected, abs=0.01)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**53 - 1), source=st.sampled_from(["polygon", "mask"]))
def test_boxes_are_those_of_the_pixels_that_are_seen(seed: int, source: str) -> None:
    outline = np.clip(disc(80, 60, 40) * [1.1, 0.9], 1, 119)
    mask = drawn(outline)
    polygons = [flat(outline)] if source == "polygon" else []
    annotated = known(mask, boxes=[box_of(outline)], polygons=polygons)
    photo = Photo("image", SIZE, "", np.zeros((*SIZE[::-1], 3), dtype=np.uint8), known=annotated)
    view = compose(draw_operations(parsed(GEOMETRY), seed, photo), photo)
    seen = np.asarray(warp_labels(mask, view)) != 0
    found = carry(annotated, view, 0)["boxes"]
    if seen.sum() < 30:
        return
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    pixels = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    # A pixel of the mask, as large as it is there, and one of the image.
    scale = math.sqrt(abs(np.linalg.det(view.matrix)) / abs(view.matrix[2, 2]) ** 3)
    np.testing.assert_allclose(found[0], pixels, atol=2 + 2 * scale)


def test_many_boxes_over_a_large_mask_are_looked_up_fast() -> None:
    """A thousand boxes of the whole photo: hostile, or drawn by a program."""
    size = (2400, 2000)
    noise = np.random.default_rng(0).integers(0, 2, size[::-1]).astype(np.uint8)
    annotation = Annotation.model_validate({"boxes": [[0, 0, *size]] * 1000})
    begun = time.process_time()
    instances = find_instances(annotation, size, Image.fromarray(noise))
    assert all(instance.hull is not None for instance in instances)
    assert time.process_time() - begun < 4


def test_keypoints_on_the_edge_are_cut_off_as_boxes_are() -> None:
    """Other tools round, or count from pixels' corners: up to a pixel beyond is the edge."""
    points = [[0, 0, 2], [160, 120, 2], [160.8, 60, 2], [-0.9, 60, 1], [80, 120.5, 2]]
    annotated = known(keypoints=[points], boxes=[[-0.9, 0, 160.8, 120]])
    for matrix, expected in (
        (np.eye(3), [[0, 0, 2], [160, 120, 2], [160, 60, 2], [0, 60, 1], [80, 120, 2]]),
        (
            about_centre(scaling(-1, 1), SIZE),
            [[160, 0, 2], [0, 120, 2], [0, 60, 2], [160, 60, 1], [80, 120, 2]],
        ),
    ):
        found = carry(annotated, View(matrix, SIZE), 0)
        assert found["keypoints"] == [expected]
        assert found["boxes"] == [[0, 0, 160, 120]]
        assert not any(math.copysign(1, value) < 0 for point in expected for value in point)
    away = carry(annotated, View(translation(0.5, 0), SIZE), 0)["keypoints"][0]
    assert away[1] == [0, 0, 0]
    assert away[0] == [0.5, 0, 2]


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"boxes": [[0.5, 0.5, 0.2, 0.3]]}, "boxes", "YOLO"),
        ({"boxes": [[0, 0, 1, 1]]}, "boxes", "left, top, width, height"),
        ({"boxes": [[0.1, 0.2, 0.4, 0.9]], "format": "xyxy"}, "boxes", "left, top, right, bottom"),
        ({"boxes": [[0.5, 0.5, 0.2, 0.3], [0.9, 0.9, 0.1, 0.1]]}, "boxes", "multiply x by 160"),
        ({"polygons": [[0.1, 0.1, 0.9, 0.1, 0.5, 1]]}, "polygons", "y by 120"),
        ({"keypoints": [[[0.5, 0.25, 2], [0, 0, 0]]]}, "keypoints", "normalised"),
    ],
)
def test_parts_of_the_photo_are_refused_with_the_likely_format(
    fields: dict[str, Any], param: str, words: str
) -> None:
    annotation = Annotation.model_validate({"format": "coco", **fields})
    with pytest.raises(BadRequest, match=words) as refused:
        check_annotation(annotation, SIZE, "annotations.0")
    assert refused.value.param == f"annotations.0.{param}"


@pytest.mark.parametrize(
    "fields",
    [
        {"boxes": [[0, 0, 1, 1], [10, 10, 20, 20]]},
        {"boxes": [[0.5, 0.5, 1, 1.5]]},
        {"keypoints": [[[0, 0, 2], [1, 1, 2]]]},
        {"keypoints": [[[0, 0, 0]]]},
        {"boxes": [], "polygons": [], "keypoints": []},
    ],
)
def test_small_shapes_in_pixels_are_taken(fields: dict[str, Any]) -> None:
    check_annotation(Annotation.model_validate(fields), SIZE, "annotations.0")
