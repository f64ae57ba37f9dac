"""Layers shared by the generator and the discriminator.

Parameters are stored in float32. The dtype of the activations decides the precision: each
layer casts its weights to its input's dtype, so one module trains in bfloat16 and
exports in float32 without autocast's per-operation look-ups.
"""

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAKY_SLOPE: Final = 0.2
# Keeps the variance of a unit-variance signal through the leaky ReLU.
LEAKY_GAIN: Final = math.sqrt(2 / (1 + LEAKY_SLOPE**2))
# Keeps a square root from zero. The ONNX exporter takes an added 1e-8 for zero and drops it.
EPSILON: Final = 1e-7


class Linear(nn.Module):
    """Affine layer that follows its input's dtype; weights N(0, gain^2 / fan_in)."""

    def __init__(
        self, in_features: int, out_features: int, *, gain: float = 1.0, bias_init: float = 0.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(
            torch.randn(out_features, in_features) * (gain / math.sqrt(in_features))
        )
        self.bias = nn.Parameter(torch.full((out_features,), bias_init))

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_features] -> [N, out_features]."""
        return F.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class FromImage(Linear):
    """1 x 1 convolution of few channels, as one matrix product per image.

    oneDNN's bfloat16 convolution of three channels at 512 px crashes the process in its second
    derivative (torch 2.14). One product over all images takes twice the time, most of it for
    the weights' gradient. The bias is the weight of an extra channel of ones.
    """

    def __init__(self, channels: int, features: int) -> None:
        super().__init__(channels, features, gain=LEAKY_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, features, H, W], channels_last."""
        n, _, height, width = x.shape
        planes = torch.cat([x, x.new_ones(n, 1, height, width)], dim=1).flatten(2)
        weight = torch.cat([self.weight, self.bias[:, None]], dim=1).to(x.dtype).t()
        pixels = torch.bmm(planes.transpose(1, 2), weight.expand(n, -1, -1))
        features: Tensor = pixels.unflatten(1, (height, width)).permute(0, 3, 1, 2)
        return features


class Conv2d(nn.Module):
    """Convolution that follows its input's dtype; weights N(0, gain^2 / fan_in)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        gain: float = 1.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        fan_in = in_channels * kernel_size**2
        weight = torch.randn(out_channels, in_channels, kernel_size, kernel_size)
        self.weight = nn.Parameter(
            (weight * (gain / math.sqrt(fan_in))).contiguous(memory_format=torch.channels_last)
        )
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.stride, self.padding = stride, (kernel_size - 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, H / stride, W / stride]."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.conv2d(x, self.weight.to(x.dtype), bias, self.stride, self.padding)


def leaky_relu(x: Tensor) -> Tensor:
    """Leaky ReLU, in place; gains live in the weights."""
    return F.leaky_relu_(x, LEAKY_SLOPE)


def upsample(x: Tensor) -> Tensor:
    """Double height and width, bilinear: [N, C, H, W] -> [N, C, 2H, 2W]."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def downsample(x: Tensor) -> Tensor:
    """Halve height and width by 2 x 2 means: [N, C, H, W] -> [N, C, H/2, W/2].

    Bilinear resizing by a half computes that mean, and its bfloat16 gradient takes two thirds of
    avg_pool2d's time.
    """
    return F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)


def rms_normalize(x: Tensor) -> Tensor:
    """Scale each row of [N, C] to unit mean square (Karras et al. 2018, arXiv 1710.10196)."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + EPSILON)


def to_rgb(images: Tensor) -> Tensor:
    """Convert images [N, 1 | 3 | 4, H, W] in [-1, 1] to RGB [N, 3, H, W], alpha over white."""
    if images.shape[1] == 4:
        alpha = (images[:, 3:] + 1) / 2
        images = images[:, :3] * alpha + (1 - alpha)
    return images.expand(-1, 3, -1, -1)
