"""A training run's configuration: resolved once, printed, and saved with the run."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    ValidationError,
    model_validator,
)

from training.faults import first_fault
from training.records import Fraction, LearningRate, Record, Seed

MaskingMode = Literal["off", "observe", "periodic", "scheduled", "dynamic"]
# Moment of a run: its newest checkpoint, or its best one on the validation photos.
Snapshot = Literal["last", "best"]
DiscriminatorKind = Literal["convolutional", "both"]
Device = Literal["auto", "cpu", "cuda", "mps"]


class ConfigError(ValueError):
    """A setting is out of range; the message names the field."""


def _numbers(value: object) -> object:
    """Several numbers, as the command line gives them: 0.3,1,3."""
    return value.split(",") if isinstance(value, str) else value


class ModelConfig(Record):
    """Widths of generator and discriminator; sizes and categories come from the dataset."""

    z_dim: Annotated[int, Field(ge=8, le=1024)] = 128
    w_dim: Annotated[int, Field(ge=8, le=1024)] = 128
    mapping_layers: Annotated[int, Field(ge=1, le=8)] = 2
    channel_base: Annotated[int, Field(ge=64, le=65536)] = 2048
    channel_max: Annotated[int, Field(ge=8, le=1024)] = 128
    # Longer side of the finest feature maps with noise; None: all.
    noise_max_px: Annotated[int | None, Field(ge=1)] = None


class OptimizerConfig(Record):
    """Adam, lazy R1 and the moving averages of the generator's weights."""

    learning_rate: LearningRate = 0.0025
    # Relative learning rates: of the mapping network, of the categories' embedding, and of the
    # noise strengths, where 0 = no noise.
    mapping_multiplier: Annotated[float, Field(gt=0, le=1)] = 0.1
    embedding_multiplier: Annotated[float, Field(ge=0, le=10)] = 1.0
    noise_multiplier: Fraction = 0.01
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.0
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    r1_gamma: NonNegativeFloat = 0.01
    r1_interval_steps: Annotated[int, Field(ge=1)] = 16
    warmup_kimg: NonNegativeFloat = 0.0  # images in which the learning rate rises from 0
    # Last part of a run in which the learning rate falls: of max_kimg, or of max_minutes, and then
    # by the clock, so that no two runs are alike.
    decay: Fraction = 0.0
    ema_kimg: PositiveFloat = 10.0  # half-life of the average
    # The half-life is at most this share of the images shown.
    ema_rampup: Annotated[float, Field(gt=0, le=1)] = 0.05
    # Averages of so many times this half-life; validation chooses one.
    ema_lengths: Annotated[
        tuple[Annotated[float, Field(gt=0, le=100)], ...],
        BeforeValidator(_numbers),
        Field(min_length=1, max_length=5),
    ] = (0.3, 1.0, 3.0)


class ProjectedConfig(Record):
    """Heads on a frozen pretrained network (models/projected.py)."""

    # Longer side at which the network sees an image; None: by its size.
    input_px: Annotated[int | None, Field(ge=32, le=512)] = None
    learning_rate: LearningRate = 0.002  # of the heads
    weight: PositiveFloat = 0.3  # of the heads in the generator's loss, with both


class AugmentConfig(Record):
    """Augmentation of all that the discriminator sees, each transform with probability p."""

    mode: Literal["off", "fixed", "adaptive"] = "adaptive"
    p: Fraction = 0.0  # fixed probability, or where adaptive starts
    # Mean sign of the logits of real photos to hold.
    target: Annotated[float, Field(gt=0, lt=1)] = 0.6
    adjust_kimg: PositiveFloat = 100.0  # images in which p can go from 0 to 1
    max_p: Annotated[float, Field(gt=0, le=1)] = 0.8  # no p above: it would leak into the images
    mirror: bool = True  # mirror every other photo; off for products with text

    @model_validator(mode="before")
    @classmethod
    def _by_its_old_name(cls, values: Any) -> Any:
        """Older runs call p strength."""
        if not isinstance(values, dict) or "strength" not in values:
            return values
        return {**{k: v for k, v in values.items() if k != "strength"}, "p": values["strength"]}


