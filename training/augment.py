"""Differentiable augmentation of everything that the discriminator sees.

Sources: Karras et al. 2020, arXiv 2006.06676 (one strength p, raised while the
discriminator overfits); Zhao et al. 2020, arXiv 2006.10738 (colour, translation, cutout).
Each transform is applied to each picture with probability p, so that the generator does
not learn to paint the augmentations.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from training.config import AugmentConfig


def augment(images: Tensor, strength: float, mirror: bool, random: torch.Generator) -> Tensor:
    """Augment a batch; at strength 0 it comes back as it is.

    Args:
        images: [N, C, H, W], nominally in [-1, 1]; gradients flow through.
        strength: Probability of each transform, 0 to 1.
        mirror: Whether pictures may be mirrored.
        random: Generator on the pictures' device.

    Returns:
        [N, C, H, W].
    """
    if strength <= 0:
        return images
    draws = torch.rand(10, len(images), device=images.device, generator=random)
    images = _photometric(images, draws[:3], strength)
    images = _geometric(images, draws[3:8], strength, mirror)
    return _cutout(images, draws[8:], strength)


def _chosen(draw: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """From one uniform draw [N]: who is transformed, and a second uniform for how much."""
    chosen = (draw < strength).float()
    amount = torch.where(draw < strength, draw / strength, (draw - strength) / (1.001 - strength))
    return chosen, amount


def _photometric(images: Tensor, draws: Tensor, strength: float) -> Tensor:
    """Brightness +-0.4, contrast x2 to the power of +-0.5, saturation x 0 to 2."""
    column = (-1, 1, 1, 1)
    chosen, amount = _chosen(draws[0], strength)
    shift = chosen * (amount - 0.5) * 0.8
    chosen, amount = _chosen(draws[1], strength)
    contrast = torch.exp2(chosen * (amount - 0.5))
    colour = images[:, :3]
    chosen, amount = _chosen(draws[2], strength)
    saturation = 1 + chosen * (2 * amount - 1)
    grey = colour.mean(dim=1, keepdim=True)
    colour = grey + (colour - grey) * saturation.view(column)
    colour = colour * contrast.view(column) + shift.view(column)
    return colour if images.shape[1] <= 3 else torch.cat([colour, images[:, 3:]], dim=1)


def _geometric(images: Tensor, draws: Tensor, strength: float, mirror: bool) -> Tensor:
    """Mirror, shift by up to 1/8, scale by up to a fifth, turn by up to 15 degrees."""
    height, width = images.shape[2:]
    chosen, amount = _chosen(draws[0], strength)
    flip = 1 - 2 * chosen * (amount < 0.5) * mirror
    chosen, amount = _chosen(draws[1], strength)
    shift_x = chosen * (amount - 0.5) * 0.5
    chosen, amount = _chosen(draws[2], strength)
    shift_y = chosen * (amount - 0.5) * 0.5
    chosen, amount = _chosen(draws[3], strength)
    scale = torch.exp2(chosen * (amount - 0.5) * 0.5)
    chosen, amount = _chosen(draws[4], strength)
    angle = chosen * (amount - 0.5) * math.radians(30)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    aspect = height / width
    theta = torch.stack(
        [cos * flip, -sin * aspect, shift_x, sin * flip / aspect, cos, shift_y], dim=1
    ).reshape(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid.to(images.dtype), padding_mode="border", align_corners=False)


def _cutout(images: Tensor, draws: Tensor, strength: float) -> Tensor:
    """Grey out a rectangle of half the height and width."""
    height, width = images.shape[2:]
    chosen, centre_x = _chosen(draws[0], strength)
    centre_y = draws[1]
    x = (torch.arange(width, device=images.device) + 0.5) / width
    y = (torch.arange(height, device=images.device) + 0.5) / height
    inside_x = (x[None] - centre_x[:, None]).abs() < 0.25
    inside_y = (y[None] - centre_y[:, None]).abs() < 0.25
    inside = (inside_y[:, :, None] & inside_x[:, None, :]).float() * chosen[:, None, None]
    return images * (1 - inside)[:, None]


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
