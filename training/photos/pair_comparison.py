"""Decides by pixels whether two photos are copies of one photo.

The views of a pair are aligned in four ways: starting from their boxes or from their frames,
unmirrored or mirrored; each is registered at a small size, the best at a larger one.
If both photos have a plain background, only product pixels are compared: a white background
that all photos of a shop have is no evidence. Otherwise the whole views are compared.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training.photos.product_view import GROUND, HOLE, OUTSIDE
from training.photos.registration import register, warp
from training.photos.threads import run_in_threads

# How they were chosen: docs/decisions/0023-near-duplicates-by-product.md.
MIN_STRUCTURE: Final = 0.75
MAX_OTHER_COLOUR: Final = 0.18
MIN_OUTLINE: Final = 0.83
MAX_STRETCH: Final = 0.1  # logarithm of the ratio of both aspect ratios

# Sizes that views are registered at, and Gauss-Newton steps at each.
_COARSE_PX: Final = 16
_COARSE_STEPS: Final = 5
_FINE_PX: Final = 32
_FINE_STEPS: Final = 3
# Pairs that differ by more levels on average at the small size are not compared further.
_MAX_COARSE_LEVELS: Final = 30.0
_COLOUR_LEVELS: Final = 10.0
_SAME_GROUND_LEVELS: Final = 8.0
# A larger fraction of the product is not a hole, but a part in the background's colour.
_MAX_HOLE: Final = 0.3
_PAIRS_AT_ONCE: Final = 64
_WINDOW_PX: Final = 8
# SSIM's constant: variances far below this are noise.
_NOISE_VARIANCE: Final = 4.0
_LUMINANCE: Final = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)


@dataclass(frozen=True, slots=True)
class Views:
    """Product views of N photos: uint8 [N, VIEW_PX, VIEW_PX, 4] and float32 [N, 4]."""

    pixels: NDArray[np.uint8]
    frames: NDArray[np.float32]


def same_photo(views: Views, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Decide which pairs [P, 2] of rows of `views` are copies; bool [P]."""
    same = np.zeros(len(pairs), dtype=np.bool_)

    def compare(part: slice) -> None:
        same[part] = _same(views, pairs[part]).numpy()

    run_in_threads(compare, len(pairs), _PAIRS_AT_ONCE)
    return same


@torch.inference_mode()
def _same(views: Views, pairs: NDArray[np.int64]) -> Tensor:
    """Decide for pairs [P, 2]: alike at the small size, and by all criteria at the larger one."""
    fixed, moving = _layers(views.pixels[pairs[:, 0]], views.pixels[pairs[:, 1]])
    frames = [torch.from_numpy(views.frames[pairs[:, side]]) for side in (0, 1)]
    start, placement, mirrored, levels = _align(fixed, moving, *frames)
    near = (levels <= _MAX_COARSE_LEVELS).nonzero()[:, 0]
    fixed, moving, start, placement = fixed[near], moving[near], start[near], placement[near]
    moving = torch.where(mirrored[near].view(-1, 1, 1, 1), moving.flip(3), moving)
    small = _pooled(fixed, _FINE_PX), _pooled(moving, _FINE_PX)
    placement = register(*small, start, placement, _FINE_STEPS)
    # A view is stretched to a square: aspect ratio of its pixels.
    wide = [frame[near, 0] / frame[near, 1] for frame in frames]
    stretch = (wide[0] / wide[1] * placement[:, 1] / placement[:, 0]).log().abs()
    moved = warp(_smoothed(moving), placement)
    structure, other_colour, outline = _likeness(_smoothed(fixed), moved)
    same = torch.zeros(len(pairs), dtype=torch.bool)
    same[near] = (
        (structure >= MIN_STRUCTURE)
        & (other_colour <= MAX_OTHER_COLOUR)
        & (outline >= MIN_OUTLINE)
        & (stretch <= MAX_STRETCH)
    )
    return same


