"""Does the discriminator do worse on what the generator makes now than on what it made before?

Kept are images of a reference moment. With d the discriminator's mean logit of images,

    lag = (d(present) - d(kept)) / (d(photos) - d(kept))

is the share of its separation of photos from the kept images that the generator has taken back. A
discriminator that learns all the while what the generator has come to do has none. The reference
moves to the present wherever there is no lag: where it lasts, it adds up.
"""

import math
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, Final

import torch
from torch import Tensor

from models.discriminator import Discriminator
from models.generator import Generator
from models.masking import lifted
from training.learning.config import MaskingConfig
from training.learning.randomness import Purpose, generator_for

PROBE_BATCH: Final = 64  # at a time, so that a measurement takes no more memory than a step
FIRST: Final = 8  # measurements from which a run's threshold comes


@dataclass(frozen=True)
class LagMeasurement:
    """One comparison with the reference moment."""

    lag: float
    threshold: float  # not a number before it is known
    lagging: bool


class LagMeter:
    """Keeps images of a reference moment, and the run's first measurements."""

    def __init__(self, config: MaskingConfig, seed: int) -> None:
        self.config: Final = config
        self.seed: Final = seed
        self.kept: tuple[Tensor, Tensor] | None = None  # uint8 [N, C, H, W], category [N, C]
        self.first: list[float] = []

    @torch.no_grad()
    def measure(
        self,
        generator: Generator,
        discriminator: Discriminator,
        photos: tuple[Tensor, Tensor],
        nimg: int,
        dtype: torch.dtype,
    ) -> LagMeasurement | None:
        """Compare with the reference moment; None the first time, which becomes it.

        Args:
            generator: At present.
            discriminator: At present; no mask is looked through.
            photos: Some, [N, C, H, W] in [-1, 1], and their categories.
            nimg: Images shown, which fix the latents.
            dtype: Of the feature maps.
        """
        present = self._generate(generator, nimg, dtype)
        if self.kept is None:
            self.kept = present
            return None

        def mean_logit(images: Tensor, category: Tensor) -> float:
            pixels = _to_float(images) if images.dtype == torch.uint8 else images
            parts = zip(pixels.split(PROBE_BATCH), category.split(PROBE_BATCH), strict=True)
            return float(torch.cat([discriminator(*part, dtype) for part in parts]).mean())

        with lifted(discriminator.masks):
            real, kept, made = (mean_logit(*shown) for shown in (photos, self.kept, present))
        lag = (made - kept) / max(real - kept, 1e-3)
        threshold = self._threshold(lag)
        lagging = lag > threshold
        if not lagging:
            self.kept = present
        return LagMeasurement(lag, threshold, lagging)

    def _threshold(self, lag: float) -> float:
        """Spreads above the mean of the run's first measurements; not a number among them."""
        if len(self.first) < FIRST:
            self.first.append(lag)
            return math.nan
        return mean(self.first) + self.config.threshold * stdev(self.first)

    def _generate(
        self, generator: Generator, nimg: int, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Of fresh latents, the categories in turn; the same on every rank."""
        device = generator.mapping.w_avg.device
        random = generator_for(self.seed, Purpose.PROBES, nimg)
        count, categories = self.config.probes, generator.shape.categories
        z = torch.randn(count, generator.z_dim, generator=random).to(device)
        noise = torch.randn(count, generator.noise_dim, generator=random).to(device)
        category = torch.eye(categories, device=device)[torch.arange(count) % categories]
        parts = zip(*(x.split(PROBE_BATCH) for x in (z, category, noise)), strict=True)
        images = torch.cat([generator(z, c, None, n, dtype) for z, c, n in parts])
        return images.mul(127.5).add(127.5).round().clamp(0, 255).to(torch.uint8), category

    def state_dict(self) -> dict[str, Any]:
        """The kept images and the first measurements."""
        kept = None if self.kept is None else tuple(tensor.cpu() for tensor in self.kept)
        return {"kept": kept, "first": list(self.first)}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Take up where the saved run was."""
        self.first = list(state["first"])
        if state["kept"] is not None:
            images, category = state["kept"]
            self.kept = images.to(device), category.to(device)


def _to_float(images: Tensor) -> Tensor:
    return images.float().div(127.5).sub(1)
