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

from service.augmentation.matrices import (
    HORIZON,
    homogeneous,
    local_scales,
    scaling,
    translation,
)
from service.augmentation.operations.base import Matrix, Pixels, Size

# Where less is left of an axis, two samples a side are taken for each pixel.
MIN_DIRECT_SCALE: Final = 0.6
_BORDER_PX: Final = 2
_LANCZOS_REACH_PX: Final = 3
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


def resampled_pixels(size: Size, view: View) -> int:
    """How many pixels an image of `size` is resampled to on its way; 0 = they are copied."""
    return 0 if moves_pixels(view.matrix) else _lay_grid(size, view).pixels


@dataclass(frozen=True)
class _Grid:
    """The dense pixels that an image, with a border, is resampled to.

    Attributes:
        stretch: By how much its width and height are stretched.
        window: Left, top, right and bottom of those that are seen.
        source: Left, top, right and bottom of the image's pixels that these are made of.
        matrix: From all dense pixels to samples of the response's.
        size: Width and height of the samples.
    """

    stretch: tuple[float, float]
    window: tuple[int, int, int, int]
    source: tuple[int, int, int, int]
    matrix: Matrix
    size: Size

    @property
    def pixels(self) -> int:
        """How many are computed, columns first, then rows, then samples; 0 = nothing is seen."""
        left, top, right, bottom = self.window
        if left >= right or top >= bottom:
            return 0
        dense = (right - left) * (bottom - top + self.source[3] - self.source[1])
        return dense + self.size[0] * self.size[1]


def _resample(image: Image.Image, view: View, fill: tuple[int, ...]) -> Image.Image:
    grid = _lay_grid(image.size, view)
    if not grid.pixels:
        return Image.new(image.mode, view.size, fill)
    finer = View(grid.matrix @ translation(*grid.window[:2]), grid.size)
    seen = _transform(_densify(image, grid, fill), finer, Image.Resampling.BILINEAR, fill)
    return seen if grid.size == view.size else seen.resize(view.size, Image.Resampling.LANCZOS)


def _densify(image: Image.Image, grid: _Grid, fill: tuple[int, ...]) -> Image.Image:
    """Resize what is seen of an image, within its border, to the grid.

    One side after the other: Pillow 13 shifts rows where a box that begins at a part of a row
    resizes both at once.
    """
    first_column, first_row, last_column, last_row = grid.source
    columns, rows = last_column - first_column, last_row - first_row
    bordered = Image.new(image.mode, (columns, rows), fill)
    inner = np.clip(np.array(grid.source) - _BORDER_PX, 0, image.size * 2).tolist()
    corner = (inner[0] + _BORDER_PX - first_column, inner[1] + _BORDER_PX - first_row)
    bordered.paste(image.crop(inner), corner)
    left, top, right, bottom = grid.window
    x, y = grid.stretch
    sides = (left / x - first_column, 0, min(right / x - first_column, columns), rows)
    narrow = bordered.resize((right - left, rows), Image.Resampling.LANCZOS, sides)
    ends = (0, top / y - first_row, narrow.width, min(bottom / y - first_row, rows))
    return narrow.resize((right - left, bottom - top), Image.Resampling.LANCZOS, ends)


def _lay_grid(size: Size, view: View) -> _Grid:
    """Choose `density` samples for a pixel of the response; at most twice the image's own."""
    width, height = (side + 2 * _BORDER_PX for side in size)
    matrix = view.matrix @ translation(-_BORDER_PX, -_BORDER_PX)
    scales = local_scales(matrix, (width, height))
    samples, density = (1, 2.0) if min(scales) >= MIN_DIRECT_SCALE else (2, 3.0)
    dense_width, dense_height = (
        min(max(round(side * min(density * scale, 2.0)), 1), _MAX_DENSE_SIDE_PX)
        for side, scale in zip((width, height), scales, strict=True)
    )
    x, y = dense_width / width, dense_height / height
    finer = scaling(samples, samples) @ matrix @ scaling(1 / x, 1 / y)
    target = (view.size[0] * samples, view.size[1] * samples)
    window = _window((dense_width, dense_height), finer, target)
    reach = _LANCZOS_REACH_PX * np.maximum(1, 1 / np.array([x, y])) + 1
    ends = np.array(window).reshape(2, 2) / (x, y) + [-reach, reach]
    source = np.clip([np.floor(ends[0]), np.ceil(ends[1])], 0, (width, height)).astype(int)
    return _Grid((x, y), window, tuple(source.ravel().tolist()), finer, target)


def _window(dense: Size, matrix: Matrix, target: Size) -> tuple[int, int, int, int]:
    """What is seen of a dense image, and a little more; all of it where the horizon is in sight."""
    corners = np.array([[0, 0], target, [0, target[1]], [target[0], 0]], dtype=np.float64)
    back = homogeneous(corners, np.linalg.inv(matrix).astype(np.float64))
    if back[:, 2].min() <= HORIZON:
        return 0, 0, *dense
    points = back[:, :2] / back[:, 2:]
    low = np.clip(np.floor(points.min(axis=0)) - _BORDER_PX, 0, dense).astype(int).tolist()
    high = np.clip(np.ceil(points.max(axis=0)) + _BORDER_PX, 0, dense).astype(int).tolist()
    return low[0], low[1], high[0], high[1]


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
