"""What the boxes of a photo hold, as far as polygons or a mask came with them.

A rotated box is larger than what was in it; what is known of that keeps its new box tight.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.augmentation.annotations import Annotation
from service.augmentation.operations.base import Size

# Polygons and masks are of a box where they come this near to each of its sides: pixels, or that
# part of its width or height. Boxes and outlines are mostly drawn apart, by hand.
_SLACK_PX: Final = 2.0
_SLACK_PART: Final = 0.1
# Masks are looked at in this size; images aren't larger.
_MASK_SIDE_PX: Final = 2048
# After so many, some points within the hull may be left: they do no harm.
_ROUNDS: Final = 50

Points = NDArray[np.float64]  # [N, 2]
Bounds = NDArray[np.float64]  # [N, 4]: left, top, right, bottom


@dataclass(frozen=True)
class Instance:
    """What a box holds, in pixels of the photo.

    Attributes:
        corners: The box's, [4, 2].
        polygons: Indexes of the annotation's polygons that are in it; empty = none are known.
        hull: Around its pixels in the mask, [N, 2]; None = not known.
    """

    corners: Points
    polygons: Sequence[int] = ()
    hull: Points | None = None


def find_instances(annotation: Annotation, size: Size, mask: Image.Image | None) -> list[Instance]:
    """Say for each box of an annotation what is known of its instance.

    Args:
        annotation: Of a photo.
        size: The photo's.
        mask: Of `size`; 0 is no instance.
    """
    boxes = np.clip(annotation.corners(), 0, [*size, *size])
    if not len(boxes):
        return []
    slack = np.maximum(_SLACK_PX, _SLACK_PART * np.tile(boxes[:, 2:] - boxes[:, :2], 2))
    owned = _polygons_of(annotation.outlines(size), boxes, slack)
    hulls = [None] * len(boxes) if mask is None else list(_hulls(mask, size, boxes, slack))
    corners = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]
    return [Instance(*known) for known in zip(corners, owned, hulls, strict=True)]


def _polygons_of(outlines: Sequence[Points], boxes: Bounds, slack: Bounds) -> list[list[int]]:
    """Indexes of each box's polygons, where together they reach its sides.

    A polygon is of the box that it fits best, else of the smallest that it lies in.
    """
    if not outlines:
        return [[] for _ in boxes]
    bounds = np.array([[*one.min(axis=0), *one.max(axis=0)] for one in outlines])
    misfit = (np.abs(bounds[:, None] - boxes) / slack).max(axis=2)
    same = np.arange(len(bounds))[:, None] == np.arange(len(boxes))
    best = (misfit - 1e-6 * same).argmin(axis=1)  # of equal boxes, the one in the same place
    signs = np.array([-1, -1, 1, 1])
    inside = ((bounds[:, None] - boxes) * signs <= slack).all(axis=2)
    areas = np.where(inside, np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), np.inf)
    fits = misfit.min(axis=1) <= 1
    owner = np.where(fits, best, np.where(inside.any(axis=1), areas.argmin(axis=1), -1))
    owned = [np.flatnonzero(owner == index) for index in range(len(boxes))]
    return [
        indexes.tolist() if len(indexes) and _reach(bounds[indexes], box, near) else []
        for indexes, box, near in zip(owned, boxes, slack, strict=True)
    ]


def _reach(bounds: Bounds, box: Bounds, slack: Bounds) -> bool:
    """Whether shapes of these bounds, together, come near all sides of a box."""
    together = np.concatenate([bounds[:, :2].min(axis=0), bounds[:, 2:].max(axis=0)])
    return bool((np.abs(together - box) <= slack).all())


def _hulls(mask: Image.Image, size: Size, boxes: Bounds, slack: Bounds) -> Iterator[Points | None]:
    """Around a mask's pixels in each box; None = they don't reach its sides."""
    small = mask.copy()
    small.thumbnail((_MASK_SIDE_PX, _MASK_SIDE_PX), Image.Resampling.NEAREST)
    inside = np.asarray(small) != 0
    height, width = inside.shape
    scale = np.array(size) / (width, height)
    columns = np.arange(width, dtype=np.int16)
    # Of each pixel: the next one of the mask in its row, and the last one before it.
    nexts = np.minimum.accumulate(np.where(inside, columns, width)[:, ::-1], axis=1)[:, ::-1]
    lasts = np.maximum.accumulate(np.where(inside, columns, -1), axis=1)
    for box, near in zip(boxes, slack, strict=True):
        left, top = np.minimum(np.floor(box[:2] / scale), (width - 1, height - 1)).astype(int)
        right, bottom = np.maximum(np.ceil(box[2:] / scale).astype(int), (left + 1, top + 1))
        first, last = nexts[top:bottom, left], lasts[top:bottom, right - 1] + 1
        rows = np.flatnonzero(first < right)
        if not len(rows):
            yield None
            continue
        points = _hull(first[rows], last[rows], rows + top) * scale
        bounds = np.array([[*points.min(axis=0), *points.max(axis=0)]])
        yield np.clip(points, box[:2], box[2:]) if _reach(bounds, box, near) else None


def _hull(first: NDArray[np.int16], last: NDArray[np.int16], rows: NDArray[np.intp]) -> Points:
    """Around pixels, by the left and right edge of those in each row; clockwise."""
    edges = np.column_stack([rows, rows + 1]).ravel().astype(np.float64)
    left = _left_hull(np.column_stack([np.repeat(first.astype(np.float64), 2), edges]))
    right = _left_hull(np.column_stack([np.repeat(-last.astype(np.float64), 2), edges]))
    return np.concatenate([left[::-1], right * [-1, 1]])


def _left_hull(points: Points) -> Points:
    """The left side of the hull of points that are listed from top to bottom.

    All that lie on or right of the line between their neighbours go at once, again and again.
    """
    for _ in range(_ROUNDS):
        along, aside = points[2:] - points[:-2], points[1:-1] - points[:-2]
        outside = along[:, 0] * aside[:, 1] > along[:, 1] * aside[:, 0]
        if outside.all():
            break
        points = points[np.concatenate([[True], outside, [True]])]
    return points
