"""3 x 3 matrices of the plane.

Coordinates are continuous: an image covers [0, width] x [0, height], x to the right, y down,
and the pixel in column i and row j has its centre at (i + 0.5, j + 0.5).
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.augmentation.operations.base import Matrix, Size

# A point with a smaller third coordinate is on the horizon or behind the viewer.
HORIZON: Final = 1e-6


def translation(x: float, y: float) -> Matrix:
    """Moves by (x, y) pixels."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=np.float64)


def scaling(x: float, y: float) -> Matrix:
    """Scales about the origin."""
    return np.diag([x, y, 1.0])


def about_centre(linear: Matrix, size: Size) -> Matrix:
    """The same about the centre of an image of `size`."""
    x, y = size[0] / 2, size[1] / 2
    return translation(x, y) @ linear @ translation(-x, -y)


def rotation(degrees: float) -> Matrix:
    """Turns about the origin, counter-clockwise as seen (y points down)."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])


def shearing(x_degrees: float, y_degrees: float) -> Matrix:
    """Slants verticals by `x_degrees` and horizontals by `y_degrees`."""
    x, y = math.tan(math.radians(x_degrees)), math.tan(math.radians(y_degrees))
    return np.array([[1, x, 0], [y, 1, 0], [0, 0, 1]])


def homography(source: Sequence[Sequence[float]], target: Sequence[Sequence[float]]) -> Matrix:
    """The projection that takes four points to four points.

    Source: Hartley and Zisserman, Multiple View Geometry, 2nd edition, section 4.1.
    """
    rows: list[list[float]] = []
    values: list[float] = []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.append(np.linalg.solve(np.array(rows), np.array(values)), 1.0).reshape(3, 3)


def homogeneous(points: NDArray[np.float64], matrix: Matrix) -> NDArray[np.float64]:
    """Take points [N, 2] through `matrix`; returns [N, 3], not yet divided by the third."""
    return np.column_stack([points, np.ones(len(points))]) @ matrix.T


def project(points: NDArray[np.float64], matrix: Matrix) -> NDArray[np.float64]:
    """Take points [N, 2] through `matrix`; those on or behind the horizon become NaN."""
    moved = homogeneous(points, matrix)
    depth = np.where(moved[:, 2:] > HORIZON, moved[:, 2:], np.nan)
    return moved[:, :2] / depth


def local_scales(matrix: Matrix, size: Size) -> tuple[float, float]:
    """By how much `matrix` stretches the axes at the centre of an image of `size`."""
    x, y, depth = (matrix @ np.array([size[0] / 2, size[1] / 2, 1.0])).tolist()
    # Quotient rule on (x / depth, y / depth).
    slopes = (matrix[:2, :2] - np.outer([x / depth, y / depth], matrix[2, :2])) / depth
    along_x, along_y = np.hypot(slopes[0], slopes[1]).tolist()
    return along_x, along_y


def mirrors(matrix: Matrix) -> bool:
    """Whether left and right are exchanged."""
    return float(np.linalg.det(matrix)) < 0


def keeps_upright(matrix: Matrix) -> bool:
    """Whether upright rectangles stay upright rectangles."""
    if not np.allclose(matrix[2, :2], 0, atol=1e-12):
        return False
    off, along = np.abs(matrix[[0, 1], [1, 0]]).max(), np.abs(matrix[[0, 1], [0, 1]]).max()
    return bool(min(off, along) <= 1e-9 * max(off, along))
