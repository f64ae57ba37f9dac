"""Moving average of the generator's weights: what is sampled, evaluated and exported."""

import copy

import torch
from torch import Tensor

from models.generator import Generator


def ema_decay(nimg: int, batch_size: int, ema_kimg: float, rampup: float) -> float:
    """Weight that the average keeps in one step.

    The half-life is ema_kimg, but at most `rampup` of the images shown so far, so that a
    young average does not drag the first noise along (Karras et al. 2020, arXiv 2006.06676).
    """
    half_life = min(ema_kimg * 1000, max(nimg, batch_size) * rampup)
    return float(0.5 ** (batch_size / half_life))


class GeneratorEMA:
    """Holds the average of a generator."""

    def __init__(self, generator: Generator) -> None:
        self.generator = copy.deepcopy(generator).eval().requires_grad_(False)
        self._averages: list[Tensor] = list(self.generator.parameters())
        self._latest: list[Tensor] = list(generator.parameters())

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Move the average towards the generator as it is now, by 1 - decay."""
        torch._foreach_lerp_(self._averages, self._latest, 1 - decay)
