"""Trains an encoder for a run's frozen generator: photos in, styles that reproduce them out.

There are two kinds of training images. Photos are reconstructed and compared in pixels and in the
discriminator's features. Generated images have known styles, which teach the encoder to predict
styles like those that the generator was trained on, not just any that fit.
"""

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from models.discriminator import Discriminator
from models.encoder import Encoder
from models.generator import Generator
from models.layers import downsample
from training.companion import CompanionTrainer
from training.dataset import PreparedDataset
from training.inversion.encoder_run import EncoderSettings
from training.learning.distributed import Ranks
from training.learning.loader import BatchLoader
from training.learning.optimizer import adam, equalized_groups
from training.learning.randomness import Purpose, generator_for

_BETAS: Final = (0.9, 0.99)


@dataclass(frozen=True)
class Inversion:
    """The three networks; generator and discriminator are frozen."""

    encoder: Encoder
    generator: Generator
    discriminator: Discriminator
    dtype: torch.dtype  # of feature maps

    @property
    def device(self) -> torch.device:
        """Device of the networks."""
        return self.generator.mapping.w_avg.device

    def generate(self, offset: Tensor, category: Tensor, noise: Tensor) -> Tensor:
        """Generate images [N, channels, H, W] from style offsets [N, num_ws, w_dim]."""
        ws = (category @ self.generator.mapping.w_avg)[:, None] + offset
        images: Tensor = self.generator.synthesis(ws, noise, self.dtype)
        return images


def pixel_loss(images: Tensor, photos: Tensor) -> Tensor:
    """Mean squared error of images [N, C, H, W] at full size plus that at a quarter of it.

    The coarse term guides shape and colour even where fine detail does not match.
    """
    difference = images - photos
    coarse = downsample(downsample(difference)) if min(difference.shape[2:]) >= 8 else difference
    return difference.square().mean() + coarse.square().mean()


def relative_error(got: Tensor, wanted: Tensor, variance: Tensor) -> Tensor:
    """Mean squared error in units of `variance`, so that losses of any scale can be weighted."""
    return (got.float() - wanted.float()).square().mean() / variance


class EncoderTrainer(CompanionTrainer):
    """The training of one encoder."""

    tick_steps = 20
    not_finite = "the run's generator may have diverged; look at its last grid"
    settings: EncoderSettings

    def __init__(
        self, networks: Inversion, dataset: PreparedDataset, settings: EncoderSettings, mirror: bool
    ) -> None:
        super().__init__(networks.encoder, settings)
        self.networks = networks
        loader = BatchLoader(
            dataset,
            settings.batch_size,
            settings.seed,
            networks.device,
            group_size=1,
            mirror=mirror,
        )
        self.batches = loader.batches(0, Ranks())
        groups = equalized_groups(networks.encoder, settings.learning_rate)
        self.optimizer = adam([{**group, "betas": _BETAS} for group in groups])
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.style_variance = self._style_variance()

    def step(self, done: float) -> dict[str, Tensor]:
        """Train one step; returns the pixel, feature and style loss."""
        batch = next(self.batches)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * (1 + math.cos(math.pi * done)) / 2
        networks, settings = self.networks, self.settings
        random = generator_for(settings.seed, Purpose.ENCODER, self.nimg, networks.device)
        photos = batch.images
        generated, known, noise = self._generated(batch.category, random)
        both = torch.cat([photos, generated])
        offsets = networks.encoder(both, batch.category.repeat(2, 1), networks.dtype)
        of_photos, of_generated = offsets.chunk(2)
        reconstructed = networks.generate(of_photos, batch.category, noise)
        pixels = pixel_loss(reconstructed, photos)
        features = self._feature_loss(reconstructed, photos)
        style = relative_error(of_generated, known[:, None], self.style_variance)
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
        losses = {"pixels": pixels, "features": features, "style": style}
        return {name: loss.detach() for name, loss in losses.items()}

    @torch.no_grad()
    def _generated(
        self, category: Tensor, random: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Generate images; returns them, their style offsets [N, w_dim], and noise for photos."""
        generator, count = self.networks.generator, len(category)
        z = torch.randn(count, generator.z_dim, device=category.device, generator=random)
        noise = torch.randn(2, count, generator.noise_dim, device=z.device, generator=random)
        offset = generator.mapping(z, category) - category @ generator.mapping.w_avg
        images = self.networks.generate(
            offset[:, None].expand(-1, generator.synthesis.num_ws, -1), category, noise[0]
        )
        return images.clamp(-1, 1), offset, noise[1]

    def _feature_loss(self, reconstructed: Tensor, photos: Tensor) -> Tensor:
        discriminator, dtype = self.networks.discriminator, self.networks.dtype
        with torch.no_grad():
            target = discriminator.features(photos, dtype)
            variance = target.float().var(dim=0, correction=0).mean() + 1e-8
        return relative_error(discriminator.features(reconstructed, dtype), target, variance)

    @torch.no_grad()
    def _style_variance(self) -> Tensor:
        """Mean squared distance of styles from their category's mean."""
        generator = self.networks.generator
        random = generator_for(self.settings.seed, Purpose.ENCODER, 0, self.networks.device)
        category = torch.eye(generator.shape.categories, device=self.networks.device)
        z = torch.randn(256, generator.z_dim, device=category.device, generator=random)
        category = category[torch.arange(256, device=z.device) % len(category)]
        offset = generator.mapping(z, category) - category @ generator.mapping.w_avg
        variance: Tensor = offset.square().mean() + 1e-8
        return variance
