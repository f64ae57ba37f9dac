"""Bags: canvas totes, leather handbags and paper carriers, with two handles."""

from dataclasses import dataclass

import numpy as np

from training.sample_catalogue.materials import (
    Colour,
    Material,
    any_colour,
    contrasting,
    dark,
    linear,
    pale,
)
from training.sample_catalogue.mesh import Deform, Floats, Mesh, join, rounded_box, tube
from training.sample_catalogue.patterns import Pattern, band
from training.sample_catalogue.products.prints import Layers, all_over, logo
from training.sample_catalogue.studio import Product

_FRONT, _SIDE, _HANDLE, _FLAP, _CLASP, _LINING = range(6)
_FACES = (_FRONT, _FRONT, _SIDE, _SIDE, _LINING, _SIDE)


@dataclass(frozen=True)
class _Cut:
    """Measures of one bag.

    Attributes:
        width: Of the bottom.
        height: Of the body.
        depth: Of the bottom.
        taper: Share of the width that is lost towards the top.
        edge: Radius of its edges.
        soft: How far its sides swell and crumple.
        strap: Half extents of a handle's section, towards the viewer and across.
        rise: Height of the handles over the rim.
    """

    width: float
    height: float
    depth: float
    taper: float
    edge: float
    soft: float
    strap: tuple[float, float]
    rise: float


def bag(rng: np.random.Generator) -> Product:
    """Draw one bag."""
    kind = str(rng.choice(["tote", "handbag", "carrier"]))
    cut = _cut(rng, kind)
    shape = _crumpled(cut, rng.uniform(0, 6, 3))
    parts = [rounded_box((cut.width, cut.height, cut.depth), cut.edge, _FACES, deform=shape)]
    flap = kind == "handbag" and rng.random() < 0.7
    if flap:
        parts += _flap(cut, shape, rng.uniform(0.42, 0.58))
    parts += _handles(rng, cut, 0.1 if kind == "handbag" else 0.34)
    return Product(
        mesh=join(parts),
        materials=_materials(rng, kind),
        yaw_deg=rng.choice([-1.0, 1.0]) * rng.uniform(6, 34),
        pitch_deg=rng.uniform(5, 16),
    )


def _cut(rng: np.random.Generator, kind: str) -> _Cut:
    if kind == "tote":
        return _Cut(
            rng.uniform(0.88, 1.02), rng.uniform(0.9, 1.05), rng.uniform(0.2, 0.3),
            rng.uniform(-0.14, 0.02), 0.05, rng.uniform(0.5, 1.0),
            (0.01, rng.uniform(0.03, 0.045)), rng.uniform(0.4, 0.6),
        )  # fmt: skip
    if kind == "handbag":
        return _Cut(
            rng.uniform(1.05, 1.25), rng.uniform(0.72, 0.88), rng.uniform(0.34, 0.44),
            rng.uniform(0.1, 0.3), 0.07, rng.uniform(0.2, 0.5),
            (0.026, 0.026), rng.uniform(0.3, 0.46),
        )  # fmt: skip
    return _Cut(
        rng.uniform(0.84, 0.98), rng.uniform(0.95, 1.12), rng.uniform(0.32, 0.42),
        0.0, 0.012, rng.uniform(0.05, 0.15), (0.014, 0.014), rng.uniform(0.26, 0.36),
    )  # fmt: skip


def _crumpled(cut: _Cut, phase: Floats) -> Deform:
    """Narrows and thins towards the top, swells in the middle, with soft dents."""

    def deform(points: Floats) -> Floats:
        out = np.array(points)
        up = np.clip(points[..., 1] / cut.height, 0, 1)
        x = points[..., 0]
        out[..., 0] *= 1 - cut.taper * up
        swell = 0.35 * np.sin(np.pi * up) * np.cos(np.clip(x / cut.width, -0.5, 0.5) * 2.6)
        out[..., 2] *= 1 - (0.15 + 0.3 * cut.soft) * up + cut.soft * swell
        dent = np.sin(x * 6 + up * 3 + phase[0]) * np.sin(up * 5 + phase[1])
        crease = np.sin((x + up * 0.7) * 11 + phase[2])
        out[..., 2] += 0.014 * cut.soft * (dent + 0.4 * crease) * np.sin(np.pi * up) ** 0.5
        out[..., 1] -= 0.03 * cut.soft * up**4 * np.cos(x / cut.width * 2.8)
        return out

    return deform


