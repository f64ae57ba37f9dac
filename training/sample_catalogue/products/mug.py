"""Mugs: a glazed body, a handle at one side, the inside in view."""

import numpy as np

from training.sample_catalogue.materials import (
    Colour,
    Material,
    any_colour,
    contrasting,
    dark,
    pale,
)
from training.sample_catalogue.mesh import Floats, join, revolve, rounded_profile, tube
from training.sample_catalogue.patterns import band
from training.sample_catalogue.products.prints import Layers, all_over, logo
from training.sample_catalogue.studio import Product

_OUTSIDE, _INSIDE, _HANDLE, _DRINK = range(4)


def mug(rng: np.random.Generator) -> Product:
    """Draw one mug."""
    radius, height = rng.uniform(0.42, 0.5), rng.uniform(0.85, 1.1)
    waist, foot = rng.uniform(-0.04, 0.06), rng.uniform(0.72, 1.0)
    wall = 0.035
    outside = [
        (0.0, 0.0),
        (radius * foot * 0.9, 0.0),
        (radius * foot, 0.04),
        (radius * (1 + foot) / 2 + waist, height * 0.45),
        (radius, height),
    ]
    inside = [
        (radius - wall / 2, height + 0.015),
        (radius - wall, height),
        (radius * 0.9 - wall, 0.3),
        (radius * 0.7, 0.12),
        (0.0, 0.1),
    ]
    side = rng.choice([-1.0, 1.0])
    parts = [
        revolve(rounded_profile(outside, 0.09), _OUTSIDE),
        revolve(rounded_profile([(radius, height), *inside], 0.05), _INSIDE),
        tube(_handle_path(rng, radius, height) * [side, 1, 1], _handle_size(rng), _HANDLE),
    ]
    if rng.random() < 0.35:
        level = height * rng.uniform(0.72, 0.85)
        parts.append(revolve(np.array([(radius - wall, level), (0.0, level + 0.001)]), _DRINK))
    return Product(
        mesh=join(parts),
        materials=_glazes(rng),
        yaw_deg=rng.uniform(-28, 28),
        pitch_deg=rng.uniform(12, 30),
    )


def _handle_path(rng: np.random.Generator, radius: float, height: float) -> Floats:
    """From the upper to the lower joint, bulging to +x."""
    t = np.linspace(-np.pi / 2, np.pi / 2, 24)
    square = rng.uniform(0.55, 1.0)
    x = np.sign(np.cos(t)) * np.abs(np.cos(t)) ** square
    y = np.sign(np.sin(t)) * np.abs(np.sin(t)) ** square
    reach, spread = rng.uniform(0.27, 0.36), height * rng.uniform(0.26, 0.34)
    middle = height * rng.uniform(0.5, 0.56)
    return np.stack([radius - 0.05 + reach * x, middle + spread * y, 0 * t], axis=1)


def _handle_size(rng: np.random.Generator) -> tuple[float, float]:
    return rng.uniform(0.06, 0.09), rng.uniform(0.04, 0.055)


def _print(rng: np.random.Generator, base: Colour) -> Layers:
    kind = rng.random()
    if kind < 0.25:
        return ()
    if kind < 0.5:
        return all_over(rng, base, 14, 6)
    if kind < 0.75:
        return logo(rng, base, (0.5, 0.62), (rng.uniform(0.07, 0.1), rng.uniform(0.13, 0.2)))
    low = rng.uniform(0.3, 0.6)
    return ((band(1, low, rng.choice([low + 0.1, 1.1])), contrasting(rng, base)),)


def _glazes(rng: np.random.Generator) -> tuple[Material, ...]:
    base = any_colour(rng) if rng.random() < 0.65 else pale(rng)
    gloss, roughness = rng.uniform(0.5, 1.0), rng.uniform(0.05, 0.45)
    lining = base if rng.random() < 0.4 else pale(rng)
    handle = base if rng.random() < 0.75 else any_colour(rng)
    drink = (0.09, 0.045, 0.025) if rng.random() < 0.7 else dark(rng)
    return (
        Material(colour=base, layers=_print(rng, base), gloss=gloss, roughness=roughness),
        Material(colour=lining, gloss=gloss, roughness=roughness),
        Material(colour=handle, gloss=gloss, roughness=roughness),
        Material(colour=drink, gloss=0.8, roughness=0.1),
    )
