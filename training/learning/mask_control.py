"""Decides when the discriminator lags, and then holds a mask over its features.

Source: arXiv 2306.07716. GAN training is online continual learning: the generated
pictures are a stream whose distribution moves. Lag means that they moved and the
discriminator's features of them did not. Both movements are measured in the same unit,
1 - linear CKA (Kornblith et al. 2019, arXiv 1905.00414), on the same fresh latents:

    generator_change      between the pictures of the earlier and of the present generator
    discriminator_change  between the features, by the earlier and by the present
                          discriminator, of the present generator's pictures
    adaptation            discriminator_change / generator_change

How high adaptation is depends on network and data, so it is compared with its own
running median; only below a small absolute floor is there lag whatever the past says.
"""

import copy
import math
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Final

import torch
from torch import Tensor

from models.discriminator import Discriminator
from models.generator import Generator
from models.masking import feature_mask
from training.learning.config import MaskingConfig
from training.learning.randomness import Purpose, generator_for

AT_REST: Final = 1e-9  # change of a generator that did not move, up to rounding
PROBE_BATCH: Final = 64  # at a time, so that a measurement takes no more memory than a step
MIN_HISTORY: Final = 4  # measurements before the running median means anything


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Similarity of two representations of the same samples, 0 to 1.

    Args:
        x: [N, p].
        y: [N, q]; row i of both belongs to sample i.

    Returns:
        Linear CKA; 1 where one is a rotation and scaling of the other.

    Source: Kornblith et al. 2019, equation 3 with linear kernels, arXiv 1905.00414.
    """
    x, y = x.cpu().double(), y.cpu().double()  # Apple's GPUs have no float64
    x, y = x - x.mean(dim=0), y - y.mean(dim=0)
    gram_x, gram_y = x @ x.t(), y @ y.t()
    scale = torch.linalg.matrix_norm(gram_x) * torch.linalg.matrix_norm(gram_y)
    return float((gram_x * gram_y).sum() / scale) if scale > 0 else 1.0


def mean_cosine(x: Tensor, y: Tensor) -> float:
    """Mean over samples of the cosine between two representations of the same layout.

    Args:
        x: [N, p].
        y: [N, p]; both are centred by the mean of `y` first, so that what all samples share
            does not hide how they move.
    """
    x, y = x.cpu().double(), y.cpu().double()
    centre = y.mean(dim=0)
    return float(torch.nn.functional.cosine_similarity(x - centre, y - centre, dim=1).mean())


@dataclass(frozen=True)
class LagMeasurement:
    """One comparison with the reference point before."""

    generator_change: float
    discriminator_change: float
    adaptation: float  # how far the discriminator followed the generator
    lagging: bool


class LagDetector:
    """Compares both networks with copies of themselves from the measurement before."""

    def __init__(self, config: MaskingConfig, seed: int) -> None:
        self.config: Final = config
        self.seed: Final = seed
        self.history: list[float] = []
        self.reference: tuple[Generator, Discriminator] | None = None

    def set_reference(self, generator: Generator, discriminator: Discriminator) -> None:
        """Make the present networks what the next measurement compares with."""
        if self.reference is None:
            self.reference = (
                copy.deepcopy(generator).requires_grad_(False),
                copy.deepcopy(discriminator).requires_grad_(False),
            )
        else:
            self.reference[0].load_state_dict(generator.state_dict())
            self.reference[1].load_state_dict(discriminator.state_dict())

    @torch.no_grad()
    def measure(
        self, generator: Generator, discriminator: Discriminator, nimg: int, dtype: torch.dtype
    ) -> LagMeasurement | None:
        """Compare with the reference point, which then moves here; None the first time."""
        before = self.reference
        if before is None:
            self.set_reference(generator, discriminator)
            return None
        z, category, noise = self._probes(generator, nimg)
        seen = []
        for part in zip(*(x.split(PROBE_BATCH) for x in (z, category, noise)), strict=True):
            latents = (part[0], part[1], None, part[2], dtype)
            now, then = generator(*latents), before[0](*latents)
            features = (d.features(now, dtype) for d in (discriminator, before[1]))
            seen.append([x.flatten(1) for x in (now, then, *features)])
        now, then, features_now, features_then = map(torch.cat, zip(*seen, strict=True))
        similarity = mean_cosine if self.config.lag_measure == "cosine" else linear_cka
        generator_change = 1 - similarity(now, then)
        discriminator_change = 1 - similarity(features_now, features_then)
        self.set_reference(generator, discriminator)
        return self.judge(max(generator_change, 0.0), max(discriminator_change, 0.0))

    def judge(self, generator_change: float, discriminator_change: float) -> LagMeasurement:
        """Decide whether the discriminator lags, and remember the adaptation."""
        adaptation = discriminator_change
        if self.config.lag_measure != "cka_discriminator":
            adaptation /= max(generator_change, 1e-12)
        limit = self.config.floor
        if len(self.history) >= MIN_HISTORY:
            limit = max(limit, self.config.threshold * median(self.history))
        # A generator at rest leaves nothing to lag behind.
        lagging = generator_change > AT_REST and adaptation < limit
        self.history = [*self.history, adaptation][-self.config.window :]
        return LagMeasurement(generator_change, discriminator_change, adaptation, lagging)

    def _probes(self, generator: Generator, nimg: int) -> tuple[Tensor, Tensor, Tensor]:
        """Fresh latents, the categories in turn; the same on every rank."""
        device = generator.mapping.w_avg.device
        random = generator_for(self.seed, Purpose.PROBES, nimg)
        count, categories = self.config.probes, generator.shape.categories
        z = torch.randn(count, generator.z_dim, generator=random)
        noise = torch.randn(count, generator.noise_dim, generator=random)
        category = torch.eye(categories)[torch.arange(count) % categories]
        return z.to(device), category.to(device), noise.to(device)

    def state_dict(self) -> dict[str, Any]:
        """History and reference weights."""
        state: dict[str, Any] = {"history": list(self.history)}
        if self.reference is not None:
            state["generator"] = self.reference[0].state_dict()
            state["discriminator"] = self.reference[1].state_dict()
        return state

    def load_state_dict(
        self, state: dict[str, Any], generator: Generator, discriminator: Discriminator
    ) -> None:
        """Take up where the saved run was; the networks give the reference its shape."""
        self.history = list(state["history"])
        self.reference = None
        if "generator" in state:
            self.set_reference(generator, discriminator)
            assert self.reference is not None
            self.reference[0].load_state_dict(state["generator"])
            self.reference[1].load_state_dict(state["discriminator"])


@dataclass(frozen=True)
class MaskEvent:
    """Something that the run's log and report show with its image count."""

    kind: str  # "measure", "mask" or "unmask"
    nimg: int
    values: dict[str, float]


