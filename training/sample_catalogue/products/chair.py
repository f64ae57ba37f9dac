"""Chairs: four legs, a seat and a back, seen from a front corner."""

import numpy as np

from training.sample_catalogue.materials import (
    Material,
    any_colour,
    contrasting,
    dark,
    linear,
    pale,
    wood,
)
from training.sample_catalogue.mesh import Deform, Floats, Mesh, join, rounded_box, tube
from training.sample_catalogue.products.prints import Layers, all_over
from training.sample_catalogue.studio import Product

_FRAME, _SEAT, _BACK = range(3)


def chair(rng: np.random.Generator) -> Product:
    """Draw one chair, about 1.5 units tall."""
    width, depth = rng.uniform(0.72, 0.84), rng.uniform(0.68, 0.78)
    seat_y, thick = rng.uniform(0.66, 0.76), rng.uniform(0.06, 0.16)
    top = seat_y + rng.uniform(0.72, 0.88)
    tilt = rng.uniform(0.08, 0.18)
    seat = rounded_box((width, thick, depth), thick * 0.45, _SEAT).moved((0, seat_y - thick / 2, 0))
    parts = [seat, _legs(rng, width, depth, seat_y)]
    parts.append(_back(rng, width, (seat_y, top), (-depth / 2 + 0.04, tilt)))
    if rng.random() < 0.25:
        parts += _arms(width, depth, seat_y)
    return Product(
        mesh=join(parts),
        materials=_materials(rng),
        yaw_deg=rng.choice([-1.0, 1.0]) * rng.uniform(20, 42),
        pitch_deg=rng.uniform(10, 20),
    )


def _legs(rng: np.random.Generator, width: float, depth: float, seat_y: float) -> Mesh:
    splay = rng.uniform(0.0, 0.09)
    thick = rng.uniform(0.038, 0.056)
    t = np.linspace(0, 1, 6)[:, None]
    legs = []
    for side, front in [(-1, -1), (-1, 1), (1, -1), (1, 1)]:
        above = np.array([side * (width / 2 - 0.08), seat_y, front * (depth / 2 - 0.08)])
        below = above + np.array([side * splay, -seat_y, front * splay])
        radius = np.repeat(thick * (0.65 + 0.35 * t), 2, axis=1)
        legs.append(tube(below + (above - below) * t, radius, _FRAME, sides=10))
    return join(legs)


def _lean(level: float, back_z: float, tilt: float, bend: float) -> Deform:
    """Moves a back that stands at z = 0 to the seat's rear edge, leaning and curved."""

    def deform(points: Floats) -> Floats:
        out = np.array(points)
        out[..., 2] += back_z - tilt * points[..., 1] + bend * points[..., 0] ** 2
        out[..., 1] += level
        return out

    return deform


def _back(
    rng: np.random.Generator, width: float, span: tuple[float, float], place: tuple[float, float]
) -> Mesh:
    """A panel, slats or spindles between two posts."""
    low, top = span
    tall = top - low
    lean = _lean(low, place[0], place[1], rng.uniform(0.0, 0.35))
    kind = rng.integers(3)
    if kind == 0:
        start = rng.uniform(0.02, 0.3) * tall
        panel = _lean(low + start, place[0] - place[1] * start, place[1], rng.uniform(0, 0.35))
        thick = rng.uniform(0.06, 0.14)
        size = (width * rng.uniform(0.92, 1.0), tall - start, thick)
        parts = [rounded_box(size, thick * 0.48, _BACK, deform=panel)]
        return join([*parts, *_posts(width, tall * 0.6, lean)])
    parts = _posts(width, tall, lean)
    rail = (width - 0.04, 0.13, 0.05)
    if kind == 1:
        heights = np.linspace(tall * 0.3, tall - 0.13, int(rng.integers(2, 4)))
        parts += [rounded_box(rail, 0.02, _BACK, deform=_raised(lean, y)) for y in heights]
        return join(parts)
    parts.append(rounded_box(rail, 0.02, _BACK, deform=_raised(lean, tall - 0.13)))
    for x in np.linspace(-0.5, 0.5, int(rng.integers(4, 7)))[1:-1] * (width - 0.1):
        line = np.stack([np.full(6, x), np.linspace(0, tall - 0.08, 6), np.zeros(6)], axis=1)
        parts.append(tube(lean(line), (0.018, 0.018), _FRAME, sides=8))
    return join(parts)


def _raised(lean: Deform, y: float) -> Deform:
    return lambda points: lean(points + np.array([0, y, 0]))


def _posts(width: float, tall: float, lean: Deform) -> list[Mesh]:
    posts = []
    for x in (-width / 2 + 0.05, width / 2 - 0.05):
        line = np.stack([np.full(8, x), np.linspace(-0.02, tall, 8), np.zeros(8)], axis=1)
        posts.append(tube(lean(line), (0.035, 0.035), _FRAME, sides=10))
    return posts


def _arms(width: float, depth: float, seat_y: float) -> list[Mesh]:
    arms = []
    for side in (-1, 1):
        rest = rounded_box((0.08, 0.05, depth), 0.02, _FRAME, cells=2)
        post = rounded_box((0.05, 0.3, 0.05), 0.015, _FRAME, cells=2)
        x = side * (width / 2)
        arms += [rest.moved((x, seat_y + 0.28, 0)), post.moved((x, seat_y, depth / 2 - 0.08))]
    return arms


def _materials(rng: np.random.Generator) -> tuple[Material, ...]:
    kind = rng.random()
    frame = wood(rng) if kind < 0.6 else dark(rng) if kind < 0.85 else linear("c4c8cc")
    metal = 0.7 if kind >= 0.85 else 0.0
    cover = any_colour(rng) if rng.random() < 0.75 else pale(rng)
    layers: Layers = all_over(rng, cover, 6, 6) if rng.random() < 0.2 else ()
    wooden = kind < 0.6 and rng.random() < 0.45
    seat = frame if wooden and rng.random() < 0.6 else cover
    back = frame if wooden else cover if rng.random() < 0.85 else contrasting(rng, cover)
    return (
        Material(colour=frame, gloss=0.4, roughness=0.4, metal=metal, grain=0.06 * (kind < 0.6)),
        Material(colour=seat, layers=layers, gloss=0.15, roughness=0.7),
        Material(colour=back, layers=layers, gloss=0.15, roughness=0.7),
    )
