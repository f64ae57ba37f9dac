"""Bottles: slender glass, straight flasks and pump dispensers, with label."""

from collections.abc import Sequence

import numpy as np

from training.sample_catalogue.materials import (
    Material,
    any_colour,
    contrasting,
    dark,
    linear,
    pale,
)
from training.sample_catalogue.mesh import Mesh, join, revolve, rounded_profile, tube
from training.sample_catalogue.patterns import band, fade
from training.sample_catalogue.products.prints import Layers, all_over, logo
from training.sample_catalogue.studio import Product

_BODY, _LABEL, _CAP = range(3)
_GLASS = ("3f7a46", "8a4b16", "5d8fae", "a9c4a4", "6b2f3a", "b8cdd2", "c99a4a", "7fae9b")


def bottle(rng: np.random.Generator) -> Product:
    """Draw one bottle, about 1.5 units tall."""
    kind = str(rng.choice(["slender", "flask", "pump"], p=[0.5, 0.25, 0.25]))
    radius = rng.uniform(0.25, 0.31) if kind != "pump" else rng.uniform(0.28, 0.34)
    shoulder = rng.uniform(0.72, 0.95) if kind != "flask" else rng.uniform(1.08, 1.2)
    neck = radius * (rng.uniform(0.3, 0.42) if kind != "flask" else rng.uniform(0.55, 0.72))
    neck_y = shoulder + (0.14 if kind != "slender" else rng.uniform(0.22, 0.36))
    top = neck_y + (0.06 if kind != "slender" else rng.uniform(0.1, 0.24))
    foot = radius * rng.uniform(0.9, 1.0)
    corners = [(0.0, 0.0), (foot * 0.92, 0.0), (foot, 0.04), (radius, shoulder)]
    corners += [(neck * 1.04, neck_y), (neck, top), (0.0, top + 0.01)]
    parts = [
        revolve(rounded_profile(corners, rng.uniform(0.08, 0.2)), _BODY),
        *(_pump(rng, neck, top) if kind == "pump" else _cap(rng, neck, top)),
    ]
    if rng.random() < 0.75:
        low, high = rng.uniform(0.12, 0.25), shoulder * rng.uniform(0.68, 0.84)
        rim = [foot + (radius - foot) * (y - 0.04) / (shoulder - 0.04) for y in (low, high)]
        parts.append(revolve(np.array([(rim[0] + 0.004, low), (rim[1] + 0.004, high)]), _LABEL))
    return Product(
        mesh=join(parts),
        materials=_materials(rng),
        yaw_deg=rng.uniform(-30, 30),
        pitch_deg=rng.uniform(4, 15),
    )


def _cap(rng: np.random.Generator, neck: float, top: float) -> list[Mesh]:
    width = neck * rng.uniform(1.1, 1.25)
    low, high = top - rng.uniform(0.04, 0.08), top + rng.uniform(0.06, 0.14)
    outline = [(neck * 0.9, low), (width, low), (width * rng.uniform(0.9, 1), high), (0.0, high)]
    return [revolve(rounded_profile(outline, 0.02), _CAP)]


def _pump(rng: np.random.Generator, neck: float, top: float) -> list[Mesh]:
    """Collar, stem, press head and spout to one side."""
    outline = [(neck * 0.9, top - 0.07), (neck * 1.2, top - 0.07), (neck * 1.15, top + 0.05)]
    stem_y = top + rng.uniform(0.14, 0.22)
    stem = [*outline, (0.04, top + 0.06), (0.04, stem_y), (0.085, stem_y), (0.08, stem_y + 0.07)]
    side = rng.choice([-1.0, 1.0])
    t = np.linspace(0, 1, 10)
    reach = np.stack([side * 0.24 * t, stem_y + 0.045 - 0.06 * t**3, 0 * t], axis=1)
    head = rounded_profile([*stem, (0.0, stem_y + 0.075)], 0.012)
    return [revolve(head, _CAP), tube(reach, (0.03, 0.026), _CAP)]


def _materials(rng: np.random.Generator) -> tuple[Material, ...]:
    paper = pale(rng) if rng.random() < 0.6 else any_colour(rng)
    if rng.random() < 0.8:
        layers: Layers = ((band(1, 0.9, 0.95), contrasting(rng, paper)),)
        layers += logo(rng, paper, (0.5, 0.5), (rng.uniform(0.09, 0.13), rng.uniform(0.2, 0.28)))
    else:
        layers = all_over(rng, paper, 12, 5)
    cap = dark(rng) if rng.random() < 0.5 else any_colour(rng)
    metal = 0.8 if rng.random() < 0.2 else 0.0
    return (
        _body(rng),
        Material(colour=paper, layers=layers, gloss=0.25, roughness=0.6),
        Material(colour=cap, gloss=0.6, roughness=0.3, metal=metal),
    )


def _body(rng: np.random.Generator) -> Material:
    kind = rng.random()
    if kind < 0.45:
        tint = linear(_choice(rng, _GLASS))
        drink = (0.55 * tint[0], 0.55 * tint[1], 0.55 * tint[2])
        level = rng.uniform(0.55, 0.7)
        filled: Layers = ((fade(1, level, level - 0.012), drink),)
        return Material(colour=tint, layers=filled, gloss=1.0, roughness=0.05, clear=0.85)
    if kind < 0.55:
        return Material(colour=linear("c9cdd1"), gloss=0.5, roughness=0.25, metal=0.75)
    base = any_colour(rng)
    two_tone: Layers = ()
    if rng.random() < 0.35:
        two_tone = ((fade(1, 0.2, 0.7), contrasting(rng, base)),)
    return Material(colour=base, layers=two_tone, gloss=0.7, roughness=rng.uniform(0.1, 0.5))


def _choice(rng: np.random.Generator, names: Sequence[str]) -> str:
    return names[int(rng.integers(len(names)))]
