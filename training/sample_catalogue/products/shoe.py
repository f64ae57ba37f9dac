"""Shoes: trainers and loafers from the side, toe to one side."""

import numpy as np

from training.sample_catalogue.materials import (
    Colour,
    Material,
    any_colour,
    contrasting,
    dark,
    pale,
)
from training.sample_catalogue.mesh import Mesh, join, surface, tube
from training.sample_catalogue.patterns import band
from training.sample_catalogue.products.prints import Layers
from training.sample_catalogue.studio import Product

_UPPER, _SOLE, _LACE, _LINING, _COLLAR = range(5)


def shoe(rng: np.random.Generator) -> Product:
    """Draw one shoe, 2 units long, its toe at +x."""
    sole = rng.uniform(0.12, 0.22)
    ankle = rng.uniform(0.55, 0.8)
    heights = _heights(rng, ankle)
    parts = [_sole(sole), _upper(heights).moved((0, sole - 0.03, 0)), *_mouth(heights, sole - 0.03)]
    if rng.random() < 0.75:
        parts += _laces(rng, heights, sole - 0.03)
    mesh = join(parts)
    turn = rng.choice([0.0, 180.0]) + rng.uniform(-22, 22)
    return Product(
        mesh=mesh, materials=_materials(rng), yaw_deg=turn, pitch_deg=rng.uniform(10, 22)
    )


Heights = tuple[np.ndarray, np.ndarray]


def _heights(rng: np.random.Generator, ankle: float) -> Heights:
    """Upper edge over x."""
    toe = rng.uniform(0.24, 0.32)
    x = np.array([-1.0, -0.96, -0.7, -0.25, 0.0, 0.35, 0.7, 0.9, 1.0])
    y = np.array(
        [
            0.3,
            ankle,
            ankle * 0.93,
            ankle * 0.95,
            ankle * 0.8,
            ankle * 0.35 + toe * 0.6,
            toe,
            toe * 0.8,
            0.05,
        ]
    )
    return x, y


def _half_width(x: np.ndarray) -> np.ndarray:
    """Half the width of the foot over x."""
    ends = np.sqrt(np.clip(1 - np.clip(np.abs(x) - 0.55, 0, None) ** 2 / 0.2025, 0, 1))
    return (0.29 + 0.07 * np.clip(x, -1, 0.5)) * np.maximum(ends, 0.02)


def _section(x: np.ndarray, angle: np.ndarray, heights: Heights) -> np.ndarray:
    """Point of the upper at length x and angle 0 (this side) to pi (far side)."""
    high = np.interp(x, *heights)
    wide = _half_width(x)
    lean = np.clip((0.1 - x), 0, 1) * 0.35
    cos, sin = np.cos(angle), np.clip(np.sin(angle), 0, 1)
    up = sin**0.75
    z = wide * np.sign(cos) * np.abs(cos) ** 0.7 * (1 - lean * up)
    return np.stack(np.broadcast_arrays(x, high * up, z), axis=-1)


def _upper(heights: Heights) -> Mesh:
    x = np.sin(np.linspace(-np.pi / 2, np.pi / 2, 60))[None, :]
    angle = np.linspace(0, np.pi, 40)[:, None]
    return surface(_section(x, angle, heights), _UPPER)


def _sole(height: float) -> Mesh:
    t = np.linspace(-np.pi, np.pi, 81)[None, :]
    x = np.sin(t)
    x = np.sign(x) * np.abs(x) ** 0.8
    z = (_half_width(x) + 0.03) * np.sign(np.cos(t))
    outline = np.stack(np.broadcast_arrays(x * 1.03, 0 * x, z), axis=-1)[0]
    rows = [
        (0.0, 0.0),
        (0.96, 0.0),
        (1.0, 0.03),
        (1.0, height - 0.02),
        (0.97, height),
        (0.0, height),
    ]
    grid = np.stack([outline * [s, 1, s] + [0, y, 0] for s, y in rows])
    return surface(grid, _SOLE, closed=True)


def _mouth(heights: Heights, level: float) -> list[Mesh]:
    """The dark opening and its padded rim."""
    t = np.linspace(-np.pi, np.pi, 41)
    x = -0.52 + 0.36 * np.sin(t)
    y = np.interp(x, *heights) + level + 0.012
    z = 0.17 * np.cos(t)
    rim = np.stack([x, y, z], axis=1)
    middle = rim.mean(axis=0)
    share = np.linspace(1, 0.02, 5)[:, None, None]
    hole = surface(middle + (rim - middle) * share, _LINING, closed=True)
    return [hole, tube(rim, (0.035, 0.035), _COLLAR, across=(0, 1, 0), sides=10)]


def _laces(rng: np.random.Generator, heights: Heights, level: float) -> list[Mesh]:
    laces = []
    for x in np.linspace(-0.08, 0.34, int(rng.integers(4, 6))):
        angle = np.linspace(np.pi * 0.3, np.pi * 0.7, 10)
        path = _section(np.full(10, x), angle, heights) + [0, level + 0.015, 0]
        laces.append(tube(path, (0.018, 0.014), _LACE, across=(1, 0.3, 0), sides=8))
    return laces


def _materials(rng: np.random.Generator) -> tuple[Material, ...]:
    base: Colour = any_colour(rng) if rng.random() < 0.75 else pale(rng)
    accent = contrasting(rng, base)
    layers: Layers = ()
    if rng.random() < 0.5:
        layers += ((band(0, 0.86, 1.1), accent),)
    if rng.random() < 0.5:
        layers += ((band(0, -0.1, 0.1), accent),)
    sole = pale(rng) if rng.random() < 0.65 else dark(rng) if rng.random() < 0.6 else accent
    tread: Layers = ((band(1, 0.0, 0.45), dark(rng)),) if rng.random() < 0.4 else ()
    lace = pale(rng) if rng.random() < 0.6 else accent
    gloss = rng.uniform(0.1, 0.6)
    return (
        Material(colour=base, layers=layers, gloss=gloss, roughness=0.5, grain=0.02),
        Material(colour=sole, layers=tread, gloss=0.2, roughness=0.6),
        Material(colour=lace, gloss=0.1, roughness=0.9),
        Material(colour=(0.03, 0.03, 0.035), gloss=0.0, roughness=1.0),
        Material(colour=base if rng.random() < 0.5 else accent, gloss=0.1, roughness=0.9),
    )
