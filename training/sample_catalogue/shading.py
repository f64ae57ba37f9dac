"""Light on the product: diffuse, mirrored lamps, glass, and shade in corners."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.sample_catalogue.materials import Material
from training.sample_catalogue.mesh import Floats, Ints, Mesh
from training.sample_catalogue.raster import NOTHING, barycentric, visible_faces
from training.sample_catalogue.studio import Camera, Lighting, Product

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
    pixels = np.nonzero(face != NOTHING)
    seen = face[pixels]
    corners = turned.faces[seen]
    weights = barycentric(xy, nearness, corners, pixels)

    def blend(values: Floats) -> Floats:
        return np.einsum("kc,kcd->kd", weights, values[corners])

    position = blend(turned.points)
    normal = blend(turned.normals)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    view = camera.eye - position
    view /= np.linalg.norm(view, axis=1, keepdims=True)
    return Visible(
        pixels=pixels,
        position=position,
        normal=normal,
        view=view,
        uv=blend(turned.uv),
        local=blend(product.mesh.points),
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
        facing = np.clip(np.sum(seen.normal[here] * seen.view[here], axis=1), 0, 1)[:, None]
        out = albedo * diffuse[here] * (1 - material.metal)
        if material.clear:
            depth = 0.35 + 0.5 / (facing + 0.25)
            through = behind[here] * np.power(np.clip(albedo, 0.02, 1), depth)
            out = out * (1 - material.clear) + through * material.clear * 0.96
        mirrored = _mirrored(seen, here, lighting, material.roughness)
        fresnel = material.gloss * (0.05 + 0.6 * (1 - facing) ** 4)
        reflectance = fresnel + material.metal * albedo * 0.85
        out = out + reflectance * mirrored * (0.4 + 0.6 * lit[here, None])
        colour[here] = out + material.glow * albedo
    return colour


def _grained(material: Material, seen: Visible, here: NDArray[np.intp]) -> Floats:
    """Albedo of the points `here`, with weave or wood grain."""
    uv, local = seen.uv[here], seen.local[here]
    albedo = material.albedo(uv, local)
    if material.grain:
        fibre = np.sin(local[:, 0] * 61 + 9 * np.sin(local[:, 1] * 3.1 + local[:, 2] * 2))
        weave = np.sin(local[:, 1] * 173) * np.sin(local[:, 2] * 157 + local[:, 0] * 149)
        albedo = albedo * (1 + material.grain * (0.6 * fibre + 0.4 * weave))[:, None]
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
    light = lamps[:, None] + ambient * (0.45 + 0.55 * lit[:, None])
    return (light * np.asarray(lighting.warmth, np.float32)).astype(np.float32)


def _mirrored(
    seen: Visible, here: NDArray[np.intp], lighting: Lighting, roughness: float
) -> Floats:
    """The studio as glossy points mirror it, [K, 3]: softbox, strip light, room."""
    normal, view = seen.normal[here], seen.view[here]
    ray = 2 * np.sum(normal * view, axis=1, keepdims=True) * normal - view
    blur = 0.06 + 0.8 * roughness
    key = _lamp(ray, lighting.key, 0.42, 0.62, blur)
    strip = _lamp(ray, lighting.fill, 0.16, 0.85, blur)
    room = 0.25 + 0.25 * ray[:, 1]
    softbox = 5.5 * lighting.key_strength / (1 + 2.5 * roughness)
    light = softbox * key + 8 * lighting.fill_strength * strip + room
    return light[:, None] * np.asarray(lighting.warmth, np.float32)


def _lamp(ray: Floats, towards: Floats, wide: float, high: float, blur: float) -> Floats:
    """How much of a rectangular lamp a mirror ray meets, [K] in [0, 1]."""
    side = np.cross([0, 1, 0], towards)
    side /= np.linalg.norm(side)
    over = np.cross(towards, side)
    ahead = np.maximum(ray @ towards, 1e-3)
    x, y = np.abs(ray @ side) / ahead, np.abs(ray @ over) / ahead
    across = np.clip((wide + blur / 2 - x) / blur, 0, 1)
    along = np.clip((high + blur / 2 - y) / blur, 0, 1)
    return (across * along * (ahead > 2e-3)).astype(np.float32)


def key_visibility(seen: Visible, turned: Mesh, lighting: Lighting, map_px: int = 288) -> Floats:
    """How much of the main lamp reaches each visible point, [K] in [0, 1].

    A depth map from the lamp, compared at a ring of neighbours for a soft edge.
    """
    side = np.cross([0, 1, 0], lighting.key)
    side /= np.linalg.norm(side)
    axes = np.stack([side, np.cross(lighting.key, side), lighting.key]).astype(np.float32)
    from_lamp = turned.points @ axes.T
    low, high = from_lamp.min(axis=0), from_lamp.max(axis=0)
    scale = np.float32((map_px - 12) / np.max((high - low)[:2]))

    def on_map(points: Floats) -> tuple[Floats, Floats]:
        xy = (points[:, :2] - low[:2]) * scale + 6
        xy[:, 1] = map_px - xy[:, 1]
        return xy, points[:, 2] - low[2] + 1

    xy, depth = on_map(from_lamp)
    face = visible_faces(xy, depth, turned.faces, (map_px, map_px))
    hit = np.nonzero(face != NOTHING)
    nearest = np.zeros((map_px, map_px), np.float32)
    corners = turned.faces[face[hit]]
    nearest[hit] = np.sum(barycentric(xy, depth, corners, hit) * depth[corners], axis=1)
    at, own = on_map(seen.position @ axes.T)
    own = own + 0.012 * np.float32(np.max(high - low)) + 2.5 / scale
    blocked = np.zeros(len(own), np.float32)
    spread = 2 + 6 * lighting.softness
    offsets = [(0, 0)] + [(np.cos(a) * spread, np.sin(a) * spread) for a in np.arange(6) * 1.047]
    for dx, dy in offsets:
        column = np.clip(at[:, 0] + dx, 0, map_px - 1).astype(np.int64)
        row = np.clip(at[:, 1] + dy, 0, map_px - 1).astype(np.int64)
        blocked += nearest[row, column] > own
    return (1 - blocked / len(offsets)).astype(np.float32)


def corner_shade(seen: Visible, camera: Camera, size_px: int) -> Floats:
    """Ambient light left in creases, [K] in [0, 1]: depth against blurred depth."""
    distance = np.linalg.norm(camera.eye - seen.position, axis=1)
    depth = np.zeros((size_px, size_px), np.float32)
    cover = np.zeros((size_px, size_px), np.float32)
    depth[seen.pixels], cover[seen.pixels] = distance, 1
    sigma = size_px / 40
    blurred = ndimage.gaussian_filter(depth, sigma, truncate=2)
    weight = ndimage.gaussian_filter(cover, sigma, truncate=2)
    behind = distance - (blurred / np.maximum(weight, 1e-3))[seen.pixels]
    reach = 0.07 / camera.zoom
    return (1 - 0.55 * np.clip(behind / reach, 0, 1)).astype(np.float32)