class MaskController:
    """Sets the discriminator's mask before each step, by the configured mode."""

    def __init__(self, config: MaskingConfig, seed: int) -> None:
        self.config: Final = config
        self.seed: Final = seed
        self.detector: Final = LagDetector(config, seed)
        self.masked_until: int | None = None  # image count; None while nothing is held for a time
        self.next_measure = 0

    def update(
        self, generator: Generator, discriminator: Discriminator, nimg: int, dtype: torch.dtype
    ) -> list[MaskEvent]:
        """Bring the mask up to image count `nimg`."""
        match self.config.mode:
            case "off":  # a mask may be left from before a resume with another mode
                held = discriminator.mask.held is not None
                return [self._lift(discriminator, nimg)] if held else []
            case "random":
                self._draw(discriminator, nimg)
                return []
            case "static":
                if discriminator.mask.held is not None:
                    return []
                # The same whenever it begins: a resume may have set this mode.
                return [replace(self._draw(discriminator, 0), nimg=nimg)]
            case "periodic":
                return self._by_clock(discriminator, nimg)
            case "dynamic":
                return self._by_lag(generator, discriminator, nimg, dtype)

    def _by_clock(self, discriminator: Discriminator, nimg: int) -> list[MaskEvent]:
        """Unmasked and masked periods in turn, a new mask each time."""
        period = math.ceil(self.config.period_kimg * 1000)
        masked = (nimg // period) % 2 == 1
        if masked == (discriminator.mask.held is not None):
            return []
        return [self._draw(discriminator, nimg) if masked else self._lift(discriminator, nimg)]

    def _by_lag(
        self, generator: Generator, discriminator: Discriminator, nimg: int, dtype: torch.dtype
    ) -> list[MaskEvent]:
        """Measure every interval; on lag, hold a new mask for a period."""
        events: list[MaskEvent] = []
        held = discriminator.mask.held is not None
        # Without an end it is of before a resume with another mode.
        if held and (self.masked_until is None or nimg >= self.masked_until):
            events.append(self._lift(discriminator, nimg))
        if nimg < self.next_measure:
            return events
        self.next_measure = nimg + math.ceil(self.config.interval_kimg * 1000)
        measurement = self.detector.measure(generator, discriminator, nimg, dtype)
        if measurement is None:
            return events
        values = {name: float(value) for name, value in vars(measurement).items()}
        events.append(MaskEvent("measure", nimg, values))
        if measurement.lagging and self.masked_until is None:
            self.masked_until = nimg + math.ceil(self.config.period_kimg * 1000)
            events.append(self._draw(discriminator, nimg))
        return events

    def _draw(self, discriminator: Discriminator, nimg: int) -> MaskEvent:
        mask = feature_mask(
            discriminator.mask_shape,
            ratio=self.config.ratio,
            granularity=self.config.granularity,
            generator=generator_for(self.seed, Purpose.MASK, nimg),
        )
        discriminator.mask.hold(mask.to(discriminator.device))
        return MaskEvent("mask", nimg, {"hidden": float((mask == 0).float().mean())})

    def _lift(self, discriminator: Discriminator, nimg: int) -> MaskEvent:
        discriminator.mask.hold(None)
        self.masked_until = None
        return MaskEvent("unmask", nimg, {})

    def state_dict(self, discriminator: Discriminator) -> dict[str, Any]:
        """The held mask, when it ends, and the detector."""
        held = discriminator.mask.held
        return {
            "held": None if held is None else held.cpu(),
            "masked_until": self.masked_until,
            "next_measure": self.next_measure,
            "detector": self.detector.state_dict(),
        }

    def load_state_dict(
        self, state: dict[str, Any], generator: Generator, discriminator: Discriminator
    ) -> None:
        """Take up where the saved run was, on the same mask, bit by bit."""
        held = state["held"]
        discriminator.mask.hold(None if held is None else held.to(discriminator.device))
        self.masked_until = state["masked_until"]
        self.next_measure = state["next_measure"]
        self.detector.load_state_dict(state["detector"], generator, discriminator)
