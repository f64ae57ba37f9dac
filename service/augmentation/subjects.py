"""Which pixels of a photo are the subject's, and their colours without the backdrop's.

Taken from a mask, from the photo's own transparency, or found before a plain backdrop.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from service.augmentation.operation import Pixels, SubjectKind

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
# Pixels less the subject's than this take the colour of those next to them that are more.
_CORE: Final = 242
_BLEED_PX: Final = 3


@dataclass(frozen=True)
class Subject:
    """A photo's subject.

    Attributes:
        kind: Where it is known from.
        matte: How much of each pixel it is, uint8 [height, width].
        pixels: Its colours, RGB; at its edges free of what stood behind.
    """

    kind: SubjectKind
    matte: Pixels
    pixels: Pixels

    def outline(self) -> NDArray[np.float64]:
        """Points [N, 2] whose hull is the subject's; x and y in pixels of `matte`."""
        inside = self.matte >= 128
        rows = np.flatnonzero(inside.any(axis=1))
        if not len(rows):
            height, width = inside.shape
            return np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64)
        first = inside[rows].argmax(axis=1)
        last = inside.shape[1] - inside[rows, ::-1].argmax(axis=1)
        sides = np.concatenate([first, last]).astype(np.float64)
        edges = np.tile(rows, 2).astype(np.float64)
        return np.concatenate(
            [np.column_stack([sides, edges]), np.column_stack([sides, edges + 1])]
        )


def of_mask(pixels: Pixels, mask: Image.Image) -> Subject:
    """The subject is where `mask` isn't 0.

    Args:
        pixels: The photo, RGB.
        mask: Mode L or P; of the photo's proportions.
    """
    height, width = pixels.shape[:2]
    drawn = Image.fromarray((np.asarray(mask) != 0).astype(np.uint8) * 255)
    soft = drawn.resize(
        (width, height), Image.Resampling.BOX if mask.width > width else Image.Resampling.BILINEAR
    )
    # Drawn masks have hard edges that take in a little of what is behind: half a pixel less.
    blurred = np.asarray(soft.filter(ImageFilter.GaussianBlur(1)), dtype=np.float32)
    matte = np.clip(blurred * 1.6 - 153, 0, 255).astype(np.uint8)
    return Subject("mask", matte, without_backdrop(pixels, matte))


def before_backdrop(pixels: Pixels) -> Subject | None:
    """The subject before a plain backdrop, which may be lit unevenly.

    What has the backdrop's colour but isn't joined to the border stays the subject's.

    Args:
        pixels: The photo, RGB.

    Returns:
        None where the backdrop isn't plain, or nothing or everything seems to be the subject.
    """
    photo = Image.fromarray(pixels)
    small = photo.copy()
    small.thumbnail((_SEARCH_SIDE_PX, _SEARCH_SIDE_PX), Image.Resampling.BOX)
    found = _fit_backdrop(np.asarray(small, dtype=np.float32))
    if found is None:
        return None
    surface, tolerance = found
    passable = _distance(np.asarray(small, dtype=np.float32), surface) < tolerance
    backdrop = _backdrop(passable)
    share = 1 - backdrop.mean()
    if not _SUBJECT_SHARES[0] <= share <= _SUBJECT_SHARES[1]:
        return None
    matte = _refine(photo, surface, tolerance, backdrop)
    return Subject("backdrop", matte, without_backdrop(pixels, matte))


def without_backdrop(pixels: Pixels, matte: Pixels) -> Pixels:
    """Give the pixels of a subject's edge the mean colour of its own pixels nearby."""
    rows, columns = (np.flatnonzero((matte > 0).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return pixels
    cleaned = pixels.copy()
    margin = 2 * _BLEED_PX
    top, bottom = max(rows[0] - margin, 0), rows[-1] + margin + 1
    left, right = max(columns[0] - margin, 0), columns[-1] + margin + 1
    window = cleaned[top:bottom, left:right]
    core = (matte[top:bottom, left:right] >= _CORE).astype(np.float32)
    weight = _box_sum(core)
    edge = (core == 0) & (weight > 0)
    for channel in range(3):
        total = _box_sum(window[..., channel] * core)
        window[..., channel][edge] = np.rint(total[edge] / weight[edge])
    return cleaned


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


def _runs(passable: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number the runs of each row from 1; 0 = not passable."""
    starts = passable.copy()
    starts[:, 1:] &= ~passable[:, :-1]
    return np.where(passable, np.cumsum(starts).reshape(passable.shape), 0)


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


def _distance(pixels: NDArray[np.float32], surface: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far colours are from the backdrop's, [height, width], in levels."""
    length = np.sqrt(np.einsum("...c,...c", surface, surface))
    along = np.einsum("...c,...c", pixels, surface) / np.maximum(length, 1)
    aside = np.maximum(np.einsum("...c,...c", pixels, pixels) - along * along, 0)
    lighter = _LIGHT_WEIGHT * (along - length)
    return np.asarray(np.sqrt((aside + lighter * lighter)))


def _refine(
    photo: Image.Image,
    surface: NDArray[np.float32],
    tolerance: float,
    backdrop: NDArray[np.bool_],
) -> Pixels:
    """The matte at the photo's own size: soft by colour near the backdrop, full elsewhere."""
    size = photo.size
    levels = np.clip(np.rint(surface), 0, 255).astype(np.uint8)
    smooth = Image.fromarray(levels).resize(size, Image.Resampling.BICUBIC)
    distance = _distance(
        np.asarray(photo, dtype=np.float32), np.asarray(smooth, dtype=np.float32)
    )
    matte = np.clip((distance - tolerance * 0.7) * (255 / tolerance), 0, 255).astype(np.uint8)
    near = Image.fromarray(backdrop.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(3))
    within = np.asarray(near.resize(size, Image.Resampling.BILINEAR)) >= 128
    far = np.asarray(
        Image.fromarray(backdrop.astype(np.uint8) * 255)
        .filter(ImageFilter.MinFilter(5))
        .resize(size, Image.Resampling.BILINEAR)
    )
    matte[~within] = 255
    matte[far >= 128] = 0  # grain of the backdrop
    return matte


def _box_sum(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sums over squares of 2 * _BLEED_PX + 1 pixels a side."""
    side = 2 * _BLEED_PX + 1
    for axis in (0, 1):
        padding = [(0, 0), (0, 0)]
        padding[axis] = (_BLEED_PX + 1, _BLEED_PX)
        total = np.cumsum(np.pad(values, padding), axis=axis, dtype=np.float64)
        ends, starts = np.split(total, [side], axis=axis)[1], total
        keep = [slice(None), slice(None)]
        keep[axis] = slice(0, values.shape[axis])
        values = (ends - starts[tuple(keep)]).astype(np.float32)
    return values
