"""Table lamps: a base, a stem and a glowing shade."""

import numpy as np

from training.sample_catalogue.materials import (
    Colour,
    Material,
    any_colour,
    dark,
    linear,
    pale,
    wood,
)
from training.sample_catalogue.mesh import join, revolve, rounded_profile
from training.sample_catalogue.patterns import band, fade
from training.sample_catalogue.products.prints import Layers, all_over
from training.sample_catalogue.studio import Product

_BASE, _STEM, _SHADE, _LINING = range(4)
_WARM = (1.0, 0.84, 0.62)


def lamp(rng: np.random.Generator) -> Product:
    """Draw one table lamp, about 1.4 units tall."""
    low = rng.uniform(0.72, 0.86)
    high = low + rng.uniform(0.42, 0.56)
    wide = rng.uniform(0.42, 0.54)
    narrow = wide * rng.uniform(0.45, 0.95)
    shade = np.linspace((wide, low), (narrow, high), 8)
    inner = shade[::-1] - [0.012, 0]
    stem = [(0.03, 0.02), (0.03, (low + high) / 2)]
    return Product(
        mesh=join(
            [
                revolve(rounded_profile(_foot(rng, low), 0.1), _BASE),
                revolve(np.array(stem), _STEM, segments=16),
                revolve(shade, _SHADE),
                revolve(inner, _LINING),
            ]
        ),
        materials=_materials(rng),
        yaw_deg=rng.uniform(-30, 30),
        pitch_deg=rng.uniform(3, 15),
    )


def _foot(rng: np.random.Generator, low: float) -> list[tuple[float, float]]:
    """A disc, a jug, a ball or a cone under the shade."""
    top = (0.035, low + 0.02)
    kind = rng.integers(4)
    if kind == 0:
        wide = rng.uniform(0.24, 0.32)
        return [(0.0, 0.0), (wide, 0.0), (wide, 0.05), (0.05, 0.075), (0.03, 0.2), top]
    if kind == 1:
        belly = rng.uniform(0.2, 0.28)
        return [
            (0.0, 0.0),
            (0.16, 0.0),
            (belly, low * 0.35),
            (belly, low * 0.6),
            (0.06, low * 0.9),
            top,
        ]
    if kind == 2:
        ball = rng.uniform(0.2, 0.26)
        turn = np.linspace(-1.25, 1.45, 12)
        middle = ball * np.sin(1.25) + 0.03
        round_part = [(ball * float(np.cos(a)), middle + ball * float(np.sin(a))) for a in turn]
        return [(0.0, 0.0), (0.14, 0.0), (0.14, 0.03), *round_part, top]
    wide = rng.uniform(0.2, 0.28)
    return [(0.0, 0.0), (wide, 0.0), (wide, 0.03), (0.06, low * rng.uniform(0.7, 0.95)), top]


def _materials(rng: np.random.Generator) -> tuple[Material, ...]:
    metal = rng.random() < 0.3
    foot: Colour = linear("c9a25a") if metal else any_colour(rng)
    if not metal and rng.random() < 0.3:
        foot = wood(rng)
    cloth = pale(rng) if rng.random() < 0.6 else any_colour(rng)
    layers: Layers = ()
    if rng.random() < 0.4:
        layers = all_over(rng, cloth, 16, 4)
    trim: Layers = ((band(1, -0.1, 0.04), dark(rng)),) if rng.random() < 0.3 else ()
    glow = rng.uniform(0.2, 0.45) if rng.random() < 0.6 else 0.0
    if glow:
        cloth = (cloth[0] * _WARM[0], cloth[1] * _WARM[1], cloth[2] * _WARM[2])
        # The bulb is at the middle of the shade: its light falls off to both rims.
        dim = (cloth[0] * 0.62, cloth[1] * 0.5, cloth[2] * 0.38)
        layers += ((fade(1, 0.45, 1.25), dim), (fade(1, 0.4, -0.5), dim))
    return (
        Material(colour=foot, gloss=0.8, roughness=rng.uniform(0.1, 0.4), metal=0.8 * metal),
        Material(colour=linear("b8b3a8"), gloss=0.6, roughness=0.3, metal=0.7),
        Material(colour=cloth, layers=layers + trim, gloss=0.05, roughness=0.9, glow=glow),
        Material(colour=cloth, gloss=0.05, roughness=0.9, glow=glow * 1.5),
    )
