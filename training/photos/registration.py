"""Aligns one view with another by scale and shift of each axis, for many pairs at once.

A view here is a tensor of layers: red, green and blue in [-0.5, 0.5], 0 where there is no
product; a mask of the product; a mask of valid pixels; and further layers, which are only
warped. A placement is [P, 4]: scale of x and y, then shift of x and y, in coordinates from -1
to 1; position p of the fixed view is at scale * p + shift of the moving view.

Source: Baker and Matthews 2004, Lucas-Kanade 20 years on, section 3.2 (inverse compositional).
"""

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

# A view further from the start is not a copy: a crop by 5 % of each side scales by 1.11.
_MAX_CHANGE: Final = 0.25
_MAX_STEP: Final = 0.1


def register(fixed: Tensor, moving: Tensor, start: Tensor, placement: Tensor, steps: int) -> Tensor:
    """Refine the placement of each fixed view in its moving view.

    Args:
        fixed: [P, layers, size, size].
        moving: The same.
        start: Placement that the result stays close to.
        placement: Placement to begin with.
        steps: Gauss-Newton steps on the squared difference of product and colours.

    Returns:
        The refined placement.
    """
    # At the photo's edge there are no valid gradients.
    inside = -functional.max_pool2d(-fixed[:, 4:5], 3, stride=1, padding=1)
    slopes = _slopes(fixed[:, :4], inside)
    curvature = slopes @ slopes.mT
    damping = torch.diag_embed(1e-2 * curvature.diagonal(dim1=1, dim2=2) + 1e-6)
    to_step = torch.linalg.solve(curvature + damping, slopes)
    low, high = start[:, :2] * (1 - _MAX_CHANGE), start[:, :2] * (1 + _MAX_CHANGE)
    for _ in range(steps):
        moved = warp(moving, placement)
        apart = (moved[:, :4] - fixed[:, :4]) * moved[:, 4:5] * inside
        step = (to_step @ apart.flatten(1)[:, :, None])[:, :, 0].clamp(-_MAX_STEP, _MAX_STEP)
        scale = placement[:, :2] / (1 + step[:, :2])
        shift = placement[:, 2:] - scale * step[:, 2:]
        away = (shift - start[:, 2:]).clamp(-_MAX_CHANGE, _MAX_CHANGE)
        placement = torch.cat([scale.clamp(low, high), start[:, 2:] + away], dim=1)
    return placement


def warp(views: Tensor, placement: Tensor) -> Tensor:
    """Resample moving views at their placement over the fixed ones; pixels beyond are invalid."""
    size = views.shape[-1]
    scale, shift = placement[:, None, :2], placement[:, None, 2:]
    along = _coordinates(size)[:, None] * scale + shift  # [P, size, (x, y)]
    x = along[:, None, :, 0].expand(-1, size, -1)
    y = along[:, :, None, 1].expand(-1, -1, size)
    return functional.grid_sample(views, torch.stack([x, y], dim=3), align_corners=False)


def _coordinates(size: int) -> Tensor:
    """Centres of `size` pixels in [-1, 1]."""
    return (torch.arange(size) + 0.5) / size * 2 - 1


def _slopes(layers: Tensor, inside: Tensor) -> Tensor:
    """Derivatives of `layers` by each number of the placement, [P, 4, everything else]."""
    size = layers.shape[-1]
    along = _coordinates(size)
    x, y = torch.zeros_like(layers), torch.zeros_like(layers)
    x[..., 1:-1] = (layers[..., 2:] - layers[..., :-2]) * size / 4
    y[..., 1:-1, :] = (layers[..., 2:, :] - layers[..., :-2, :]) * size / 4
    x, y = x * inside, y * inside
    return torch.stack([x * along, y * along[:, None], x, y], dim=1).flatten(2)
