"""Ways to spoil pictures by a known strength, as an imperfect generator might.

Pictures are float32 [N, 3, H, W] in [-1, 1]; strengths lie in [0, 1].
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def blur(images: Tensor, strength: float) -> Tensor:
    """Gaussian blur of up to 2.5 pixels."""
    sigma = 2.5 * strength + 1e-3
    taps = torch.arange(-6.0, 7.0)
    kernel = torch.exp(-0.5 * (taps / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    padded = functional.pad(images, (6, 6, 6, 6), mode="replicate")
    across = functional.conv2d(padded, kernel, groups=3)
    return functional.conv2d(across, kernel.transpose(2, 3), groups=3)


def noise(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """White noise with a deviation of up to a fifth of the range."""
    return images + 0.4 * strength * torch.randn(images.shape, generator=generator)


def warp(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """A smooth displacement with a deviation of up to 6 % of the side."""
    n, _, height, width = images.shape
    coarse = 0.12 * strength * torch.randn((n, 2, 8, 8), generator=generator)
    offset = functional.interpolate(coarse, (height, width), mode="bicubic")
    identity = torch.eye(2, 3).expand(n, 2, 3)
    grid = functional.affine_grid(identity, [n, 3, height, width], align_corners=False)
    return functional.grid_sample(
        images, grid + offset.permute(0, 2, 3, 1), padding_mode="border", align_corners=False
    )


def shuffle(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Swap up to all of the sixteen tiles among each other."""
    n, channels, height, width = images.shape
    tiles = images.reshape(n, channels, 4, height // 4, 4, width // 4).permute(0, 2, 4, 1, 3, 5)
    tiles = tiles.reshape(n, 16, channels, height // 4, width // 4).clone()
    moved = round(strength * 16)
    for i in range(n):
        chosen = torch.randperm(16, generator=generator)[:moved]
        tiles[i, chosen] = tiles[i, chosen.roll(1)]
    tiles = tiles.reshape(n, 4, 4, channels, height // 4, width // 4)
    return tiles.permute(0, 3, 1, 4, 2, 5).reshape(n, channels, height, width)


SPOILS = ("blur", "noise", "warp", "shuffle")


def spoil(images: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Spoil each picture in one way or two; gives pictures and strengths [N, len(SPOILS)]."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    strengths = torch.zeros(len(images), len(SPOILS))
    spoiled = images.clone()
    for rows in np.array_split(rng.permutation(len(images)), 8):
        for kind in rng.choice(len(SPOILS), size=rng.integers(1, 3), replace=False):
            strength = float(rng.random())
            strengths[rows, kind] = strength
            part = spoiled[rows]
            if SPOILS[kind] == "blur":
                spoiled[rows] = blur(part, strength)
            else:
                apply = {"noise": noise, "warp": warp, "shuffle": shuffle}[SPOILS[kind]]
                spoiled[rows] = apply(part, strength, generator)
    return spoiled.clamp(-1, 1), strengths
