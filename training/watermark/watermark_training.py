"""Trains the watermark's two networks through distortions; the loss is in the bits alone."""

import math
import random
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.watermark import MIN_SIDE_PX, PATTERN_PX, PAYLOAD_BITS, PSNR_DB
from models.watermark_networks import WatermarkDecoder, WatermarkEncoder
from training.companion import CompanionSettings, CompanionTrainer
from training.dataset import PreparedDataset
from training.learning.randomness import Purpose, generator_for, seed_for
from training.watermark.distortions import distort, resize
from training.watermark.watermark_folder import pair

# Training starts with a loud pattern, or the decoder finds nothing to begin with.
_LOUD: Final = 5.0
_QUIETER_STEPS: Final = 900  # after which a loud pattern is e times quieter
_EASY_STEPS: Final = 1000
_HARDER_STEPS: Final = 2000
_WARM_UP_STEPS: Final = 200
_WHITE_SHARE: Final = 0.4


class WatermarkTrainer(CompanionTrainer):
    """One pair's training."""

    tick_steps = 50
    not_finite = "lower the learning rate"

    def __init__(
        self, dataset: PreparedDataset, settings: CompanionSettings, device: torch.device
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(settings.seed, Purpose.WATERMARK))
            self.encoder, self.decoder = WatermarkEncoder(), WatermarkDecoder()
        super().__init__(pair(self.encoder, self.decoder).to(device), settings)
        self.dataset, self.rows = dataset, dataset.indices("train")
        self.optimizer = torch.optim.Adam(self.network.parameters(), settings.learning_rate)

    def step(self, done: float) -> dict[str, Tensor]:
        """One step; its loss, and the share of bits that were read right."""
        warm_up = min(1.0, (self.steps + 1) / _WARM_UP_STEPS)
        rate = self.settings.learning_rate * warm_up * (1 + math.cos(math.pi * done)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loudness = max(1.0, _LOUD * math.exp(-self.steps / _QUIETER_STEPS))
        hardness = min(1.0, max(0.0, (self.steps - _EASY_STEPS) / _HARDER_STEPS))
        random_torch = generator_for(
            self.settings.seed, Purpose.WATERMARK, self.steps + 1, self.device
        )
        rng = random.Random(seed_for(self.settings.seed, Purpose.WATERMARK, self.steps + 1))  # noqa: S311
        pictures = self._pictures(rng, random_torch)
        bits = torch.randint(
            0, 2, (len(pictures), PAYLOAD_BITS), device=self.device, generator=random_torch
        ).float()
        with torch.autocast(self.device.type, torch.bfloat16):
            patterns = self.encoder(resize(pictures, PATTERN_PX), bits)
            marked = lay_over(pictures, patterns, loudness)
            with torch.autocast(self.device.type, enabled=False):
                arrived = distort(marked, rng, hardness)
            logits = self.decoder(arrived)
        loss = F.binary_cross_entropy_with_logits(logits, bits)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        right = ((logits > 0) == (bits > 0)).float().mean()
        return {"loss": loss.detach(), "bits_right": right}

    def _pictures(self, rng: random.Random, generator: torch.Generator) -> Tensor:
        """Photos, some mirrored, some partly white as product pictures are."""
        rows = [self.rows[rng.randrange(len(self.rows))] for _ in range(self.settings.batch_size)]
        images = torch.from_numpy(np.ascontiguousarray(self.dataset.images[np.sort(rows)]))
        pictures = images.to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        pictures = as_rgb(resize(pictures, MIN_SIDE_PX))
        if rng.random() < 0.5:
            pictures = pictures.flip(3)
        if rng.random() < _WHITE_SHARE:
            coarse = torch.randn(len(pictures), 1, 4, 4, device=self.device, generator=generator)
            white = (F.interpolate(coarse, MIN_SIDE_PX, mode="bicubic") > 0.3).float()
            pictures = pictures * (1 - white) + white
        return pictures


def as_rgb(pictures: Tensor) -> Tensor:
    """Grey to RGB, and alpha laid over white: [N, 1, 3 or 4, H, W] in [-1, 1] -> [N, 3, H, W]."""
    if pictures.shape[1] == 4:
        alpha = (pictures[:, 3:] + 1) / 2
        return pictures[:, :3] * alpha + 1 - alpha
    return pictures.expand(-1, 3, -1, -1)


def lay_over(pictures: Tensor, patterns: Tensor, loudness: float = 1.0) -> Tensor:
    """What `models.watermark.lay_over` does, with gradients and without rounding.

    Args:
        pictures: RGB in [-1, 1], [N, 3, S, S].
        patterns: [N, 3, PATTERN_PX, PATTERN_PX].
        loudness: Factor on the pattern's amplitude.
    """
    patterns = F.interpolate(
        patterns.float(), size=pictures.shape[2:], mode="bilinear", align_corners=False
    )
    energy = patterns.square().mean(dim=(1, 2, 3), keepdim=True)
    rms = 2 * 10 ** (-PSNR_DB / 20)
    return (pictures + patterns * (loudness * rms * torch.rsqrt(energy + 1e-9))).clamp(-1, 1)
