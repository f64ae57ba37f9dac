"""Operations beside those of torchvision's transforms v2, pixels and annotations alike.

torchvision counts keypoints from pixel centres when it mirrors and from corners when it turns;
ours always count from corners, half a pixel more than centres.
"""

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from service.augmentation.annotations import Annotation
from service.augmentation.instances import find_instances
from service.augmentation.pipeline import Photo, compose, render
from service.augmentation.projection import Annotated, carry
from service.augmentation.requests import AugmentationRequest

torch = pytest.importorskip("torch")
F = pytest.importorskip("torchvision.transforms.v2.functional")
tv_tensors = pytest.importorskip("torchvision.tv_tensors")

WIDTH, HEIGHT = 160, 120
BOXES = [[30, 25, 80, 70], [90, 40, 130, 100]]
POINTS = [[40, 40], [100, 80], [60.5, 90.25]]


def scene() -> np.ndarray:
    """Smooth shading, edges in all directions and colours of all hues."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    waves = [127 + 110 * np.sin(x / 9 + y / (11 + 5 * c) + 2 * c) for c in range(3)]
    image = Image.fromarray(np.stack(waves, axis=-1).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.ellipse((45, 30, 115, 95), fill=(230, 60, 40))
    draw.rectangle((70, 50, 100, 80), fill=(240, 240, 200))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(1)))


PIXELS = scene()
TENSOR = torch.from_numpy(PIXELS.copy()).permute(2, 0, 1)


def ours(*steps: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """Pixels and annotations."""
    exact = [{"probability": 1, **step} for step in steps]
    request = AugmentationRequest.model_validate({"replay": [{"operations": exact}]})
    assert request.replay is not None
    operations = request.replay[0].operations
    photo = Photo("image", (WIDTH, HEIGHT), "", PIXELS)
    view = compose(operations, photo)
    points = [[[x, y, 2] for x, y in POINTS]]
    annotation = Annotation.model_validate({"format": "xyxy", "boxes": BOXES, "keypoints": points})
    size = (WIDTH, HEIGHT)
    known = Annotated(annotation, size, find_instances(annotation, size, None))
    found = carry(known, view, 0)
    return render(photo, operations, view), found


def theirs(kernel: Any, *args: Any, **options: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, boxes and keypoints."""
    size = (HEIGHT, WIDTH)
    boxes = tv_tensors.BoundingBoxes(
        torch.tensor(BOXES, dtype=torch.float64), format="XYXY", canvas_size=size
    )
    points = tv_tensors.KeyPoints(torch.tensor(POINTS, dtype=torch.float64), canvas_size=size)
    image = kernel(tv_tensors.Image(TENSOR), *args, **options)
    options = {name: value for name, value in options.items() if name != "interpolation"}
    return (
        image.permute(1, 2, 0).numpy(),
        kernel(boxes, *args, **options).numpy(),
        kernel(points, *args, **options).numpy(),
    )


def inner(pixels: np.ndarray) -> np.ndarray:
    """Without the margin where fill and border handling differ."""
    return pixels[30:-30, 40:-40].astype(np.int16)


def compare_geometry(
    mine: tuple[np.ndarray, dict[str, Any]],
    other: tuple[np.ndarray, np.ndarray, np.ndarray],
    point_offset: tuple[float, float] = (0, 0),
) -> None:
    pixels, found = mine
    np.testing.assert_allclose(found["boxes"], clipped(other[1]), atol=2e-3)
    points = np.array(found["keypoints"][0])
    np.testing.assert_allclose(points[:, :2], other[2] + point_offset, atol=2e-3)
    difference = np.abs(inner(pixels) - inner(other[0]))
    assert difference.mean() < 0.6
    assert difference.max() <= 14  # kernels differ on the sharpest edges


def clipped(boxes: np.ndarray) -> np.ndarray:
    return np.clip(boxes, 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])


@pytest.mark.parametrize(
    ("axis", "kernel", "offset"),
    [("horizontal", F.horizontal_flip, (1, 0)), ("vertical", F.vertical_flip, (0, 1))],
)
def test_flip(axis: str, kernel: Any, offset: tuple[int, int]) -> None:
    mine, other = ours({"name": "flip", "axis": axis}), theirs(kernel)
    np.testing.assert_array_equal(mine[0], other[0])
    compare_geometry(mine, other, offset)


@pytest.mark.parametrize("degrees", [-14.0, 3.5, 20.0])
def test_rotate(degrees: float) -> None:
    mine = ours({"name": "rotate", "degrees": degrees})
    compare_geometry(mine, theirs(F.rotate, degrees, interpolation=F.InterpolationMode.BILINEAR))


def test_a_half_turn_is_exact() -> None:
    mine, other = ours({"name": "rotate", "degrees": 180}), theirs(F.rotate, 180.0)
    np.testing.assert_array_equal(mine[0], other[0])


def test_rotate_scale_shear_and_translate_are_one_affine_map() -> None:
    """torchvision turns clockwise, slants in the other sense, and does all of it at once."""
    mine = ours(
        {"name": "shear", "x_degrees": -6, "y_degrees": 0},
        {"name": "rotate", "degrees": -10},
        {"name": "scale", "factor": 1.1},
        {"name": "translate", "x": 0.05, "y": -0.05},
    )
    other = theirs(
        F.affine,
        angle=10,
        translate=[0.05 * WIDTH, -0.05 * HEIGHT],
        scale=1.1,
        shear=[6, 0],
        interpolation=F.InterpolationMode.BILINEAR,
    )
    compare_geometry(mine, other)


