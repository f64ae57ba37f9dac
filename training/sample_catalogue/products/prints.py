"""All-over prints and logos that several products share."""

import numpy as np

from training.sample_catalogue.materials import Colour, any_colour, contrasting, pale
from training.sample_catalogue.patterns import (
    Pattern,
    checks,
    chevrons,
    dots,
    ellipse,
    fade,
    lettering,
    rectangle,
    stripes,
)

Layers = tuple[tuple[Pattern, Colour], ...]


def all_over(rng: np.random.Generator, base: Colour, across: float, up: float) -> Layers:
    """One repeating print in a colour that stands out from `base`.

    Args:
        rng: Chooses the print.
        base: The colour under it.
        across: About how many repeats per unit of u.
        up: About how many repeats per unit of v.
    """
    other = contrasting(rng, base)
    size = rng.uniform(0.7, 1.3)
    across, up = max(1.0, round(across * size)), max(1.0, round(up * size))
    choices: list[Pattern] = [
        stripes((0, 1), up, rng.uniform(0.2, 0.6)),
        stripes((1, 0), across, rng.uniform(0.2, 0.6)),
        stripes((across, up), 1.0, rng.uniform(0.3, 0.6)),
        dots(across, up, rng.uniform(0.2, 0.36)),
        checks(across, up),
        chevrons(across, up),
        fade(1, rng.uniform(0, 0.3), rng.uniform(0.7, 1)),
    ]
    return ((choices[rng.integers(len(choices))], other),)


def logo(
    rng: np.random.Generator, base: Colour, centre: tuple[float, float], half: tuple[float, float]
) -> Layers:
    """A badge, a picture or lines of print at `centre`, of half extent `half` in uv."""
    ink = contrasting(rng, base)
    kind = rng.integers(4)
    if kind == 0:
        return ((ellipse(centre, half), ink), (lettering(rng, centre, _part(half, 0.6)), base))
    if kind == 1:
        return ((rectangle(centre, half), ink), (lettering(rng, centre, _part(half, 0.8)), base))
    if kind == 2:
        second = any_colour(rng)
        low = (centre[0], centre[1] - half[1] * 0.5)
        return (
            (ellipse(centre, half), ink),
            (rectangle(low, (half[0] * 0.8, half[1] * 0.3)), second),
            (ellipse((centre[0], centre[1] + half[1] * 0.3), _part(half, 0.35)), pale(rng)),
        )
    return ((lettering(rng, centre, half), ink),)


def _part(half: tuple[float, float], share: float) -> tuple[float, float]:
    return half[0] * share, half[1] * share
