"""Watermark networks: image and 48 bits -> a faint pattern; image -> the bits.

Both networks see an image as a small square frame, whatever its size: only coarse patterns survive
JPEG and resizing to half. Training both through distortions follows Zhu et al. 2018, arXiv
1807.09937; the message enters as a feature map of its own, as in Tancik et al. 2020, arXiv
1904.05343. A pattern has the same energy in every image (the only training loss is on the bits),
so its visibility is fixed, not learned.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.watermark import FRAME_PX, PATTERN_PX, PAYLOAD_BITS

_MESSAGE_PX: Final = 8
_MESSAGE_CHANNELS: Final = 16
_SLOPE: Final = 0.2


def _layer(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(_SLOPE, inplace=True),
    )


class WatermarkEncoder(nn.Module):
    """Image and bits -> pattern."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        # Its name is part of stored weights.
        self.picture = nn.Sequential(_layer(3, width), _layer(width, width))
        self.message = nn.Linear(PAYLOAD_BITS, _MESSAGE_CHANNELS * _MESSAGE_PX**2)
        self.both = nn.Sequential(
            _layer(width + _MESSAGE_CHANNELS, 2 * width),
            _layer(2 * width, 2 * width),
            _layer(2 * width, width),
            nn.Conv2d(width, 3, 3, 1, 1),
        )

    def forward(self, images: Tensor, bits: Tensor) -> Tensor:
        """Generate patterns.

        Args:
            images: RGB in [-1, 1], [N, 3, PATTERN_PX, PATTERN_PX].
            bits: 0 or 1, [N, PAYLOAD_BITS].

        Returns:
            Patterns of any energy, float32 [N, 3, PATTERN_PX, PATTERN_PX].
        """
        message = self.message(bits * 2 - 1).unflatten(1, (_MESSAGE_CHANNELS, _MESSAGE_PX, -1))
        message = F.interpolate(
            message, scale_factor=PATTERN_PX / _MESSAGE_PX, mode="bilinear", align_corners=False
        )
        patterns: Tensor = self.both(torch.cat([self.picture(images), message], dim=1))
        return patterns.float()


class WatermarkDecoder(nn.Module):
    """Image -> bits."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        side = FRAME_PX // 8
        self.body = nn.Sequential(
            _layer(3, width, 2),
            _layer(width, 2 * width),
            _layer(2 * width, 2 * width),
            _layer(2 * width, 3 * width, 2),
            _layer(3 * width, 3 * width),
            _layer(3 * width, 4 * width, 2),
            _layer(4 * width, 4 * width),
            _layer(4 * width, width),
        )
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(width * side**2, 8 * width),
            nn.LeakyReLU(_SLOPE),
            nn.Linear(8 * width, PAYLOAD_BITS),
        )

    def forward(self, frames: Tensor) -> Tensor:
        """Frames [N, 3, FRAME_PX, FRAME_PX] in [-1, 1] -> logits, float32 [N, PAYLOAD_BITS]."""
        logits: Tensor = self.head(self.body(frames))
        return logits.float()
