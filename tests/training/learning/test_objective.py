"""Losses and R1 against closed forms; each kind of discriminator learns by its objective."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.discriminator import Discriminator
from models.projected import CombinedDiscriminator
from training.dataset import PreparedDataset
from training.learning.config import TrainingConfig, resolve
from training.learning.objective import (
    CombinedObjective,
    HingeObjective,
    LogisticObjective,
    gradient_penalty,
    objective_for,
)
from training.learning.run import build_networks

KINDS = ("convolutional", "both")


@pytest.fixture
def made(tiny_dataset: Path, tiny_settings: dict[str, Any]) -> Any:
    """Makes a discriminator with its configuration."""

    def make(kind: str, **settings: Any) -> tuple[Discriminator, TrainingConfig]:
        config = resolve({**tiny_settings, "max_kimg": 1, "discriminator": kind, **settings})
        return build_networks(config, PreparedDataset(tiny_dataset).info)[1], config

    return make


def batch() -> tuple[Tensor, Tensor]:
    """Photos and generated images in one, and the category of either half."""
    random = torch.Generator().manual_seed(0)
    both = torch.rand(16, 3, 16, 16, generator=random) * 2 - 1
    return both, torch.eye(3)[torch.arange(8) // 4]


def test_the_logistic_loss_is_its_formula_and_the_penalty_comes_on_top(made: Any) -> None:
    discriminator, config = made("convolutional", optimizer={"r1_gamma": 3.0})
    objective = objective_for(discriminator, config, torch.float32)
    assert isinstance(objective, LogisticObjective)
    both, category = batch()
    reals, fakes = (discriminator(half, category) for half in both.chunk(2))
    plain, penalized = (objective.judge(both, category, r1) for r1 in (False, True))
    wanted = torch.log1p(torch.exp(-reals)).mean() + torch.log1p(torch.exp(fakes)).mean()
    torch.testing.assert_close(plain.loss, wanted.detach())
    torch.testing.assert_close(penalized.loss, wanted.detach())
    assert plain.penalty is None
    assert torch.equal(plain.total.detach(), plain.loss)
    assert penalized.penalty is not None
    # Of each 16th step alone, so that much stronger: 3 / 2 * 16.
    torch.testing.assert_close(penalized.total.detach(), wanted.detach() + 24 * penalized.penalty)
    generator = objective.deceive(both[8:], category)
    torch.testing.assert_close(generator, torch.log1p(torch.exp(-fakes)).mean())


def test_the_hinge_loss_is_its_formula_for_every_place(made: Any) -> None:
    combined, config = made("both")
    assert isinstance(combined, CombinedDiscriminator)
    discriminator = combined.projected
    objective = HingeObjective(discriminator, config, torch.float32)
    both, category = batch()
    discriminator.eval()
    reals, fakes = (discriminator.place_logits(half, category) for half in both.chunk(2))
    assert reals.shape[1] > 4
    judgement = objective.judge(both, category, True)
    wanted = (1 - reals).clamp(min=0).mean() + (1 + fakes).clamp(min=0).mean()
    torch.testing.assert_close(judgement.total, wanted)
    assert judgement.penalty is None
    torch.testing.assert_close(judgement.real_sign, reals.sign().mean())
    torch.testing.assert_close(objective.deceive(both[8:], category), -fakes.mean())


def test_both_is_a_weighted_sum_and_the_convolutional_one_tells_of_overfitting(
    made: Any,
) -> None:
    discriminator, config = made("both", projected={"weight": 0.25})
    assert isinstance(discriminator, CombinedDiscriminator)
    objective = objective_for(discriminator, config, torch.float32)
    assert isinstance(objective, CombinedObjective)
    discriminator.eval()
    both, category = batch()
    parts = (
        LogisticObjective(discriminator.convolutional, config, torch.float32),
        HingeObjective(discriminator.projected, config, torch.float32),
    )
    whole, own, seen = (o.judge(both, category, True) for o in (objective, *parts))
    torch.testing.assert_close(whole.total, own.total + 0.25 * seen.total)
    assert torch.equal(whole.real_sign, own.real_sign)
    own_loss, seen_loss = (o.deceive(both[8:], category) for o in parts)
    torch.testing.assert_close(objective.deceive(both[8:], category), own_loss + 0.25 * seen_loss)


@pytest.mark.parametrize("sees_mask", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_reaches_the_discriminator_and_the_generator_only_if_it_is_to(
    made: Any, kind: str, sees_mask: bool
) -> None:
    discriminator, config = made(kind, masking={"generator_sees_mask": sees_mask})
    objective = objective_for(discriminator.eval(), config, torch.float32)
    both, category = batch()

    def losses() -> tuple[Tensor, Tensor]:
        judged = objective.judge(both, category, False)
        return judged.loss, objective.deceive(both[8:], category).detach()

    plain = losses()
    held = [torch.zeros(1, *mask.shape) for mask in discriminator.masks]
    for mask, tensor in zip(discriminator.masks, held, strict=True):
        tensor[..., ::2] = 2.0
        mask.held = tensor
    masked = losses()
    assert not torch.isclose(plain[0], masked[0])
    assert torch.isclose(plain[1], masked[1]) == (not sees_mask)
    assert all(mask.held is one for mask, one in zip(discriminator.masks, held, strict=True))


def test_losses_at_zero_logits_are_log_two(made: Any) -> None:
    discriminator, config = made("convolutional")
    torch.nn.init.zeros_(discriminator.logit.weight)
    torch.nn.init.zeros_(discriminator.embed)
    objective = objective_for(discriminator, config, torch.float32)
    both, category = batch()
    judged = objective.judge(both, category, False)
    assert judged.loss.item() == pytest.approx(2 * math.log(2))
    assert objective.deceive(both[8:], category).item() == pytest.approx(math.log(2))


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
