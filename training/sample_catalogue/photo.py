"""One picture of a product: backdrop, shadows, product, lens and film."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from training.sample_catalogue.mesh import Floats, Ints, Mesh
from training.sample_catalogue.occlusion import Creases, LampMap
from training.sample_catalogue.raster import covered
from training.sample_catalogue.shading import look, shade
from training.sample_catalogue.studio import (
    Camera,
    Lighting,
    Product,
    draw_lighting,
    frame_product,
)

_SUPERSAMPLING = 2


def photograph(product: Product, size_px: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Photograph `product` in a studio drawn from `rng`; uint8 sRGB [size_px, size_px, 3]."""
    lighting = draw_lighting(rng)
    turned = product.mesh.rotated("y", product.yaw_deg)
    camera = frame_product(turned.points, product.pitch_deg, rng)
    backdrop = _backdrop(lighting, size_px, rng)
    backdrop = backdrop * _shadow(product, turned, camera, lighting, size_px)[:, :, None]
    fine_px = size_px * _SUPERSAMPLING
    parts = look(product, turned, camera, fine_px)
    lamp, creases = LampMap(turned, lighting), Creases(parts, camera, fine_px)
    fine = np.zeros((fine_px, fine_px, 4), np.float32)
    for seen in parts:
        rows, columns = seen.pixels
        lit = lamp.visibility(seen) * creases.light(seen)
        behind = backdrop[rows // _SUPERSAMPLING, columns // _SUPERSAMPLING]
        colour = _tone(shade(seen, product, lighting, lit, behind))
        fine[rows, columns] = np.concatenate([colour, np.ones_like(colour[:, :1])], axis=1)
    layer = _reduce(fine)
    picture = layer[:, :, :3] + _tone(backdrop) * (1 - layer[:, :, 3:])
    return _develop(picture, lighting, rng)


def _backdrop(lighting: Lighting, size_px: int, rng: np.random.Generator) -> Floats:
    """Softly graded paper, linear RGB [size_px, size_px, 3]."""
    steps = (np.arange(size_px, dtype=np.float32) + 0.5) / size_px
    y, x = steps[:, None], steps[None, :]
    centre_x, centre_y = 0.5 + 0.15 * lighting.key[0], rng.uniform(0.45, 0.7)
    away = (x - centre_x) ** 2 + (y - centre_y) ** 2
    light = 1.22 - lighting.shade * 2.2 * away - lighting.shade * 0.4 * (1 - y)
    paper = np.asarray(lighting.backdrop, np.float32) * np.asarray(lighting.warmth, np.float32)
    graded: Floats = light[:, :, None] * paper
    return graded


def _shadow(
    product: Product, turned: Mesh, camera: Camera, lighting: Lighting, size_px: int
) -> Floats:
    """Light left on the backdrop, [size_px, size_px]: a soft cast and a tight contact one.

    The cast shadow is the mean over points of the lamp, so that it is sharp where the
    product touches the floor and soft further away.
    """
    small = size_px // 2
    plane = np.array([0, 1, 0] if product.stands_on == "floor" else [0, 0, 1], np.float32)
    level = 0.0 if product.stands_on == "floor" else float(turned.points[:, 2].min()) - 0.03
    height = turned.points @ plane - level
    side = np.cross([0.3, 1, 0.2], lighting.key)
    over = np.cross(lighting.key, side)
    cast = np.zeros((small, small), np.float32)
    angles = np.arange(6) * 2.4
    for angle, reach in zip(angles, np.sqrt((np.arange(6) + 0.5) / 6), strict=True):
        step = reach * (np.cos(angle) * side + np.sin(angle) * over)
        lamp = lighting.key + lighting.softness * step.astype(np.float32)
        flat = _slide(turned.points, height, lamp, plane)
        cast += _cover(flat, turned.faces, camera, small)
    cast = ndimage.gaussian_filter(cast / 6, small / 70)
    flat = _slide(turned.points, height, plane, plane)
    straight = _cover(flat, turned.faces, camera, small)
    contact = ndimage.gaussian_filter(straight, small / 28)
    light = (1 - 0.42 * cast) * (1 - 0.38 * contact)
    full = Image.fromarray(light).resize((size_px, size_px), Image.Resampling.BILINEAR)
    return np.asarray(full)


def _slide(points: Floats, height: Floats, lamp: Floats, plane: Floats) -> Floats:
    """The points [V, 3] moved along the lamp's rays onto the plane."""
    moved: Floats = points - height[:, None] * (lamp / (lamp @ plane))
    return moved


def _cover(points: Floats, faces: Ints, camera: Camera, size_px: int) -> Floats:
    """1 where the flattened faces cover a pixel, [size_px, size_px]."""
    frame, _ = camera.project(points)
    return covered(frame * np.float32(size_px), faces, (size_px, size_px))


def _tone(colour: Floats) -> Floats:
    """Linear light to display values: a straight line, then a shoulder, then gamma."""
    knee = np.float32(0.75)
    over = np.maximum(colour - knee, 0)
    bent = np.where(colour > knee, knee + (1 - knee) * (1 - np.exp(-over / (1 - knee))), colour)
    display: Floats = np.power(np.clip(bent, 0, 1), np.float32(1 / 2.2))
    return display


def _reduce(fine: Floats) -> Floats:
    """Average down by the supersampling, [H, W, C] to [H / 2, W / 2, C]."""
    steps = range(_SUPERSAMPLING)
    views = [fine[y::_SUPERSAMPLING, x::_SUPERSAMPLING] for y in steps for x in steps]
    total: Floats = np.add.reduce(views)
    return total / len(views)


def _develop(picture: Floats, lighting: Lighting, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Lens softness, vignette and film grain; float display values to uint8."""
    size_px = len(picture)
    for axis in (0, 1):
        beside = np.roll(picture, 1, axis) + np.roll(picture, -1, axis)
        picture = picture + lighting.blur * (beside - 2 * picture)
    away = np.linspace(-1, 1, size_px, dtype=np.float32) ** 2
    vignette = 1 - 0.02 * (away[:, None] + away[None, :])
    noise = lighting.grain * rng.standard_normal((size_px, size_px), np.float32)
    levels = picture * (255 * vignette)[:, :, None] + noise[:, :, None] + 0.5
    developed: NDArray[np.uint8] = np.clip(levels, 0, 255).astype(np.uint8)
    return developed
