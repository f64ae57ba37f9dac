"""Discriminators that look through a frozen pretrained network.

Sources: Sauer et al. 2021, arXiv 2111.01007 (small heads on fixed random mixes of features, across
channels and scales); Kumari et al. 2022, arXiv 2112.09130 (such heads beside a discriminator
of its own); Miyato et al. 2018, arXiv 1802.05957 (spectral normalisation).
"""

import itertools
import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from models.discriminator import (
    GROUP_SIZE,
    ConvolutionalDiscriminator,
    Discriminator,
    minibatch_deviation,
)
from models.layers import Conv2d, leaky_relu, rms_normalize, to_rgb
from models.masking import FeatureMask

# The heads' own widths: as wide as the maps they see, doubled with each halving up to this.
HEAD_MAX: Final = 256
HEAD_FEATURES: Final = 128
_CELLS: Final = 4  # height and width at which a head stops halving
# Weights' standard deviation times sqrt(fan_in). Spectral normalisation takes their scale away, so
# that it only says how far one step of Adam goes.
_GAIN: Final = 3**-0.5


@dataclass(frozen=True, kw_only=True)
class ProjectedShape:
    """What decides a projected discriminator's parameters."""

    height: int
    width: int
    categories: int
    input_px: int | None = None  # longer side at which an image is seen; None: by its own
    mixed_channels: int = 32  # of the finest mixed map; each coarser one has twice as many
    mask_level: int = 1  # mixed map that the mask covers, 0 = the coarsest

    def seen(self, stride: int) -> tuple[int, int]:
        """Height and width, in multiples of `stride`, at which an image is seen."""
        longer = max(self.height, self.width)
        scale = (self.input_px or default_input_px(longer)) / longer
        sides = (max(round(side * scale / stride), 1) for side in (self.height, self.width))
        height, width = (side * stride for side in sides)
        return height, width


def default_input_px(longer_side: int) -> int:
    """Longer side at which an image is seen: enlarged twice up to 256, larger ones as they are.

    The pretrained network knows objects of some 200 pixels; at less than 64 its coarsest map has
    one or two cells.
    """
    return max(64, min(2 * longer_side, 256), longer_side)


class FixedConv2d(nn.Module):
    """Same-size convolution with random weights that never change: buffers, so they are saved."""

    weight: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        weight = torch.randn(out_channels, in_channels, kernel_size, kernel_size)
        self.register_buffer("weight", weight / math.sqrt(in_channels * kernel_size**2))
        self.padding = kernel_size // 2

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, H, W]."""
        return F.conv2d(x, self.weight.to(x.dtype), padding=self.padding)


class RandomMix(nn.Module):
    """Mixes channels at each scale, then each coarser map into the next finer one; fixed."""

    def __init__(self, channels: tuple[int, ...], finest: int) -> None:
        super().__init__()
        self.channels = [finest * 2**i for i in range(len(channels))]
        self.across_channels = nn.ModuleList(
            FixedConv2d(a, b, 1) for a, b in zip(channels, self.channels, strict=True)
        )
        self.across_scales = nn.ModuleList(
            FixedConv2d(b, a, 3) for a, b in itertools.pairwise(self.channels)
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps, the finest first -> as many mixed maps of the same sizes."""
        mixed = [mix(x) for mix, x in zip(self.across_channels, maps, strict=True)]
        for i in reversed(range(len(mixed) - 1)):
            coarser = F.interpolate(
                mixed[i + 1], mixed[i].shape[2:], mode="bilinear", align_corners=False
            )
            mixed[i] = (mixed[i] + self.across_scales[i](coarser)) * 0.5**0.5
        return mixed


class Head(nn.Module):
    """One mixed map and the category -> a logit for each place: [N, C, H, W] -> [N, places]."""

    def __init__(self, channels: int, size: tuple[int, int], categories: int) -> None:
        super().__init__()
        halvings = max(round(math.log2(max(size) / _CELLS)), 0)
        widths = [min(channels * 2**i, max(channels, HEAD_MAX)) for i in range(halvings + 1)]
        self.blocks = nn.ModuleList(
            _normalized(a, b, 4, stride=2) for a, b in itertools.pairwise(widths)
        )
        self.conv = _normalized(widths[-1] + 1, HEAD_FEATURES, 3)
        self.logit = _normalized(HEAD_FEATURES, 1, 1)
        self.embed = nn.Parameter(torch.randn(categories, HEAD_FEATURES))

    def hidden(self, x: Tensor) -> Tensor:
        """What a category's embedding is compared with, [N, HEAD_FEATURES, h, w]."""
        for block in self.blocks:
            x = leaky_relu(block(x))
        hidden: Tensor = leaky_relu(self.conv(minibatch_deviation(x, GROUP_SIZE))).float()
        return hidden

    def forward(self, x: Tensor, category: Tensor) -> Tensor:
        """Judge maps x [N, C, H, W] of images of category [N, categories]."""
        x = self.hidden(x)
        # Of unit length, as spectral normalisation leaves the weights of the other summand.
        direction = rms_normalize(category @ self.embed) / HEAD_FEATURES**0.5
        logits: Tensor = self.logit(x).squeeze(1) + (x * direction[:, :, None, None]).sum(1)
        return logits.flatten(1)


