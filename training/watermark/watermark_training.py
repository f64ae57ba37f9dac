"""Trains the watermark's two networks through distortions; the only loss is on the bits."""

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

# Training starts with a strong pattern; otherwise the decoder finds nothing at first.
_FIRST_AMPLITUDE: Final = 5.0
_AMPLITUDE_DECAY_STEPS: Final = 900  # after which the amplitude has fallen by a factor of e
_EASY_STEPS: Final = 1000
_HARDER_STEPS: Final = 2000
_WARM_UP_STEPS: Final = 200
_WHITE_FRACTION: Final = 0.4


class WatermarkTrainer(CompanionTrainer):
    """The training of one pair of networks."""

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
        """Train one step; returns its loss, and the fraction of correct bits."""
        warm_up = min(1.0, (self.steps + 1) / _WARM_UP_STEPS)
        rate = self.settings.learning_rate * warm_up * (1 + math.cos(math.pi * done)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        amplitude = max(1.0, _FIRST_AMPLITUDE * math.exp(-self.steps / _AMPLITUDE_DECAY_STEPS))
        hardness = min(1.0, max(0.0, (self.steps - _EASY_STEPS) / _HARDER_STEPS))
        random_torch = generator_for(
            self.settings.seed, Purpose.WATERMARK, self.steps + 1, self.device
        )
        rng = random.Random(seed_for(self.settings.seed, Purpose.WATERMARK, self.steps + 1))  # noqa: S311
        images = self._images(rng, random_torch)
        bits = torch.randint(
            0, 2, (len(images), PAYLOAD_BITS), device=self.device, generator=random_torch
        ).float()
        with torch.autocast(self.device.type, torch.bfloat16):
            patterns = self.encoder(resize(images, PATTERN_PX), bits)
            marked = add_patterns(images, patterns, amplitude)
            with torch.autocast(self.device.type, enabled=False):
                received = distort(marked, rng, hardness)
            logits = self.decoder(received)
        loss = F.binary_cross_entropy_with_logits(logits, bits)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        right = ((logits > 0) == (bits > 0)).float().mean()
        return {"loss": loss.detach(), "bits_right": right}

    def _images(self, rng: random.Random, generator: torch.Generator) -> Tensor:
        """Read random photos; some are mirrored, some partly white like product photos."""
        rows = [self.rows[rng.randrange(len(self.rows))] for _ in range(self.settings.batch_size)]
        pixels = torch.from_numpy(np.ascontiguousarray(self.dataset.images[np.sort(rows)]))
        images = pixels.to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        images = as_rgb(resize(images, MIN_SIDE_PX))
        if rng.random() < 0.5:
            images = images.flip(3)
        if rng.random() < _WHITE_FRACTION:
            coarse = torch.randn(len(images), 1, 4, 4, device=self.device, generator=generator)
            white = (F.interpolate(coarse, MIN_SIDE_PX, mode="bicubic") > 0.3).float()
            images = images * (1 - white) + white
        return images


def as_rgb(images: Tensor) -> Tensor:
    """Convert grey to RGB and alpha over white: [N, 1 | 3 | 4, H, W] in [-1, 1] -> [N, 3, H, W]."""
    if images.shape[1] == 4:
        alpha = (images[:, 3:] + 1) / 2
        return images[:, :3] * alpha + 1 - alpha
    return images.expand(-1, 3, -1, -1)


def add_patterns(images: Tensor, patterns: Tensor, amplitude: float = 1.0) -> Tensor:
    """Add patterns like `models.watermark.lay_over`, with gradients and without rounding.

    Args:
        images: RGB in [-1, 1], [N, 3, S, S].
        patterns: [N, 3, PATTERN_PX, PATTERN_PX].
        amplitude: Factor on the pattern's amplitude.
    """
    patterns = F.interpolate(
        patterns.float(), size=images.shape[2:], mode="bilinear", align_corners=False
    )
    energy = patterns.square().mean(dim=(1, 2, 3), keepdim=True)
    rms = 2 * 10 ** (-PSNR_DB / 20)
    return (images + patterns * (amplitude * rms * torch.rsqrt(energy + 1e-9))).clamp(-1, 1)
