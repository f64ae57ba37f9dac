"""Which triangle is seen at each pixel: a scan converter in NumPy.

Cost grows with covered pixels, not with triangles times pixels: each triangle is cut into
rows, each row into pixels, and one ordered maximum keeps the nearest.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.sample_catalogue.mesh import Floats, Ints

NOTHING: Final = -1


def visible_faces(
    xy: Floats, nearness: Floats, faces: Ints, shape: tuple[int, int], *, cull: bool = True
) -> Ints:
    """Index of the nearest face at the centre of each pixel.

    Args:
        xy: [V, 2], pixel coordinates, x to the right and y down.
        nearness: [V], larger is nearer, positive, linear on screen (1 / distance).
        faces: int32 [F, 3], counter-clockwise where seen from outside.
        shape: Height and width in pixels.
        cull: Leave out faces seen from inside.

    Returns:
        int32 [height, width], NOTHING where no face is.
    """
    height, width = shape
    a, b, c = (xy[faces[:, k]] for k in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    # y points down on screen, so that counter-clockwise faces have a negative area.
    kept = np.flatnonzero(area < -1e-9 if cull else np.abs(area) > 1e-9)
    corners = np.stack([a[kept], b[kept], c[kept]], axis=1)
    triangle, row, left, right = _spans(corners, height)
    start = np.clip(np.ceil(left - 0.5), 0, width).astype(np.int64)
    count = np.maximum(np.clip(np.ceil(right - 0.5), 0, width).astype(np.int64) - start, 0)
    span = np.repeat(np.arange(len(row)), count)
    column = start[span] + _ramp(count)
    triangle, row = triangle[span], row[span]
    slope_x, slope_y, origin = _planes(corners, nearness[faces[kept]], area[kept])
    near = origin[triangle] + slope_x[triangle] * (column + 0.5) + slope_y[triangle] * (row + 0.5)
    # Positive floats sort like their bits: depth above, face below, one maximum.
    bits = np.maximum(near, 1e-12).astype(np.float32).view(np.uint32).astype(np.uint64)
    keys = (bits << np.uint64(32)) | (kept[triangle] + 1).astype(np.uint64)
    buffer = np.zeros(height * width, np.uint64)
    np.maximum.at(buffer, row * width + column, keys)
    return (buffer & np.uint64(0xFFFFFFFF)).astype(np.int32).reshape(shape) + np.int32(NOTHING)


def barycentric(
    xy: Floats, nearness: Floats, corners: Ints, pixels: tuple[NDArray[np.intp], NDArray[np.intp]]
) -> Floats:
    """Perspective-correct weights [K, 3] of three vertices at K pixels (rows, columns)."""
    a, b, c = (xy[corners[:, k]] for k in range(3))
    x, y = pixels[1] + np.float32(0.5), pixels[0] + np.float32(0.5)
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    second = ((x - a[:, 0]) * (c[:, 1] - a[:, 1]) - (y - a[:, 1]) * (c[:, 0] - a[:, 0])) / area
    third = ((b[:, 0] - a[:, 0]) * (y - a[:, 1]) - (b[:, 1] - a[:, 1]) * (x - a[:, 0])) / area
    weights = np.stack([1 - second - third, second, third], axis=1) * nearness[corners]
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _ramp(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, ... for each count in turn, concatenated."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) - np.repeat(ends - counts, counts)


def _spans(
    corners: Floats, height: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats, Floats]:
    """Triangles cut into rows: triangle, row, left x and right x of each row."""
    ys = corners[:, :, 1]
    first = np.clip(np.ceil(ys.min(axis=1) - 0.5), 0, height).astype(np.int64)
    last = np.clip(np.ceil(ys.max(axis=1) - 0.5), 0, height).astype(np.int64)
    count = last - first
    triangle = np.repeat(np.arange(len(corners)), count)
    row = first[triangle] + _ramp(count)
    y = (row + 0.5).astype(np.float32)
    left = np.full(len(row), np.inf, np.float32)
    right = np.full(len(row), -np.inf, np.float32)
    for k in range(3):
        p, q = corners[:, k], corners[:, (k + 1) % 3]
        rise = q[:, 1] - p[:, 1]
        slope = (q[:, 0] - p[:, 0]) / np.where(rise == 0, np.float32(1), rise)
        x = p[triangle, 0] + (y - p[triangle, 1]) * slope[triangle]
        crossed = (p[triangle, 1] <= y) != (q[triangle, 1] <= y)
        left = np.where(crossed, np.minimum(left, x), left)
        right = np.where(crossed, np.maximum(right, x), right)
    empty = left > right
    left[empty] = right[empty] = 0
    return triangle, row, left, right


def _planes(corners: Floats, values: Floats, area: Floats) -> tuple[Floats, Floats, Floats]:
    """Slopes and origin of the plane through `values` [F, 3] over the screen."""
    edge, other = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    rise, climb = values[:, 1] - values[:, 0], values[:, 2] - values[:, 0]
    slope_x = (rise * other[:, 1] - climb * edge[:, 1]) / area
    slope_y = (climb * edge[:, 0] - rise * other[:, 0]) / area
    origin = values[:, 0] - slope_x * corners[:, 0, 0] - slope_y * corners[:, 0, 1]
    return slope_x, slope_y, origin
