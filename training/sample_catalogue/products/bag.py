"""Bags: totes, handbags and paper carriers with two handles."""

import numpy as np

from training.sample_catalogue.materials import (
    Colour,
    Material,
    any_colour,
    contrasting,
    linear,
    wood,
)
from training.sample_catalogue.mesh import Deform, Mesh, join, rounded_box, tube
from training.sample_catalogue.patterns import band
from training.sample_catalogue.products.prints import Layers, all_over, logo
from training.sample_catalogue.studio import Product

_FRONT, _SIDE, _HANDLE, _FLAP, _CLASP = range(5)
_FACES = (_FRONT, _FRONT, _SIDE, _SIDE, _SIDE, _SIDE)


def bag(rng: np.random.Generator) -> Product:
    """Draw one bag."""
    width, height = rng.uniform(0.95, 1.15), rng.uniform(0.72, 0.95)
    depth = rng.uniform(0.26, 0.4)
    taper, puff = rng.uniform(-0.14, 0.2), rng.uniform(0.0, 0.08)
    shape = _tapered(height, taper, puff)
    flap = rng.random() < 0.35
    parts = [rounded_box((width, height, depth), 0.06, _FACES, deform=shape)]
    if flap:
        parts += _flap(width, height, depth, shape)
    top_width = width * (1 - taper)
    parts += _handles(rng, top_width, height, depth * (0.12 if flap else 0.34))
    return Product(
        mesh=join(parts),
        materials=_materials(rng),
        yaw_deg=rng.uniform(-32, 32),
        pitch_deg=rng.uniform(4, 15),
    )


def _tapered(height: float, taper: float, puff: float) -> Deform:
    """Narrows towards the top (where taper > 0), thins there, and swells in the middle."""

    def deform(points: np.ndarray) -> np.ndarray:
        out = np.array(points)
        up = points[..., 1] / height
        out[..., 0] *= 1 - taper * up
        swell = puff * np.sin(np.pi * np.clip(up, 0, 1)) * np.cos(points[..., 0] * 2.4)
        out[..., 2] *= 1 - 0.35 * up + swell * 4
        return out

    return deform


def _flap(width: float, height: float, depth: float, shape: Deform) -> list[Mesh]:
    """A cover over the upper front with a metal clasp."""

    def over(points: np.ndarray) -> np.ndarray:
        return shape(points + np.array([0, height * 0.48, 0])) + np.array([0, 0.012, 0])

    cover = rounded_box((width + 0.02, height * 0.52, depth + 0.05), 0.06, _FLAP, deform=over)
    clasp = rounded_box((0.14, 0.1, 0.05), 0.02, _CLASP, cells=2)
    front = depth / 2 * 0.85 + 0.02
    return [cover, clasp.moved((0, height * 0.47, front))]


def _handles(rng: np.random.Generator, width: float, height: float, apart: float) -> list[Mesh]:
    half = width * rng.uniform(0.2, 0.32)
    rise = rng.uniform(0.3, 0.55)
    square = rng.uniform(0.6, 1.0)
    t = np.linspace(0, np.pi, 28)
    x = np.sign(np.cos(t)) * np.abs(np.cos(t)) ** square * half
    y = height - 0.12 + (rise + 0.12) * np.sin(t) ** square
    strap = (rng.uniform(0.02, 0.045), rng.uniform(0.016, 0.03))
    drop = np.sin(t) * 0.06
    return [
        tube(np.stack([x * s, y - (0.05 if s < 0 else 0), s * (apart + drop)], 1), strap, _HANDLE)
        for s in (-1, 1)
    ]


def _materials(rng: np.random.Generator) -> tuple[Material, ...]:
    base: Colour = any_colour(rng)
    kind = rng.random()
    layers: Layers = ()
    if kind < 0.3:
        layers = all_over(rng, base, 7, 5)
    elif kind < 0.65:
        layers = logo(rng, base, (0.5, 0.42), (rng.uniform(0.16, 0.26), rng.uniform(0.16, 0.24)))
    elif kind < 0.8:
        layers = ((band(1, -0.1, rng.uniform(0.25, 0.45)), contrasting(rng, base)),)
    leather = rng.random() < 0.5
    gloss, roughness = (0.6, 0.4) if leather else (0.1, 0.9)
    handle = (
        wood(rng) if rng.random() < 0.4 else base if rng.random() < 0.5 else contrasting(rng, base)
    )
    flap = base if rng.random() < 0.5 else contrasting(rng, base)
    shared = {"gloss": gloss, "roughness": roughness}
    grain = 0.0 if leather else 0.04
    return (
        Material(colour=base, layers=layers, grain=grain, **shared),
        Material(colour=base, grain=grain, **shared),
        Material(colour=handle, gloss=0.4, roughness=0.5),
        Material(colour=flap, **shared),
        Material(colour=linear("d9b66a"), gloss=0.6, roughness=0.2, metal=0.85),
    )
