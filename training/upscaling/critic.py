"""What an upscaler learns from beside pixels: frozen features, and a critic on top of them.

Source: Sauer et al. 2021, arXiv 2111.01007 (small spectrally normalised heads on the feature maps
of a frozen pretrained network, hinge loss).
"""

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from training.features.efficientnet_lite import load_efficientnet_lite, normalize

# Of EfficientNet-Lite0's blocks, the last of each resolution from a quarter to a sixteenth.
_BLOCKS: Final = (1, 2, 4)


class FeatureMaps(nn.Module):
    """EfficientNet-Lite0 -> feature maps at a quarter, an eighth and a sixteenth of the size.

    Evaluation uses Lite2: an upscaler must not be judged by what it was taught with.
    """

    def __init__(self) -> None:
        """Load the frozen network.

        Raises:
            WeightsError: Its weights are not installed, or not the expected ones.
        """
        super().__init__()
        network: Any = load_efficientnet_lite("lite0").to(memory_format=torch.channels_last)
        self.stem = nn.Sequential(network.conv_stem, network.bn1)
        self.blocks = nn.ModuleList(list(network.blocks)[: _BLOCKS[-1] + 1])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [N, 1 | 3 | 4, H, W] in [-1, 1] -> the three maps, finest first."""
        x = self.stem(normalize(to_rgb(images)).contiguous(memory_format=torch.channels_last))
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in _BLOCKS:
                maps.append(x)
        return maps


class Critic(nn.Module):
    """Judges images patch by patch, by their pixels and by each of their feature maps."""

    def __init__(self, maps: list[Tensor]) -> None:
        """Take the number of features of each map, finest first."""
        super().__init__()
        # Kernels of twice the stride see each pixel as often as any other: no checkerboard,
        # which is what a shuffle to pixels may leave, escapes them.
        self.pixels = nn.Sequential(*_layer(3, 32, 4, 2), *_layer(32, 64, 4, 2), _conv(64, 1, 1))
        self.heads = nn.ModuleList(
            nn.Sequential(
                *_layer(features.shape[1], 32, 1),
                *_layer(32, 64, 3, 2 if index == 0 else 1),
                _conv(64, 1, 1),
            )
            for index, features in enumerate(maps)
        )

    def forward(self, images: Tensor, maps: list[Tensor]) -> list[Tensor]:
        """Logits [N, 1, h, w] of each head; positive for photos."""
        heads = zip(self.heads, maps, strict=True)
        return [self.pixels(to_rgb(images)), *(head(features) for head, features in heads)]


def to_rgb(images: Tensor) -> Tensor:
    """[N, 1 | 3 | 4, H, W] in [-1, 1] -> [N, 3, H, W], transparency over white."""
    if images.shape[1] == 4:
        return images[:, :3] + (1 - images[:, :3]) * (1 - images[:, 3:]) / 2
    return images.expand(-1, 3, -1, -1)


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
