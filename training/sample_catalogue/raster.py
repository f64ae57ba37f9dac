"""Which triangle is seen at each pixel: a scan converter in NumPy.

Cost grows with covered pixels, not with triangles times pixels: each triangle is cut into
rows, each row into pixels, and one ordered maximum keeps the nearest.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.sample_catalogue.mesh import Floats, Ints

NOTHING: Final = -1


def visible_faces(xy: Floats, nearness: Floats, faces: Ints, shape: tuple[int, int]) -> Ints:
    """Index of the nearest face at the centre of each pixel; faces seen from inside are left out.

    Args:
        xy: [V, 2], pixel coordinates, x to the right and y down.
        nearness: [V], larger is nearer, positive, linear on screen (1 / distance).
        faces: int32 [F, 3], counter-clockwise where seen from outside.
        shape: Height and width in pixels.

    Returns:
        int32 [height, width], NOTHING where no face is.
    """
    height, width = shape
    area = _twice_area(*(xy[faces[:, k]] for k in range(3)))
    # y points down on screen, so that counter-clockwise faces have a negative area.
    kept = np.flatnonzero(area < -1e-9)
    corners = xy[faces[kept]]
    triangle, row, start, count = _spans(corners, shape)
    span = np.repeat(np.arange(len(row)), count)
    column = start[span] + _ramp(count)
    triangle, row = triangle[span], row[span]
    plane = _planes(corners, nearness[faces[kept]], area[kept]).take(triangle, axis=0)
    x, y = column.astype(np.float32) + 0.5, row.astype(np.float32) + 0.5
    near = plane[:, 0] * x + plane[:, 1] * y + plane[:, 2]
    # Positive floats sort like their bits: depth above, face below, one maximum.
    bits = np.maximum(near, 1e-12).astype(np.float32).view(np.uint32).astype(np.uint64)
    keys = (bits << np.uint64(32)) | (kept[triangle] + 1).astype(np.uint64)
    buffer = np.zeros(height * width, np.uint64)
    np.maximum.at(buffer, row * width + column, keys)
    return (buffer & np.uint64(0xFFFFFFFF)).astype(np.int32).reshape(shape) + np.int32(NOTHING)


def covered(xy: Floats, faces: Ints, shape: tuple[int, int]) -> Floats:
    """1 at each pixel whose centre any face covers, else 0; [height, width].

    Args:
        xy: [V, 2], pixel coordinates.
        faces: int32 [F, 3], of any orientation.
        shape: Height and width in pixels.
    """
    height, width = shape
    _, row, start, count = _spans(xy[faces], shape)
    first = row * (width + 1) + start
    size = height * (width + 1)
    begun = np.bincount(first, minlength=size) - np.bincount(first + count, minlength=size)
    depth = np.cumsum(begun.reshape(height, width + 1), axis=1)[:, :width]
    cover: Floats = (depth > 0).astype(np.float32)
    return cover


def _twice_area(a: Floats, b: Floats, c: Floats) -> Floats:
    """Signed, [N], of triangles with corners [N, 2]."""
    area: Floats = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1])
    return area - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])


def barycentric(
    xy: Floats, nearness: Floats, corners: Ints, pixels: tuple[NDArray[np.intp], NDArray[np.intp]]
) -> Floats:
    """Perspective-correct weights [K, 3] of three vertices at K pixels (rows, columns)."""
    a, b, c = (xy.take(corners[:, k], axis=0) for k in range(3))
    here = np.stack([pixels[1], pixels[0]], axis=1).astype(np.float32) + 0.5
    first = _twice_area(here, b, c) * nearness.take(corners[:, 0])
    second = _twice_area(a, here, c) * nearness.take(corners[:, 1])
    third = _twice_area(a, b, here) * nearness.take(corners[:, 2])
    weights: Floats = np.stack([first, second, third], axis=1)
    return weights / (first + second + third)[:, None]


def _ramp(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, ... for each count in turn, concatenated."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) - np.repeat(ends - counts, counts)


def _spans(
    corners: Floats, shape: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Triangles [F, 3, 2] cut into rows: triangle, row, first column and pixels of each."""
    height, width = shape
    ys = corners[:, :, 1]
    low = np.minimum(np.minimum(ys[:, 0], ys[:, 1]), ys[:, 2])
    high = np.maximum(np.maximum(ys[:, 0], ys[:, 1]), ys[:, 2])
    top = np.clip(np.ceil(low - 0.5), 0, height).astype(np.int64)
    rows = np.clip(np.ceil(high - 0.5), 0, height).astype(np.int64) - top
    triangle = np.repeat(np.arange(len(corners)), rows)
    row = top[triangle] + _ramp(rows)
    y = row.astype(np.float32) + 0.5
    left = np.full(len(row), width, np.float32)
    right = np.zeros(len(row), np.float32)
    for k in range(3):
        p, q = corners[:, k], corners[:, (k + 1) % 3]
        rise = q[:, 1] - p[:, 1]
        slope = (q[:, 0] - p[:, 0]) / np.where(rise == 0, np.float32(1), rise)
        edge = np.stack([p[:, 0], p[:, 1], q[:, 1], slope], axis=1).take(triangle, axis=0)
        x = edge[:, 0] + (y - edge[:, 1]) * edge[:, 3]
        crossed = (edge[:, 1] <= y) != (edge[:, 2] <= y)
        left = np.where(crossed, np.minimum(left, x), left)
        right = np.where(crossed, np.maximum(right, x), right)
    start = np.clip(np.ceil(left - 0.5), 0, width).astype(np.int64)
    end = np.clip(np.ceil(right - 0.5), 0, width).astype(np.int64)
    return triangle, row, start, np.maximum(end - start, 0)


def _planes(corners: Floats, values: Floats, area: Floats) -> Floats:
    """Slopes along x and y and origin, [F, 3], of `values` [F, 3] over the screen."""
    edge, other = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    rise, climb = values[:, 1] - values[:, 0], values[:, 2] - values[:, 0]
    slope_x = (rise * other[:, 1] - climb * edge[:, 1]) / area
    slope_y = (climb * edge[:, 0] - rise * other[:, 0]) / area
    origin = values[:, 0] - slope_x * corners[:, 0, 0] - slope_y * corners[:, 0, 1]
    return np.stack([slope_x, slope_y, origin], axis=1)
