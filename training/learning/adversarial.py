"""One adversarial step: both networks learn, each from the other as it was. No files, no logs."""

import math
from collections.abc import Iterable
from concurrent.futures import Future
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
    generator_loss,
    gradient_penalty,
    relativistic_loss,
)
from training.learning.randomness import Purpose, generator_for
from training.learning.side_thread import SideThread


def equalized_groups(
    module: nn.Module,
    learning_rate: float,
    mapping_multiplier: float = 1.0,
    noise_multiplier: float = 1.0,
) -> list[dict[str, Any]]:
    """Parameter groups with equalised learning rates.

    Adam's step does not depend on the gradient's scale, so a learning rate in proportion
    to the initial standard deviation, 1 / sqrt(fan_in), does what scaling each weight in
    every forward pass does, for free (Karras et al. 2018, arXiv 1710.10196).
    """
    groups: dict[float, list[nn.Parameter]] = {}
    trained = ((n, p) for n, p in module.named_parameters() if p.requires_grad)
    for name, parameter in trained:
        rate = learning_rate
        if parameter.ndim in (2, 4):  # matrices and kernels; not biases and the constant
            rate /= parameter[0].numel() ** 0.5
        if parameter.ndim == 0:
            # A noise strength speaks for a whole map: at the full rate it outruns the
            # features early on, and pictures come out peppered.
            rate *= noise_multiplier
        if name.startswith("mapping."):
            rate *= mapping_multiplier
        groups.setdefault(rate, []).append(parameter)
    return [{"params": parameters, "lr": rate} for rate, parameters in groups.items()]


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
        side: SideThread,
    ) -> None:
        """Train the two; the generator's part of a step goes to `side`."""
        self.generator = generator
        self.discriminator = discriminator
        self.config = config
        self.dtype = dtype
        self._side = side
        self._ahead: tuple[int, Future[Tensor]] | None = None  # pictures of that image count
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
        self._ahead = None  # painted with other weights
        self.set_learning_rate(1.0)

    def set_learning_rate(self, factor: float) -> None:
        """Learn at `factor` of the configured rates from now on."""
        if factor == self._factor:
            return
        self._factor = factor
        for optimizer, rates in zip(self.optimizers, self._rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = factor * rate

    def step(
        self, batch: Batch, following: Batch, nimg: int, strength: float, ranks: Ranks
    ) -> StepStatistics:
        """Train both networks on one batch, each against the other as it was before the step.

        So neither waits for the other, and both can learn at once. The pictures of the next
        step are painted as soon as the generator has learnt.

        Args:
            batch: This rank's photos.
            following: Those of the next step, whose categories are painted.
            nimg: Images shown before, over all ranks; fixes what is drawn.
            strength: Of the augmentation.
            ranks: Over which gradients are averaged.
        """
        config = self.config
        random = generator_for(config.seed, Purpose.AUGMENT, nimg, batch.images.device)
        draws = torch.rand(
            3, DRAWS, config.batch_size, device=batch.images.device, generator=random
        )[..., ranks.share(config.batch_size)]
        with_r1 = (nimg // config.batch_size) % config.optimizer.r1_interval_steps == 0
        with self._side.sharing():
            fakes = self._fakes(batch, nimg, ranks)
            generator_loss = self._side.submit(
                self._generator_gradients, fakes, batch, strength, draws, ranks
            )
            at = nimg + config.batch_size
            painted = self._side.submit(self._generator_update, following.category, at, ranks)
            self._ahead = at, painted
            both = torch.cat([batch.images, fakes.detach()])
            both = augment(
                both, strength, config.augment.mirror, draws[:2].transpose(0, 1).flatten(1)
            )
            statistics = self._discriminator_gradients(both, batch.category, with_r1, ranks)
            statistics.generator_loss = generator_loss.result()
            # Not sooner: the generator's gradients came through these weights.
            self.discriminator_optimizer.step()
        if with_r1:
            norms = [_gradient_norm(parameters) for parameters in self._parameters]
            statistics.gradient_norm = torch.maximum(*norms)
        return statistics

    def _fakes(self, batch: Batch, nimg: int, ranks: Ranks) -> Tensor:
        """This step's pictures, painted by the step before if there was one."""
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead[0] != nimg:
            ahead = nimg, self._side.submit(self._paint, batch.category, nimg, ranks)
        return ahead[1].result()

    def _paint(self, category: Tensor, nimg: int, ranks: Ranks) -> Tensor:
        """Pictures of one step, with the graph behind them: [N, channels, H, W]."""
        count, share = self.config.batch_size, ranks.share(self.config.batch_size)
        device, generator = category.device, self.generator
        random = generator_for(self.config.seed, Purpose.LATENTS, nimg, device)
        z = torch.randn(count, generator.z_dim, device=device, generator=random)[share]
        noise = torch.randn(count, generator.noise_dim, device=device, generator=random)[share]
        fakes: Tensor = generator(z, category, None, noise, self.dtype)
        return fakes

    def _generator_gradients(
        self, fakes: Tensor, batch: Batch, strength: float, draws: Tensor, ranks: Ranks
    ) -> Tensor:
        """Leave the generator's gradients in its parameters; returns its loss."""
        config = self.config
        shown = augment(fakes, strength, config.augment.mirror, draws[2])
        logits = self._judge_for_generator(shown, batch.category)
        if config.objective == "relativistic":
            reals = augment(batch.images, strength, config.augment.mirror, draws[0])
            with torch.no_grad():  # nothing that the generator does changes these
                real_logits = self._judge_for_generator(reals, batch.category)
            loss = relativistic_loss(logits, real_logits)
        else:
            loss = generator_loss(logits)
        self.generator_optimizer.zero_grad(set_to_none=True)
        loss.backward(inputs=self.generator_parameters)
        average_gradients(self.generator_parameters, ranks)
        return loss.detach()

    def _judge_for_generator(self, images: Tensor, category: Tensor) -> Tensor:
        masked = self.config.masking.generator_sees_mask
        logits: Tensor = self.discriminator(images, category, self.dtype, masked=masked)
        return logits

    def _generator_update(self, category: Tensor, nimg: int, ranks: Ranks) -> Tensor:
        """Take the generator's step and paint the pictures of step `nimg`."""
        self.generator_optimizer.step()
        return self._paint(category, nimg, ranks)

    def _discriminator_gradients(
        self, both: Tensor, category: Tensor, with_r1: bool, ranks: Ranks
    ) -> StepStatistics:
        """Leave the discriminator's gradients in its parameters."""
        relativistic = self.config.objective == "relativistic"
        if with_r1:
            reals, fakes = (half.detach() for half in both.chunk(2))
            reals.requires_grad_(True)
            fakes.requires_grad_(relativistic)
            real_logits = self.discriminator(reals, category, self.dtype)
            fake_logits = self.discriminator(fakes, category, self.dtype)
        else:
            real_logits, fake_logits = self._both_logits(both, category)
        judge = relativistic_loss if relativistic else discriminator_loss
        loss = judge(real_logits, fake_logits)
        total, penalty = loss, None
        if with_r1:
            settings = self.config.optimizer
            penalty = gradient_penalty(reals, real_logits).mean()
            if relativistic:
                penalty = penalty + gradient_penalty(fakes, fake_logits).mean()
            total = loss + penalty * (settings.r1_gamma / 2 * settings.r1_interval_steps)
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        total.backward(inputs=self.discriminator_parameters)
        average_gradients(self.discriminator_parameters, ranks)
        return StepStatistics(
            generator_loss=loss.detach(),
            discriminator_loss=loss.detach(),
            real_logits=real_logits.detach().mean(),
            fake_logits=fake_logits.detach().mean(),
            # Relativistic logits mean something only against their partners'.
            real_sign=(real_logits - fake_logits * relativistic).detach().sign().mean(),
            r1_penalty=None if penalty is None else penalty.detach(),
            gradient_norm=None,
        )

    def _both_logits(self, both: Tensor, category: Tensor) -> tuple[Tensor, Tensor]:
        """Real and generated pictures in one pass; minibatch deviation keeps the halves apart."""
        twice = torch.cat([category, category])
        real_logits, fake_logits = self.discriminator(both, twice, self.dtype).chunk(2)
        return real_logits, fake_logits


def _gradient_norm(parameters: list[nn.Parameter]) -> Tensor:
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def _adam(
    groups: Iterable[dict[str, Any]], config: TrainingConfig, *, lazy_interval: int
) -> torch.optim.Adam:
    """Adam with the time constants corrected for lazy R1 (arXiv 1912.04958, appendix B)."""
    settings = config.optimizer
    ratio = lazy_interval / (lazy_interval + 1) if lazy_interval else 1.0
    corrected = [{**group, "lr": group["lr"] * ratio} for group in groups]
    betas = (settings.beta1**ratio, settings.beta2**ratio)
    return torch.optim.Adam(corrected, betas=betas, eps=1e-8, fused=True)
