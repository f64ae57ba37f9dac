"""Masks over the discriminator's features: when one is drawn, how long it is held, and why.

Source: arXiv 2306.07716. GAN training is online continual learning: the generated images are a
stream whose distribution moves. The discriminator lags when it does worse on what the generator
makes now than on what it made before (training/learning/lag.py).
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import torch

from models.discriminator import Discriminator
from models.generator import Generator
from models.masking import feature_mask
from training.learning.config import MaskingConfig
from training.learning.lag import LagMeter
from training.learning.randomness import Purpose, generator_for


@dataclass(frozen=True)
class MaskEvent:
    """Something that the run's log and report show with its image count."""

    kind: str  # "measure", "mask" or "unmask"
    nimg: int
    values: dict[str, float]


class MaskController:
    """Measures lag, draws masks, holds and lifts them, and tells of it."""

    def __init__(self, config: MaskingConfig, seed: int) -> None:
        self.config: Final = config
        self.seed: Final = seed
        self.lag: Final = LagMeter(config, seed)
        self.since: int | None = None  # image count at which the held masks were drawn
        self.next_measure = 0

    @property
    def is_masking(self) -> bool:
        """Whether masks are held."""
        return self.since is not None

    def update(
        self, generator: Generator, discriminator: Discriminator, nimg: int, dtype: torch.dtype
    ) -> list[MaskEvent]:
        """Bring the masks up to image count `nimg`."""
        events: list[MaskEvent] = []
        lagging = False
        if self.config.mode in ("observe", "dynamic") and nimg >= self.next_measure:
            self.next_measure = nimg + math.ceil(self.config.interval_kimg * 1000)
            measured = self.lag.measure(generator, discriminator, nimg, dtype)
            if measured is not None:
                lagging = measured.lagging
                events.append(MaskEvent("measure", nimg, measured.values()))
        wanted = self._wanted(nimg, lagging)
        if wanted == self.since:
            return events
        if self.since is not None:
            events.append(MaskEvent("unmask", nimg, {}))
        if wanted is not None:
            events.append(MaskEvent("mask", nimg, {}))
        self._hold(discriminator, wanted)
        return events

    def _wanted(self, nimg: int, lagging: bool) -> int | None:
        """Image count of the masks that are to be held now; None: none."""
        period = math.ceil(self.config.period_kimg * 1000)
        match self.config.mode:
            case "off" | "observe":
                return None
            case "periodic":  # unmasked and masked in turn
                return nimg // period * period if (nimg // period) % 2 == 1 else None
            case "scheduled":
                starts = [math.ceil(1000 * kimg) for kimg in self.config.schedule_kimg]
                return max((s for s in starts if s <= nimg < s + period), default=None)
            case "dynamic":
                if self.since is not None and nimg < self.since + period:
                    return self.since
                return nimg if lagging else None

    def _hold(self, discriminator: Discriminator, since: int | None) -> None:
        self.since = since
        random = None if since is None else generator_for(self.seed, Purpose.MASK, since)
        for mask in discriminator.masks:
            mask.held = None
            if random is not None:
                drawn = feature_mask(
                    mask.shape,
                    ratio=self.config.ratio,
                    granularity=self.config.granularity,
                    generator=random,
                )
                mask.held = drawn.to(discriminator.device)

    def state_dict(self) -> dict[str, Any]:
        """Since when the masks are held, which draws them again, and what lag is measured with."""
        return {
            "since": self.since,
            "next_measure": self.next_measure,
            "lag": self.lag.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], discriminator: Discriminator) -> None:
        """Take up where the saved run was, on the same masks.

        The mask of a run of before lag was measured so is lifted, and its measurements are left.
        """
        self.next_measure = state["next_measure"]
        self.lag.load_state_dict(state.get("lag", {}), discriminator.device)
        self._hold(discriminator, state.get("since"))
