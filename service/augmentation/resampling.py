"""One resampling of an image by a 3 x 3 matrix.

Pillow's transforms don't filter, so detail finer than the response's pixels would turn into
patterns. The image is first brought, by Lanczos, to twice the response's density (three times
with two samples a side where it shrinks to less than MIN_DIRECT_SCALE); between samples that
dense linear interpolation is nearer to the ideal than Pillow's bicubic one, whose overshoot
draws lines along edges. Measured: docs/augmentation.md.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image

from service.augmentation.matrices import HORIZON, local_scales, scaling, translation
from service.augmentation.operations.base import Matrix, Pixels, Size

# Where less is left of an axis, two samples a side are taken for each pixel.
MIN_DIRECT_SCALE: Final = 0.6
_BORDER_PX: Final = 2
_HEADROOM: Final = 0.8
# An image's own pixels, doubled, of the largest photo that is kept.
_MAX_DENSE_SIDE_PX: Final = 4200


@dataclass(frozen=True)
class View:
    """Where the photo goes.

    Attributes:
        matrix: From photo pixels to image pixels.
        size: The image's.
    """

    matrix: Matrix
    size: Size


def warp(image: Image.Image, view: View, fill: tuple[int, ...]) -> Image.Image:
    """Resample an image, with smooth edges to what lies beyond it.

    Args:
        image: L, RGB or RGBA; `view.matrix` is in its pixels.
        view: Where it goes.
        fill: What is seen beyond it; of RGBA, transparency.
    """
    if moves_pixels(view.matrix):
        return _transform(image, view, Image.Resampling.NEAREST, fill)
    if image.mode == "RGBA":
        return _with_headroom(image, view)
    return _resample(image, view, fill)


def _with_headroom(image: Image.Image, view: View) -> Image.Image:
    """Resample colours weighed by opacity, beyond which all is transparent.

    Lanczos overshoots along edges. Were full opacity 255, only colours could, and would brighten.
    """
    weighed = image.convert("RGBa").point([round(v * _HEADROOM) for v in range(256)] * 4)
    seen = _resample(weighed, view, (0, 0, 0, 0)).convert("RGBA")
    opacity = [min(255, round(v / _HEADROOM)) for v in range(256)]
    seen.putalpha(seen.getchannel("A").point(opacity))
    return seen


def _resample(image: Image.Image, view: View, fill: tuple[int, ...]) -> Image.Image:
    width, height = image.size
    bordered = Image.new(image.mode, (width + 2 * _BORDER_PX, height + 2 * _BORDER_PX), fill)
    bordered.paste(image, (_BORDER_PX, _BORDER_PX))
    matrix = view.matrix @ translation(-_BORDER_PX, -_BORDER_PX)
    scales = local_scales(matrix, bordered.size)
    samples, density = (1, 2.0) if min(scales) >= MIN_DIRECT_SCALE else (2, 3.0)
    dense, stretch = _densify(bordered, scales, density)
    finer = View(
        scaling(samples, samples) @ matrix @ scaling(1 / stretch[0], 1 / stretch[1]),
        (view.size[0] * samples, view.size[1] * samples),
    )
    seen = _transform(dense, finer, Image.Resampling.BILINEAR, fill)
    return seen if samples == 1 else seen.resize(view.size, Image.Resampling.LANCZOS)


def warp_labels(image: Image.Image, view: View) -> Image.Image:
    """Resample class indexes by the nearest one; 0 beyond the image."""
    return _transform(image, view, Image.Resampling.NEAREST, (0,))


def moves_pixels(matrix: Matrix) -> bool:
    """Whether pixels stay what they are: mirrored, turned by 90 degrees, moved by whole ones."""
    if abs(matrix[2, 2]) < HORIZON:
        return False
    matrix = matrix / matrix[2, 2]
    units = np.sort(np.abs(matrix[:2, :2]), axis=1)
    whole = matrix[:2, 2] - np.rint(matrix[:2, 2])
    return bool(
        np.allclose(units, [0, 1], atol=1e-9)
        and np.allclose(whole, 0, atol=1e-6)
        and np.allclose(matrix[2, :2], 0, atol=1e-12)
    )


def _densify(
    image: Image.Image, scales: tuple[float, float], density: float
) -> tuple[Image.Image, tuple[float, float]]:
    """Resize to `density` samples for a pixel of the response; at most to twice the size.

    Returns:
        The image, and by how much its width and height were stretched.
    """
    width, height = (
        min(max(round(side * min(density * scale, 2.0)), 1), _MAX_DENSE_SIDE_PX)
        for side, scale in zip(image.size, scales, strict=True)
    )
    dense = image.resize((width, height), Image.Resampling.LANCZOS)
    return dense, (dense.width / image.width, dense.height / image.height)


def _transform(
    image: Image.Image, view: View, how: Image.Resampling, fill: tuple[int, ...]
) -> Image.Image:
    # Not scaled: its third coordinate is above 0 just where the photo is before the viewer.
    back = np.linalg.inv(view.matrix).astype(np.float64)
    fillcolour = fill[0] if len(fill) == 1 else fill
    if np.allclose(back[2, :2], 0, atol=1e-15):
        data = (back[:2] / back[2, 2]).ravel().tolist()
        return image.transform(view.size, Image.Transform.AFFINE, data, how, fillcolor=fillcolour)
    anchor = back[2, 2] if abs(back[2, 2]) > HORIZON**2 else HORIZON**2
    data = (back / anchor).ravel()[:8].tolist()
    seen = image.transform(view.size, Image.Transform.PERSPECTIVE, data, how, fillcolor=fillcolour)
    behind = _behind(back, view.size)
    if behind is not None:
        seen.paste(fill, mask=Image.fromarray(behind))
    return seen


def _behind(back: Matrix, size: Size) -> Pixels | None:
    """Where the plane of the photo is behind the viewer: 255 there; None = nowhere."""
    x, y = np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5
    depth = back[2, 0] * x[None, :] + back[2, 1] * y[:, None] + back[2, 2]
    if depth.min() > 0:
        return None
    return np.where(depth <= 0, np.uint8(255), np.uint8(0))