def test_perspective() -> None:
    """torchvision's boxes round; its points are those of pixel centres."""
    insets = [[0.05, 0.1], [0.1, 0.02], [0.0, 0.08], [0.12, 0.04]]
    mine = ours({"name": "perspective", "strength": 0, "insets": insets})
    start = [[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]]
    inwards = [[1, 1], [-1, 1], [-1, -1], [1, -1]]
    end = [
        [s[0] + i[0] * d[0] * WIDTH, s[1] + i[1] * d[1] * HEIGHT]
        for s, i, d in zip(start, inwards, insets, strict=True)
    ]
    other = theirs(F.perspective, start, end, interpolation=F.InterpolationMode.BILINEAR)
    compare_geometry(mine, other)


def test_crop() -> None:
    mine = ours({"name": "crop", "scale": 0.75, "x": 0.25, "y": 0.5})
    left, top = 0.25 * 0.25 * WIDTH, 0.5 * 0.25 * HEIGHT
    other = theirs(
        F.resized_crop,
        top=int(top),
        left=int(left),
        height=round(0.75 * HEIGHT),
        width=round(0.75 * WIDTH),
        size=[HEIGHT, WIDTH],
        interpolation=F.InterpolationMode.BICUBIC,
    )
    compare_geometry(mine, other)


def test_a_smaller_canvas_is_an_antialiased_resize() -> None:
    placement = [0.5, 0, 0]
    canvas = {"name": "canvas", "size": "80x60", "placement": placement}
    pixels, found = ours(canvas)
    options = {"size": [60, 80], "antialias": True}
    other = theirs(F.resize, interpolation=F.InterpolationMode.BICUBIC, **options)
    np.testing.assert_allclose(found["boxes"], np.array(BOXES) / 2)
    difference = np.abs(pixels[2:-2, 2:-2].astype(np.int16) - other[0][2:-2, 2:-2])
    assert difference.mean() < 0.6
    assert difference.max() <= 14


COLOUR = {"brightness": 1, "contrast": 1, "saturation": 1, "hue_degrees": 0}


@pytest.mark.parametrize(
    ("step", "kernel", "value", "tolerance"),
    [
        ({"brightness": 1.3}, F.adjust_brightness, 1.3, 1),
        ({"brightness": 0.6}, F.adjust_brightness, 0.6, 1),
        ({"contrast": 1.4}, F.adjust_contrast, 1.4, 1),
        ({"contrast": 0.5}, F.adjust_contrast, 0.5, 1),
        ({"saturation": 1.7}, F.adjust_saturation, 1.7, 2),
        ({"saturation": 0.2}, F.adjust_saturation, 0.2, 1),
        ({"hue_degrees": 36}, F.adjust_hue, 0.1, 1),
        ({"hue_degrees": -90}, F.adjust_hue, -0.25, 1),
        ({"hue_degrees": 180}, F.adjust_hue, 0.5, 1),
    ],
)
def test_colour(step: dict[str, Any], kernel: Any, value: float, tolerance: int) -> None:
    pixels, _ = ours({"name": "colour", **COLOUR, **step})
    other = kernel(TENSOR, value).permute(1, 2, 0).numpy()
    assert np.abs(pixels.astype(np.int16) - other).max() <= tolerance


@pytest.mark.parametrize("gamma", [0.5, 1.8])
def test_gamma(gamma: float) -> None:
    other = F.adjust_gamma(TENSOR, gamma).permute(1, 2, 0).numpy()
    assert np.abs(ours({"name": "gamma", "gamma": gamma})[0].astype(np.int16) - other).max() <= 1


def test_greyscale() -> None:
    other = F.rgb_to_grayscale(TENSOR, num_output_channels=3).permute(1, 2, 0).numpy()
    assert np.abs(ours({"name": "greyscale"})[0].astype(np.int16) - other).max() <= 1


@pytest.mark.parametrize("factor", [0.0, 2.0])
def test_sharpen(factor: float) -> None:
    other = F.adjust_sharpness(TENSOR, factor).permute(1, 2, 0).numpy()
    pixels = ours({"name": "sharpen", "factor": factor})[0]
    assert np.abs(inner(pixels) - inner(other)).max() <= 1


@pytest.mark.parametrize("sigma", [0.8, 2.0, 5.0])
def test_blur(sigma: float) -> None:
    other = F.gaussian_blur(TENSOR, kernel_size=[41, 41], sigma=[sigma, sigma])
    pixels = ours({"name": "blur", "radius_px": sigma})[0]
    difference = np.abs(inner(pixels) - inner(other.permute(1, 2, 0).numpy()))
    assert difference.mean() < 1
    assert difference.max() <= 5  # Pillow's Gaussian is three boxes


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
@pytest.mark.parametrize("quality", [20, 75, 95])
def test_jpeg(quality: int) -> None:
    pixels = ours({"name": "jpeg", "quality": quality})[0]
    other = F.jpeg(TENSOR, quality).permute(1, 2, 0).numpy()
    assert np.abs(pixels.astype(np.int16) - other).mean() < 0.5


def test_cutout() -> None:
    step = {"name": "cutout", "rectangles": [[0.25, 0.5, 0.125, 0.25]], "colour": "#102030"}
    value = torch.tensor([0x10, 0x20, 0x30], dtype=torch.uint8).reshape(3, 1, 1)
    other = F.erase(TENSOR, i=60, j=40, h=30, w=20, v=value).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(ours(step)[0], other)
