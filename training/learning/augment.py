"""Differentiable augmentation of everything that the discriminator sees.

Sources: Karras et al. 2020, arXiv 2006.06676 (one strength p, raised while the
discriminator overfits); Zhao et al. 2020, arXiv 2006.10738 (colour, translation, cutout).
Each transform is applied to each picture with probability p, so that the generator does
not learn to paint the augmentations.
"""

import math
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from training.learning.config import AugmentConfig

DRAWS: Final = 10  # uniform numbers that augment takes for each picture


def augment(images: Tensor, strength: float, mirror: bool, draws: Tensor) -> Tensor:
    """Augment a batch; at strength 0 it comes back as it is.

    Args:
        images: [N, C, H, W], nominally in [-1, 1]; gradients flow through.
        strength: Probability of each transform, 0 to 1.
        mirror: Whether pictures may be mirrored.
        draws: Uniform in [0, 1), [DRAWS, N].

    Returns:
        [N, C, H, W].
    """
    if strength <= 0:
        return images
    # What is left of a draw that chose its picture says by how much: -0.5 to 0.5, else 0.
    amounts = torch.where(draws < strength, draws / strength - 0.5, 0.0)
    images = _photometric(images, amounts[:3])
    images = _geometric(images, amounts[3:8], mirror)
    return _cutout(images, draws[8] < strength, amounts[8], draws[9])


def _photometric(images: Tensor, amounts: Tensor) -> Tensor:
    """Brightness +-0.4, contrast x2 to the power of +-0.5, saturation x 0 to 2."""
    shift, contrast, saturation = amounts[:, :, None, None, None]
    colour = images[:, :3]
    grey = colour.mean(dim=1, keepdim=True)
    colour = grey + (colour - grey) * (1 + 2 * saturation)
    colour = colour * torch.exp2(contrast) + 0.8 * shift
    return colour if images.shape[1] <= 3 else torch.cat([colour, images[:, 3:]], dim=1)


def _geometric(images: Tensor, amounts: Tensor, mirror: bool) -> Tensor:
    """Mirror, shift by up to 1/8, scale by up to a fifth, turn by up to 15 degrees."""
    height, width = images.shape[2:]
    flip = torch.where(amounts[0] < 0, -1.0, 1.0) if mirror else torch.ones_like(amounts[0])
    shift_x, shift_y = 0.5 * amounts[1], 0.5 * amounts[2]
    scale = torch.exp2(0.5 * amounts[3])
    angle = math.radians(30) * amounts[4]
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    aspect = height / width
    theta = torch.stack(
        [cos * flip, -sin * aspect, shift_x, sin * flip / aspect, cos, shift_y], dim=1
    ).reshape(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid.to(images.dtype), padding_mode="border", align_corners=False)


def _cutout(images: Tensor, chosen: Tensor, centre_x: Tensor, centre_y: Tensor) -> Tensor:
    """Grey out a rectangle of half the height and width, its centre at -0.5 to 0.5 and 0 to 1."""
    height, width = images.shape[2:]
    x = (torch.arange(width, device=images.device) + 0.5) / width - 0.5
    y = (torch.arange(height, device=images.device) + 0.5) / height
    inside_x = ((x[None] - centre_x[:, None]).abs() < 0.25) & chosen[:, None]
    inside_y = (y[None] - centre_y[:, None]).abs() < 0.25
    return images * ~(inside_y[:, None, :, None] & inside_x[:, None, None, :])


class AdaptiveStrength:
    """Raises the strength while the discriminator is sure of real photos, else lowers it."""

    def __init__(self, config: AugmentConfig) -> None:
        self.config = config
        self.strength = 0.0 if config.mode == "off" else config.strength

    def update(self, real_sign: float, images: int) -> None:
        """Move the strength after `images` shown whose logits had the mean sign `real_sign`."""
        if self.config.mode != "adaptive":
            return
        step = images / (self.config.adjust_kimg * 1000)
        direction = 1.0 if real_sign > self.config.target else -1.0
        self.strength = min(1.0, max(0.0, self.strength + direction * step))

    def state_dict(self) -> dict[str, float]:
        """What a resumed run needs."""
        return {"strength": self.strength}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Take up where the saved run was."""
        self.strength = state["strength"]
