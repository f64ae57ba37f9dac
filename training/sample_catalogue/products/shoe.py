"""Shoes: trainers, high-tops and slip-ons from the side."""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from training.sample_catalogue.materials import (
    Colour,
    Material,
    any_colour,
    contrasting,
    dark,
    pale,
)
from training.sample_catalogue.mesh import Floats, Mesh, join, surface, tube
from training.sample_catalogue.patterns import Pattern, band
from training.sample_catalogue.products.prints import Layers
from training.sample_catalogue.studio import Product

_UPPER, _SOLE, _LACE, _LINING, _COLLAR = range(5)


@dataclass(frozen=True)
class _Last:
    """The form that a shoe is built on: 2 units long, toe at x = 1, heel at x = -1.

    Attributes:
        sole: Thickness of the sole.
        ankle: Height of the collar over the sole.
        toe: Height of the toe box over the sole.
        spring: How far the toe is lifted.
    """

    sole: float
    ankle: float
    toe: float
    spring: float

    def height(self, x: Floats) -> Floats:
        """Of the upper's ridge over the sole."""
        ankle, toe = self.ankle, self.toe
        knots = {
            -1.0: 0.1, -0.985: ankle * 0.5, -0.95: ankle * 0.98, -0.88: ankle * 1.04,
            -0.6: ankle * 0.9, -0.32: ankle * 1.02, -0.2: ankle * 1.08, 
            0.1: ankle * 0.55 + toe * 0.55, 0.45: toe * 1.3, 0.75: toe, 0.92: toe * 0.72, 1.0: 0.04,
        }  # fmt: skip
        curve = PchipInterpolator(list(knots), list(knots.values()))
        return np.asarray(curve(np.clip(x, -1, 1)))

    def half_width(self, x: Floats) -> Floats:
        """Half the width of the foot."""
        ends = 1 - np.clip(np.abs(x) - 0.5, 0, None) ** 2 / 0.25
        wide: Floats = (0.3 + 0.07 * np.clip(x, -1, 0.4)) * np.sqrt(np.clip(ends, 4e-4, 1))
        return wide

    def floor(self, x: Floats) -> Floats:
        """Height of the sole's underside, which rises towards the toe."""
        rise: Floats = self.spring * np.clip((x - 0.35) / 0.65, 0, 1) ** 2
        return rise

    def section(self, x: Floats, angle: Floats) -> Floats:
        """Points of the upper at length x and angle 0 (this side) to pi (far side)."""
        lean = np.clip(0.35 - x, 0, 1) * 0.42
        cos, up = np.cos(angle), np.clip(np.sin(angle), 0, 1) ** 0.7
        side = np.sign(cos) * np.abs(cos) ** 0.75
        z = self.half_width(x) * side * (1 - lean * up)
        y = self.sole - 0.02 + self.floor(x) + self.height(x) * up
        return np.stack(np.broadcast_arrays(x, y, z), axis=-1)


def shoe(rng: np.random.Generator) -> Product:
    """Draw one shoe."""
    high_top = rng.random() < 0.25
    last = _Last(
        sole=rng.uniform(0.14, 0.24),
        ankle=rng.uniform(0.95, 1.1) if high_top else rng.uniform(0.58, 0.74),
        toe=rng.uniform(0.28, 0.36),
        spring=rng.uniform(0.03, 0.1),
    )
    parts = [_sole(last), _upper(last), *_mouth(last)]
    laced = rng.random() < 0.8
    if laced:
        parts += _laces(last, 6 if high_top else int(rng.integers(4, 6)))
    return Product(
        mesh=join(parts),
        materials=_materials(rng, laced),
        yaw_deg=rng.choice([0.0, 180.0]) + rng.uniform(-24, 24),
        pitch_deg=rng.uniform(8, 22),
    )


def _upper(last: _Last) -> Mesh:
    x = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 56))[None, :]
    return surface(last.section(x, np.linspace(0, np.pi, 36)[:, None]), _UPPER)


def _sole(last: _Last) -> Mesh:
    """Outline of the foot, wider by a rim, as a slab with rounded edges."""
    t = np.linspace(-np.pi, np.pi, 81)
    x = np.sign(np.sin(t)) * np.abs(np.sin(t)) ** 0.75
    z = (last.half_width(x) + 0.035) * np.sign(np.cos(t))
    x = x * 1.035
    rows = [(0.5, 0.0), (0.97, 0.0), (1.0, 0.03), (1.0, 0.6), (1.0, 0.9), (0.97, 1.0), (0.5, 1.0)]
    grid = [np.stack([x * s, y * last.sole + last.floor(x), z * s], axis=1) for s, y in rows]
    return surface(np.stack(grid), _SOLE, closed=True)


