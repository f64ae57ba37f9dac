"""Boxes: cartons, gift boxes with a ribbon, printed packs, seen from a corner."""

import numpy as np

from training.sample_catalogue.materials import (
    Colour,
    Material,
    any_colour,
    contrasting,
    linear,
    pale,
)
from training.sample_catalogue.mesh import Mesh, join, rounded_box, tube
from training.sample_catalogue.patterns import along, band
from training.sample_catalogue.products.prints import Layers, all_over, logo
from training.sample_catalogue.studio import Product

_FRONT, _SIDE, _TOP, _LID, _RIBBON = range(5)
_BODY_FACES = (_FRONT, _FRONT, _SIDE, _SIDE, _TOP, _SIDE)


def box(rng: np.random.Generator) -> Product:
    """Draw one box."""
    width, depth = rng.uniform(0.85, 1.15), rng.uniform(0.75, 1.05)
    height = rng.uniform(0.5, 0.95)
    kind = rng.choice(["carton", "gift", "pack"])
    parts = [rounded_box((width, height, depth), 0.015, _BODY_FACES, cells=2)]
    if kind == "gift":
        lid = rounded_box((width + 0.05, 0.2, depth + 0.05), 0.015, _LID, cells=2)
        parts.append(lid.moved((0, height - 0.12, 0)))
        if rng.random() < 0.75:
            parts.append(_bow(rng).moved((0, height + 0.08, 0)))
    return Product(
        mesh=join(parts),
        materials=_materials(rng, str(kind)),
        yaw_deg=rng.choice([-1.0, 1.0]) * rng.uniform(24, 52),
        pitch_deg=rng.uniform(22, 36),
    )


def _bow(rng: np.random.Generator) -> Mesh:
    """Two ribbon loops and a knot."""
    t = np.linspace(0.15, 2 * np.pi - 0.15, 24)
    size = rng.uniform(0.2, 0.28)
    loop = np.stack([size * (1 - np.cos(t)) / 2 * 1.3, size * np.sin(t) * 0.45 + 0.07, 0 * t], 1)
    strap = (rng.uniform(0.05, 0.08), 0.012)
    one = tube(loop, strap, _RIBBON)
    knot = rounded_box((0.09, 0.1, 0.11), 0.04, _RIBBON).moved((0, 0.01, 0))
    return join([one, one.rotated("y", 180), knot]).rotated("y", rng.uniform(-25, 25))


def _materials(rng: np.random.Generator, kind: str) -> tuple[Material, ...]:
    base = linear("c39a6b") if kind == "carton" else any_colour(rng)
    front, top, lid = _layers(rng, kind, base)
    ribbon = contrasting(rng, base)
    lid_colour = base
    if kind == "gift":
        lid_colour = base if rng.random() < 0.4 else contrasting(rng, base)
        cross: Layers = ((along(0, -0.07, 0.07), ribbon), (along(2, -0.07, 0.07), ribbon))
        front, top, lid = front + cross[:1], top, lid + cross
        side: Layers = front[:-1] + cross[1:]
    else:
        side = front if rng.random() < 0.5 else ()
    gloss, roughness = (0.1, 0.8) if kind == "carton" else (rng.uniform(0.2, 0.6), 0.5)
    return (
        Material(colour=base, layers=front, gloss=gloss, roughness=roughness),
        Material(colour=base, layers=side, gloss=gloss, roughness=roughness),
        Material(colour=base, layers=top, gloss=gloss, roughness=roughness),
        Material(colour=lid_colour, layers=lid, gloss=gloss, roughness=roughness),
        Material(colour=ribbon, gloss=0.6, roughness=0.3),
    )


def _layers(rng: np.random.Generator, kind: str, base: Colour) -> tuple[Layers, Layers, Layers]:
    """Prints of front, top and lid."""
    if kind == "carton":
        tape = pale(rng) if rng.random() < 0.5 else linear("a97a45")
        seam: Layers = ((band(1, 0.43, 0.57), tape), (band(1, 0.498, 0.502), linear("6b4a2b")))
        stamp = logo(rng, base, (0.5, 0.42), (0.22, 0.2)) if rng.random() < 0.7 else ()
        return stamp, seam, ()
    if kind == "gift":
        wrap = all_over(rng, base, 8, 5) if rng.random() < 0.5 else ()
        return wrap, (), ()
    strip: Layers = ((band(1, 0.0, rng.uniform(0.15, 0.4)), contrasting(rng, base)),)
    front = strip + logo(rng, base, (0.5, 0.6), (0.28, 0.22))
    top = logo(rng, base, (0.5, 0.5), (0.28, 0.2)) if rng.random() < 0.6 else ()
    return front, top, ()
