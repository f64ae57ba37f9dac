"""One adversarial step: the discriminator learns, then the generator. No files, no logs."""

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
from training.learning.objective import Judgement, objective_for
from training.learning.optimizer import adam, discriminator_groups, generator_groups, load_adam
from training.learning.randomness import Purpose, generator_for


@dataclass(frozen=True)
class StepStatistics:
    """Device tensors of one step, summed until they are read at a tick."""

    generator_loss: Tensor
    discriminator_loss: Tensor
    real_logits: Tensor
    fake_logits: Tensor
    real_sign: Tensor
    r1_penalty: Tensor | None  # where it was computed
    gradient_norm: Tensor | None  # of the same steps, or as often


class AdversarialPair:
    """Generator and discriminator with their objective and optimizers."""

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        config: TrainingConfig,
        dtype: torch.dtype,
    ) -> None:
        self.generator = generator
        self.discriminator = discriminator.eval()
        self.config = config
        self.dtype = dtype
        self.objective = objective_for(discriminator, config, dtype)
        self.generator_parameters = list(generator.parameters())
        self.discriminator_parameters = [p for p in discriminator.parameters() if p.requires_grad]
        self._parameters = (self.generator_parameters, self.discriminator_parameters)
        self.generator_optimizer = adam(generator_groups(generator, config.optimizer))
        self.discriminator_optimizer = adam(discriminator_groups(discriminator, config))
        self.optimizers = (self.generator_optimizer, self.discriminator_optimizer)
        self._rates = [[group["lr"] for group in o.param_groups] for o in self.optimizers]
        self._factor = 1.0

    def load_optimizers(self, generator: dict[str, Any], discriminator: dict[str, Any]) -> None:
        """Take up saved optimizer states, at the learning rates and betas configured now."""
        load_adam(self.generator_optimizer, generator, self.generator, self.config.optimizer)
        load_adam(
            self.discriminator_optimizer, discriminator, self.discriminator, self.config.optimizer
        )

    def set_learning_rate(self, factor: float) -> None:
        """Learn at `factor` of the configured rates from now on."""
        if factor == self._factor:
            return
        self._factor = factor
        for optimizer, rates in zip(self.optimizers, self._rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = factor * rate

    def step(self, batch: Batch, nimg: int, strength: float, ranks: Ranks) -> StepStatistics:
        """Train both networks on one batch; both learn from the same generated images.

        Args:
            batch: This rank's photos.
            nimg: Images shown before, over all ranks; fixes what is drawn.
            strength: Probability of each augmentation.
            ranks: Over which gradients are averaged.
        """
        config = self.config
        fakes = self._generate(batch.category, nimg, ranks)
        random = generator_for(config.seed, Purpose.AUGMENT, nimg, fakes.device)
        draws = torch.rand(3, DRAWS, config.batch_size, device=fakes.device, generator=random)
        draws = draws[..., ranks.share(config.batch_size)]
        both = torch.cat([batch.images, fakes.detach()])
        both = augment(both, strength, draws[:2].transpose(0, 1).flatten(1))
        penalized = (nimg // config.batch_size) % config.optimizer.r1_interval_steps == 0
        judgement = self._discriminator_step(both, batch.category, penalized, ranks)
        shown = augment(fakes, strength, draws[2])
        generator_loss = self._generator_step(shown, batch.category, ranks)
        norm = None
        if penalized:
            norm = torch.maximum(*(_gradient_norm(parameters) for parameters in self._parameters))
        return StepStatistics(
            generator_loss=generator_loss,
            discriminator_loss=judgement.loss,
            real_logits=judgement.real_logits,
            fake_logits=judgement.fake_logits,
            real_sign=judgement.real_sign,
            r1_penalty=judgement.penalty,
            gradient_norm=norm,
        )

    def _generate(self, category: Tensor, nimg: int, ranks: Ranks) -> Tensor:
        """This rank's images, of latents drawn for the whole batch."""
        count, device = self.config.batch_size, category.device
        random = generator_for(self.config.seed, Purpose.LATENTS, nimg, device)
        z, noise = (
            torch.randn(count, length, device=device, generator=random)[ranks.share(count)]
            for length in (self.generator.z_dim, self.generator.noise_dim)
        )
        images: Tensor = self.generator(z, category, None, noise, self.dtype)
        return images

    def _discriminator_step(
        self, both: Tensor, category: Tensor, penalized: bool, ranks: Ranks
    ) -> Judgement:
        self.discriminator.train()  # only here are spectral norms estimated anew
        judgement = self.objective.judge(both, category, penalized)
        self.discriminator.eval()
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        judgement.total.backward(inputs=self.discriminator_parameters)
        average_gradients(self.discriminator_parameters, ranks)
        self.discriminator_optimizer.step()
        return judgement

    def _generator_step(self, fakes: Tensor, category: Tensor, ranks: Ranks) -> Tensor:
        loss = self.objective.deceive(fakes, category)
        self.generator_optimizer.zero_grad(set_to_none=True)
        loss.backward(inputs=self.generator_parameters)
        average_gradients(self.generator_parameters, ranks)
        self.generator_optimizer.step()
        return loss.detach()


def _gradient_norm(parameters: list[nn.Parameter]) -> Tensor:
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
