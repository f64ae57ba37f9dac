"""Encoder: image -> the styles from which the generator reproduces it (inversion).

The encoder predicts one style for each layer as an offset from the category's mean style. Zero
offsets give the mean image, and each layer can depart from it on its own. Sources: Richardson et
al. 2021, arXiv 2008.00951 (a style for each layer, relative to the mean); Tov et al. 2021, arXiv
2102.02766 (one shared offset plus a smaller one for each layer, so that the styles stay editable).
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.discriminator import DiscriminatorBlock
from models.layers import LEAKY_GAIN, FromImage, Linear, leaky_relu
from models.pyramid import Pyramid


@dataclass(frozen=True, kw_only=True)
class EncoderShape:
    """Sizes that determine the encoder's parameters."""

    height: int
    width: int
    channels: int
    categories: int
    num_ws: int
    w_dim: int
    channel_base: int = 2048
    channel_max: int = 128

    @property
    def pyramid(self) -> Pyramid:
        """Resolutions of the encoder."""
        return Pyramid.of(self.height, self.width)


class Encoder(nn.Module):
    """Image and category -> style offset of each layer."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.shape = shape
        pyramid = shape.pyramid
        widths = [
            pyramid.channels(level, shape.channel_base, shape.channel_max)
            for level in reversed(range(pyramid.doublings + 1))
        ]
        hidden = 2 * shape.w_dim
        base_height, base_width = pyramid.base
        self.from_image = FromImage(shape.channels, widths[0])
        self.blocks = nn.ModuleList(DiscriminatorBlock(a, b) for a, b in itertools.pairwise(widths))
        self.hidden = Linear(widths[-1] * base_height * base_width, hidden, gain=LEAKY_GAIN)
        self.embed = Linear(shape.categories, hidden)
        # Near zero at the start: training begins at the mean image.
        self.shared = Linear(hidden, shape.w_dim, gain=0.1)
        self.layers = Linear(hidden, shape.num_ws * shape.w_dim, gain=0.01)

    def forward(
        self, images: Tensor, category: Tensor, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Predict the style offsets of images.

        Args:
            images: [N, channels, H, W] in [-1, 1].
            category: Weights [N, categories] that sum to 1.
            dtype: Data type of the feature maps.

        Returns:
            Style offsets, float32 [N, num_ws, w_dim], to be added to the category's mean style.
        """
        x = leaky_relu(self.from_image(images.to(dtype)))
        for block in self.blocks:
            x = block(x)
        pooled = self.hidden(x.permute(0, 2, 3, 1).flatten(1)).float()
        hidden = leaky_relu(pooled + self.embed(category))
        offsets: Tensor = self.layers(hidden).unflatten(1, (self.shape.num_ws, self.shape.w_dim))
        shared: Tensor = self.shared(hidden)
        return shared[:, None] + offsets
