"""Losses and R1 against closed forms."""

import math

import pytest
import torch

from training.learning.losses import (
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    relativistic_loss,
)


def test_losses_at_zero_logits_are_log_two() -> None:
    zero = torch.zeros(4)
    assert generator_loss(zero).item() == pytest.approx(math.log(2))
    assert discriminator_loss(zero, zero).item() == pytest.approx(2 * math.log(2))


def test_the_relativistic_loss_sees_only_differences_of_partners() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(6), torch.randn(6)
    torch.testing.assert_close(relativistic_loss(a, b), relativistic_loss(a + 7, b + 7))
    assert relativistic_loss(a, a).item() == pytest.approx(math.log(2))
    assert relativistic_loss(a + 1, a) < relativistic_loss(a, a + 1)
    assert relativistic_loss(a, b) != relativistic_loss(a, b.flip(0))


def test_losses_fall_in_the_right_direction() -> None:
    high, low = torch.full((4,), 3.0), torch.full((4,), -3.0)
    assert generator_loss(high) < generator_loss(low)
    assert discriminator_loss(high, low) < discriminator_loss(low, high)


def test_r1_of_a_linear_discriminator_is_the_squared_norm_of_its_weights() -> None:
    weight = torch.randn(3, 5, 5)
    images = torch.randn(2, 3, 5, 5, requires_grad=True)
    penalty = gradient_penalty(images, (images * weight).sum(dim=(1, 2, 3)))
    torch.testing.assert_close(penalty, weight.square().sum().expand(2))


def test_r1_can_be_differentiated_again() -> None:
    scale = torch.tensor(3.0, requires_grad=True)
    images = torch.randn(2, 1, 2, 2, requires_grad=True)
    gradient_penalty(images, (images * scale).sum(dim=(1, 2, 3))).sum().backward()
    assert scale.grad is not None
    assert scale.grad.item() == pytest.approx(2 * 4 * 2 * 3.0)  # d/ds of 2 samples x 4 s^2


def test_r1_refuses_images_without_grad() -> None:
    with pytest.raises(ValueError, match="require grad"):
        gradient_penalty(torch.zeros(1, 1, 2, 2), torch.zeros(1))
