"""Moving averages of the generator's weights: one of them is sampled, evaluated and exported.

The best length of the average depends on the network, the data and the learning rate. Several are
computed, at little cost, and validation chooses one (Karras et al. 2024, arXiv 2312.02696, section
3).
"""

import copy
from typing import Any, Final

import torch
from torch import Tensor

from models.generator import Generator
from training.learning.config import OptimizerConfig

# Measurements to average before comparing two moments, or two lengths.
SMOOTHED: Final = 3


def ema_decay(nimg: int, batch_size: int, ema_kimg: float, rampup: float) -> float:
    """Factor on an average's old value in one step.

    The half-life is ema_kimg, but at most `rampup` of the images shown so far, so that an
    early average is not dominated by the initial weights (Karras et al. 2020, arXiv 2006.06676).
    """
    half_life = min(ema_kimg * 1000, max(nimg, batch_size) * rampup)
    return float(0.5 ** (batch_size / half_life))


class GeneratorEMA:
    """Averages of a generator, whose half-lives are multiples of the configured one."""

    def __init__(self, generator: Generator, settings: OptimizerConfig) -> None:
        self.settings = settings
        self.lengths = settings.ema_lengths
        self.generators = [
            copy.deepcopy(generator).eval().requires_grad_(False) for _ in self.lengths
        ]
        self._averages: list[list[Tensor]] = [list(g.parameters()) for g in self.generators]
        self._latest: list[Tensor] = list(generator.parameters())
        self._chosen = len(self.lengths) // 2
        self._distances: list[list[float]] = []

    @property
    def generator(self) -> Generator:
        """The average to use: the one that validation chose, or at first the middle one."""
        return self.generators[self._chosen]

    @property
    def length(self) -> float:
        """The half-life of the average to use, as a multiple of the configured one."""
        return self.lengths[self._chosen]

    @torch.no_grad()
    def update(self, nimg: int, batch_size: int) -> None:
        """Move the averages towards the current generator, after `nimg` images shown."""
        settings = self.settings
        decay = ema_decay(nimg, batch_size, settings.ema_kimg, settings.ema_rampup)
        for length, average in zip(self.lengths, self._averages, strict=True):
            torch._foreach_lerp_(average, self._latest, 1 - decay ** (1 / length))

    def choose(self, distances: list[float]) -> None:
        """Add a measurement of each average, and choose the lowest mean of the last few."""
        self._distances = [*self._distances, distances][-SMOOTHED:]
        means = [sum(values) for values in zip(*self._distances, strict=True)]
        self._chosen = means.index(min(means))

    def state_dict(self) -> dict[str, Any]:
        """State to resume from."""
        return {
            "lengths": list(self.lengths),
            "weights": [average.state_dict() for average in self.generators],
            "chosen": self._chosen,
            "distances": list(self._distances),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state; a length that it lacks starts from its chosen average."""
        saved, weights = list(state["lengths"]), state["weights"]
        for length, average in zip(self.lengths, self.generators, strict=True):
            same = saved.index(length) if length in saved else state["chosen"]
            average.load_state_dict(weights[same])
        if saved == list(self.lengths):
            self._chosen = int(state["chosen"])
            self._distances = [list(values) for values in state["distances"]]


def only_average(weights: dict[str, Tensor]) -> dict[str, Any]:
    """Build the state of a run with a single average, from its weights."""
    return {"lengths": [1.0], "weights": [weights], "chosen": 0, "distances": []}
