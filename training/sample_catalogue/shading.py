"""Light on the product: diffuse, mirrored lamps, glass, and shade in corners."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from training.sample_catalogue.materials import Material
from training.sample_catalogue.mesh import Floats, Ints, Mesh, dot, rotation, unit
from training.sample_catalogue.raster import NOTHING, barycentric, visible_faces
from training.sample_catalogue.studio import Camera, Lighting, Product

# Creases are wide: their blur is taken on every fourth pixel.
_COARSE: Final = 4

# A lamp's depth map is compared at these angles around each point.
_RING: Final = tuple(0.4 + 2 * np.pi / 7 * k for k in range(7))
# Empty pixels around a depth map; more than the ring's radius.
_MARGIN: Final = 6
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


def look(product: Product, turned: Mesh, camera: Camera, size_px: int) -> Visible:
    """What the camera sees of the product at `size_px` pixels a side."""
    frame, nearness = camera.project(turned.points)
    xy = frame * np.float32(size_px)
    face = visible_faces(xy, nearness, turned.faces, (size_px, size_px))
    rows, columns = np.nonzero(face != NOTHING)
    seen = face[rows, columns]
    corners = turned.faces.take(seen, axis=0)
    weights = barycentric(xy, nearness, corners, (rows, columns))
    values = np.concatenate([turned.points, turned.normals, turned.uv], axis=1).astype(np.float32)
    blended = weights[:, :1] * values.take(corners[:, 0], axis=0)
    for k in (1, 2):
        blended += weights[:, k : k + 1] * values.take(corners[:, k], axis=0)
    position, normal, uv = (np.ascontiguousarray(blended[:, a:b]) for a, b in _COLUMNS)
    return Visible(
        pixels=(rows, columns),
        position=position,
        normal=unit(normal),
        view=unit(camera.eye - position),
        uv=uv,
        local=position @ rotation("y", product.yaw_deg),
        material=turned.material[seen],
    )


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


def key_visibility(seen: Visible, turned: Mesh, lighting: Lighting, map_px: int = 256) -> Floats:
    """How much of the main lamp reaches each visible point, [K] in [0, 1].

    A depth map from the lamp, compared at a ring of neighbours for a soft edge.
    """
    side = np.cross([0, 1, 0], lighting.key)
    side /= np.linalg.norm(side)
    axes = np.stack([side, np.cross(lighting.key, side), lighting.key]).astype(np.float32)
    from_lamp = turned.points @ axes.T
    low, high = from_lamp.min(axis=0), from_lamp.max(axis=0)
    scale = np.float32((map_px - 4 * _MARGIN) / np.max((high - low)[:2]))

    def on_map(points: Floats) -> tuple[Floats, Floats]:
        xy = (points[:, :2] - low[:2]) * scale + 2 * _MARGIN
        xy[:, 1] = map_px - xy[:, 1]
        return xy, points[:, 2] - low[2] + 1

    xy, depth = on_map(from_lamp)
    face = visible_faces(xy, depth, turned.faces, (map_px, map_px))
    rows, columns = np.nonzero(face != NOTHING)
    nearest = np.zeros((map_px, map_px), np.float32)
    corners = turned.faces[face[rows, columns]]
    weights = barycentric(xy, np.ones_like(depth), corners, (rows, columns))
    nearest[rows, columns] = dot(weights, depth[corners])
    # Seen from just above the surface, so that no point shades itself.
    width = float(np.max(high - low))
    at, own = on_map((seen.position + 0.01 * width * seen.normal) @ axes.T)
    facing = np.clip(seen.normal @ lighting.key, 0.2, 1)
    index = at[:, 1].astype(np.int64) * map_px + at[:, 0].astype(np.int64)
    spread = 1.5 + 5 * lighting.softness
    blocked = np.zeros(len(own), np.float32)
    # On a slanted surface the ring's far neighbours lie nearer to the lamp.
    own = own + (1.5 + (spread + 1) * np.sqrt(1 - facing**2) / facing) / scale
    for angle in _RING:
        step = round(np.sin(angle) * spread) * map_px + round(np.cos(angle) * spread)
        blocked += nearest.take(index + step) > own
    return 1 - blocked / len(_RING)


def corner_shade(seen: Visible, camera: Camera, size_px: int) -> Floats:
    """Ambient light left in creases, [K] in [0, 1]: depth against blurred depth."""
    distance = np.sqrt(dot(camera.eye - seen.position, camera.eye - seen.position))
    coarse = (seen.pixels[0] // _COARSE, seen.pixels[1] // _COARSE)
    coarse_px = -(-size_px // _COARSE)
    depth = np.zeros((coarse_px, coarse_px), np.float32)
    cover = np.zeros((coarse_px, coarse_px), np.float32)
    depth[coarse], cover[coarse] = distance, 1
    sigma = coarse_px / 40
    depth = ndimage.gaussian_filter(depth, sigma, truncate=2)
    cover = ndimage.gaussian_filter(cover, sigma, truncate=2)
    around = np.where(cover > 1e-3, depth / np.maximum(cover, 1e-3), camera.distance)
    fine_px = coarse_px * _COARSE
    blurred = Image.fromarray(around).resize((fine_px, fine_px), Image.Resampling.BILINEAR)
    behind = distance - np.asarray(blurred)[seen.pixels]
    light: Floats = 1 - 0.55 * np.clip(behind * camera.zoom / 0.07, 0, 1)
    return light
