"""The passes of a step that are differentiated once, compiled where the run asks for it.

Penalties differentiate the discriminator twice, which compiled code does not allow: a step
with R1 asks the discriminator itself.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from models.discriminator import Discriminator
from models.generator import Generator
from models.masking import feature_mask
from training.learning.config import TrainingConfig
from training.learning.losses import discriminator_loss, generator_loss, relativistic_loss

P = ParamSpec("P")
R = TypeVar("R")


def compiled(work: Callable[P, R]) -> Callable[P, R]:
    """`work` for the shapes of its first call, as one piece of compiled code."""
    faster: Callable[P, R] = torch.compile(work, fullgraph=True, dynamic=False)
    return faster


class Passes:
    """Latents to pictures, and pictures to losses.

    Pictures are made contiguous on their way in: they are not where nothing was augmented, and
    another layout would have all compiled again in the middle of a run.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        config: TrainingConfig,
        dtype: torch.dtype,
    ) -> None:
        self.generator, self.discriminator = generator, discriminator
        self.relativistic = config.objective == "relativistic"
        self.generator_sees_mask = config.masking.generator_sees_mask
        self.dtype = dtype
        self._run_paint: Callable[[Tensor, Tensor, Tensor], Tensor] = self._paint
        self._run_both: Callable[[Tensor, Tensor], tuple[Tensor, ...]] = self._discriminator_losses
        self._run_fakes: Callable[[Tensor, Tensor, Tensor], Tensor] = self._generator_loss
        self._no_mask: Tensor | None = None
        if config.compile:
            self._run_paint = compiled(self._run_paint)
            self._run_both = compiled(self._run_both)
            self._run_fakes = compiled(self._run_fakes)
            # What hides nothing in place of no mask, so that one compiled pass does for both.
            self._no_mask = feature_mask(
                discriminator.mask_shape,
                ratio=0.0,
                granularity=config.masking.granularity,
                generator=torch.Generator(),
            ).to(discriminator.embed.device)

    def paint(self, z: Tensor, category: Tensor, noise: Tensor) -> Tensor:
        """Generate pictures, float32 [N, channels, H, W]; arguments as the generator's."""
        return self._run_paint(z, category, noise)

    def discriminator_losses(self, both: Tensor, category: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Real and generated pictures in one pass; minibatch deviation keeps the halves apart.

        Args:
            both: Real, then as many generated pictures, [2N, channels, H, W].
            category: Of either half, [N, categories].

        Returns:
            Loss, real and fake logits [N].
        """
        with self._masked():
            loss, real_logits, fake_logits = self._run_both(both.contiguous(), category)
        return loss, real_logits, fake_logits

    def generator_loss(self, fakes: Tensor, reals: Tensor, category: Tensor) -> Tensor:
        """How little the discriminator is deceived by fakes [N, channels, H, W].

        Their partners, reals, count under the relativistic objective only.
        """
        with self._masked(self.generator_sees_mask):
            return self._run_fakes(fakes.contiguous(), reals.contiguous(), category)

    @contextmanager
    def _masked(self, sees_mask: bool = True) -> Iterator[None]:
        mask = self.discriminator.mask
        held = mask.held
        mask.hold(held if sees_mask and held is not None else self._no_mask)
        try:
            yield
        finally:
            mask.hold(held)

    def _paint(self, z: Tensor, category: Tensor, noise: Tensor) -> Tensor:
        pictures: Tensor = self.generator(z, category, None, noise, self.dtype)
        return pictures

    def _discriminator_losses(
        self, both: Tensor, category: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        twice = torch.cat([category, category])
        real_logits, fake_logits = self.discriminator(both, twice, self.dtype).chunk(2)
        judge = relativistic_loss if self.relativistic else discriminator_loss
        return judge(real_logits, fake_logits), real_logits, fake_logits

    def _generator_loss(self, fakes: Tensor, reals: Tensor, category: Tensor) -> Tensor:
        logits = self.discriminator(fakes, category, self.dtype)
        if not self.relativistic:
            return generator_loss(logits)
        with torch.no_grad():  # nothing that the generator does changes these
            real_logits = self.discriminator(reals, category, self.dtype)
        return relativistic_loss(logits, real_logits)
