"""Trains an upscaler: photos say what detail is right, a critic what detail looks like a photo's.

Pixels and frozen features are compared with the large photo's. Generated images teach nothing but
how small ones are at fault (see `degradation`): asked to convince the critic, they made the
upscaler draw hatching and dots where the generator is wrong. Sources: Ledig et al. 2017, arXiv
1609.04802 (features and a critic for larger images); Johnson et al. 2016, arXiv 1603.08155
(features).
"""

from dataclasses import replace
from typing import Final

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.layers import to_rgb
from models.upscaler import Upscaler
from training.companion import CompanionTrainer
from training.features.feature_maps import LiteFeatureMaps
from training.learning.randomness import Purpose, seed_for
from training.upscaling.critic import Critic, adversarial_loss, critic_loss
from training.upscaling.crops import Crops, CropSampler
from training.upscaling.upscaler_run import UpscalerSettings

_AVERAGE_DECAY: Final = 0.995
# The last part of the training, in which steps become smaller and smaller.
_COOL_DOWN: Final = 0.3


class UpscalerTrainer(CompanionTrainer):
    """One upscaler's training.

    Attributes:
        average: The moving average of the upscaler's weights, which is what is used.
    """

    tick_steps = 20
    not_finite = "train it again with another --seed"
    settings: UpscalerSettings

    def __init__(
        self,
        upscaler: Upscaler,
        crops: CropSampler,
        settings: UpscalerSettings,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Train `upscaler` where it is, its feature maps and the critic's in `dtype`."""
        super().__init__(upscaler, settings)
        self.crops, self.dtype = crops, dtype
        # Evaluation looks at Lite2: an upscaler must not be judged by what taught it.
        self.maps = LiteFeatureMaps().to(self.device)
        with torch.no_grad():
            maps = self.maps(to_rgb(self._drawn().large))
        # Features differ in scale from map to map: each counts in units of its own spread.
        self.spread = [features.std() + 1e-3 for features in maps]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(settings.seed, Purpose.UPSCALER, 1))
            self.critic = Critic(self.maps.channels).to(self.device)
        self.average = AveragedModel(upscaler, multi_avg_fn=get_ema_multi_avg_fn(_AVERAGE_DECAY))
        self.optimizers = (
            torch.optim.Adam(upscaler.parameters(), settings.learning_rate, (0.9, 0.99)),
            torch.optim.Adam(self.critic.parameters(), settings.critic_learning_rate, (0.0, 0.99)),
        )
        self.rates = [optimizer.param_groups[0]["lr"] for optimizer in self.optimizers]

    def step(self, done: float) -> dict[str, Tensor]:
        """One step of critic and upscaler; pixel, feature and critic loss."""
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * min(1.0, (1 - done) / _COOL_DOWN)
        losses = self._teach(self._drawn())
        self.average.update_parameters(self.network)
        return losses

    @property
    def trained(self) -> Upscaler:
        """The averaged upscaler, ready for use."""
        module = self.average.module
        assert isinstance(module, Upscaler)
        return module.eval().requires_grad_(False)

    def _drawn(self) -> Crops:
        drawn = self.crops.draw(self.settings.batch_size, self.settings.seed, self.nimg)
        return replace(
            drawn,
            small=drawn.small.to(self.device),
            large=drawn.large.to(self.device),
        )

    def _teach(self, crops: Crops) -> dict[str, Tensor]:
        settings = self.settings
        upscaled = self.network(crops.small, self.dtype)
        top, left = crops.offset
        seen, photos = upscaled[..., top:, left:], crops.large[..., top:, left:]
        maps = self._scaled_maps(seen)
        with torch.no_grad():
            photo_maps = self._scaled_maps(photos)
        judged = self._teach_critic(photos, photo_maps, seen, maps)
        pixels = (upscaled - crops.large).abs().mean()
        features = torch.stack(
            [(got - wanted).abs().mean() for got, wanted in zip(maps, photo_maps, strict=True)]
        ).mean()
        total = (
            settings.pixel_weight * pixels
            + settings.feature_weight * features
            + settings.critic_weight * adversarial_loss(self._judged(seen, maps))
        )
        self.optimizers[0].zero_grad(set_to_none=True)
        total.backward()
        self.optimizers[0].step()
        return {"pixels": pixels.detach(), "features": features.detach(), "critic": judged}

    def _teach_critic(
        self, photos: Tensor, photo_maps: list[Tensor], upscaled: Tensor, maps: list[Tensor]
    ) -> Tensor:
        """One step of the critic, and its loss; its weights take no gradient afterwards."""
        self.critic.requires_grad_(True)
        detached = [features.detach() for features in maps]
        loss = critic_loss(
            self._judged(photos, photo_maps), self._judged(upscaled.detach(), detached)
        )
        self.optimizers[1].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[1].step()
        self.critic.requires_grad_(False)
        return loss.detach()

    def _judged(self, images: Tensor, maps: list[Tensor]) -> list[Tensor]:
        lower = self.dtype != torch.float32
        with torch.autocast(self.device.type, self.dtype if lower else None, enabled=lower):
            logits = self.critic(to_rgb(images), maps)
        return [one.float() for one in logits]

    def _scaled_maps(self, images: Tensor) -> list[Tensor]:
        return [
            features / spread
            for features, spread in zip(self.maps(to_rgb(images)), self.spread, strict=True)
        ]
