"""Does the discriminator do worse on what the generator makes now than on what it made before?

At a reference moment images are kept, and the latents that they were generated from. Later the
generator makes images of the same latents, and the discriminator of then judges both:

    lag = mean(d(present) - d(kept)) / standard deviation of d(kept)

A discriminator that learns all the while what the generator has come to do has little. The
reference moves to the present, and to fresh latents, wherever there is no lag: where it lasts, it
adds up.
"""

from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import torch
from torch import Tensor

from models.discriminator import Discriminator
from models.generator import Generator
from models.masking import lifted
from models.projected import CombinedDiscriminator
from training.learning.config import MaskingConfig
from training.learning.randomness import Purpose, generator_for

# Of a normal distribution, its standard deviation over the median absolute deviation.
_MAD_TO_DEVIATION: Final = 1.4826
PROBE_BATCH: Final = 64  # at a time, so that a measurement takes no more memory than a step


@dataclass(frozen=True)
class LagMeasurement:
    """One comparison with the reference moment; no threshold among a run's first."""

    lag: float
    threshold: float | None

    @property
    def lagging(self) -> bool:
        """Whether there is lag to answer."""
        return self.threshold is not None and self.lag > self.threshold

    def values(self) -> dict[str, float]:
        """For the run's log."""
        known = {} if self.threshold is None else {"threshold": self.threshold}
        return {"lag": self.lag, **known, "lagging": float(self.lagging)}


class LagMeter:
    """Keeps images of a reference moment, and the run's first measurements."""

    def __init__(self, config: MaskingConfig, seed: int) -> None:
        self.config: Final = config
        self.seed: Final = seed
        self.kept: Tensor | None = None  # uint8 [probes, C, H, W]
        self.kept_nimg = 0  # its image count, which fixes the latents
        self.first: list[float] = []

    @torch.no_grad()
    def measure(
        self, generator: Generator, discriminator: Discriminator, nimg: int, dtype: torch.dtype
    ) -> LagMeasurement | None:
        """Compare with the reference moment; None the first time, which becomes it.

        Args:
            generator: At present.
            discriminator: At present; no mask is looked through. Of one with a pretrained network
                the convolutional part judges, which costs little.
            nimg: Images shown.
            dtype: Of the feature maps.
        """
        measured = None
        if self.kept is not None:
            _, category, _ = self._latents(generator, self.kept_nimg)
            present = self._generate(generator, self.kept_nimg, dtype)
            with lifted(discriminator.masks):
                was, now = (
                    _logits(discriminator, images, category, dtype)
                    for images in (self.kept, present)
                )
            lag = float((now - was).mean() / was.std().clamp(min=1e-6))
            measured = LagMeasurement(lag, self._threshold())
            if measured.threshold is None:
                self.first.append(lag)
        if measured is None or not measured.lagging:
            self.kept, self.kept_nimg = self._generate(generator, nimg, dtype), nimg
        return measured

    def _threshold(self) -> float | None:
        if len(self.first) < self.config.lag_baseline:
            return None
        # One of a run's first moves may be several times as large as all others.
        middle = median(self.first)
        deviation = _MAD_TO_DEVIATION * median(abs(lag - middle) for lag in self.first)
        return middle + self.config.lag_deviations * deviation

    def _latents(self, generator: Generator, nimg: int) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, categories in turn and noise: fresh at each image count, alike on all ranks."""
        device = generator.mapping.w_avg.device
        random = generator_for(self.seed, Purpose.PROBES, nimg)
        count, categories = self.config.probes, generator.shape.categories
        z = torch.randn(count, generator.z_dim, generator=random)
        noise = torch.randn(count, generator.noise_dim, generator=random)
        category = torch.eye(categories)[torch.arange(count) % categories]
        return z.to(device), category.to(device), noise.to(device)

    def _generate(self, generator: Generator, nimg: int, dtype: torch.dtype) -> Tensor:
        parts = zip(*(x.split(PROBE_BATCH) for x in self._latents(generator, nimg)), strict=True)
        images = torch.cat([generator(z, c, None, n, dtype) for z, c, n in parts])
        return images.float().mul(127.5).add(127.5).round().clamp(0, 255).to(torch.uint8)

    def state_dict(self) -> dict[str, Any]:
        """The kept images and the first measurements."""
        kept = None if self.kept is None else self.kept.cpu()
        return {"kept": kept, "kept_nimg": self.kept_nimg, "first": list(self.first)}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Take up where the saved run was; of an empty state, begin."""
        kept = state.get("kept")
        self.kept = None if kept is None else kept.to(device)
        self.kept_nimg, self.first = state.get("kept_nimg", 0), list(state.get("first", ()))


def _logits(
    discriminator: Discriminator, images: Tensor, category: Tensor, dtype: torch.dtype
) -> Tensor:
    """[N] of uint8 images [N, C, H, W]."""
    parts = zip(images.split(PROBE_BATCH), category.split(PROBE_BATCH), strict=True)
    if isinstance(discriminator, CombinedDiscriminator):
        discriminator = discriminator.convolutional
    return torch.cat([discriminator(part.float().div(127.5).sub(1), c, dtype) for part, c in parts])
