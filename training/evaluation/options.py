"""Options of `catalogan evaluate`."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from models.manifest import SERVED_NOISE_SCALE, SERVED_TRUNCATION_PSI
from training.evaluation.usefulness import UsefulnessOptions
from training.features.names import FeaturesName
from training.records import Fraction, Record, Seed


class EvaluationOptions(Record):
    """Settings of an evaluation."""

    # Generated images, rounded up to whole rounds.
    samples: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    seed: Seed = 0
    truncation_psi: Fraction = 1.0  # 1 judges the whole distribution
    # For the contact sheet and the label agreement as served.
    served_truncation_psi: Fraction = SERVED_TRUNCATION_PSI
    served_noise_scale: Fraction = SERVED_NOISE_SCALE
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 64  # images in memory at a time
    # Training steps of the category classifier.
    classifier_steps: Annotated[int, Field(ge=10, le=100_000)] = 400
    usefulness: UsefulnessOptions | None = None  # None = not measured
    features: FeaturesName = "efficientnet-lite2"
    feature_weights: Path | None = None
    device: str = "cpu"
