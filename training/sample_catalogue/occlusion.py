"""Where light does not come: shadows of the main lamp on the product, and creases."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from PIL import Image
from scipy import ndimage

from training.sample_catalogue.mesh import Floats, Mesh, dot
from training.sample_catalogue.raster import NOTHING, barycentric, visible_faces
from training.sample_catalogue.shading import Visible
from training.sample_catalogue.studio import Camera, Lighting

# A lamp's depth map is compared at these angles around each point.
_RING: Final = tuple(0.4 + 2 * np.pi / 7 * k for k in range(7))
_MAP_PX: Final = 256
# Empty pixels around a depth map; more than twice the ring's radius.
_MARGIN: Final = 12
# Creases are wide: their blur is taken on every fourth pixel.
_COARSE: Final = 4


class LampMap:
    """How near the product is to the main lamp, as the lamp sees it."""

    def __init__(self, turned: Mesh, lighting: Lighting) -> None:
        """Look at the turned product from the main lamp."""
        side = np.cross([0, 1, 0], lighting.key)
        side /= np.linalg.norm(side)
        over = np.cross(lighting.key, side)
        self._axes = np.stack([side, over, lighting.key]).astype(np.float32)
        self._key = lighting.key
        self._spread = 1.5 + 5 * lighting.softness
        from_lamp = turned.points @ self._axes.T
        self._low = from_lamp.min(axis=0)
        extent = from_lamp.max(axis=0) - self._low
        self._width = float(extent.max())
        self._scale = float((_MAP_PX - 2 * _MARGIN) / extent[:2].max())
        xy, depth = self._on_map(from_lamp)
        face = visible_faces(xy, depth, turned.faces, (_MAP_PX, _MAP_PX))
        rows, columns = np.nonzero(face != NOTHING)
        corners = turned.faces.take(face[rows, columns], axis=0)
        # Parallel light: all corners weigh alike, whatever their distance.
        weights = barycentric(xy, np.ones_like(depth), corners, (rows, columns))
        self._nearest = np.zeros((_MAP_PX, _MAP_PX), np.float32)
        self._nearest[rows, columns] = dot(weights, depth[corners])

    def _on_map(self, from_lamp: Floats) -> tuple[Floats, Floats]:
        """Pixel coordinates [V, 2] and nearness [V] of points in the lamp's axes."""
        xy = (from_lamp[:, :2] - self._low[:2]) * np.float32(self._scale) + np.float32(_MARGIN)
        xy[:, 1] = _MAP_PX - xy[:, 1]
        return xy, from_lamp[:, 2] - self._low[2] + 1

    def visibility(self, seen: Visible) -> Floats:
        """How much of the main lamp reaches each visible point, [K] in [0, 1]."""
        # Seen from just above the surface, so that no point shades itself.
        above = seen.position + np.float32(0.01 * self._width) * seen.normal
        at, own = self._on_map(above @ self._axes.T)
        at = np.clip(at, _MARGIN / 2, _MAP_PX - _MARGIN / 2)
        index = at[:, 1].astype(np.int64) * _MAP_PX + at[:, 0].astype(np.int64)
        # On a slanted surface the ring's far neighbours lie nearer to the lamp.
        facing = np.clip(seen.normal @ self._key, 0.2, 1)
        slant = (self._spread + 1) * np.sqrt(1 - facing**2) / facing
        own = own + (1.5 + slant) / np.float32(self._scale)
        blocked = np.zeros(len(own), np.float32)
        for angle in _RING:
            down, right = round(np.sin(angle) * self._spread), round(np.cos(angle) * self._spread)
            blocked += self._nearest.take(index + (down * _MAP_PX + right)) > own
        return 1 - blocked / len(_RING)


class Creases:
    """Ambient light left in creases: each point's depth against the blurred depth."""

    def __init__(self, parts: Sequence[Visible], camera: Camera, size_px: int) -> None:
        """Blur the depth of all visible parts of a picture of `size_px`."""
        self._camera = camera
        coarse_px = -(-size_px // _COARSE)
        depth = np.zeros((coarse_px, coarse_px), np.float32)
        cover = np.zeros((coarse_px, coarse_px), np.float32)
        for seen in parts:
            coarse = (seen.pixels[0] // _COARSE, seen.pixels[1] // _COARSE)
            depth[coarse], cover[coarse] = self._distance(seen), 1
        sigma = coarse_px / 40
        depth = ndimage.gaussian_filter(depth, sigma, truncate=2)
        cover = ndimage.gaussian_filter(cover, sigma, truncate=2)
        around = np.where(cover > 1e-3, depth / np.maximum(cover, 1e-3), camera.distance)
        fine_px = coarse_px * _COARSE
        blurred = Image.fromarray(around).resize((fine_px, fine_px), Image.Resampling.BILINEAR)
        self._around = np.asarray(blurred)

    def _distance(self, seen: Visible) -> Floats:
        away = self._camera.eye - seen.position
        distance: Floats = np.sqrt(dot(away, away))
        return distance

    def light(self, seen: Visible) -> Floats:
        """Share of the light that is left, [K] in [0, 1]."""
        behind = (self._distance(seen) - self._around[seen.pixels]) * self._camera.zoom
        left: Floats = 1 - 0.55 * np.clip(behind / 0.07, 0, 1)
        return left