def _layers(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    """Build registration's layers of both views of each pair, with a mask of holes.

    Holes show the background, so if the backgrounds differ they are no evidence.
    """
    views = [torch.from_numpy(pixels).permute(0, 3, 1, 2) for pixels in (a, b)]
    colours = [view[:, :3].float() / 255 - 0.5 for view in views]
    states = [view[:, 3:] for view in views]
    grounds = [state == GROUND for state in states]
    whole = ~torch.stack([ground.flatten(1).any(1) for ground in grounds]).all(0).view(-1, 1, 1, 1)
    means = [
        (colour * ground).sum((2, 3)) / ground.sum((2, 3))  # nan without a plain ground
        for colour, ground in zip(colours, grounds, strict=True)
    ]
    one_ground = (means[0] - means[1]).abs().amax(1) <= _SAME_GROUND_LEVELS / 255
    see_through = ~(whole | one_ground.view(-1, 1, 1, 1))
    layers = []
    for colour, state in zip(colours, states, strict=True):
        compared = (state >= HOLE) | (whole & (state > OUTSIDE))
        hole = (state == HOLE) & see_through
        area, product = hole.sum((1, 2, 3)), (state >= HOLE).sum((1, 2, 3))
        hole = hole & (area <= _MAX_HOLE * product).view(-1, 1, 1, 1)
        layers.append(torch.cat([colour * compared, compared, state > OUTSIDE, hole], dim=1))
    return layers[0], layers[1]


def _align(
    fixed: Tensor, moving: Tensor, fixed_frame: Tensor, moving_frame: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Align views in four ways, and choose the best at a small size.

    Returns:
        Its initial placement [P, 4], its placement [P, 4], whether it is mirrored [P], and the
        mean difference in levels [P].
    """
    fixed, moving = _pooled(fixed, _COARSE_PX), _pooled(moving, _COARSE_PX)
    boxes = torch.tensor([1.0, 1.0, 0.0, 0.0]).expand(len(fixed), -1)
    candidates = []
    for mirrored, flip in ((False, 1.0), (True, -1.0)):
        other = moving.flip(3) if mirrored else moving
        frame = moving_frame * torch.tensor([1.0, 1.0, flip, 1.0])
        scale = fixed_frame[:, :2] / frame[:, :2]
        shift = (fixed_frame[:, 2:] - frame[:, 2:]) / frame[:, :2]
        for start in (boxes, torch.cat([scale, shift], dim=1)):
            placement = register(fixed, other, start, start, _COARSE_STEPS)
            levels = _levels_apart(fixed, warp(other, placement))
            candidates.append((start, placement, torch.full((len(fixed),), mirrored), levels))
    stacked = [torch.stack(kind) for kind in zip(*candidates, strict=True)]
    best = stacked[3].argmin(0)
    start, placement, flipped, levels = (kind[best, torch.arange(len(best))] for kind in stacked)
    return start, placement, flipped, levels


def _pooled(layers: Tensor, size: int) -> Tensor:
    return functional.avg_pool2d(layers, layers.shape[-1] // size)


def _smoothed(layers: Tensor) -> Tensor:
    """Blur the colours: a copy may have lost the finest detail."""
    colours = functional.avg_pool2d(layers[:, :3], 3, 1, 1, count_include_pad=False)
    return torch.cat([colours, layers[:, 3:]], dim=1)


def _comparable(a: Tensor, b: Tensor) -> Tensor:
    """Weight of pixels that are valid in both and a hole in neither, [P, 1, size, size]."""
    return a[:, 4:5] * b[:, 4:5] * (1 - torch.maximum(a[:, 5:], b[:, 5:]))


def _levels_apart(a: Tensor, b: Tensor) -> Tensor:
    """Mean difference of colours where either has product; 255 if they hardly overlap."""
    weight = (torch.maximum(a[:, 3:4], b[:, 3:4]) * _comparable(a, b))[:, 0]
    apart = (a[:, :3] - b[:, :3]).abs().mean(1) * 255
    common = weight.sum((1, 2))
    return torch.where(
        common > 0.25 * a[:, 3].sum((1, 2)), (apart * weight).sum((1, 2)) / common, 255.0
    )


def _likeness(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Measure how alike two aligned views are.

    Returns:
        Mean of SSIM's structure term within the product, at most 1; fraction of the product whose
        mean colour differs by over 10 levels; intersection of both products over their union.
        Each [P].
    """
    known = _comparable(a, b)
    product_a, product_b = a[:, 3:4] * known, b[:, 3:4] * known
    both = torch.minimum(product_a, product_b)
    outline = _total(both) / _total(torch.maximum(product_a, product_b)).clamp_min(1)
    inner = -functional.max_pool2d(-both, 5, 1, 2)  # edges may be misaligned a little
    colour_a, colour_b = a[:, :3] * 255, b[:, :3] * 255
    x, y = ((colour * _LUMINANCE).sum(1, keepdim=True) for colour in (colour_a, colour_b))
    layers = torch.cat([colour_a, colour_b, x, y, x * x, y * y, x * y], dim=1)
    weight = functional.avg_pool2d(inner, _WINDOW_PX, _WINDOW_PX // 2)
    means = functional.avg_pool2d(layers * inner, _WINDOW_PX, _WINDOW_PX // 2)
    means = means / weight.clamp_min(1e-3)
    weight = (weight * (weight > 0.05))[:, 0]
    area = weight.sum((1, 2)).clamp_min(1e-3)
    x, y, xx, yy, xy = means[:, 6:].unbind(1)
    spread = xx - x * x + yy - y * y + _NOISE_VARIANCE
    structure = (2 * (xy - x * y) + _NOISE_VARIANCE) / spread
    other = (means[:, :3] - means[:, 3:6]).abs().amax(1) > _COLOUR_LEVELS
    return ((weight * structure).sum((1, 2)) / area, (weight * other).sum((1, 2)) / area, outline)


def _total(layer: Tensor) -> Tensor:
    return layer.sum((1, 2, 3))
