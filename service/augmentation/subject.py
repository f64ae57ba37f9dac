"""Which pixels of a photo are the subject's, and their colours without the backdrop's.

Taken from a mask, from the photo's own transparency, or found before a plain backdrop.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from service.augmentation.operations.base import Pixels, Size, SubjectKind

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
# Pixels less the subject's than this take the colour of those next to them that are more.
_CORE: Final = 250
_BLEED_PX: Final = 3
_STRIP_ROWS: Final = 256
# Colours of subject and backdrop next to the edge are means over so many pixels to each side.
_NEARBY_PX: Final = 8


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
    found = _find_backdrop(_small(pixels))
    if found is None:
        return None
    matte = _refine(Image.fromarray(pixels), found)
    return Subject("backdrop", matte, without_backdrop(pixels, matte))


def estimate_region(pixels: Pixels) -> NDArray[np.bool_] | None:
    """Which whole pixels are the subject's before a plain backdrop; parts of it have no holes.

    Args:
        pixels: The photo, RGB.

    Returns:
        [height, width]; None as `before_backdrop`.
    """
    found = _find_backdrop(_small(pixels))
    if found is None:
        return None
    region = Image.fromarray(~found.region).convert("L")
    return np.asarray(region.resize(pixels.shape[1::-1], Image.Resampling.BILINEAR)) >= 128


def _small(pixels: Pixels) -> NDArray[np.float32]:
    small = Image.fromarray(pixels)
    small.thumbnail((_SEARCH_SIDE_PX, _SEARCH_SIDE_PX), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32)


@dataclass(frozen=True)
class _Backdrop:
    """A plain backdrop in a small copy of a photo.

    Attributes:
        colours: The copy, [height, width, 3].
        surface: The backdrop's colours, as if nothing stood before it; as `colours`.
        tolerance: How far from it, by `_distance`, its pixels are.
        region: Where it is seen, [height, width].
    """

    colours: NDArray[np.float32]
    surface: NDArray[np.float32]
    tolerance: float
    region: NDArray[np.bool_]


def _find_backdrop(colours: NDArray[np.float32]) -> _Backdrop | None:
    fitted = _fit_backdrop(colours)
    if fitted is None:
        return None
    surface, tolerance = fitted
    distance = _distance(colours, surface)
    region = _backdrop(distance < tolerance)
    if not _SUBJECT_SHARES[0] <= 1 - region.mean() <= _SUBJECT_SHARES[1]:
        return None
    if _faint_share(distance / tolerance, region) > _MAX_FAINT_SHARE:
        return None
    return _Backdrop(colours, surface, tolerance, region)


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
    weight = _box_sum(core, _BLEED_PX)
    edge = (core == 0) & (weight > 0)
    for channel in range(3):
        total = _box_sum(window[..., channel] * core, _BLEED_PX)
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
    return np.asarray(np.sqrt(aside + lighter * lighter))


def _refine(photo: Image.Image, found: _Backdrop) -> Pixels:
    """The matte at the photo's own size: soft in a band along the subject's edge.

    A pixel there is as much the subject's as it lies on the way from the backdrop's colour nearby
    to the subject's nearby; what lies far off that way is another colour of the subject's.
    """
    outside = Image.fromarray(found.region.astype(np.uint8) * 255)
    core = np.asarray(outside.filter(ImageFilter.MaxFilter(7))) == 0
    clear = np.asarray(outside.filter(ImageFilter.MinFilter(5))) == 255
    behind = _local_mean(found.colours, found.region, found.surface)
    before = _local_mean(found.colours, core, np.full_like(found.colours, np.nan))
    matte = np.empty((photo.height, photo.width), dtype=np.uint8)
    for top in range(0, photo.height, _STRIP_ROWS):  # bounds the memory
        rows = slice(top, min(top + _STRIP_ROWS, photo.height))
        colours = np.asarray(photo.crop((0, rows.start, photo.width, rows.stop)), dtype=np.float32)
        subject, far, plain, solid, empty = (
            _enlarged(small, photo.size, rows)
            for small in (before, behind, found.surface, core[..., None], clear[..., None])
        )
        path = subject - far
        length = np.maximum(np.einsum("...c,...c", path, path), 1.0)
        share = np.einsum("...c,...c", colours - far, path) / length
        aside = np.sqrt(np.square(colours - far - share[..., None] * path).sum(axis=-1))
        soft = np.maximum((share - 0.1) / 0.85, aside / found.tolerance - 1.5)
        # NaN: a part too thin to have a colour of its own.
        differs = _distance(colours, plain) / found.tolerance
        soft = np.where(np.isnan(soft), differs - 0.7, soft)
        soft[solid[..., 0] >= 0.5] = 1
        soft[empty[..., 0] >= 0.5] = 0  # grain of the backdrop
        matte[rows] = np.rint(np.clip(soft, 0, 1) * 255)
    return matte


def _local_mean(
    colours: NDArray[np.float32], where: NDArray[np.bool_], otherwise: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Mean colour, [height, width, 3], of the pixels nearby that are meant."""
    weight = _box_sum(where.astype(np.float32), _NEARBY_PX)[..., None]
    total = [_box_sum(colours[..., c] * where, _NEARBY_PX) for c in range(3)]
    mean = np.stack(total, axis=-1) / np.maximum(weight, 1)
    return np.where(weight > 0.5, mean, otherwise)


def _enlarged(
    small: NDArray[np.float32] | NDArray[np.bool_], size: Size, rows: slice
) -> NDArray[np.float32]:
    """Some rows of `small`, [height, width, channels], resized smoothly to `size`."""
    height, width = small.shape[:2]
    box = (0, rows.start * height / size[1], width, rows.stop * height / size[1])
    target = (size[0], rows.stop - rows.start)
    bands = [
        Image.fromarray(small[..., c].astype(np.float32)).resize(
            target, Image.Resampling.BILINEAR, box=box
        )
        for c in range(small.shape[2])
    ]
    return np.stack([np.asarray(band) for band in bands], axis=-1)


def _box_sum(values: NDArray[np.float32], reach: int) -> NDArray[np.float32]:
    """Sums over squares that reach so many pixels to each side."""
    side = 2 * reach + 1
    for axis in (0, 1):
        padding = [(0, 0), (0, 0)]
        padding[axis] = (reach + 1, reach)
        total = np.cumsum(np.pad(values, padding), axis=axis, dtype=np.float64)
        ends, starts = np.split(total, [side], axis=axis)[1], total
        keep = [slice(None), slice(None)]
        keep[axis] = slice(0, values.shape[axis])
        values = (ends - starts[tuple(keep)]).astype(np.float32)
    return values