def _normalized(a: int, b: int, kernel_size: int, stride: int = 1) -> nn.Module:
    conv: nn.Module = spectral_norm(Conv2d(a, b, kernel_size, stride=stride, gain=_GAIN))
    return conv


class ProjectedDiscriminator(Discriminator):
    """Heads on fixed random mixes of a frozen network's features.

    Spectral norms are estimated anew in training mode only; whoever looks without teaching does
    so in evaluation mode, and changes nothing.
    """

    def __init__(self, shape: ProjectedShape, backbone: nn.Module) -> None:
        """Put heads on `backbone`.

        Args:
            shape: Sizes.
            backbone: Maps images [N, 3, H, W] in [-1, 1] and a dtype to feature maps, the finest
                first; has their `channels` and `strides`. Not trained, and not saved.
        """
        super().__init__()
        channels, strides = backbone.channels, backbone.strides
        assert isinstance(channels, tuple)
        assert isinstance(strides, tuple)
        if not 0 <= shape.mask_level < len(channels):
            raise ValueError(f"mask_level {shape.mask_level} is outside 0 to {len(channels) - 1}")
        self.shape = shape
        self.backbone = backbone
        self.seen = shape.seen(strides[-1])
        self.mix = RandomMix(channels, shape.mixed_channels)
        self.sizes = [(self.seen[0] // stride, self.seen[1] // stride) for stride in strides]
        self.heads = nn.ModuleList(
            Head(width, size, shape.categories)
            for width, size in zip(self.mix.channels, self.sizes, strict=True)
        )
        self.masked_map = len(channels) - 1 - shape.mask_level
        self.mask = FeatureMask((self.mix.channels[self.masked_map], *self.sizes[self.masked_map]))

    @property
    def masks(self) -> tuple[FeatureMask, ...]:
        """Over the mixed map of the shape's mask_level, as its head sees it."""
        return (self.mask,)

    def features(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """That map before masking; see Discriminator."""
        return self._mixed(images, dtype)[self.masked_map]

    def place_logits(
        self, images: Tensor, category: Tensor, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Logits of every place of every head, float32 [N, places]; arguments as forward's."""
        mixed = self._mixed(images, dtype)
        mixed[self.masked_map] = self.mask(mixed[self.masked_map])
        heads = zip(self.heads, mixed, strict=True)
        return torch.cat([head(x, category) for head, x in heads], dim=1)

    def hidden_features(self, images: Tensor, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """What a category's embedding in each head is compared with, [N, HEAD_FEATURES] each."""
        heads = zip(self.heads, self._mixed(images, dtype), strict=True)
        hidden = []
        for head, x in heads:
            assert isinstance(head, Head)
            hidden.append(head.hidden(x).mean(dim=(2, 3)))
        return hidden

    def forward(
        self, images: Tensor, category: Tensor, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Mean logits [N]; see Discriminator."""
        return self.place_logits(images, category, dtype).mean(dim=1)

    def _mixed(self, images: Tensor, dtype: torch.dtype) -> list[Tensor]:
        maps = self.backbone(_resized(to_rgb(images), self.seen), dtype)
        mixed: list[Tensor] = self.mix(maps)
        return mixed


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    smaller = size[0] < images.shape[2]
    return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=smaller)


class CombinedDiscriminator(Discriminator):
    """A convolutional and a projected discriminator side by side."""

    def __init__(
        self, convolutional: ConvolutionalDiscriminator, projected: ProjectedDiscriminator
    ) -> None:
        super().__init__()
        self.convolutional, self.projected = convolutional, projected

    @property
    def masks(self) -> tuple[FeatureMask, ...]:
        """Of both."""
        return (self.convolutional.mask, self.projected.mask)

    def features(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """The convolutional one's; see Discriminator."""
        return self.convolutional.features(images, dtype)

    def forward(
        self, images: Tensor, category: Tensor, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Mean of both's logits, [N]; see Discriminator."""
        own, seen = (d(images, category, dtype) for d in (self.convolutional, self.projected))
        logits: Tensor = (own + seen) / 2
        return logits
