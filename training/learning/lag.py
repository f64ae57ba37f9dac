"""Does the discriminator do worse on what the generator makes now than on what it made before?

Kept are images of a reference moment. With d the discriminator's mean logit of images,

    lag = (d(present) - d(kept)) / (d(photos) - d(kept))

is the share of its separation of photos from the kept images that the generator has taken back. A
discriminator that learns all the while what the generator has come to do has none. The reference
moves to the present wherever there is no lag: where it lasts, it adds up.
"""

import math
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, Final

import torch
from torch import Tensor

from models.discriminator import Discriminator
from models.generator import Generator
from models.masking import lifted
from training.learning.config import MaskingConfig
from training.learning.randomness import Purpose, generator_for

PROBE_BATCH: Final = 64  # at a time, so that a measurement takes no more memory than a step
FIRST: Final = 8  # measurements from which a run's threshold comes


@dataclass(frozen=True)
class LagMeasurement:
    """One comparison with the reference moment."""

    lag: float
    threshold: float  # not a number before it is known
    lagging: bool


class LagMeter:
    """Keeps images of a reference moment, and the run's first measurements."""
