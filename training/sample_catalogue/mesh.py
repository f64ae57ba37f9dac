"""Triangle meshes of products, built from grids of points.

World: x to the right, y up, z towards the camera; products stand on y = 0 and are about
one unit tall. Arrays are float32, or int32 for faces and materials.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int32]
Deform = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Mesh:
    """Triangles with smooth normals.

    Attributes:
        points: [V, 3], world units.
        normals: [V, 3], unit length, outwards.
        uv: [V, 2], both in [0, 1] across each surface.
        faces: int32 [F, 3], indices into the vertices.
        material: int32 [F], index into the product's materials.
    """

    points: Floats
    normals: Floats
    uv: Floats
    faces: Ints
    material: Ints

    def moved(self, offset: Sequence[float]) -> "Mesh":
        """The mesh shifted by `offset` (x, y, z)."""
        return replace(self, points=self.points + np.asarray(offset, np.float32))

    def rotated(self, axis: str, degrees: float) -> "Mesh":
        """The mesh turned about the axis "x", "y" or "z" through the origin."""
        matrix = rotation(axis, degrees)
        return replace(self, points=self.points @ matrix.T, normals=self.normals @ matrix.T)


def rotation(axis: str, degrees: float) -> Floats:
    """Right-handed rotation matrix [3, 3] about "x", "y" or "z"."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3, dtype=np.float32)
    matrix[first, first] = matrix[second, second] = cos
    matrix[first, second], matrix[second, first] = -sin, sin
    return matrix


def join(meshes: Sequence[Mesh]) -> Mesh:
    """All meshes as one."""
    starts = np.cumsum([0, *(len(mesh.points) for mesh in meshes[:-1])])
    return Mesh(
        points=np.concatenate([mesh.points for mesh in meshes]),
        normals=np.concatenate([mesh.normals for mesh in meshes]),
        uv=np.concatenate([mesh.uv for mesh in meshes]),
        faces=np.concatenate(
            [mesh.faces + np.int32(start) for mesh, start in zip(meshes, starts, strict=True)]
        ),
        material=np.concatenate([mesh.material for mesh in meshes]),
    )


def surface(points: Floats, material: int, *, closed: bool = False) -> Mesh:
    """A grid of points as a smooth surface, u along columns and v along rows, by length.

    Args:
        points: [rows, columns, 3]; seen from outside, rows go up and columns go right.
        material: Index into the product's materials.
        closed: The last column lies on the first one, and shading runs on across the seam.

    Returns:
        Mesh with two triangles for each cell of the grid.
    """
    grid = points.astype(np.float32)
    rows, columns = grid.shape[:2]
    along_v = np.gradient(grid, axis=0)
    along_u = np.gradient(grid, axis=1)
    if closed:
        along_u[:, 0] = along_u[:, -1] = (grid[:, 1] - grid[:, -2]) / 2
    normals = np.cross(along_u, along_v)
    normals /= np.maximum(np.linalg.norm(normals, axis=2, keepdims=True), 1e-12)
    v, u = np.meshgrid(_share(grid, 0), _share(grid, 1), indexing="ij")
    index = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = np.concatenate(
        [np.stack([a, b, c], 2).reshape(-1, 3), np.stack([a, c, d], 2).reshape(-1, 3)]
    )
    return Mesh(
        points=grid.reshape(-1, 3),
        normals=normals.reshape(-1, 3),
        uv=np.stack([u, v], 2).reshape(-1, 2).astype(np.float32),
        faces=faces,
        material=np.full(len(faces), material, np.int32),
    )


def dot(a: Floats, b: Floats) -> Floats:
    """Inner products [N] of the rows of `a` and `b`, both [N, 3]."""
    product: Floats = np.einsum("kc,kc->k", a, b)
    return product


def unit(vectors: Floats) -> Floats:
    """Rows [N, 3] at length 1; rows of zeros stay."""
    return vectors / np.sqrt(np.maximum(dot(vectors, vectors), 1e-18))[:, None]


def _share(grid: Floats, axis: int) -> Floats:
    """How far along `axis` each row or column lies, 0 to 1, by mean length."""
    steps = np.linalg.norm(np.diff(grid, axis=axis), axis=2).mean(axis=1 - axis)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    return along / max(float(along[-1]), 1e-9)