def _flap(cut: _Cut, shape: Deform, share: float) -> list[Mesh]:
    """A cover over the upper front with a metal clasp."""
    low = cut.height * (1 - share)

    def over(points: Floats) -> Floats:
        raised = points + np.array([0, low + 0.006, 0])
        return shape(raised)

    size = (cut.width + 0.02, cut.height * share + 0.012, cut.depth + 0.055)
    cover = rounded_box(size, cut.edge, _FLAP, deform=over)
    clasp = rounded_box((0.15, 0.12, 0.06), 0.025, _CLASP, cells=2)
    rim = float(shape(np.array([0.0, low + 0.03, cut.depth / 2 + 0.03]))[2])
    return [cover, clasp.moved((0, low - 0.04, rim - 0.02))]


def _handles(rng: np.random.Generator, cut: _Cut, apart: float) -> list[Mesh]:
    half = cut.width * (1 - cut.taper) * rng.uniform(0.2, 0.28)
    square = rng.uniform(0.55, 0.9)
    t = np.linspace(0, np.pi, 32)
    x = np.sign(np.cos(t)) * np.abs(np.cos(t)) ** square * half
    rise = np.sin(t) ** square
    inset = 0.1 * (1 - rise) ** 4
    handles = []
    for side in (-1, 1):
        top = cut.rise * rng.uniform(0.9, 1.0)
        y = cut.height - 0.1 + (top + 0.1) * rise
        z = side * (cut.depth * apart * (1 - 0.45 * rise) + inset * 0.1)
        handles.append(tube(np.stack([x, y, z], 1), cut.strap, _HANDLE))
    return handles


def _stitching(uv: Floats, local: Floats) -> Floats:
    """A dashed seam that runs inside the edge of a face."""
    x, y = 0.5 - np.abs(uv[:, 0] - 0.5), 0.5 - np.abs(uv[:, 1] - 0.5)
    near = np.minimum(x, y)
    dash = np.where(x < y, uv[:, 1], uv[:, 0]) * 34 % 1 < 0.65
    seam: Floats = dash * np.clip((0.005 - np.abs(near - 0.055)) / 0.004, 0, 1)
    return seam


def _print(rng: np.random.Generator, kind: str, base: Colour) -> Layers:
    chance = rng.random()
    stitch: tuple[Pattern, Colour] = (_stitching, contrasting(rng, base))
    if kind == "handbag":
        plain: Layers = () if chance < 0.7 else ((band(1, -0.1, 0.3), contrasting(rng, base)),)
        return (*plain, stitch)
    if chance < 0.3:
        return all_over(rng, base, 7, 7)
    if chance < 0.75:
        half = rng.uniform(0.18, 0.28)
        return logo(rng, base, (0.5, rng.uniform(0.42, 0.52)), (half, half * 0.85))
    if chance < 0.88:
        return ((band(1, -0.1, rng.uniform(0.25, 0.5)), contrasting(rng, base)),)
    return (stitch,) if kind == "tote" else ()


def _materials(rng: np.random.Generator, kind: str) -> tuple[Material, ...]:
    base = any_colour(rng)
    if kind != "handbag" and rng.random() < 0.35:
        base = pale(rng) if rng.random() < 0.5 else linear("d9c3a3")
    gloss, roughness = {"tote": (0.0, 1.0), "handbag": (0.7, 0.35), "carrier": (0.2, 0.7)}[kind]
    same = rng.random() < 0.5
    handle = base if same else dark(rng) if rng.random() < 0.5 else contrasting(rng, base)
    flap = base if rng.random() < 0.6 else contrasting(rng, base)
    flap_layers: Layers = ((_stitching, contrasting(rng, flap)),)
    inside: Colour = (base[0] * 0.35, base[1] * 0.35, base[2] * 0.35)
    layers = _print(rng, kind, base)
    return (
        Material(colour=base, layers=layers, gloss=gloss, roughness=roughness),
        Material(colour=base, gloss=gloss, roughness=roughness),
        Material(colour=handle, gloss=0.5 if kind == "handbag" else 0.1, roughness=0.5),
        Material(colour=flap, layers=flap_layers, gloss=gloss, roughness=roughness),
        Material(colour=linear("d9b66a"), gloss=0.6, roughness=0.2, metal=0.85),
        Material(colour=inside, gloss=0),
    )
