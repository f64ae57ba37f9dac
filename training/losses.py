"""Losses and penalties: tensors in, tensors out."""

import torch
from torch import Tensor
from torch.nn import functional as F


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating logistic loss, mean over [N]. Source: Goodfellow et al. 2014."""
    return F.softplus(-fake_logits).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Logistic loss, mean over [N]. Source: Goodfellow et al. 2014."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def r1_penalty(images: Tensor, logits: Tensor) -> Tensor:
    """Zero-centred gradient penalty on real pictures.

    Args:
        images: Real batch [N, C, H, W] in [-1, 1]; must require grad.
        logits: The discriminator's output for `images`, [N].

    Returns:
        Squared gradient norm of each picture, [N]; the caller applies r1_gamma / 2.

    Raises:
        ValueError: `images` does not require grad.

    Source: Mescheder et al. 2018, equation 9, arXiv 1801.04406.
    """
    if not images.requires_grad:
        raise ValueError("images must require grad before they go through the discriminator")
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3))
