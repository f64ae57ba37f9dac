"""What `catalogan evaluate` can be told."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from models.manifest import SERVED_NOISE_SCALE, SERVED_TRUNCATION_PSI
from training.evaluation.usefulness import UsefulnessOptions
from training.features.names import FeaturesName
from training.records import Record


class EvaluationOptions(Record):
    """Settings of an evaluation."""

    samples: Annotated[
        int,
        Field(ge=1, le=1_000_000, description="Generated images, rounded up to whole rounds."),
    ] = 1000
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    truncation_psi: Annotated[
        float, Field(ge=0, le=1, description="1 judges the whole distribution.")
    ] = 1.0
    served_truncation_psi: Annotated[
        float, Field(ge=0, le=1, description="Of the contact sheet and the second agreement.")
    ] = SERVED_TRUNCATION_PSI
    served_noise_scale: Annotated[
        float, Field(ge=0, le=1, description="Of the contact sheet and the second agreement.")
    ] = SERVED_NOISE_SCALE
    batch_size: Annotated[int, Field(ge=1, le=4096, description="Pictures held at a time.")] = 64
    classifier_steps: Annotated[
        int, Field(ge=10, le=100_000, description="Training steps of the category classifier.")
    ] = 400
    usefulness: Annotated[
        UsefulnessOptions | None, Field(description="Also train on few photos with help.")
    ] = None
    features: FeaturesName = "efficientnet-lite2"
    feature_weights: Path | None = None
    device: str = "cpu"
