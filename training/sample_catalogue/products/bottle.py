"""Bottles: tall and slim, of glass, plastic or steel, with cap and label."""

import numpy as np

from training.sample_catalogue.materials import (
    Material,
    any_colour,
    contrasting,
    dark,
    linear,
    pale,
)
from training.sample_catalogue.mesh import Mesh, join, revolve, rounded_profile
from training.sample_catalogue.patterns import band, fade, rectangle
from training.sample_catalogue.products.prints import Layers, all_over, logo
from training.sample_catalogue.studio import Product

_BODY, _LABEL, _CAP = range(3)


def bottle(rng: np.random.Generator) -> Product:
    """Draw one bottle, 1.5 units tall."""
    radius = rng.uniform(0.2, 0.27)
    neck = radius * rng.uniform(0.32, 0.5)
    shoulder, neck_start = rng.uniform(0.75, 0.98), rng.uniform(1.08, 1.22)
    foot = radius * rng.uniform(0.88, 1.0)
    corners = [
        (0.0, 0.0),
        (foot * 0.92, 0.0),
        (foot, 0.03),
        (radius, shoulder),
        (neck * 1.05, neck_start),
        (neck, 1.36),
        (0.0, 1.37),
    ]
    profile = rounded_profile(corners, rng.uniform(0.1, 0.22))
    parts = [revolve(profile, _BODY), _cap(rng, neck)]
    if rng.random() < 0.75:
        low, high = rng.uniform(0.15, 0.3), shoulder * rng.uniform(0.72, 0.88)
        rim = [foot + (radius - foot) * y / shoulder + 0.004 for y in (low, high)]
        parts.append(revolve(np.array([(rim[0], low), (rim[1], high)]), _LABEL))
    return Product(
        mesh=join(parts),
        materials=_materials(rng),
        yaw_deg=rng.uniform(-30, 30),
        pitch_deg=rng.uniform(4, 16),
    )


def _cap(rng: np.random.Generator, neck: float) -> Mesh:
    width = neck * rng.uniform(1.08, 1.3)
    low, top = rng.uniform(1.22, 1.32), rng.uniform(1.42, 1.52)
    outline = [(neck, low), (width, low), (width * rng.uniform(0.85, 1), top), (0.0, top)]
    return revolve(rounded_profile(outline, 0.02), _CAP)


def _materials(rng: np.random.Generator) -> tuple[Material, ...]:
    paper = pale(rng) if rng.random() < 0.6 else any_colour(rng)
    layers: Layers = ((band(1, 0.9, 0.95), contrasting(rng, paper)),)
    if rng.random() < 0.8:
        layers += logo(rng, paper, (0.5, 0.52), (rng.uniform(0.1, 0.14), 0.26))
    else:
        layers = all_over(rng, paper, 12, 5)
    cap = dark(rng) if rng.random() < 0.5 else any_colour(rng)
    steel = rng.random() < 0.2
    return (
        _body(rng),
        Material(colour=paper, layers=layers, gloss=0.25, roughness=0.6),
        Material(colour=cap, gloss=0.6, roughness=0.3, metal=0.8 if steel else 0.0),
    )


def _body(rng: np.random.Generator) -> Material:
    kind = rng.random()
    if kind < 0.45:
        tints = ["3f7a46", "8a4b16", "5d8fae", "a9c4a4", "6b2f3a", "b8cdd2", "c99a4a"]
        tint = linear(tints[rng.integers(len(tints))])
        fill = tuple(0.55 * channel for channel in tint)
        drink = fade(1, 0.62, 0.6)
        return Material(
            colour=tint,
            layers=((drink, (fill[0], fill[1], fill[2])),),
            gloss=1.0,
            roughness=0.05,
            clear=0.85,
        )
    base = any_colour(rng)
    if kind < 0.8:
        two_tone: Layers = ()
        if rng.random() < 0.4:
            two_tone = ((fade(1, 0.3, 0.7), contrasting(rng, base)),)
        return Material(colour=base, layers=two_tone, gloss=0.7, roughness=rng.uniform(0.1, 0.5))
    if kind < 0.9:
        return Material(colour=linear("c9cdd1"), gloss=0.5, roughness=0.25, metal=0.75)
    return Material(
        colour=pale(rng), layers=((rectangle((0.5, 0.5), (0.05, 0.2)), base),), gloss=0.8
    )
