"""Outlines of products in labelled sets: COCO's own tools read the very same pixels from them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageDraw
from pycocotools import mask as masks

from service.datasets.outlines import OPAQUE, Outline, outline_product, polygons_of
from service.rendering.presentation import Presentation

# NumPy's, of what pycocotools compiles in.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def decoded(polygons: list[list[int]], shape: tuple[int, ...]) -> np.ndarray:
    found = masks.decode(masks.merge(masks.frPyObjects(polygons, *shape)))
    return np.asarray(found).astype(bool)


def covered(polygons: list[list[int]]) -> float:
    """Sum of the areas, by the shoelace formula: no pixel lies in two, and none is a hole."""
    total = 0.0
    for flat in polygons:
        x, y = np.array(flat).reshape(-1, 2).T
        area = float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
        assert area > 0
        total += area
    return total


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    mask=arrays.arrays(
        np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.booleans()
    )
)
def test_polygons_are_the_mask_to_the_pixel(mask: np.ndarray) -> None:
    polygons = polygons_of(mask)
    if not mask.any():
        assert polygons == []
        return
    np.testing.assert_array_equal(decoded(polygons, mask.shape), mask)
    assert covered(polygons) == mask.sum()


def test_polygons_go_round_holes_within_holes() -> None:
    image = Image.new("1", (80, 60))
    draw = ImageDraw.Draw(image)
    for inset, fill in ((2, 1), (8, 0), (14, 1), (20, 0)):
        draw.ellipse((inset, inset, 79 - inset, 59 - inset), fill=fill)
    mask = np.asarray(image)
    np.testing.assert_array_equal(decoded(polygons_of(mask), mask.shape), mask)
    assert covered(polygons_of(mask)) == mask.sum()


def test_a_rectangle_has_four_corners() -> None:
    mask = np.zeros((16, 24), dtype=np.bool_)
    mask[5:7, 3:10] = True
    assert Outline.of_mask("alpha", mask) == Outline(
        "alpha", [[3, 5, 10, 5, 10, 7, 3, 7]], 14, (3, 5, 7, 2)
    )


def painted(left: int, top: int, width: int, height: int, ground: int = 0) -> np.ndarray:
    pixels = np.zeros((16, 24, 4), dtype=np.uint8)
    pixels[..., 3] = ground
    pixels[top : top + height, left : left + width, 3] = 255
    return pixels


@pytest.mark.parametrize(
    ("pixels", "source", "box"),
    [
        (painted(3, 5, 7, 2), "alpha", (3, 5, 7, 2)),
        (painted(3, 5, 7, 2, OPAQUE - 1), "alpha", (3, 5, 7, 2)),
        (painted(3, 5, 7, 2, OPAQUE), "box", (0, 0, 24, 16)),
        (painted(0, 0, 24, 16), "box", (0, 0, 24, 16)),
        (painted(0, 0, 0, 0), "box", (0, 0, 24, 16)),
        (painted(3, 5, 7, 2)[..., :3], "box", (0, 0, 24, 16)),
        (painted(3, 5, 7, 2)[..., :1], "box", (0, 0, 24, 16)),
    ],
)
@pytest.mark.parametrize("background", [None, (255, 255, 255)])
def test_outlines_follow_transparency(
    pixels: np.ndarray, source: str, box: tuple[int, ...], background: tuple[int, int, int] | None
) -> None:
    outline = outline_product(pixels, Presentation(24, 16, background))
    assert (outline.source, outline.box) == (source, box)
    assert outline.area == box[2] * box[3] == covered(outline.polygons)


def test_outlines_are_of_the_size_that_is_shown() -> None:
    outline = outline_product(painted(4, 4, 8, 8), Presentation(48, 32))
    assert outline.box == (8, 8, 16, 16)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("scale", [1, 2])
def test_before_a_plain_backdrop_the_outline_is_estimated(channels: int, scale: int) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(236, 244, (64, 64, channels)).astype(np.uint8)
    pixels[20:50, 10:40] = rng.integers(20, 60, (30, 30, channels))
    if channels == 4:
        pixels[..., 3] = 255
    outline = outline_product(pixels, Presentation(64 * scale, 64 * scale))
    assert outline.source == "backdrop"
    around = np.multiply((10, 20, 30, 30), scale)
    np.testing.assert_allclose(outline.box, around, atol=4 * scale)  # Lanczos's halo
    assert outline.area == covered(outline.polygons)
