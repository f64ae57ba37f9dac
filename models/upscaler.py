"""Upscaler: image -> the same image two or four times as large, with detail like a photo's.

Nearly all of its work is done at half the small image's size, which a CPU can afford.
Sources: Shi et al. 2016, arXiv 1609.05158 (the shuffle from channels to pixels); Sugawara et al.
2018, arXiv 1806.02658 (a smoothing kernel after it, so that no checkerboard is left); Lim et al.
2017, arXiv 1707.02921 (residual blocks without normalisation).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers import LEAKY_GAIN, Conv2d, leaky_relu

Factor = Literal[2, 4]


@dataclass(frozen=True, kw_only=True)
class UpscalerShape:
    """Sizes that determine the upscaler's parameters; it takes any even height and width.

    Attributes:
        channels: Channels of the images.
        factor: How much longer each side becomes.
        trunk: Feature maps at half the small image's size.
        small: Feature maps at its own size.
        double: Feature maps at twice its size.
        blocks: Residual blocks of the trunk.
    """

    channels: int
    factor: Factor
    trunk: int = 64
    small: int = 48
    double: int = 32
    blocks: int = 3


class ResidualBlock(nn.Module):
    """Identity plus two convolutions, which contribute about a tenth at initialisation."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first = Conv2d(features, features, 3, gain=LEAKY_GAIN)
        self.second = Conv2d(features, features, 3, gain=0.1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, features, H, W] -> the same shape."""
        change: Tensor = self.second(leaky_relu(self.first(x)))
        return x + change


class Upscaler(nn.Module):
    """Small image -> large image, as a correction of the bilinear one."""

    def __init__(self, shape: UpscalerShape) -> None:
        super().__init__()
        self.shape = shape
        # At a factor of four the last shuffle turns twelve channels into three.
        last = shape.channels * (shape.factor // 2) ** 2
        self.from_pixels = Conv2d(4 * shape.channels, shape.trunk, 3)
        self.blocks = nn.Sequential(*(ResidualBlock(shape.trunk) for _ in range(shape.blocks)))
        self.to_small = Conv2d(shape.trunk, 4 * shape.small, 3, gain=LEAKY_GAIN)
        self.from_small = Conv2d(shape.channels, shape.small, 3)
        self.mix = Conv2d(shape.small, shape.small, 3, gain=LEAKY_GAIN)
        self.to_double = Conv2d(shape.small, 4 * shape.double, 3, gain=LEAKY_GAIN)
        self.refine = Conv2d(shape.double, shape.double, 3, gain=LEAKY_GAIN)
        self.to_image = Conv2d(shape.double, last, 3, gain=0.1)

    def forward(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Enlarge images.

        Args:
            images: [N, channels, H, W] in [-1, 1]; H and W even.
            dtype: Data type of the feature maps.

        Returns:
            float32 [N, channels, factor * H, factor * W], nominally in [-1, 1].
        """
        factor = self.shape.factor
        bilinear = F.interpolate(
            images, scale_factor=float(factor), mode="bilinear", align_corners=False
        )
        x = images.to(dtype)
        trunk = self.to_small(self.blocks(self.from_pixels(F.pixel_unshuffle(x, 2))))
        small = leaky_relu(_doubled(trunk) + self.from_small(x))
        small = leaky_relu(self.mix(small))
        double = leaky_relu(_doubled(self.to_double(small)))
        correction: Tensor = self.to_image(leaky_relu(self.refine(double)))
        if factor == 4:
            correction = _doubled(correction)
        return bilinear + correction.float()


def _doubled(x: Tensor) -> Tensor:
    """[N, 4 C, H, W] -> [N, C, 2 H, 2 W]: a shuffle to pixels, and the mean of each 2 x 2.

    The four come from channels of their own: what differs between these everywhere would be a
    checkerboard. The mean takes all that repeats every two pixels away, whatever was learnt.
    """
    shuffled = F.pixel_shuffle(x, 2)
    return F.avg_pool2d(F.pad(shuffled, (1, 0, 1, 0), mode="replicate"), 2, stride=1)
