"""A training run's configuration: resolved once, printed, and saved with the run."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

MaskingMode = Literal["off", "random", "static", "periodic", "dynamic"]
# Moment of a run: its newest checkpoint, or its best one on the validation photos.
Snapshot = Literal["last", "best"]
DiscriminatorKind = Literal["convolutional", "projected", "both"]
Device = Literal["auto", "cpu", "cuda", "mps"]


class ConfigError(ValueError):
    """A setting is out of range; the message names the field."""


def _numbers(value: object) -> object:
    """Several numbers, as the command line gives them: 0.3,1,3."""
    return value.split(",") if isinstance(value, str) else value


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelConfig(_Config):
    """Widths of generator and discriminator; sizes and categories come from the dataset."""

    z_dim: Annotated[int, Field(ge=8, le=1024)] = 128
    w_dim: Annotated[int, Field(ge=8, le=1024)] = 128
    mapping_layers: Annotated[int, Field(ge=1, le=8)] = 2
    channel_base: Annotated[int, Field(ge=64, le=65536)] = 2048
    channel_max: Annotated[int, Field(ge=8, le=1024)] = 128
    noise_max_px: Annotated[
        int | None,
        Field(ge=1, description="Longer side of the finest feature maps with noise; None: all."),
    ] = None


class OptimizerConfig(_Config):
    """Adam, lazy R1 and the moving averages of the generator's weights."""

    learning_rate: Annotated[float, Field(gt=0, le=0.1)] = 0.0025
    mapping_multiplier: Annotated[
        float, Field(gt=0, le=1, description="Learning rate of the mapping network, relative.")
    ] = 0.1
    embedding_multiplier: Annotated[
        float, Field(ge=0, le=10, description="Of the categories' embedding, relative.")
    ] = 1.0
    noise_multiplier: Annotated[
        float, Field(ge=0, le=1, description="Of the noise strengths, relative; 0 = no noise.")
    ] = 0.01
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.0
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    r1_gamma: Annotated[float, Field(ge=0)] = 0.01
    r1_interval_steps: Annotated[int, Field(ge=1)] = 16
    warmup_kimg: Annotated[
        float, Field(ge=0, description="Images in which the learning rate rises from 0.")
    ] = 0.0
    decay: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Last part of a run in which the learning rate falls: of max_kimg, or of "
            "max_minutes, and then by the clock, so that no two runs are alike.",
        ),
    ] = 0.0
    ema_kimg: Annotated[float, Field(gt=0, description="Half-life of the average.")] = 10.0
    ema_rampup: Annotated[
        float, Field(gt=0, le=1, description="Half-life is at most this share of the images shown.")
    ] = 0.05
    ema_lengths: Annotated[
        tuple[Annotated[float, Field(gt=0, le=100)], ...],
        BeforeValidator(_numbers),
        Field(
            min_length=1,
            max_length=5,
            description="Averages of so many times this half-life; validation chooses one.",
        ),
    ] = (0.3, 1.0, 3.0)


class ProjectedConfig(_Config):
    """Heads on a frozen pretrained network (models/projected.py)."""

    input_px: Annotated[
        int | None,
        Field(
            ge=32,
            le=512,
            description="Longer side at which the network sees an image; None: by its size.",
        ),
    ] = None
    learning_rate: Annotated[float, Field(gt=0, le=0.1, description="Of the heads.")] = 0.002
    weight: Annotated[
        float, Field(gt=0, description="Of the heads in the generator's loss, with both.")
    ] = 0.3


class AugmentConfig(_Config):
    """Augmentation of all that the discriminator sees, each transform with probability p."""

    mode: Literal["off", "fixed", "adaptive"] = "adaptive"
    p: Annotated[
        float, Field(ge=0, le=1, description="Fixed probability, or where adaptive starts.")
    ] = 0.0
    target: Annotated[
        float, Field(gt=0, lt=1, description="Mean sign of the logits of real photos to hold.")
    ] = 0.6
    adjust_kimg: Annotated[
        float, Field(gt=0, description="Images in which p can go from 0 to 1.")
    ] = 100.0
    max_p: Annotated[
        float, Field(gt=0, le=1, description="No p above: it would leak into the images.")
    ] = 0.8
    mirror: Annotated[
        bool, Field(description="Mirror every other photo; off for products with text.")
    ] = True

    @model_validator(mode="before")
    @classmethod
    def _by_its_old_name(cls, values: Any) -> Any:
        """Older runs call p strength."""
        if not isinstance(values, dict) or "strength" not in values:
            return values
        return {**{k: v for k, v in values.items() if k != "strength"}, "p": values["strength"]}


class MaskingConfig(_Config):
    """When, where and how much of the discriminator's features is hidden (arXiv 2306.07716)."""

    mode: MaskingMode = "dynamic"
    level: Annotated[
        int, Field(ge=0, le=8, description="Masked level: 0 = base, 1 = twice the base.")
    ] = 1
    granularity: Literal["spatial", "channel", "both"] = "both"
    ratio: Annotated[float, Field(ge=0, lt=1, description="Share that is hidden.")] = 0.2
    period_kimg: Annotated[float, Field(gt=0, description="How long a mask is held.")] = 2.0
    interval_kimg: Annotated[float, Field(gt=0, description="Between lag measurements.")] = 2.0
    lag_measure: Annotated[
        Literal["cka", "cosine", "cka_discriminator"],
        Field(description="How change is measured; the last looks at the discriminator alone."),
    ] = "cka"
    threshold: Annotated[
        float,
        Field(ge=0, le=2, description="Lag when adaptation is under this share of its median."),
    ] = 0.9
    floor: Annotated[
        float, Field(ge=0, description="Adaptation under which the discriminator lags in any case.")
    ] = 1e-3
    window: Annotated[int, Field(ge=3, le=1000, description="Measurements in the median.")] = 16
    probes: Annotated[int, Field(ge=8, le=4096, description="Pictures in a measurement.")] = 128
    generator_sees_mask: bool = True


class FineTuningConfig(_Config):
    """How trained weights are taken up (training/learning/fine_tuning.py)."""

    source: Annotated[str | None, Field(description="What --from named.")] = None
    new_categories: Annotated[
        Literal["nearest", "mean"],
        Field(description="Known category that an unknown one starts from."),
    ] = "nearest"
    freeze_blocks: Annotated[
        int, Field(ge=0, le=8, description="First discriminator blocks kept as they are.")
    ] = 0


class TrainingConfig(_Config):
    """Everything that decides a run's result besides its data and its device."""

    preset: str = "cpu-demo"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    batch_size: Annotated[int, Field(ge=2, le=4096, description="Over all processes.")] = 32
    batch_gpu: Annotated[
        int | None,
        Field(ge=4, description="Of a process's images, at a time; less memory, the same result."),
    ] = None
    max_kimg: Annotated[float | None, Field(gt=0)] = None
    max_minutes: Annotated[float | None, Field(gt=0)] = None
    tick_kimg: Annotated[float, Field(gt=0, description="Between log lines.")] = 1.0
    grid_kimg: Annotated[float, Field(gt=0, description="Between sample grids.")] = 20.0
    checkpoint_kimg: Annotated[float, Field(gt=0)] = 20.0
    keep_checkpoints: Annotated[int, Field(ge=2)] = 3
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    discriminator: Annotated[
        DiscriminatorKind,
        Field(description="projected: heads on a pretrained network; both: beside ours."),
    ] = "convolutional"
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
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "settings"
        raise ConfigError(f"{field}: {first['msg'].removeprefix('Value error, ')}") from error