def rounded_profile(corners: Sequence[tuple[float, float]], radius: float) -> Floats:
    """A polyline with its inner corners rounded, [N, 2].

    Args:
        corners: (r, y) pairs.
        radius: How far from a corner the rounding starts, cut to half of short edges.
    """
    path = np.asarray(corners, np.float32)
    out = [path[:1]]
    t = np.linspace(0, 1, 5, dtype=np.float32)[:, None]
    for before, corner, after in zip(path[:-2], path[1:-1], path[2:], strict=True):
        back, on = before - corner, after - corner
        start = corner + back * min(0.5, radius / max(float(np.hypot(*back)), 1e-6))
        end = corner + on * min(0.5, radius / max(float(np.hypot(*on)), 1e-6))
        out.append((1 - t) ** 2 * start + 2 * t * (1 - t) * corner + t**2 * end)
    out.append(path[-1:])
    return np.concatenate(out)


def revolve(profile: Floats, material: int, *, segments: int = 56) -> Mesh:
    """A profile turned about the y axis; u = 0.5 faces the camera; v is the height.

    Args:
        profile: [N, 2] of (r, y), upwards on the outside, then downwards on the inside.
        material: Index into the product's materials.
        segments: How many columns go round.
    """
    angle = np.linspace(-np.pi, np.pi, segments + 1)
    radius = np.maximum(profile[:, :1], 1e-4)
    height = np.broadcast_to(profile[:, 1:], (len(profile), len(angle)))
    grid = np.stack([radius * np.sin(angle), height, radius * np.cos(angle)], axis=2)
    mesh = surface(grid, material, closed=True)
    low, high = profile[:, 1].min(), profile[:, 1].max()
    uv = np.stack([mesh.uv[:, 0], (mesh.points[:, 1] - low) / (high - low)], axis=1)
    return replace(mesh, uv=uv.astype(np.float32))


def tube(
    path: Floats,
    radius: tuple[float, float] | Floats,
    material: int,
    *,
    across: Sequence[float] = (0, 0, 1),
    sides: int = 12,
) -> Mesh:
    """A pipe or strap along `path`.

    Args:
        path: [N, 3].
        radius: Half extent along `across` and beside it: one pair, or [N, 2].
        material: Index into the product's materials.
        across: A direction that the path never runs along.
        sides: Columns around the pipe.
    """
    tangent = np.gradient(path, axis=0)
    side = np.cross(tangent, np.asarray(across, np.float64))
    side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-9)
    over = np.cross(side, tangent)
    over /= np.maximum(np.linalg.norm(over, axis=1, keepdims=True), 1e-9)
    half = np.broadcast_to(np.asarray(radius, np.float64), (len(path), 2))
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    grid = (
        path[:, None]
        + (half[:, :1] * np.cos(angle))[:, :, None] * over[:, None]
        + (half[:, 1:] * np.sin(angle))[:, :, None] * side[:, None]
    )
    return surface(grid, material, closed=True)


def rounded_box(
    size: Sequence[float],
    radius: float,
    material: int | Sequence[int],
    *,
    deform: Deform | None = None,
    cells: int = 8,
) -> Mesh:
    """A box with rounded edges that stands on y = 0, centred in x and z.

    Args:
        size: Width, height and depth.
        radius: Of the edges.
        material: One for all, or one each for front, back, right, left, top, bottom.
        deform: Bends the points [..., 3] before the normals are taken.
        cells: Grid cells across a face, beside those of its edges.
    """
    half = np.asarray(size, np.float64) / 2
    radius = min(radius, 0.98 * float(half.min()))
    names = [material] * 6 if isinstance(material, int) else list(material)
    turns = [("y", 0), ("y", 180), ("y", 90), ("y", -90), ("x", -90), ("x", 90)]
    faces = []
    for (axis, degrees), name in zip(turns, names, strict=True):
        matrix = rotation(axis, degrees).astype(np.float64)
        extent = np.abs(matrix.T @ half)
        v, u = np.meshgrid(
            _edge_spaced(extent[1], radius, cells),
            _edge_spaced(extent[0], radius, cells),
            indexing="ij",
        )
        cube = np.stack([u, v, np.full_like(u, extent[2])], axis=2) @ matrix.T
        inner = np.clip(cube, radius - half, half - radius)
        out = cube - inner
        out /= np.maximum(np.linalg.norm(out, axis=2, keepdims=True), 1e-9)
        grid = inner + radius * out + np.array([0, half[1], 0])
        faces.append(surface(deform(grid) if deform else grid, name))
    return join(faces)


def _edge_spaced(half: float, radius: float, cells: int) -> NDArray[np.float64]:
    """Positions from -half to half, close together within `radius` of both ends."""
    edge = half - radius + radius * np.tan(np.linspace(0, np.pi / 4, 4))
    return np.concatenate(
        [-edge[::-1], np.linspace(radius - half, half - radius, cells + 1)[1:-1], edge]
    )
