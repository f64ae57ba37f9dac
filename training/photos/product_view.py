"""The small view of a photo's product, without a plain background, for finding duplicates.

A background is plain if a smooth surface, quadratic in x and y, fits the colours of most of
the photo's border: a shop's white, a studio's soft shade, any single colour. Pixels of that
colour that are connected to the border are background (GROUND), the rest is the product. The
product's bounding box fills the view, so that copies on another background, with less margin or
at another size have nearly the same view. A photo without a plain background counts as product
from edge to edge.

A view is an RGB image with a fourth plane that labels each pixel: OUTSIDE the photo, GROUND, a
HOLE (the background's colour, but enclosed by the product: the inside of a handle, or a white
dial on white), or PRODUCT.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

VIEW_PX: Final = 64
# Around the product's box, so that its outline is visible.
MARGIN_PX: Final = 4
OUTSIDE: Final = 0
GROUND: Final = 85
HOLE: Final = 170
PRODUCT: Final = 255

_SEGMENTED_PX: Final = 96
_RING_PX: Final = 2
# Levels by which border pixels may differ from the surface, and how many must not.
_BORDER_LEVELS: Final = 6
_PLAIN_FRACTION: Final = 0.75
_GROUND_LEVELS: Final = 16
# Levels by which the first estimate may be off, and the fewest pixels that a surface is fitted to.
_FIRST_LEVELS: Final = 40
_FEWEST_FITTED: Final = 60
_SMALLEST_PRODUCT: Final = 0.01

_x, _y = np.meshgrid(*2 * [(np.arange(_SEGMENTED_PX) + 0.5) / _SEGMENTED_PX * 2 - 1])
_SURFACE: Final = np.stack([np.ones_like(_x), _x, _y, _x * _x, _y * _y, _x * _y], axis=2)
_RING: Final = np.pad(
    np.zeros(2 * [_SEGMENTED_PX - 2 * _RING_PX], bool), _RING_PX, constant_values=True
)
# Regularises curvature, so that a few stray pixels don't bend the surface.
_STIFFNESS: Final = np.diag([0.0, 2.0, 2.0, 6.0, 6.0, 6.0])


@dataclass(frozen=True, slots=True)
class ProductView:
    """The result of `product_view`, small enough to hold in memory for all photos.

    Attributes:
        pixels: uint8 [VIEW_PX, VIEW_PX, 4], as bytes.
        frame: Position of the view in the photo: scale of x and y, then shift of x and y, in
            halves of the photo's height. Position p of the view, from -1 to 1, is at
            scale * p + shift, with the photo's centre at 0.
    """

    pixels: bytes
    frame: tuple[float, float, float, float]


def product_view(rgb: Image.Image) -> ProductView:
    """Build the view of a photo of any size, mode RGB."""
    small = rgb.resize(2 * (_SEGMENTED_PX,), Image.Resampling.LANCZOS, reducing_gap=2.0)
    product, holes = _segment(np.asarray(small).astype(np.int16))
    ((down, across),) = ndimage.find_objects(product.astype(np.int8))
    columns, x_from, x_to = _visible(across.start, across.stop)
    rows, y_from, y_to = _visible(down.start, down.stop)
    size = (columns.stop - columns.start, rows.stop - rows.start)
    box = (x_from, y_from, x_to, y_to)
    x_scale, y_scale = rgb.width / _SEGMENTED_PX, rgb.height / _SEGMENTED_PX
    photo_box = (x_from * x_scale, y_from * y_scale, x_to * x_scale, y_to * y_scale)
    view = np.full((VIEW_PX, VIEW_PX, 4), OUTSIDE, dtype=np.uint8)
    inner = rgb.resize(size, Image.Resampling.LANCZOS, box=photo_box, reducing_gap=2.0)
    view[rows, columns, :3] = np.asarray(inner)
    view[rows, columns, 3] = np.select(
        [~_resized(product, size, box), _resized(holes, size, box)], [GROUND, HOLE], PRODUCT
    )
    x_half, x_centre = _reach(across.start, across.stop)
    y_half, y_centre = _reach(down.start, down.stop)
    aspect = rgb.width / rgb.height
    return ProductView(view.tobytes(), (x_half * aspect, y_half, x_centre * aspect, y_centre))


def _segment(pixels: NDArray[np.int16]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Segment the photo: masks of the product, holes included, and of its holes."""
    whole = np.ones(pixels.shape[:2], dtype=np.bool_)
    ground = _plain_ground(pixels)
    if ground is None:
        return whole, ~whole
    like_ground = np.abs(pixels - ground).max(axis=2) <= _GROUND_LEVELS
    parts, count = ndimage.label(like_ground)
    joins_border = np.zeros(count + 1, dtype=np.bool_)
    joins_border[parts[_RING]] = True
    joins_border[0] = False
    product = ndimage.binary_opening(~joins_border[parts], np.ones((2, 2)))
    if product.mean() < _SMALLEST_PRODUCT:
        return whole, ~whole
    return product, product & like_ground


def _plain_ground(pixels: NDArray[np.int16]) -> NDArray[np.float64] | None:
    """Fit the background's colours [height, width, 3]; None if it is not plain."""
    border, surface = pixels[_RING].astype(np.float64), _SURFACE[_RING]
    fits = np.abs(border - np.median(border, axis=0)).max(axis=1) <= _FIRST_LEVELS
    for _ in range(4):
        if fits.sum() < _FEWEST_FITTED:
            return None
        fitted = surface[fits]
        bends = np.linalg.solve(fitted.T @ fitted + _STIFFNESS, fitted.T @ border[fits])
        fits = np.abs(border - surface @ bends).max(axis=1) <= _BORDER_LEVELS
    ground: NDArray[np.float64] = _SURFACE @ bends
    return ground if fits.mean() >= _PLAIN_FRACTION else None


def _reach(start: int, stop: int) -> tuple[float, float]:
    """Half the view's length along one side of the photo, and its centre, from -1 to 1."""
    scale = (stop - start) / _SEGMENTED_PX * VIEW_PX / (VIEW_PX - 2 * MARGIN_PX)
    return scale, (start + stop) / _SEGMENTED_PX - 1


def _visible(start: int, stop: int) -> tuple[slice, float, float]:
    """Find the pixels of the view that lie within the photo, and the range that they cover.

    Args:
        start: Start of the product's box, along one side of the segmented image.
        stop: Its end.
    """
    step = (stop - start) / (VIEW_PX - 2 * MARGIN_PX)
    origin = start - MARGIN_PX * step
    first = max(0, int(np.ceil(-origin / step - 1e-6)))
    last = min(VIEW_PX, int(np.floor((_SEGMENTED_PX - origin) / step + 1e-6)))
    reach = (origin + first * step, origin + last * step)
    return slice(first, last), max(0.0, reach[0]), min(float(_SEGMENTED_PX), reach[1])


def _resized(
    mask: NDArray[np.bool_], size: tuple[int, int], box: tuple[float, float, float, float]
) -> NDArray[np.bool_]:
    """Resize the part of a mask within `box`."""
    levels = Image.fromarray(mask.astype(np.uint8) * 255)
    resized: NDArray[np.bool_] = (
        np.asarray(levels.resize(size, Image.Resampling.BILINEAR, box=box)) > 127
    )
    return resized
