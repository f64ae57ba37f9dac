"""What the two networks play for: losses, penalty and signs of overfitting, one class each.

An objective belongs to a kind of discriminator: the convolutional one learns by the logistic
loss with R1, projected heads by the hinge loss without a penalty, and the two together by both.
"""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from models.discriminator import Discriminator
from models.masking import lifted
from models.projected import CombinedDiscriminator, ProjectedDiscriminator
from training.learning.config import TrainingConfig


@dataclass(frozen=True)
class Judgement:
    """What a discriminator learns from in one step.

    Attributes:
        loss: Mean loss; without the penalty, which is for the record.
        total: What is differentiated.
        penalty: Mean R1; None where it was not computed.
        real_logits: Mean logit of the photos.
        fake_logits: Mean logit of the generated images.
        real_sign: Mean sign of the photos' logits: the more of them the discriminator is sure of,
            the more it overfits (Karras et al. 2020, section 3.1, arXiv 2006.06676).
    """

    loss: Tensor
    total: Tensor
    penalty: Tensor | None
    real_logits: Tensor
    fake_logits: Tensor
    real_sign: Tensor


class Objective(ABC):
    """Images and their categories in, losses out."""

    @abstractmethod
    def judge(self, both: Tensor, category: Tensor, penalized: bool) -> Judgement:
        """What the discriminator is to learn.

        Args:
            both: Photos, then as many generated images, [2N, C, H, W], without a gradient.
            category: Of either half, [N, categories].
            penalized: Whether it is a step with the penalty, where there is one.
        """

    @abstractmethod
    def deceive(self, fakes: Tensor, category: Tensor) -> Tensor:
        """The generator's loss for its images [N, C, H, W] of these categories."""


class LogisticObjective(Objective):
    """Non-saturating logistic loss with lazy R1.

    Sources: Goodfellow et al. 2014, arXiv 1406.2661; Mescheder et al. 2018, equation 9, arXiv
    1801.04406; Karras et al. 2020, arXiv 1912.04958 (lazy).
    """

    def __init__(
        self, discriminator: Discriminator, config: TrainingConfig, dtype: torch.dtype
    ) -> None:
        self.discriminator, self.dtype = discriminator, dtype
        settings = config.optimizer
        self.penalty_weight = settings.r1_gamma / 2 * settings.r1_interval_steps
        self.hides_mask = not config.masking.generator_sees_mask

    def judge(self, both: Tensor, category: Tensor, penalized: bool) -> Judgement:
        """See Objective. The photos go through alone where R1 differentiates their pass."""
        penalty = None
        if penalized:
            reals, fakes = both.chunk(2)
            reals = reals.detach().requires_grad_(True)
            real_logits = self.discriminator(reals, category, self.dtype)
            fake_logits = self.discriminator(fakes, category, self.dtype)
            penalty = gradient_penalty(reals, real_logits).mean()
        else:
            twice = torch.cat([category, category])
            real_logits, fake_logits = self.discriminator(both, twice, self.dtype).chunk(2)
        loss = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
        total = loss if penalty is None else loss + penalty * self.penalty_weight
        return _judgement(loss, total, penalty, real_logits, fake_logits)

    def deceive(self, fakes: Tensor, category: Tensor) -> Tensor:
        """See Objective."""
        with _as_generator_sees(self.discriminator, self.hides_mask):
            return F.softplus(-self.discriminator(fakes, category, self.dtype)).mean()


class HingeObjective(Objective):
    """Hinge loss of every place of every head. Source: Sauer et al. 2021, arXiv 2111.01007."""

    def __init__(
        self, discriminator: ProjectedDiscriminator, config: TrainingConfig, dtype: torch.dtype
    ) -> None:
        self.discriminator, self.dtype = discriminator, dtype
        self.hides_mask = not config.masking.generator_sees_mask

    def judge(self, both: Tensor, category: Tensor, penalized: bool) -> Judgement:
        """See Objective; spectral norms bound the gradients, and nothing is penalised."""
        twice = torch.cat([category, category])
        logits = self.discriminator.place_logits(both.detach(), twice, self.dtype)
        real_logits, fake_logits = logits.chunk(2)
        loss = F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()
        return _judgement(loss, loss, None, real_logits, fake_logits)

    def deceive(self, fakes: Tensor, category: Tensor) -> Tensor:
        """See Objective."""
        with _as_generator_sees(self.discriminator, self.hides_mask):
            return -self.discriminator.place_logits(fakes, category, self.dtype).mean()


class CombinedObjective(Objective):
    """Both losses; the convolutional discriminator tells of overfitting.

    The weight matters to the generator alone: the discriminators share no parameters, and Adam's
    steps do not depend on a loss's scale.
    """

    def __init__(
        self, discriminator: CombinedDiscriminator, config: TrainingConfig, dtype: torch.dtype
    ) -> None:
        self.own = LogisticObjective(discriminator.convolutional, config, dtype)
        self.seen = HingeObjective(discriminator.projected, config, dtype)
        self.weight = config.projected.weight

    def judge(self, both: Tensor, category: Tensor, penalized: bool) -> Judgement:
        """See Objective."""
        own, seen = (o.judge(both, category, penalized) for o in (self.own, self.seen))
        return Judgement(
            loss=own.loss + self.weight * seen.loss,
            total=own.total + self.weight * seen.total,
            penalty=own.penalty,
            real_logits=own.real_logits,
            fake_logits=own.fake_logits,
            real_sign=own.real_sign,
        )

    def deceive(self, fakes: Tensor, category: Tensor) -> Tensor:
        """See Objective."""
        own, seen = (o.deceive(fakes, category) for o in (self.own, self.seen))
        return own + self.weight * seen


def objective_for(
    discriminator: Discriminator, config: TrainingConfig, dtype: torch.dtype
) -> Objective:
    """The objective that this kind of discriminator learns by."""
    if isinstance(discriminator, CombinedDiscriminator):
        return CombinedObjective(discriminator, config, dtype)
    return LogisticObjective(discriminator, config, dtype)


def gradient_penalty(images: Tensor, logits: Tensor) -> Tensor:
    """Zero-centred gradient penalty: R1 on photos.

    Args:
        images: Batch [N, C, H, W] in [-1, 1]; must require grad.
        logits: The discriminator's output for `images`, [N].

    Returns:
        Squared gradient norm of each image, [N]; the caller applies r1_gamma / 2.

    Raises:
        ValueError: `images` does not require grad.

    Source: Mescheder et al. 2018, equation 9, arXiv 1801.04406.
    """
    if not images.requires_grad:
        raise ValueError("images must require grad before they go through the discriminator")
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3))


def _as_generator_sees(
    discriminator: Discriminator, hides_mask: bool
) -> AbstractContextManager[None]:
    return lifted(discriminator.masks) if hides_mask else nullcontext()


def _judgement(
    loss: Tensor, total: Tensor, penalty: Tensor | None, real_logits: Tensor, fake_logits: Tensor
) -> Judgement:
    real_logits, fake_logits = real_logits.detach(), fake_logits.detach()
    return Judgement(
        loss=loss.detach(),
        total=total,
        penalty=None if penalty is None else penalty.detach(),
        real_logits=real_logits.mean(),
        fake_logits=fake_logits.mean(),
        real_sign=real_logits.sign().mean(),
    )
