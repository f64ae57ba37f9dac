"""Where a photo's plain backdrop is, which may be lit unevenly."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from service.augmentation.operations.base import Pixels

# The backdrop is looked for at this size.
_SEARCH_SIDE_PX: Final = 320
_BAND_SHARE: Final = 0.03
# A plain backdrop: this much of the border follows one smooth surface, this closely.
_MIN_PLAIN_SHARE: Final = 0.7
_MAX_ROUGHNESS: Final = 7.0
_MIN_TOLERANCE: Final = 9.0
_SUBJECT_SHARES: Final = (0.01, 0.97)
# Parts smaller than this share of the largest are specks on the backdrop, or its shading.
_SPECK_SHARE: Final = 0.1
# Shading changes how bright a backdrop is, hardly its colour: brightness counts less.
_LIGHT_WEIGHT: Final = 0.5
# Before a plain backdrop a subject stands out; of 20 photos that passed all else, those with a
# good outline had up to 0.15 of it as faint as this, those with a bad one 0.26 and more.
_FAINT: Final = 1.5
_MAX_FAINT_SHARE: Final = 0.2


@dataclass(frozen=True)
class Backdrop:
    """A plain backdrop in a small copy of a photo.

    Attributes:
        colours: The copy, [height, width, 3].
        surface: The backdrop's colours, as if nothing stood before it; as `colours`.
        tolerance: How far from it, by `colour_distance`, its pixels are.
        region: Where it is seen, [height, width].
    """

    colours: NDArray[np.float32]
    surface: NDArray[np.float32]
    tolerance: float
    region: NDArray[np.bool_]


def find_backdrop(pixels: Pixels) -> Backdrop | None:
    """Look for a plain backdrop before which something stands.

    Args:
        pixels: The photo, RGB.

    Returns:
        None where the backdrop isn't plain, or nothing or everything seems to be the subject.
    """
    colours = _small(pixels)
    fitted = _fit_backdrop(colours)
    if fitted is None:
        return None
    surface, tolerance = fitted
    distance = colour_distance(colours, surface)
    region = _backdrop(distance < tolerance)
    if not _SUBJECT_SHARES[0] <= 1 - region.mean() <= _SUBJECT_SHARES[1]:
        return None
    if _faint_share(distance / tolerance, region) > _MAX_FAINT_SHARE:
        return None
    return Backdrop(colours, surface, tolerance, region)


def estimate_region(pixels: Pixels) -> NDArray[np.bool_] | None:
    """Which whole pixels are the subject's before a plain backdrop; parts of it have no holes.

    Args:
        pixels: The photo, RGB.

    Returns:
        [height, width]; None as `find_backdrop`.
    """
    found = find_backdrop(pixels)
    if found is None:
        return None
    region = Image.fromarray(~found.region).convert("L")
    return np.asarray(region.resize(pixels.shape[1::-1], Image.Resampling.BILINEAR)) >= 128


def components(inside: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number the parts that hang together side by side, from 1; 0 = not inside.

    A part's number spreads along whole runs of rows and columns at a time.
    """
    number = np.where(inside, np.arange(1, inside.size + 1).reshape(inside.shape), 0)
    runs = _runs(inside), _runs(inside.T).T
    while True:
        before = number
        for run in runs:
            least = np.full(int(run.max()) + 1, inside.size + 1)
            np.minimum.at(least, run.ravel(), number.ravel())
            number = np.where(inside, least[run], 0)
        if np.array_equal(before, number):
            return number


def colour_distance(
    pixels: NDArray[np.float32], surface: NDArray[np.float32]
) -> NDArray[np.float32]:
    """How far colours are from the backdrop's, [height, width], in levels."""
    length = np.sqrt(np.einsum("...c,...c", surface, surface))
    along = np.einsum("...c,...c", pixels, surface) / np.maximum(length, 1)
    aside = np.maximum(np.einsum("...c,...c", pixels, pixels) - along * along, 0)
    lighter = _LIGHT_WEIGHT * (along - length)
    return np.asarray(np.sqrt(aside + lighter * lighter))


def _small(pixels: Pixels) -> NDArray[np.float32]:
    small = Image.fromarray(pixels)
    small.thumbnail((_SEARCH_SIDE_PX, _SEARCH_SIDE_PX), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32)


def _fit_backdrop(small: NDArray[np.float32]) -> tuple[NDArray[np.float32], float] | None:
    """Fit a quadratic surface to the border's colours, again and again without what is far off.

    Returns:
        The surface [height, width, 3], and how far from it the backdrop's pixels are; None
        where too much of the border is far off.
    """
    height, width = small.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    band = max(2, round(_BAND_SHARE * min(height, width)))
    border = np.ones((height, width), dtype=np.bool_)
    border[band:-band, band:-band] = False
    colours, places = small[border], terms[border]
    kept = np.abs(colours - np.median(colours, axis=0)).max(axis=1) < 48
    for _ in range(5):
        if kept.mean() < _MIN_PLAIN_SHARE:
            return None
        fitted = np.linalg.lstsq(places[kept], colours[kept], rcond=None)[0]
        residual = np.abs(colours - places @ fitted).max(axis=1)
        spread = 1.4826 * float(np.median(residual[kept]))
        kept = residual < max(3 * spread, 6.0)
    if spread > _MAX_ROUGHNESS or kept.mean() < _MIN_PLAIN_SHARE:
        return None
    return (terms @ fitted).astype(np.float32), max(3 * spread, _MIN_TOLERANCE)


def _backdrop(passable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is joined to the border, and the specks that lie in it."""
    parts = components(passable)
    ends = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    backdrop = passable & np.isin(parts, ends)
    others = components(~backdrop)
    sizes = np.bincount(others.ravel())
    sizes[0] = 0
    specks = sizes < _SPECK_SHARE * sizes.max()
    specks[0] = False
    return np.asarray(backdrop | specks[others])


def _faint_share(contrast: NDArray[np.float32], backdrop: NDArray[np.bool_]) -> float:
    """How much of the subject, a little inside its edge, hardly differs from the backdrop."""
    outside = Image.fromarray(backdrop.astype(np.uint8) * 255)
    at_edge, inside = (
        np.asarray(outside.filter(ImageFilter.MaxFilter(2 * px + 1))) == 0 for px in (3, 5)
    )
    ring = contrast[at_edge & ~inside]
    return float(np.mean(ring < _FAINT)) if len(ring) else 1.0


def _runs(passable: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number the runs of each row from 1; 0 = not passable."""
    starts = passable.copy()
    starts[:, 1:] &= ~passable[:, :-1]
    return np.where(passable, np.cumsum(starts).reshape(passable.shape), 0)
