"""What the loop measures: means of step statistics, and what is due when."""

import dataclasses
import math
import time
from typing import Any, Final

import torch

from training.learning.adversarial import StepStatistics
from training.learning.config import TrainingConfig
from training.learning.distributed import Ranks, mean_over_ranks

STATISTICS: Final = tuple(field.name for field in dataclasses.fields(StepStatistics))


class Meter:
    """Sums step statistics on the device; the host reads them once a tick.

    Saved with the run, since the augmentation follows a mean that a stop may cut in two.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.reset()

    def reset(self) -> None:
        """Start a new mean."""
        self.steps = 0
        self.masked_steps = 0
        self.counts = [0] * len(STATISTICS)
        self.sums = torch.zeros(len(STATISTICS), device=self.device)

    def add(self, statistics: StepStatistics, masked: bool) -> None:
        """Count one step.

        A mask makes the discriminator less sure of photos, which is no reason to augment them less:
        `real_sign` is of steps without one.
        """
        self.steps += 1
        self.masked_steps += masked
        values = {name: getattr(statistics, name) for name in STATISTICS}
        if masked:
            values["real_sign"] = None
        none = torch.zeros_like(self.sums[0])
        self.sums += torch.stack([none if v is None else v.float() for v in values.values()])
        known = [v is not None for v in values.values()]
        self.counts = [count + one for count, one in zip(self.counts, known, strict=True)]

    def means(self, ranks: Ranks) -> dict[str, float]:
        """Means over steps and ranks since the last reset, of what was known of any step.

        This waits for the device.
        """
        totals = mean_over_ranks(self.sums, ranks).tolist()
        counted = zip(STATISTICS, totals, self.counts, strict=True)
        means = {name: total / count for name, total, count in counted if count}
        return {**means, "mask_active": self.masked_steps / max(self.steps, 1)}

    def state_dict(self, ranks: Ranks) -> dict[str, Any]:
        """What a resumed run needs, on however many ranks; all ranks must ask together."""
        return {
            "steps": self.steps,
            "masked_steps": self.masked_steps,
            "counts": self.counts,
            "sums": mean_over_ranks(self.sums, ranks).cpu(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where the saved run was."""
        self.steps, self.masked_steps = state["steps"], state["masked_steps"]
        if "counts" in state:
            self.counts, self.sums = state["counts"], state["sums"].to(self.device)
            return
        # Of an older run, whose sums are over all steps but for what is known of some.
        lazy = {"r1_penalty", "gradient_norm"}
        self.counts = [state["r1_steps"] if n in lazy else self.steps for n in STATISTICS]
        self.sums = state["sums"].to(self.device)


class Clock:
    """Wall time, and what is due every so many images."""

    def __init__(self, nimg: int, config: TrainingConfig) -> None:
        self.started = time.monotonic()
        self.max_sec = math.inf if config.max_minutes is None else config.max_minutes * 60
        self.intervals = {
            "tick": config.tick_kimg,
            "grid": config.grid_kimg,
            "checkpoint": config.checkpoint_kimg,
        }
        self.rewind(nimg)

    def rewind(self, nimg: int) -> None:
        """Count images from `nimg` on again; the time goes on."""
        self.lap_started, self.lap_nimg = time.monotonic(), nimg
        self.next = {name: self._after(nimg, kimg) for name, kimg in self.intervals.items()}

    @staticmethod
    def _after(nimg: int, kimg: float) -> int:
        """The next multiple, so that a resumed run ticks where the first would have."""
        every = math.ceil(kimg * 1000)
        return (nimg // every + 1) * every

    def due(self, name: str, nimg: int) -> bool:
        """Whether `name` is due at `nimg`; it is then due again an interval later."""
        if nimg < self.next[name]:
            return False
        self.next[name] = self._after(nimg, self.intervals[name])
        return True

    def lap(self, nimg: int) -> tuple[int, float]:
        """Images and seconds since the lap before."""
        now = time.monotonic()
        images, seconds = nimg - self.lap_nimg, now - self.lap_started
        self.lap_nimg, self.lap_started = nimg, now
        return images, max(seconds, 1e-9)

    def elapsed(self) -> float:
        """Seconds since training started."""
        return time.monotonic() - self.started

    def spent(self) -> float:
        """Fraction of the run's time that is over; 0 for a run that ends by its images."""
        return self.elapsed() / self.max_sec
