"""What an image of a set shows, as COCO describes it: polygons, area and box."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from service.augmentation.subject import estimate_region
from service.rendering.presentation import Presentation, present

# What a transparent image shows is where it is rather seen than not.
OPAQUE: Final = 128

Mask = NDArray[np.bool_]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Outline:
    """Where the product is in an image, to the pixel.

    Attributes:
        source: What it is known from: the image's transparency, a plain backdrop, or neither, so
            that it is the whole image.
        polygons: Closed, without holes, [x1, y1, x2, y2, ...] along the edges of pixels; together
            they cover the product, no pixel twice.
        area: Of the product, in pixels.
        box: Left, top, width and height of the product.
    """

    source: Literal["alpha", "backdrop", "box"]
    polygons: list[list[int]]
    area: int
    box: Box

    @classmethod
    def of_mask(cls, source: Literal["alpha", "backdrop", "box"], mask: Mask) -> Self:
        """Outline what is True in `mask`, [height, width], which holds something."""
        rows, columns = (np.flatnonzero(mask.any(axis=axis)).tolist() for axis in (1, 0))
        left, top = columns[0], rows[0]
        box = (left, top, columns[-1] + 1 - left, rows[-1] + 1 - top)
        return cls(source, polygons_of(mask), int(mask.sum()), box)


def outline_product(pixels: NDArray[np.uint8], wanted: Presentation) -> Outline:
    """Outline the product of a generated image at the size at which it is shown.

    Args:
        pixels: uint8 [height, width, channels], as generated.
        wanted: How it is shown.
    """
    shown = present(pixels, replace(wanted, background=None))
    if shown.shape[2] == 4:
        opaque = shown[..., 3] >= OPAQUE
        if opaque.any() and not opaque.all():
            return Outline.of_mask("alpha", opaque)
    colours = np.repeat(shown, 3, axis=2) if shown.shape[2] == 1 else shown[..., :3]
    region = estimate_region(np.ascontiguousarray(colours))
    if region is not None and region.any():
        return Outline.of_mask("backdrop", region)
    return Outline.of_mask("box", np.ones((wanted.height, wanted.width), dtype=np.bool_))


def polygons_of(mask: Mask) -> list[list[int]]:
    """Cover what is True in `mask` with polygons that have no holes.

    COCO's polygons can't have any: through each hole the mask is cut in two, from top to bottom.
    """
    loops = list(_loops(mask))
    cuts = sorted({min(loop[::2]) for loop in loops if _area(loop) < 0})
    if cuts:
        loops = []
        for left, right in zip([0, *cuts], [*cuts, mask.shape[1]], strict=True):
            strip = np.zeros_like(mask)
            strip[:, left:right] = mask[:, left:right]
            loops += _loops(strip)
    return loops


def _loops(mask: Mask) -> Iterator[list[int]]:
    """Walk along all edges with the mask to the right: clockwise around it, else around holes."""
    ends = _edges(mask)
    while ends:
        corners: list[int] = []
        start = point = next(iter(ends))
        step = (0, 0)
        while point != start or not corners:
            nexts = ends[point]
            # Where two pixels touch by their corners alone, stay with the pixel that one is at.
            turned = (point[0] - step[1], point[1] + step[0])
            following = turned if turned in nexts else nexts[0]
            nexts.remove(following)
            if not nexts:
                del ends[point]
            before, step = step, (following[0] - point[0], following[1] - point[1])
            if step != before:
                corners += point
            point = following
        yield corners


def _edges(mask: Mask) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """The sides of pixels at the mask's rim, from point to point, in the order of rows."""
    inside = np.pad(mask, 1)
    ends: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    # Which neighbour is not in the mask; where the side begins and ends.
    for (down, right), (x1, y1), (x2, y2) in (
        ((-1, 0), (0, 0), (1, 0)),
        ((0, 1), (1, 0), (1, 1)),
        ((1, 0), (1, 1), (0, 1)),
        ((0, -1), (0, 1), (0, 0)),
    ):
        outside = ~np.roll(inside, (-down, -right), axis=(0, 1))[1:-1, 1:-1]
        for y, x in np.argwhere(mask & outside).tolist():
            ends[x + x1, y + y1].append((x + x2, y + y2))
    return ends


def _area(loop: list[int]) -> float:
    """The shoelace formula; negative around holes."""
    x, y = np.array(loop[::2]), np.array(loop[1::2])
    return float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
