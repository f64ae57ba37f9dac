"""Light on the product: diffuse, mirrored lamps, glass, and shade in corners."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.sample_catalogue.materials import Material
from training.sample_catalogue.mesh import Floats, Ints, Mesh, dot, rotation, unit
from training.sample_catalogue.raster import NOTHING, barycentric, visible_faces
from training.sample_catalogue.studio import Camera, Lighting, Product

# Points that are worked on at a time: few enough to stay in a core's cache.
_PART: Final = 12_000
# Where position, normal and uv are in a row of blended values.
_COLUMNS: Final = ((0, 3), (3, 6), (6, 8))

Pixels = tuple[NDArray[np.intp], NDArray[np.intp]]


@dataclass(frozen=True)
class Visible:
    """The surface points seen at K pixels.

    Attributes:
        pixels: Rows and columns.
        position: [K, 3], world.
        normal: [K, 3], unit.
        view: [K, 3], unit, towards the camera.
        uv: [K, 2].
        local: [K, 3], before the product was turned.
        material: [K].
    """

    pixels: Pixels
    position: Floats
    normal: Floats
    view: Floats
    uv: Floats
    local: Floats
    material: Ints


def look(product: Product, turned: Mesh, camera: Camera, size_px: int) -> list[Visible]:
    """What the camera sees of the product at `size_px` pixels a side, in parts."""
    frame, nearness = camera.project(turned.points)
    xy = frame * np.float32(size_px)
    face = visible_faces(xy, nearness, turned.faces, (size_px, size_px))
    rows, columns = np.nonzero(face != NOTHING)
    values = np.concatenate([turned.points, turned.normals, turned.uv], axis=1).astype(np.float32)
    back = rotation("y", product.yaw_deg)
    parts = []
    for start in range(0, len(rows), _PART):
        pixels = (rows[start : start + _PART], columns[start : start + _PART])
        seen = face[pixels]
        corners = turned.faces.take(seen, axis=0)
        weights = barycentric(xy, nearness, corners, pixels)
        blended = weights[:, :1] * values.take(corners[:, 0], axis=0)
        for k in (1, 2):
            blended += weights[:, k : k + 1] * values.take(corners[:, k], axis=0)
        position, normal, uv = (np.ascontiguousarray(blended[:, a:b]) for a, b in _COLUMNS)
        parts.append(
            Visible(
                pixels=pixels,
                position=position,
                normal=unit(normal),
                view=unit(camera.eye - position),
                uv=uv,
                local=position @ back,
                material=turned.material[seen],
            )
        )
    return parts


def shade(
    seen: Visible, product: Product, lighting: Lighting, lit: Floats, behind: Floats
) -> Floats:
    """Linear RGB [K, 3] of the visible points.

    Args:
        seen: The points.
        product: For its materials.
        lighting: Lamps and backdrop.
        lit: [K], how much of the main lamp and of the room reaches each point.
        behind: [K, 3], backdrop behind each point, for glass.
    """
    colour = np.zeros_like(seen.position)
    diffuse = _diffuse(seen, lighting, lit)
    for index, material in enumerate(product.materials):
        here = np.flatnonzero(seen.material == index)
        if not len(here):
            continue
        albedo = _grained(material, seen, here)
        facing = np.clip(dot(seen.normal.take(here, axis=0), seen.view.take(here, axis=0)), 0, 1)[
            :, None
        ]
        out = albedo * diffuse.take(here, axis=0) * (1 - material.metal)
        if material.clear:
            depth = 0.35 + 0.5 / (facing + 0.25)
            through = behind.take(here, axis=0) * np.power(np.clip(albedo, 0.02, 1), depth)
            out = out * (1 - material.clear) + through * material.clear * 0.96
        if material.gloss or material.metal:
            mirrored = _mirrored(seen, here, lighting, material.roughness)
            fresnel = material.gloss * (0.05 + 0.6 * np.square(np.square(1 - facing)))
            reflectance = fresnel + material.metal * albedo * 0.85
            out = out + reflectance * mirrored * (0.4 + 0.6 * lit.take(here)[:, None])
        colour[here] = out + material.glow * albedo
    return colour


def _grained(material: Material, seen: Visible, here: NDArray[np.intp]) -> Floats:
    """Albedo of the points `here`, with wood grain."""
    uv, local = seen.uv.take(here, axis=0), seen.local.take(here, axis=0)
    albedo = material.albedo(uv, local)
    if material.grain:
        fibre = np.sin(local[:, 0] * 61 + 9 * np.sin(local[:, 1] * 3.1 + local[:, 2] * 2))
        albedo = albedo * (1 + material.grain * fibre)[:, None]
    return albedo


def _diffuse(seen: Visible, lighting: Lighting, lit: Floats) -> Floats:
    """Light that falls on each point, [K, 3]."""
    wrap = lighting.softness
    key = np.clip((seen.normal @ lighting.key + wrap) / (1 + wrap), 0, 1)
    fill = np.clip((seen.normal @ lighting.fill + 0.5) / 1.5, 0, 1)
    up = 0.5 + 0.5 * seen.normal[:, 1:2]
    paper = np.asarray(lighting.backdrop, np.float32)
    ambient = lighting.ambient * (up + (1 - up) * 0.8 * paper)
    lamps = lighting.key_strength * key * lit + lighting.fill_strength * fill
    light: Floats = lamps[:, None] + ambient * (0.45 + 0.55 * lit[:, None])
    return light * np.asarray(lighting.warmth, np.float32)


def _mirrored(
    seen: Visible, here: NDArray[np.intp], lighting: Lighting, roughness: float
) -> Floats:
    """The studio as glossy points mirror it, [K, 3]: softbox, strip light, room."""
    normal, view = seen.normal.take(here, axis=0), seen.view.take(here, axis=0)
    ray = 2 * dot(normal, view)[:, None] * normal - view
    blur = 0.06 + 0.8 * roughness
    key = _lamp(ray, lighting.key, 0.42, 0.62, blur)
    strip = _lamp(ray, lighting.fill, 0.16, 0.85, blur)
    room = 0.5 + 0.35 * ray[:, 1]
    softbox = 5.5 * lighting.key_strength / (1 + 2.5 * roughness)
    light: Floats = softbox * key + 8 * lighting.fill_strength * strip + room
    return light[:, None] * np.asarray(lighting.warmth, np.float32)


def _lamp(ray: Floats, towards: Floats, wide: float, high: float, blur: float) -> Floats:
    """How much of a rectangular lamp a mirror ray meets, [K] in [0, 1]."""
    side = np.cross([0, 1, 0], towards).astype(np.float32)
    side /= np.linalg.norm(side)
    over = np.cross(towards, side)
    ahead = np.maximum(ray @ towards, 1e-3)
    x, y = np.abs(ray @ side) / ahead, np.abs(ray @ over) / ahead
    across = np.clip((wide + blur / 2 - x) / blur, 0, 1)
    along = np.clip((high + blur / 2 - y) / blur, 0, 1)
    met: Floats = across * along * (ahead > 2e-3)
    return met