class MaskingConfig(Record):
    """When, where and how much of the discriminator's features is hidden (arXiv 2306.07716)."""

    mode: MaskingMode = "dynamic"
    level: Annotated[int, Field(ge=0, le=8)] = 1  # masked level: 0 = base, 1 = twice the base
    granularity: Literal["spatial", "channel", "both"] = "both"
    ratio: Annotated[float, Field(ge=0, lt=1)] = 0.2  # share that is hidden
    period_kimg: PositiveFloat = 2.0  # how long a mask is held, and not held by "periodic"
    # When the masks of "scheduled" begin.
    schedule_kimg: Annotated[tuple[NonNegativeFloat, ...], BeforeValidator(_numbers)] = ()
    interval_kimg: PositiveFloat = 1.0  # between measurements of lag
    probes: Annotated[int, Field(ge=8, le=4096)] = 16  # images in a measurement
    # Lag is so many deviations above the median of so many first measurements of the run.
    lag_deviations: NonNegativeFloat = 1.0
    lag_baseline: Annotated[int, Field(ge=2, le=1000)] = 8
    generator_sees_mask: bool = True

    @model_validator(mode="after")
    def _has_a_schedule(self) -> Self:
        if self.mode == "scheduled" and not self.schedule_kimg:
            raise ValueError("schedule_kimg names when a mask begins: 10,24,31 and the like")
        return self


class FineTuningConfig(Record):
    """How trained weights are taken up (training/learning/fine_tuning.py)."""

    source: str | None = None  # what --from named
    # Known category that an unknown one starts from.
    new_categories: Literal["nearest", "mean"] = "nearest"
    # First discriminator blocks kept as they are.
    freeze_blocks: Annotated[int, Field(ge=0, le=8)] = 0


class TrainingConfig(Record):
    """Everything that decides a run's result besides its data and its device."""

    preset: str = "cpu-demo"
    seed: Seed = 0
    batch_size: Annotated[int, Field(ge=2, le=4096)] = 32  # over all processes
    # Of a process's images, at a time; less memory, the same result.
    batch_gpu: Annotated[int | None, Field(ge=4)] = None
    max_kimg: PositiveFloat | None = None
    max_minutes: PositiveFloat | None = None
    tick_kimg: PositiveFloat = 1.0  # between log lines
    grid_kimg: PositiveFloat = 20.0  # between sample grids
    checkpoint_kimg: PositiveFloat = 20.0
    keep_checkpoints: Annotated[int, Field(ge=2)] = 3
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    # Both: with heads on a pretrained network beside it.
    discriminator: DiscriminatorKind = "convolutional"
    model: ModelConfig = ModelConfig()
    projected: ProjectedConfig = ProjectedConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    augment: AugmentConfig = AugmentConfig()
    masking: MaskingConfig = MaskingConfig()
    fine_tuning: FineTuningConfig = FineTuningConfig()

    @model_validator(mode="after")
    def _has_an_end(self) -> "TrainingConfig":
        if self.max_kimg is None and self.max_minutes is None:
            raise ValueError("give max_kimg or max_minutes, or training would never end")
        return self


def merge(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    """`override` laid over `base`, level by level; None means: not given."""
    merged = dict(base)
    for key, value in override.items():
        known = merged.get(key, {})
        if isinstance(value, dict) and isinstance(known, dict):
            merged[key] = merge(known, value)
        elif value is not None:
            merged[key] = value
    return merged


def resolve(settings: dict[str, Any]) -> TrainingConfig:
    """Validate `settings`.

    Raises:
        ConfigError: Names the first field that is wrong, as on the command line.
    """
    try:
        return TrainingConfig.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(first_fault(error, "settings")) from error
