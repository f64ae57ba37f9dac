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


def relativistic_loss(better: Tensor, worse: Tensor) -> Tensor:
    """Relativistic pairing loss: each logit of `better` [N] is to exceed its partner's.

    The discriminator's with real photos as the better ones, the generator's with its own
    pictures; partners are of one category. Source: Huang et al. 2024, arXiv 2501.05441.
    """
    return F.softplus(worse - better).mean()


def gradient_penalty(images: Tensor, logits: Tensor) -> Tensor:
    """Zero-centred gradient penalty: R1 on real pictures, R2 on generated ones.

    Args:
        images: Batch [N, C, H, W] in [-1, 1]; must require grad.
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
