"""The critic that an upscaler learns from, on pixels and on the feature maps of a frozen network.

Source: Sauer et al. 2021, arXiv 2111.01007 (small spectrally normalised heads on the feature maps
of a frozen pretrained network, hinge loss).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm


class Critic(nn.Module):
    """Judges images patch by patch, by their pixels and by each of their feature maps."""

    def __init__(self, channels: Sequence[int]) -> None:
        """Build a head for the pixels, and one for each map of so many channels, finest first."""
        super().__init__()
        # Kernels of twice the stride see each pixel as often as any other: no checkerboard,
        # which is what a shuffle to pixels may leave, escapes them.
        self.pixels = nn.Sequential(*_layer(3, 32, 4, 2), *_layer(32, 64, 4, 2), _conv(64, 1, 1))
        self.heads = nn.ModuleList(
            nn.Sequential(
                *_layer(features, 32, 1),
                *_layer(32, 64, 3, 2 if index == 0 else 1),
                _conv(64, 1, 1),
            )
            for index, features in enumerate(channels)
        )

    def forward(self, images: Tensor, maps: list[Tensor]) -> list[Tensor]:
        """Logits [N, 1, h, w] of each head; positive for photos."""
        heads = zip(self.heads, maps, strict=True)
        return [self.pixels(images), *(head(features) for head, features in heads)]


def critic_loss(photos: list[Tensor], upscaled: list[Tensor]) -> Tensor:
    """Hinge loss of the critic, over its heads (Lim and Ye 2017, arXiv 1705.02894)."""
    losses = [
        F.relu(1 - real).mean() + F.relu(1 + fake).mean()
        for real, fake in zip(photos, upscaled, strict=True)
    ]
    return torch.stack(losses).sum()


def adversarial_loss(upscaled: list[Tensor]) -> Tensor:
    """What the upscaler does against the critic, over its heads."""
    return -torch.stack([logits.mean() for logits in upscaled]).sum()


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Module:
    return spectral_norm(nn.Conv2d(inputs, outputs, size, stride=stride, padding=(size - 1) // 2))


def _layer(inputs: int, outputs: int, size: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    return _conv(inputs, outputs, size, stride), nn.LeakyReLU(0.2)
