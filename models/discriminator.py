"""What a discriminator is, and the convolutional one.

Sources: Karras et al. 2020, arXiv 1912.04958 (residual blocks); Karras et al. 2018, arXiv
1710.10196 (minibatch standard deviation); Miyato and Koyama 2018, arXiv 1802.05637
(projection); arXiv 2306.07716 (the mask).
"""

import itertools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from models.layers import LEAKY_GAIN, Conv2d, FromImage, Linear, downsample, leaky_relu
from models.masking import FeatureMask
from models.pyramid import Pyramid

GROUP_SIZE: Final = 4  # images that share a deviation statistic


@dataclass(frozen=True, kw_only=True)
class DiscriminatorShape:
    """What decides the discriminator's parameters."""

    height: int
    width: int
    channels: int
    categories: int
    channel_base: int = 2048
    channel_max: int = 128
    mask_level: int = 1  # pyramid level whose features the mask covers; 1 = 8 x 8 of square sizes

    @property
    def pyramid(self) -> Pyramid:
        """Resolutions of the discriminator."""
        return Pyramid.of(self.height, self.width)


class Discriminator(nn.Module, ABC):
    """Image and category -> logit, with masks over feature maps."""

    @property
    @abstractmethod
    def masks(self) -> tuple[FeatureMask, ...]:
        """Each hides part of a feature map while it is held."""

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return next(self.parameters()).device

    @abstractmethod
    def features(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """The map that the first of the masks covers, before masking: [N, *mask.shape]."""

    @abstractmethod
    def forward(
        self, images: Tensor, category: Tensor, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Judge images.

        Args:
            images: [N, channels, H, W], nominally in [-1, 1].
            category: Weights [N, categories].
            dtype: Of the feature maps.

        Returns:
            Logits, float32 [N]; positive means real.
        """


class DiscriminatorBlock(nn.Module):
    """Residual block that halves the resolution: [N, C, H, W] -> [N, C', H/2, W/2]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        # Both branches have variance 1/2, so that their sum has 1.
        self.conv0 = Conv2d(in_channels, in_channels, 3, gain=LEAKY_GAIN)
        self.conv1 = Conv2d(in_channels, out_channels, 3, gain=LEAKY_GAIN)
        self.skip = Conv2d(in_channels, out_channels, 1, gain=0.5**0.5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, H/2, W/2]."""
        skip: Tensor = self.skip(downsample(x))
        x = leaky_relu(self.conv0(x))
        return torch.add(skip, leaky_relu(self.conv1(downsample(x))), alpha=0.5**0.5)


def minibatch_deviation(x: Tensor, group_size: int) -> Tensor:
    """Append a map of how much images of a group differ: [N, C, H, W] -> [N, C + 1, H, W].

    Groups are neighbours in the batch, so real and generated images can go through in
    one batch, halves apart. A batch that group_size does not divide is one group.
    """
    n, _, h, w = x.shape
    size = group_size if n % group_size == 0 else n
    pixels = x.permute(0, 2, 3, 1)  # one stretch of memory an image where x is channels_last
    grouped = pixels.float().reshape(n // size, size, -1)
    variance = (grouped - grouped.mean(dim=1, keepdim=True)).square().mean(dim=1)
    deviation = (variance + 1e-8).sqrt().mean(dim=1)
    plane = deviation[:, None].expand(-1, size).reshape(n, 1, 1, 1).to(x.dtype)
    return torch.cat([x, plane.expand(n, 1, h, w)], dim=1)


class ConvolutionalDiscriminator(Discriminator):
    """A residual network of its own, learnt from the first pixel on."""

    def __init__(self, shape: DiscriminatorShape) -> None:
        super().__init__()
        pyramid = shape.pyramid
        if not 0 <= shape.mask_level < pyramid.doublings:
            raise ValueError(
                f"mask_level {shape.mask_level} is outside 0 to {pyramid.doublings - 1}"
            )
        self.shape = shape
        widths = [
            pyramid.channels(level, shape.channel_base, shape.channel_max)
            for level in reversed(range(pyramid.doublings + 1))
        ]
        self.from_image = FromImage(shape.channels, widths[0])
        self.blocks = nn.ModuleList(DiscriminatorBlock(a, b) for a, b in itertools.pairwise(widths))
        self.masked_block = pyramid.doublings - 1 - shape.mask_level
        channels = pyramid.channels(shape.mask_level, shape.channel_base, shape.channel_max)
        self.mask = FeatureMask((channels, *pyramid.shape(shape.mask_level)))
        features = widths[-1]
        self.conv = Conv2d(features + 1, features, 3, gain=LEAKY_GAIN)
        cells = pyramid.base[0] * pyramid.base[1]
        self.hidden = Linear(features * cells, features, gain=LEAKY_GAIN)
        self.logit = Linear(features, 1)
        self.embed = nn.Parameter(torch.randn(shape.categories, features) / features**0.5)

    @property
    def masks(self) -> tuple[FeatureMask, ...]:
        """Over the map of the shape's mask_level."""
        return (self.mask,)

    def features(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """That map before masking; see Discriminator."""
        x = leaky_relu(self.from_image(images.to(dtype)))
        for block in self.blocks[: self.masked_block + 1]:
            x = block(x)
        return x

    def hidden_features(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """What a category's embedding is compared with, float32 [N, features]."""
        x = self.mask(self.features(images, dtype))
        for block in self.blocks[self.masked_block + 1 :]:
            x = block(x)
        x = leaky_relu(self.conv(minibatch_deviation(x, GROUP_SIZE)))
        pixels = x.permute(0, 2, 3, 1).flatten(1)  # a view where x is channels_last
        return leaky_relu(self.hidden(pixels)).float()

    def forward(
        self, images: Tensor, category: Tensor, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Logits [N]; see Discriminator."""
        hidden = self.hidden_features(images, dtype)
        logits: Tensor = self.logit(hidden).squeeze(1) + (hidden * (category @ self.embed)).sum(1)
        return logits
