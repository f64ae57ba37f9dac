"""Distortions of images, such as JPEG and cropping, as torch operations with gradients.

JPEG is the standard's own transform with its example tables (ITU-T T.81, annex K), with a
straight-through gradient for rounding. Crops become stronger during training.
"""

import math
import random
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from models.watermark import FRAME_PX, PLACES, Place

SMALLEST_SIDE: Final = min(place.side for place in PLACES)
# How far a crop may be from the nearest searched position: half a step, and rounding.
SHIFT: Final = 0.055
SCALING: Final = 0.03
_BLOCK: Final = 8
_LUMINANCE_TABLE: Final = (
    16, 11, 10, 16, 24, 40, 51, 61,
    12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77,
    24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
_CHROMINANCE_TABLE: Final = (
    17, 18, 24, 47, 99, 99, 99, 99,
    18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99,
    *(99,) * 32,
)  # fmt: skip
_TO_YCBCR: Final = (
    (0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312),
)  # fmt: skip


def resize(x: Tensor, side: int) -> Tensor:
    """Resize [N, C, H, W] to [N, C, side, side], antialiased."""
    return F.interpolate(x, size=(side, side), mode="bilinear", antialias=True, align_corners=False)


def jpeg(x: Tensor, quality: float) -> Tensor:
    """Compress RGB in [-1, 1], [N, 3, H, W], with chroma halved; 16 divides H and W."""
    scale = (5000 / quality if quality < 50 else 200 - 2 * quality) / 100
    colours = torch.tensor(_TO_YCBCR, device=x.device)
    y, *chroma = torch.einsum("ij,njhw->nihw", colours, (x + 1) * 127.5).unbind(1)
    planes = [_quantized(y - 128, _LUMINANCE_TABLE, scale) + 128]
    for plane in chroma:
        halved = F.avg_pool2d(plane[:, None], 2)[:, 0]
        coarse = _quantized(halved, _CHROMINANCE_TABLE, scale)[:, None]
        planes.append(F.interpolate(coarse, scale_factor=2.0, mode="bilinear")[:, 0])
    back = torch.einsum("ij,njhw->nihw", torch.linalg.inv(colours), torch.stack(planes, 1))
    return (back / 127.5 - 1).clamp(-1, 1)


def _quantized(plane: Tensor, table: tuple[int, ...], scale: float) -> Tensor:
    """Round the cosine coefficients of each block of a plane [N, H, W]."""
    n, height, width = plane.shape
    steps = torch.tensor(table, dtype=torch.float32, device=plane.device)
    steps = (steps * scale).round().clamp(1, 255).view(_BLOCK, _BLOCK)
    cosines = _cosines(plane.device)
    blocks = plane.view(n, height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK).transpose(2, 3)
    coefficients = cosines @ blocks @ cosines.t() / steps
    rounded = coefficients + (coefficients.round() - coefficients).detach()
    blocks = cosines.t() @ (rounded * steps) @ cosines
    return blocks.transpose(2, 3).reshape(n, height, width)


def _cosines(device: torch.device) -> Tensor:
    """The orthonormal DCT-II of 8 values."""
    k = torch.arange(_BLOCK, dtype=torch.float32, device=device)
    waves = torch.cos((2 * k[None] + 1) * k[:, None] * math.pi / (2 * _BLOCK))
    return waves * torch.where(k == 0, math.sqrt(1 / _BLOCK), math.sqrt(2 / _BLOCK))[:, None]


def place(x: Tensor, where: Place) -> Tensor:
    """Draw images [N, C, H, W] at a position in grey frames [N, C, FRAME_PX, FRAME_PX]."""
    part = resize(x, max(_BLOCK, round(FRAME_PX * where.side)))
    moved = [[1 / where.side, 0, -where.x / where.side], [0, 1 / where.side, -where.y / where.side]]
    matrix = torch.tensor(moved, device=x.device)[None].expand(len(x), -1, -1)
    size = (len(x), x.shape[1], FRAME_PX, FRAME_PX)
    grid = F.affine_grid(matrix, list(size), align_corners=False)
    return F.grid_sample(part, grid, padding_mode="zeros", align_corners=False)


def distort(x: Tensor, rng: random.Random, hardness: float) -> Tensor:
    """Apply random distortions, the same to all images of a batch, and build the frames.

    Args:
        x: RGB in [-1, 1], [N, 3, S, S].
        rng: Chooses the distortions.
        hardness: Strength of crops and their misplacement: 0 = none, 1 = full.

    Returns:
        [N, 3, FRAME_PX, FRAME_PX].
    """
    where = Place(1.0, 0.0, 0.0)
    if rng.random() < 0.6 * hardness:
        x, where = _crop(x, rng, 1 - (1 - SMALLEST_SIDE) * 1.1 * hardness)
    if rng.random() < 0.5:
        x = resize(x, _in_blocks(x.shape[2] * rng.choice((0.5, 0.5, 0.75))))
    if rng.random() < 0.6:
        x = jpeg(resize(x, _in_blocks(x.shape[2])), rng.uniform(60, 95))
    shift = SHIFT * hardness
    scaling = 1 + SCALING * hardness * rng.uniform(-1, 1)
    found = Place(
        where.side * scaling,
        where.x + rng.uniform(-shift, shift),
        where.y + rng.uniform(-shift, shift),
    )
    return place(x, found)


def _crop(x: Tensor, rng: random.Random, smallest: float) -> tuple[Tensor, Place]:
    whole = x.shape[2]
    side = round(whole * rng.uniform(smallest, 1))
    left, top = rng.randrange(whole - side + 1), rng.randrange(whole - side + 1)
    where = Place(side / whole, (2 * left + side) / whole - 1, (2 * top + side) / whole - 1)
    return x[:, :, top : top + side, left : left + side], where


def _in_blocks(side: float) -> int:
    """Nearest side that JPEG with halved chroma divides into whole blocks."""
    return max(1, round(side / (2 * _BLOCK))) * 2 * _BLOCK
