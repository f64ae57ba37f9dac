"""Layers that generator and discriminator share.

Parameters are kept in float32. The dtype of the activations decides the precision: each
layer casts its weights to that of its input, so one module trains in bfloat16 and
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
    """1 x 1 convolution of few channels, as a matrix product of each picture.

    oneDNN's bfloat16 convolution of three channels at 512 px ends the process in its second
    derivative (torch 2.14). A product of all pictures at once takes twice the time, most of
    it for the weights' gradient; the bias is the weight of one more channel of ones.
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
    """Same-size convolution that follows its input's dtype; weights N(0, gain^2 / fan_in)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
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
        self.padding = kernel_size // 2

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] -> [N, out_channels, H, W]."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.conv2d(x, self.weight.to(x.dtype), bias, padding=self.padding)


# These three have a second form for torch.compile, of the same values. The compiler writes
# interpolation's gradient as a scatter, element by element, and a leaky ReLU's with a stored
# table of signs that it reads and writes byte by byte: each made a compiled step slower than
# an eager one. Exporting traces the first form.


def leaky_relu(x: Tensor) -> Tensor:
    """Leaky ReLU, in place where it is not compiled; gains live in the weights."""
    if torch.compiler.is_dynamo_compiling():
        rise, fall = (1 + LEAKY_SLOPE) / 2, (1 - LEAKY_SLOPE) / 2
        return x * (torch.copysign(torch.full_like(x, fall), x.detach()) + rise)
    return F.leaky_relu_(x, LEAKY_SLOPE)


def upsample(x: Tensor) -> Tensor:
    """Double height and width, bilinear: [N, C, H, W] -> [N, C, 2H, 2W]."""
    if torch.compiler.is_dynamo_compiling():
        pixels = x.permute(0, 2, 3, 1)  # the vectors are along the channels
        return _double(_double(pixels, 1), 2).permute(0, 3, 1, 2)
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def _double(x: Tensor, dim: int) -> Tensor:
    """Twice as many along `dim`, each a quarter of the way to the next, edges repeated."""
    size = x.shape[dim]
    first, last = x.narrow(dim, 0, 1), x.narrow(dim, size - 1, 1)
    before = torch.cat([first, x.narrow(dim, 0, size - 1)], dim)
    after = torch.cat([x.narrow(dim, 1, size - 1), last], dim)
    pairs = [0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after]
    return torch.stack(pairs, dim + 1).flatten(dim, dim + 1)


def downsample(x: Tensor) -> Tensor:
    """Halve height and width by 2 x 2 means: [N, C, H, W] -> [N, C, H/2, W/2].

    Bilinear at a half is that mean; its bfloat16 gradient takes two thirds of avg_pool2d's.
    """
    if torch.compiler.is_dynamo_compiling():
        return F.avg_pool2d(x, 2)
    return F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)


def rms_normalize(x: Tensor) -> Tensor:
    """Scale each row of [N, C] to unit mean square (Karras et al. 2018, arXiv 1710.10196)."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + EPSILON)
