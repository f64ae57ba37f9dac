"""What product surfaces are made of: colours, finishes and printed layers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from training.sample_catalogue.mesh import Floats
from training.sample_catalogue.patterns import Pattern

Colour = tuple[float, float, float]

_PALETTE: Final = (
    *("f2efe8", "e8dcc8", "d9c3a3", "c9a27a", "a8683f", "7a4a2b", "4a342a", "2b2a2c"),
    *("3c4148", "6d747c", "a9aeb3", "d8dadb", "c8372d", "e2694a", "f09a5b", "f3c262"),
    *("e9d98b", "8fae6b", "4f7f55", "2f5b4c", "4f9a9b", "8cc3cf", "4d86b8", "2d5591"),
    *("22335c", "6b5b95", "a88bb8", "e3a6b6", "d46a86", "8e2f45"),
)
_PALE: Final = ("ffffff", "f7f4ee", "efe9df", "e6ebee", "f4e3df", "e2ece3")
_DARK: Final = ("2b2a2c", "3c4148", "4a342a", "22335c", "2f5b4c", "5b2331")
_WOOD: Final = ("e0c096", "cf9f68", "b27d4b", "8a5733", "5e3b26", "3a2a22")


@dataclass(frozen=True, kw_only=True)
class Material:
    """A finish.

    Attributes:
        colour: Base colour, linear RGB.
        layers: Printed over it in turn: where (a pattern) and in which linear colour.
        gloss: 0 = matt, 1 = glazed; how strongly the studio's lamps are mirrored.
        roughness: 0 = sharp reflections, 1 = wide sheen.
        metal: 0 = paint or fabric, 1 = metal that mirrors in its own colour.
        clear: 0 = opaque, 1 = tinted glass.
        glow: Light of its own, in units of its colour.
        grain: Strength of wood grain.
    """

    colour: Colour
    layers: tuple[tuple[Pattern, Colour], ...] = field(default=())
    gloss: float = 0.15
    roughness: float = 0.5
    metal: float = 0.0
    clear: float = 0.0
    glow: float = 0.0
    grain: float = 0.0

    def albedo(self, uv: Floats, local: Floats) -> Floats:
        """Linear RGB [K, 3] at K points of the surface.

        Args:
            uv: [K, 2], position on the surface.
            local: [K, 3], position in the product's own space.
        """
        out = np.broadcast_to(np.asarray(self.colour, np.float32), (len(uv), 3))
        for pattern, colour in self.layers:
            weight = pattern(uv, local).astype(np.float32)[:, None]
            out = out + weight * (np.asarray(colour, np.float32) - out)
        return out


def linear(code: str) -> Colour:
    """The linear RGB of an sRGB code such as "f2efe8"."""
    r, g, b = ((int(code[k : k + 2], 16) / 255) ** 2.2 for k in (0, 2, 4))
    return r, g, b


def _pick(rng: np.random.Generator, codes: Sequence[str], spread: float) -> Colour:
    base = linear(codes[int(rng.integers(len(codes)))])
    r, g, b = np.clip(base * rng.uniform(1 - spread, 1 + spread, 3), 0.01, 0.92)
    return float(r), float(g), float(b)


def any_colour(rng: np.random.Generator) -> Colour:
    """A colour of the shop's palette, slightly varied."""
    return _pick(rng, _PALETTE, 0.12)


def pale(rng: np.random.Generator) -> Colour:
    """White or nearly so."""
    return _pick(rng, _PALE, 0.03)


def dark(rng: np.random.Generator) -> Colour:
    """Black or nearly so."""
    return _pick(rng, _DARK, 0.1)


def wood(rng: np.random.Generator) -> Colour:
    """Light oak to dark walnut."""
    return _pick(rng, _WOOD, 0.08)


def contrasting(rng: np.random.Generator, to: Colour) -> Colour:
    """A palette colour that is clearly lighter or darker than `to`."""
    for _ in range(12):
        colour = any_colour(rng) if rng.random() < 0.6 else pale(rng)
        if abs(sum(colour) - sum(to)) > 0.55:
            return colour
    return dark(rng) if sum(to) > 1.2 else pale(rng)
