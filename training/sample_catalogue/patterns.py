"""Printed patterns: where a second colour goes, as weights in [0, 1].

A pattern takes uv [K, 2] and the position in the product's own space [K, 3], and gives
weights [K].
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from training.sample_catalogue.mesh import Floats

Pattern = Callable[[Floats, Floats], Floats]
_SOFT: Final = 0.004


def _inside(distance: Floats, soft: float = _SOFT) -> Floats:
    """1 where the signed distance is negative, with an edge of width `soft`."""
    weight: Floats = np.clip(0.5 - distance / soft, 0, 1)
    return weight


def stripes(direction: tuple[float, float], count: float, duty: float = 0.5) -> Pattern:
    """Parallel stripes: `count` per unit along `direction` in uv, `duty` of each coloured."""
    du, dv = direction

    def weights(uv: Floats, local: Floats) -> Floats:
        wave = np.abs((uv[:, 0] * du + uv[:, 1] * dv) * count % 1 - 0.5)
        return _inside(wave - duty / 2, 0.06)

    return weights


def dots(across: float, up: float, radius: float = 0.3) -> Pattern:
    """Staggered round dots, `across` and `up` cells per unit of uv."""

    def weights(uv: Floats, local: Floats) -> Floats:
        row = uv[:, 1] * up
        x = (uv[:, 0] * across + 0.5 * (np.floor(row) % 2)) % 1 - 0.5
        return _inside(np.hypot(x, row % 1 - 0.5) - radius, 0.1)

    return weights


def checks(across: float, up: float) -> Pattern:
    """Gingham: crossing half-strength stripes."""

    def weights(uv: Floats, local: Floats) -> Floats:
        x = np.abs(uv[:, 0] * across % 1 - 0.5)
        y = np.abs(uv[:, 1] * up % 1 - 0.5)
        return 0.5 * _inside(x - 0.25, 0.06) + 0.5 * _inside(y - 0.25, 0.06)

    return weights


def chevrons(across: float, up: float) -> Pattern:
    """Zigzag stripes."""

    def weights(uv: Floats, local: Floats) -> Floats:
        zigzag = np.abs(uv[:, 0] * across % 1 - 0.5) * 1.2
        return _inside(np.abs((uv[:, 1] * up + zigzag) % 1 - 0.5) - 0.24, 0.08)

    return weights


def band(axis: int, low: float, high: float, soft: float = _SOFT) -> Pattern:
    """All of the surface with low <= uv[axis] <= high."""
    middle, half = (low + high) / 2, (high - low) / 2

    def weights(uv: Floats, local: Floats) -> Floats:
        return _inside(np.abs(uv[:, axis] - middle) - half, soft)

    return weights


def fade(axis: int, low: float, high: float) -> Pattern:
    """A gradient from 0 at uv[axis] = low to 1 at high."""

    def weights(uv: Floats, local: Floats) -> Floats:
        share: Floats = np.clip((uv[:, axis] - low) / (high - low), 0, 1)
        return share

    return weights


def rectangle(centre: tuple[float, float], half: tuple[float, float]) -> Pattern:
    """A rectangle in uv."""

    def weights(uv: Floats, local: Floats) -> Floats:
        x = np.abs(uv[:, 0] - centre[0]) - half[0]
        y = np.abs(uv[:, 1] - centre[1]) - half[1]
        return _inside(np.maximum(x, y))

    return weights


def ellipse(centre: tuple[float, float], half: tuple[float, float]) -> Pattern:
    """An ellipse in uv."""

    def weights(uv: Floats, local: Floats) -> Floats:
        x = (uv[:, 0] - centre[0]) / half[0]
        y = (uv[:, 1] - centre[1]) / half[1]
        return _inside(np.hypot(x, y) - 1, 0.05)

    return weights


def lettering(
    rng: np.random.Generator, centre: tuple[float, float], half: tuple[float, float]
) -> Pattern:
    """Lines of word-like blocks, as small print looks from afar."""
    lines = int(rng.integers(2, 5))
    widths = rng.uniform(0.45, 1.0, lines)

    def weights(uv: Floats, local: Floats) -> Floats:
        x = (uv[:, 0] - centre[0]) / half[0]
        y = ((uv[:, 1] - centre[1]) / half[1] + 1) / 2 * lines
        line = np.clip(np.floor(y), 0, lines - 1).astype(np.int64)
        letters = np.abs((x * 9 + line * 0.3) % 1 - 0.5) < 0.36
        words = (x * 2.1 + line * 0.37) % 1 > 0.12
        inside = (np.abs(x) < widths[line]) & (np.abs(y % 1 - 0.5) < 0.28)
        ink: Floats = (inside & letters & words & (y > 0) & (y < lines)).astype(np.float32)
        return ink

    return weights


def along(axis: int, low: float, high: float) -> Pattern:
    """All points whose own coordinate (0 = x, 1 = y, 2 = z) lies in [low, high]."""
    middle, half = (low + high) / 2, (high - low) / 2

    def weights(uv: Floats, local: Floats) -> Floats:
        return _inside(np.abs(local[:, axis] - middle) - half, 0.006)

    return weights
