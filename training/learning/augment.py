"""Differentiable augmentation of all images that the discriminator receives.

Sources: Karras et al. 2020, arXiv 2006.06676 (one probability p, raised while the
discriminator overfits); Zhao et al. 2020, arXiv 2006.10738 (colour, translation, cutout).
Each transform is applied to each image with probability p, so that the generator does not
learn to generate the augmentations. Mirroring is not one of them: photos are mirrored when
they are loaded.
"""

import math
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from training.learning.config import AugmentConfig

DRAWS: Final = 9  # uniform random numbers per image
_FAR_OUTSIDE: Final = 9.0  # centre of a rectangle that cuts out nothing


def amounts_of(draws: Tensor, p: float) -> Tensor | None:
    """Decide which images are transformed, and by how much.

    Args:
        draws: Uniform in [0, 1), [..., DRAWS, N].
        p: Probability of each transform, 0 to 1.

    Returns:
        Amounts for `augment`, [..., DRAWS, N]; None if no image is transformed.
    """
    if p <= 0:
        return None
    # A draw below p selects its image and, rescaled, gives the amount: -0.5 to 0.5, else 0.
    amounts = torch.where(draws < p, draws / p - 0.5, 0.0)
    amounts[..., 7, :].masked_fill_(draws[..., 7, :] >= p, _FAR_OUTSIDE)
    amounts[..., 8, :] = draws[..., 8, :]
    return amounts


def augment(images: Tensor, amounts: Tensor | None) -> Tensor:
    """Augment a batch; without amounts it is returned unchanged.

    Args:
        images: [N, C, H, W], nominally in [-1, 1]; gradients flow through.
        amounts: Amount of each transform, [DRAWS, N].

    Returns:
        [N, C, H, W].
    """
    if amounts is None:
        return images
    images = images.contiguous()  # with so few channels faster than channels_last
    images = _photometric(images, amounts[:3])
    images = _geometric(images, amounts[3:7])
    return _cutout(images, amounts[7], amounts[8])


def _photometric(images: Tensor, amounts: Tensor) -> Tensor:
    """Brightness +-0.4, contrast x2 to the power of +-0.5, saturation x 0 to 2."""
    shift, contrast, saturation = amounts.to(images.dtype)[:, :, None, None]
    colour = images[:, :3].flatten(2)
    channels = colour.shape[1]
    identity = torch.eye(channels, dtype=images.dtype, device=images.device)
    # Saturation moves each channel away from their mean: one matrix per image.
    mix = torch.exp2(contrast) * (identity + 2 * saturation * (identity - 1 / channels))
    colour = torch.baddbmm(0.8 * shift, mix, colour).unflatten(2, images.shape[2:])
    return colour if images.shape[1] <= 3 else torch.cat([colour, images[:, 3:]], dim=1)


def _geometric(images: Tensor, amounts: Tensor) -> Tensor:
    """Shift by up to 1/8, scale by up to a fifth, rotate by up to 15 degrees."""
    height, width = images.shape[2:]
    scale = torch.exp2(0.5 * amounts[2])
    angle = math.radians(30) * amounts[3]
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    aspect = height / width
    x, y = (2 * _centres(size, images.device) - 1 for size in (width, height))
    along_x = torch.stack([cos, sin / aspect], dim=1)[..., None] * x  # [N, 2, W]
    along_y = torch.stack([-sin * aspect, cos], dim=1)[..., None] * y  # [N, 2, H]
    shift = 0.5 * amounts[:2].t()[..., None, None]
    grid = along_x[:, :, None] + along_y[..., None] + shift  # as F.affine_grid, but faster
    grid = grid.permute(0, 2, 3, 1).to(images.dtype)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _cutout(images: Tensor, centre_x: Tensor, centre_y: Tensor) -> Tensor:
    """Grey out a rectangle of half the height and width, its centre at -0.5 to 0.5 and 0 to 1."""
    height, width = images.shape[2:]
    x, y = _centres(width, images.device) - 0.5, _centres(height, images.device)
    inside_x = (x - centre_x[:, None]).abs() < 0.25
    inside_y = (y - centre_y[:, None]).abs() < 0.25
    columns, rows = inside_x.to(images.dtype), inside_y.to(images.dtype)
    return images * (1 - rows[:, None, :, None] * columns[:, None, None, :])


def _centres(size: int, device: torch.device) -> Tensor:
    """Positions of the pixels of a side between 0 and 1, [size]."""
    return (torch.arange(size, device=device) + 0.5) / size


class AdaptiveProbability:
    """Raises p while the discriminator recognises real photos too confidently, else lowers it."""

    def __init__(self, config: AugmentConfig) -> None:
        self.config = config
        self.p = 0.0 if config.mode == "off" else min(config.p, config.max_p)

    def update(self, real_sign: float, images: int) -> None:
        """Adjust p after `images` real images whose logits had the mean sign `real_sign`."""
        if self.config.mode != "adaptive":
            return
        step = images / (self.config.adjust_kimg * 1000)
        direction = 1.0 if real_sign > self.config.target else -1.0
        self.p = min(self.config.max_p, max(0.0, self.p + direction * step))

    def state_dict(self) -> dict[str, float]:
        """State to resume from."""
        return {"strength": self.p}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore the saved p, unless p is fixed now."""
        if self.config.mode == "adaptive":
            self.p = min(state["strength"], self.config.max_p)
