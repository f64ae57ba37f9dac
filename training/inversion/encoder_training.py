"""Trains an encoder on a run's frozen generator: photos in, styles out that paint them again.

Two teachers: photos, whose reconstruction is compared in pixels and in the discriminator's
features; and generated pictures, whose style is known, so that the encoder gives styles of
the kind that the generator was trained on and not just any that fit.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from models.discriminator import Discriminator
from models.encoder import Encoder
from models.generator import Generator
from models.layers import downsample
from training.dataset import PreparedDataset
from training.inversion.encoder_run import EncoderError, EncoderSettings
from training.learning.distributed import Ranks
from training.learning.loader import Batch, BatchLoader
from training.learning.optimizer import adam, equalized_groups
from training.learning.randomness import Purpose, generator_for

_TICK_STEPS: Final = 20
_BETAS: Final = (0.9, 0.99)


@dataclass(frozen=True)
class EncoderTick:
    """Where training is; the losses are means over the steps since the tick before."""

    nimg: int
    pixels: float
    features: float
    style: float


@dataclass(frozen=True)
class Inversion:
    """The three networks; generator and discriminator are frozen."""

    encoder: Encoder
    generator: Generator
    discriminator: Discriminator
    dtype: torch.dtype  # of feature maps

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.generator.mapping.w_avg.device

    def paint(self, offset: Tensor, category: Tensor, noise: Tensor) -> Tensor:
        """The pictures [N, channels, H, W] that offsets [N, num_ws, w_dim] stand for."""
        ws = (category @ self.generator.mapping.w_avg)[:, None] + offset
        images: Tensor = self.generator.synthesis(ws, noise, self.dtype)
        return images


def pixel_loss(images: Tensor, photos: Tensor) -> Tensor:
    """Mean squared error at full size plus that at a quarter of it, both [N, C, H, W].

    The coarse term says where shape and colour belong when fine detail does not match.
    """
    difference = images - photos
    coarse = downsample(downsample(difference)) if min(difference.shape[2:]) >= 8 else difference
    return difference.square().mean() + coarse.square().mean()


def relative_error(got: Tensor, wanted: Tensor, variance: Tensor) -> Tensor:
    """Mean squared error in units of `variance`, so that losses of any scale can be weighed."""
    return (got.float() - wanted.float()).square().mean() / variance


class EncoderTrainer:
    """One encoder's training."""

    def __init__(
        self,
        networks: Inversion,
        dataset: PreparedDataset,
        settings: EncoderSettings,
        mirror: bool,
    ) -> None:
        self.networks, self.settings = networks, settings
        self.loader = BatchLoader(
            dataset,
            settings.batch_size,
            settings.seed,
            networks.device,
            group_size=1,
            mirror=mirror,
        )
        groups = equalized_groups(networks.encoder, settings.learning_rate)
        self.optimizer = adam([{**group, "betas": _BETAS} for group in groups])
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.style_variance = self._style_variance()
        self.nimg = 0

    def train(
        self, on_tick: Callable[[EncoderTick], None], should_stop: Callable[[], bool]
    ) -> None:
        """Train until the configured end, or until should_stop.

        Raises:
            EncoderError: A loss is not finite.
        """
        started = time.monotonic()
        sums = torch.zeros(3, device=self.networks.device)
        for steps, batch in enumerate(self.loader.batches(0, Ranks()), start=1):
            done = self._done(time.monotonic() - started)
            if done >= 1 or should_stop():
                break
            sums += self._step(batch, done)
            self.nimg += self.settings.batch_size
            if steps % _TICK_STEPS == 0:
                on_tick(self._tick(sums / _TICK_STEPS))
                sums.zero_()
        self.networks.encoder.eval().requires_grad_(False)

    def _done(self, elapsed_sec: float) -> float:
        """How much of the training is over, 0 to 1."""
        kimg, minutes = self.settings.max_kimg, self.settings.max_minutes
        by_images = 0.0 if kimg is None else self.nimg / (kimg * 1000)
        by_time = 0.0 if minutes is None else elapsed_sec / (minutes * 60)
        return max(by_images, by_time)

    def _step(self, batch: Batch, done: float) -> Tensor:
        """One step; pixel, feature and style loss, [3]."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * (1 + math.cos(math.pi * done)) / 2
        networks, settings = self.networks, self.settings
        random = generator_for(settings.seed, Purpose.ENCODER, self.nimg, networks.device)
        photos = batch.images
        pictures, known, noise = self._generated(batch.category, random)
        both = torch.cat([photos, pictures])
        offsets = networks.encoder(both, batch.category.repeat(2, 1), networks.dtype)
        of_photos, of_pictures = offsets.chunk(2)
        painted = networks.paint(of_photos, batch.category, noise)
        pixels = pixel_loss(painted, photos)
        features = self._feature_loss(painted, photos)
        style = relative_error(of_pictures, known[:, None], self.style_variance)
        pull = of_photos.square().mean() / self.style_variance
        total = (
            settings.pixel_weight * pixels
            + settings.feature_weight * features
            + settings.style_weight * style
            + settings.pull_weight * pull
        )
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.optimizer.step()
        return torch.stack([pixels.detach(), features.detach(), style.detach()])

    @torch.no_grad()
    def _generated(
        self, category: Tensor, random: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures, their styles' offsets [N, w_dim] from the mean, and noise to paint with."""
        generator, count = self.networks.generator, len(category)
        z = torch.randn(count, generator.z_dim, device=category.device, generator=random)
        noise = torch.randn(2, count, generator.noise_dim, device=z.device, generator=random)
        offset = generator.mapping(z, category) - category @ generator.mapping.w_avg
        pictures = self.networks.paint(
            offset[:, None].expand(-1, generator.synthesis.num_ws, -1), category, noise[0]
        )
        return pictures.clamp(-1, 1), offset, noise[1]

    def _feature_loss(self, painted: Tensor, photos: Tensor) -> Tensor:
        discriminator, dtype = self.networks.discriminator, self.networks.dtype
        with torch.no_grad():
            wanted = discriminator.features(photos, dtype)
            variance = wanted.float().var(dim=0, correction=0).mean() + 1e-8
        return relative_error(discriminator.features(painted, dtype), wanted, variance)

    @torch.no_grad()
    def _style_variance(self) -> Tensor:
        """Mean square of styles about their category's mean."""
        generator = self.networks.generator
        random = generator_for(self.settings.seed, Purpose.ENCODER, 0, self.networks.device)
        category = torch.eye(generator.shape.categories, device=self.networks.device)
        z = torch.randn(256, generator.z_dim, device=category.device, generator=random)
        category = category[torch.arange(256, device=z.device) % len(category)]
        offset = generator.mapping(z, category) - category @ generator.mapping.w_avg
        variance: Tensor = offset.square().mean() + 1e-8
        return variance

    def _tick(self, means: Tensor) -> EncoderTick:
        pixels, features, style = means.tolist()
        if not math.isfinite(pixels + features + style):
            raise EncoderError(
                f"the encoder's loss is not finite before {self.nimg} photos: the run's "
                "generator may have diverged; look at its last grid"
            )
        return EncoderTick(self.nimg, pixels, features, style)
