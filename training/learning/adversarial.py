"""One adversarial step: the discriminator learns, then the generator. No files, no logs."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.discriminator import Discriminator
from models.generator import Generator
from training.learning.augment import DRAWS, augment
from training.learning.config import TrainingConfig
from training.learning.distributed import Ranks, average_gradients
from training.learning.loader import Batch
from training.learning.losses import (
    discriminator_loss,
    gradient_penalty,
    relativistic_loss,
)
from training.learning.optimizer import Adam, equalized_groups
from training.learning.passes import Passes
from training.learning.randomness import Purpose, generator_for


@dataclass
class StepStatistics:
    """Device tensors of one step, summed until they are read at a tick."""

    generator_loss: Tensor
    discriminator_loss: Tensor
    real_logits: Tensor
    fake_logits: Tensor
    real_sign: Tensor
    r1_penalty: Tensor | None  # with the next, of the steps with R1 only
    gradient_norm: Tensor | None


class AdversarialPair:
    """Generator and discriminator with their optimisers."""

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        config: TrainingConfig,
        dtype: torch.dtype,
    ) -> None:
        self.generator = generator
        self.discriminator = discriminator
        self.config = config
        self.dtype = dtype
        self.passes = Passes(generator, discriminator, config, dtype)
        self.generator_parameters = list(generator.parameters())
        self.discriminator_parameters = [p for p in discriminator.parameters() if p.requires_grad]
        self._parameters = (self.generator_parameters, self.discriminator_parameters)
        settings = config.optimizer
        self.generator_optimizer = _adam(
            equalized_groups(
                generator,
                settings.learning_rate,
                settings.mapping_multiplier,
                settings.noise_multiplier,
            ),
            config,
            lazy_interval=0,
        )
        self.discriminator_optimizer = _adam(
            equalized_groups(discriminator, settings.learning_rate),
            config,
            lazy_interval=settings.r1_interval_steps,
        )

        self.optimizers = (self.generator_optimizer, self.discriminator_optimizer)
        self._rates = [[group["lr"] for group in o.param_groups] for o in self.optimizers]
        self._betas = [o.param_groups[0]["betas"] for o in self.optimizers]
        self._factor = 1.0

    def load_optimizers(self, generator: dict[str, Any], discriminator: dict[str, Any]) -> None:
        """Take up saved optimiser states, at the learning rates and betas configured now."""
        states = (generator, discriminator)
        for optimizer, state, betas in zip(self.optimizers, states, self._betas, strict=True):
            optimizer.load_state_dict(state)
            for group in optimizer.param_groups:
                group["betas"] = betas
        self._factor = math.nan  # whatever the rates were then
        self.set_learning_rate(1.0)

    def set_learning_rate(self, factor: float) -> None:
        """Learn at `factor` of the configured rates from now on."""
        if factor == self._factor:
            return
        self._factor = factor
        for optimizer, rates in zip(self.optimizers, self._rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = factor * rate

    def step(self, batch: Batch, nimg: int, strength: float, ranks: Ranks) -> StepStatistics:
        """Train both networks on one batch; both learn from the same generated pictures.

        Args:
            batch: This rank's photos.
            nimg: Images shown before, over all ranks; fixes what is drawn.
            strength: Of the augmentation.
            ranks: Over which gradients are averaged.
        """
        config = self.config
        device = batch.images.device
        random = generator_for(config.seed, Purpose.LATENTS, nimg, device)
        share = ranks.share(config.batch_size)
        count = config.batch_size
        z = torch.randn(count, self.generator.z_dim, device=device, generator=random)[share]
        noise = torch.randn(count, self.generator.noise_dim, device=device, generator=random)[share]
        fakes = self.passes.paint(z, batch.category, noise)

        random = generator_for(config.seed, Purpose.AUGMENT, nimg, device)
        draws = torch.rand(3, DRAWS, count, device=device, generator=random)[..., share]
        mirror = config.augment.mirror
        both = torch.cat([batch.images, fakes.detach()])
        both = augment(both, strength, mirror, draws[:2].transpose(0, 1).flatten(1))
        with_r1 = (nimg // config.batch_size) % config.optimizer.r1_interval_steps == 0
        statistics = self._discriminator_step(both, batch.category, with_r1, ranks)

        shown = augment(fakes, strength, mirror, draws[2])
        reals = both[: len(shown)]
        statistics.generator_loss = self._generator_step(shown, reals, batch.category, ranks)
        if with_r1:
            norms = [_gradient_norm(parameters) for parameters in self._parameters]
            statistics.gradient_norm = torch.maximum(*norms)
        return statistics

    def _discriminator_step(
        self, both: Tensor, category: Tensor, with_r1: bool, ranks: Ranks
    ) -> StepStatistics:
        penalty = None
        if with_r1:
            loss, penalty, real_logits, fake_logits = self._penalized(both, category)
            settings = self.config.optimizer
            total = loss + penalty * (settings.r1_gamma / 2 * settings.r1_interval_steps)
        else:
            loss, real_logits, fake_logits = self.passes.discriminator_losses(both, category)
            total = loss
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        total.backward(inputs=self.discriminator_parameters)
        average_gradients(self.discriminator_parameters, ranks)
        self.discriminator_optimizer.step()
        # Relativistic logits mean something only against their partners'.
        sure = real_logits - fake_logits if self.passes.relativistic else real_logits
        return StepStatistics(
            generator_loss=loss.detach(),
            discriminator_loss=loss.detach(),
            real_logits=real_logits.detach().mean(),
            fake_logits=fake_logits.detach().mean(),
            real_sign=sure.detach().sign().mean(),
            r1_penalty=None if penalty is None else penalty.detach(),
            gradient_norm=None,
        )

    def _penalized(self, both: Tensor, category: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Loss, mean penalty, real and fake logits."""
        relativistic = self.passes.relativistic
        reals, fakes = (half.detach() for half in both.chunk(2))
        reals.requires_grad_(True)
        fakes.requires_grad_(relativistic)
        real_logits = self.discriminator(reals, category, self.dtype)
        fake_logits = self.discriminator(fakes, category, self.dtype)
        penalty = gradient_penalty(reals, real_logits).mean()
        if relativistic:
            penalty = penalty + gradient_penalty(fakes, fake_logits).mean()
        judge = relativistic_loss if relativistic else discriminator_loss
        return judge(real_logits, fake_logits), penalty, real_logits, fake_logits

    def _generator_step(
        self, fakes: Tensor, reals: Tensor, category: Tensor, ranks: Ranks
    ) -> Tensor:
        with _frozen(self.discriminator_parameters):
            loss = self.passes.generator_loss(fakes, reals, category)
        self.generator_optimizer.zero_grad(set_to_none=True)
        loss.backward(inputs=self.generator_parameters)
        average_gradients(self.generator_parameters, ranks)
        self.generator_optimizer.step()
        return loss.detach()


@contextmanager
def _frozen(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Take no gradients for these: compiled passes would compute them all."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _gradient_norm(parameters: list[nn.Parameter]) -> Tensor:
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def _adam(groups: Iterable[dict[str, Any]], config: TrainingConfig, *, lazy_interval: int) -> Adam:
    """Adam with the time constants corrected for lazy R1 (arXiv 1912.04958, appendix B)."""
    settings = config.optimizer
    ratio = lazy_interval / (lazy_interval + 1) if lazy_interval else 1.0
    corrected = [{**group, "lr": group["lr"] * ratio} for group in groups]
    return Adam(corrected, (settings.beta1**ratio, settings.beta2**ratio))
