"""A discriminator's feature masks: each hides part of one feature map while it is held.

Source: arXiv 2306.07716 (a mask is held over the discriminator's features for a period).
Which part, how much and for how long is decided by training/learning/mask_control.py.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

Granularity = Literal["spatial", "channel", "both"]


def feature_mask(
    shape: tuple[int, int, int],
    *,
    ratio: float,
    granularity: Granularity,
    generator: torch.Generator,
) -> Tensor:
    """Draw a mask that hides exactly round(ratio * cells) cells.

    Args:
        shape: Channels, height and width of the feature map.
        ratio: Share hidden, 0 <= ratio < 1.
        granularity: Hide positions (in all channels), whole channels, or single cells of both.
        generator: CPU generator, so that each device and rank draws the same mask.

    Returns:
        float32, [1, 1, H, W], [1, C, 1, 1] or [1, C, H, W]: 0 where hidden, elsewhere the
        factor that keeps the map's mean.
    """
    channels, height, width = shape
    broadcast = {
        "spatial": (1, 1, height, width),
        "channel": (1, channels, 1, 1),
        "both": (1, channels, height, width),
    }[granularity]
    cells = math.prod(broadcast)
    hidden = min(round(ratio * cells), cells - 1)
    mask = torch.ones(cells)
    mask[torch.randperm(cells, generator=generator)[:hidden]] = 0.0
    return (mask * (cells / (cells - hidden))).reshape(broadcast)


class FeatureMask(nn.Module):
    """Multiplies a feature map by the held mask; does nothing while there is none."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        """Of a map of so many channels, this height and this width."""
        super().__init__()
        self.shape = shape
        self.held: Tensor | None = None  # saved by the mask controller, not with the weights

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> the same shape."""
        return x if self.held is None else x * self.held.to(x)


@contextmanager
def holding(masks: Sequence[FeatureMask], held: Sequence[Tensor | None]) -> Iterator[None]:
    """While inside, hold these; afterwards what was held before."""
    before = [mask.held for mask in masks]
    for mask, tensor in zip(masks, held, strict=True):
        mask.held = tensor
    try:
        yield
    finally:
        for mask, tensor in zip(masks, before, strict=True):
            mask.held = tensor


def lifted(masks: Sequence[FeatureMask]) -> AbstractContextManager[None]:
    """While inside, let every feature through."""
    return holding(masks, [None] * len(masks))