def _mouth(last: _Last) -> list[Mesh]:
    """The dark opening and its padded rim."""
    t = np.linspace(-np.pi, np.pi, 45)
    x = -0.6 + 0.3 * np.sin(t)
    z = 0.62 * last.half_width(x) * np.cos(t)
    y = last.height(x) + last.sole + last.floor(x) - 0.005
    rim = np.stack([x, y, z], axis=1)
    middle = rim.mean(axis=0) + np.array([0, 0.01, 0])
    share = np.linspace(1, 0.02, 5)[:, None, None]
    hole = surface(middle + (rim - middle) * share, _LINING, closed=True)
    return [hole, tube(rim, (0.035, 0.03), _COLLAR, across=(0, 1, 0), sides=10)]


def _laces(last: _Last, count: int) -> list[Mesh]:
    laces = []
    for x in np.linspace(-0.16, 0.34, count):
        angle = np.linspace(np.pi * 0.27, np.pi * 0.73, 12)
        path = last.section(np.full(12, x), angle)
        path[:, 1] += 0.012
        laces.append(tube(path, (0.026, 0.014), _LACE, across=(1, 0.5, 0), sides=8))
    return laces


def _toe_cap(start: float) -> Pattern:
    """The toe, with an edge that runs back on both sides."""

    def weights(uv: Floats, local: Floats) -> Floats:
        edge = start + 0.5 * np.abs(uv[:, 1] - 0.5) ** 1.5
        cap: Floats = np.clip((local[:, 0] - edge) / 0.015, 0, 1)
        return cap

    return weights


def _heel_patch(end: float) -> Pattern:
    def weights(uv: Floats, local: Floats) -> Floats:
        patch: Floats = np.clip((end - 0.25 * local[:, 1] - local[:, 0]) / 0.015, 0, 1)
        return patch

    return weights


def _side_stripes(count: int, lean: float) -> Pattern:
    """Slanted stripes on both sides of the midfoot."""

    def weights(uv: Floats, local: Floats) -> Floats:
        up = np.minimum(uv[:, 1], 1 - uv[:, 1])
        along = (local[:, 0] + 0.3 + lean * (up - 0.2)) / 0.5 * count
        inside = ((along > 0) & (along < count) & (up < 0.33)).astype(np.float32)
        stripe: Floats = inside * np.clip((0.3 - np.abs(along % 1 - 0.5)) / 0.06, 0, 1)
        return stripe

    return weights


def _lace_stay(uv: Floats, local: Floats) -> Floats:
    """The panel under the laces."""
    across = 0.17 - np.abs(uv[:, 1] - 0.5)
    along = 0.28 - np.abs(local[:, 0] - 0.1)
    stay: Floats = np.clip(np.minimum(across, along) / 0.01, 0, 1)
    return stay


def _materials(rng: np.random.Generator, laced: bool) -> tuple[Material, ...]:
    base: Colour = any_colour(rng) if rng.random() < 0.75 else pale(rng)
    accent = contrasting(rng, base)
    tone: Colour = (base[0] * 0.6, base[1] * 0.6, base[2] * 0.6)
    second = accent if rng.random() < 0.5 else tone
    layers: Layers = ()
    if rng.random() < 0.5:
        layers += ((_side_stripes(int(rng.integers(1, 4)), rng.uniform(-1.5, 1.5)), accent),)
    if rng.random() < 0.55:
        layers += ((_toe_cap(rng.uniform(0.5, 0.62)), second),)
    if rng.random() < 0.6:
        layers += ((_heel_patch(rng.uniform(-0.72, -0.6)), second),)
    if laced:
        layers += ((_lace_stay, tone),)
    sole = pale(rng) if rng.random() < 0.7 else dark(rng) if rng.random() < 0.5 else accent
    tread: Layers = ((band(1, -0.1, 0.42), dark(rng)),) if rng.random() < 0.4 else ()
    line: Layers = ((band(1, 0.6, 0.64), accent),) if rng.random() < 0.4 else ()
    lace = pale(rng) if rng.random() < 0.65 else accent
    gloss = rng.uniform(0.1, 0.6)
    return (
        Material(colour=base, layers=layers, gloss=gloss, roughness=0.5),
        Material(colour=sole, layers=tread + line, gloss=0.2, roughness=0.6),
        Material(colour=lace, gloss=0.1, roughness=0.9),
        Material(colour=(0.03, 0.03, 0.035), gloss=0.0, roughness=1.0),
        Material(colour=tone if rng.random() < 0.5 else accent, gloss=0.1, roughness=0.9),
    )
