"""One adversarial step: the discriminator learns, then the generator. No files, no logs."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from models.discriminator import Discriminator
from models.generator import Generator
from models.masking import holding
from training.learning.augment import DRAWS, amounts_of, augment
from training.learning.config import TrainingConfig
from training.learning.cuda_graphs import Recording, StepGraphs
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


@dataclass
class _Part:
    """What goes through the networks at once, of one rank's shard of a batch."""

    photos: Tensor
    category: Tensor
    z: Tensor
    noise: Tensor
    amounts: Tensor | None  # of augmentation: for the photos, and for what each network is shown
    fakes: Tensor | None = None  # with their graph, where there is one part


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
        # Set to None, each step is launched by Python.
        self.graphs = StepGraphs() if discriminator.device.type == "cuda" else None

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

    def step(self, batch: Batch, nimg: int, p: float, ranks: Ranks) -> StepStatistics:
        """Train both networks on one batch; both learn from the same generated images.

        Args:
            batch: This rank's photos.
            nimg: Images shown before, over all ranks; fixes what is drawn.
            p: Probability of each augmentation.
            ranks: Over which gradients are averaged.
        """
        penalized = nimg // self.config.batch_size % self.config.optimizer.r1_interval_steps == 0
        parts = self._parts(batch, nimg, p, ranks)
        with nullcontext() if self.graphs is None else self.graphs.aside():
            judge, deceive = self._halves(parts, penalized)
            judgements = judge()
            average_gradients(self.discriminator_parameters, ranks)
            self.discriminator_optimizer.step()
            generator_loss = deceive()
            average_gradients(self.generator_parameters, ranks)
            self.generator_optimizer.step()
        norm = None
        if penalized:
            norm = torch.maximum(*(_gradient_norm(parameters) for parameters in self._parameters))
        penalties = [j.penalty for j in judgements if j.penalty is not None]
        return StepStatistics(
            generator_loss=generator_loss,
            discriminator_loss=_mean([j.loss for j in judgements]),
            real_logits=_mean([j.real_logits for j in judgements]),
            fake_logits=_mean([j.fake_logits for j in judgements]),
            real_sign=_mean([j.real_sign for j in judgements]),
            r1_penalty=_mean(penalties) if penalties else None,
            gradient_norm=norm,
        )

    def _parts(self, batch: Batch, nimg: int, p: float, ranks: Ranks) -> list[_Part]:
        """This rank's shard in parts of batch_gpu; what is drawn is drawn for the whole batch."""
        config, device = self.config, batch.category.device
        shard = ranks.share(config.batch_size)
        random = generator_for(config.seed, Purpose.LATENTS, nimg, device)
        z, noise = (
            torch.randn(config.batch_size, length, device=device, generator=random)[shard]
            for length in (self.generator.z_dim, self.generator.noise_dim)
        )
        random = generator_for(config.seed, Purpose.AUGMENT, nimg, device)
        draws = torch.rand(3, DRAWS, config.batch_size, device=device, generator=random)[..., shard]
        amounts = amounts_of(draws, p)
        size = config.batch_gpu or len(z)
        return [
            _Part(
                photos=batch.images[start : start + size],
                category=batch.category[start : start + size],
                z=z[start : start + size],
                noise=noise[start : start + size],
                amounts=None if amounts is None else amounts[..., start : start + size],
            )
            for start in range(0, len(z), size)
        ]

    def _generate(self, part: _Part) -> Tensor:
        images: Tensor = self.generator(part.z, part.category, None, part.noise, self.dtype)
        return images

    def _halves(
        self, parts: list[_Part], penalized: bool
    ) -> tuple[Callable[[], list[Judgement]], Callable[[], Tensor]]:
        """What gives the discriminator its gradients, and what then gives the generator its own."""
        recording = self._recording(parts[0], penalized) if len(parts) == 1 else None
        if recording:
            return partial(recording.replay, 0), partial(recording.replay, 1)
        return partial(self._judge, parts, penalized), partial(self._deceive, parts)

    def _recording(self, part: _Part, penalized: bool) -> Recording | None:
        if self.graphs is None:
            return None
        masks = self.discriminator.masks
        amounts, held = part.amounts, [mask.held for mask in masks]
        shapes = tuple(None if tensor is None else tensor.shape for tensor in held)
        kind = (penalized, amounts is None, shapes)
        varying = (part.photos, part.category, part.z, part.noise)
        inputs = (*varying, *(t for t in (amounts, *held) if t is not None))

        def halves(read: tuple[Tensor, ...]) -> list[Callable[[], Any]]:
            photos, category, z, noise, *others = read
            rest = iter(others)
            part = _Part(photos, category, z, noise, None if amounts is None else next(rest))
            read_masks = [None if tensor is None else next(rest) for tensor in held]

            def masked(half: Callable[[], Any]) -> Any:
                with holding(masks, read_masks):
                    return half()

            judge, deceive = partial(self._judge, [part], penalized), partial(self._deceive, [part])
            return [partial(masked, judge), partial(masked, deceive)]

        return self.graphs.recording(kind, inputs, halves)

    def _judge(self, parts: list[_Part], penalized: bool) -> list[Judgement]:
        # Graphs write gradients where they did when they were recorded.
        self.discriminator_optimizer.zero_grad(set_to_none=self.graphs is None)
        self.discriminator.train()  # spectral norms are estimated once a step, and only here
        judgements = []
        for part in parts:
            if len(parts) == 1:  # the generator's step goes back through the same pass
                part.fakes = self._generate(part)
                fakes = part.fakes.detach()
            else:
                with torch.no_grad():
                    fakes = self._generate(part)
            both = torch.cat([part.photos, fakes])
            both = augment(both, _of_photos_and_fakes(part.amounts))
            judgement = self.objective.judge(both, part.category, penalized)
            self.discriminator.eval()
            (judgement.total / len(parts)).backward(inputs=self.discriminator_parameters)
            judgements.append(replace(judgement, total=judgement.loss))  # lets its graph go
        return judgements

    def _deceive(self, parts: list[_Part]) -> Tensor:
        self.generator_optimizer.zero_grad(set_to_none=self.graphs is None)
        losses = []
        for part in parts:
            fakes = self._generate(part) if part.fakes is None else part.fakes
            shown = augment(fakes, None if part.amounts is None else part.amounts[2])
            loss = self.objective.deceive(shown, part.category)
            (loss / len(parts)).backward(inputs=self.generator_parameters)
            losses.append(loss.detach())
        return _mean(losses)


def _of_photos_and_fakes(amounts: Tensor | None) -> Tensor | None:
    """The first two sets [3, DRAWS, N] side by side, [DRAWS, 2N]."""
    return None if amounts is None else amounts[:2].transpose(0, 1).flatten(1)


def _mean(values: list[Tensor]) -> Tensor:
    """Of one number for each part; parts are of one size."""
    return values[0] if len(values) == 1 else torch.stack(values).mean(dim=0)


def _gradient_norm(parameters: list[nn.Parameter]) -> Tensor:
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
