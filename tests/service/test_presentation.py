"""Sizes and backgrounds: which a model can give, and what comes of the pixels."""

import re
from pathlib import Path

import numpy as np
import pytest

from models.manifest import GeneratorManifest
from service.errors import BadRequest
from service.rendering.presentation import (
    Presentation,
    choose_presentation,
    largest_size,
    present,
)


@pytest.fixture
def manifest(export: Path) -> GeneratorManifest:
    return GeneratorManifest.model_validate_json((export / "manifest.json").read_text())


@pytest.mark.parametrize("size", ["auto", "24x16", None])
def test_the_native_size(manifest: GeneratorManifest, size: str | None) -> None:
    assert choose_presentation(size, None, manifest) == Presentation(24, 16)


@pytest.mark.parametrize("size", ["48x32", "36x24", "25x17", "26x17", "31x21", "47x31", "96x64"])
def test_sizes_in_proportion_to_rounding(manifest: GeneratorManifest, size: str) -> None:
    assert choose_presentation(size, None, manifest).size == size


@pytest.mark.parametrize(
    ("size", "nearest"),
    [
        *(("48x33", "49x33"), ("32x48", "48x32"), ("24x17", "25x17"), ("97x65", "96x64")),
        *(("1024x1024", "96x64"), ("36x36", "44x29"), ("23x15", "24x16"), ("1x9", "24x16")),
        ("99999x9999", "96x64"),
    ],
)
def test_another_size_is_told_the_proportions_and_the_nearest_of_them(
    manifest: GeneratorManifest, size: str, nearest: str
) -> None:
    message = rf'24x16, and have the proportions 3:2 .* to "96x64": the nearest to {size} is "(.*)"'
    with pytest.raises(BadRequest, match=message) as caught:
        choose_presentation(size, None, manifest)
    assert caught.value.param == "size"
    (found,) = re.findall(message, caught.value.message)
    assert found == nearest
    assert choose_presentation(nearest, None, manifest).size == nearest
    assert choose_presentation(size, None, manifest, rounded=True).size == nearest


@pytest.mark.parametrize(
    "size",
    [
        *("0x0", "-24x-16", "24x016", "24 x 16", "24x16px", "٢٤x١٦", "24x16\n", "x", "", "24"),
        "large",
    ],
)
@pytest.mark.parametrize("rounded", [False, True])
def test_what_is_no_size(manifest: GeneratorManifest, size: str, rounded: bool) -> None:
    with pytest.raises(BadRequest, match=r'24x16.*3:2 .* "96x64": write it as WIDTHxHEIGHT'):
        choose_presentation(size, None, manifest, rounded)


@pytest.mark.parametrize(
    ("width", "height", "largest"),
    [
        *((24, 16, (96, 64)), (512, 512, (2048, 2048)), (768, 512, (2048, 1365))),
        *((1000, 3000, (1000, 3000)), (2048, 1024, (2048, 1024)), (1024, 640, (2048, 1280))),
    ],
)
def test_the_largest_size(
    manifest: GeneratorManifest, width: int, height: int, largest: tuple[int, int]
) -> None:
    model = manifest.model_copy(update={"width": width, "height": height})
    assert largest_size(model) == largest
    size = "{}x{}".format(*largest)
    assert choose_presentation(size, None, model).size == size


@pytest.mark.parametrize(
    ("size", "enlargement"),
    [("24x16", "none"), ("48x32", "none"), ("49x33", "lanczos"), ("192x128", "lanczos")],
)
def test_a_size_says_how_it_is_reached(
    manifest: GeneratorManifest, size: str, enlargement: str
) -> None:
    model = manifest.model_copy(update={"width": 48, "height": 32})
    assert choose_presentation(size, None, model).enlargement == enlargement


def test_a_model_below_the_smallest_size_gives_its_own(manifest: GeneratorManifest) -> None:
    tiny = manifest.model_copy(update={"width": 8, "height": 8})
    for size in ("auto", "8x8", "16x16"):
        choose_presentation(size, None, tiny)
    with pytest.raises(BadRequest):
        choose_presentation("9x9", None, tiny)


def test_a_background_lies_under_transparent_parts_alone() -> None:
    pixels = np.zeros((2, 2, 4), dtype=np.uint8)
    pixels[0, 0] = (10, 20, 30, 255)
    pixels[0, 1] = (0, 0, 0, 128)
    shown = present(pixels, Presentation(2, 2, (255, 0, 100)))
    assert shown[0, 0].tolist() == [10, 20, 30]
    assert np.abs(shown[0, 1].astype(int) - [127, 0, 50]).max() <= 1
    assert shown[1].tolist() == [[255, 0, 100]] * 2


def test_hidden_colours_do_not_bleed_into_resized_edges() -> None:
    pixels = np.zeros((16, 16, 4), dtype=np.uint8)
    pixels[..., 1] = 255  # transparent green around an opaque red square
    pixels[4:12, 4:12] = (255, 0, 0, 255)
    for side in (11, 32):
        shown = present(pixels, Presentation(side, side))
        seen = shown[..., 3] > 0
        assert shown.shape == (side, side, 4)
        assert 0 < seen.sum() < side * side
        assert shown[..., 1][seen].max() == 0
        assert shown[..., 0][shown[..., 3] > 8].min() > 200


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_resizing_keeps_channels_and_a_picture_of_one_colour(channels: int) -> None:
    pixels = np.full((16, 24, channels), 200, dtype=np.uint8)
    shown = present(pixels, Presentation(36, 24))
    assert shown.shape == (24, 36, channels)
    assert np.abs(shown.astype(int) - 200).max() <= 1


def test_nothing_to_do_is_nothing_done() -> None:
    for channels in (1, 3, 4):
        pixels = np.zeros((16, 24, channels), dtype=np.uint8)
        assert present(pixels, Presentation(24, 16)) is pixels
