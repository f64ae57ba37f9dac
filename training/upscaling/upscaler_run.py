"""A run's upscaler on disk.

RUN/upscaler/
  upscaler.safetensors   weights, float32
  upscaler.json          UpscalerCard: settings, and how well it enlarges
  enlarged.png           validation photos and generated images, by Lanczos and by the upscaler
"""

from pathlib import Path
from typing import Annotated, Any, Final

import torch
from pydantic import Field

from models.manifest import EnlargedDistances
from models.upscaler import Factor, Upscaler, UpscalerShape
from training.companion import (
    CompanionCard,
    CompanionError,
    CompanionSettings,
    load_weights,
    read_card,
    write_companion,
)
from training.dataset import DatasetInfo
from training.files import replace_file
from training.learning.config import Snapshot
from training.learning.randomness import Purpose, seed_for

UPSCALER_FOLDER: Final = "upscaler"
SHEET_FILE: Final = "enlarged.png"
_NAME: Final = "upscaler"


class UpscalerSettings(CompanionSettings):
    """What decides an upscaler besides its run and its photos."""

    factor: Factor = 4
    snapshot: Snapshot = "last"
    batch_size: Annotated[int, Field(ge=2, le=4096, description="Crops of photos a step.")] = 8
    crop_px: Annotated[int, Field(ge=16, description="Of the large photos.")] = 96
    learning_rate: Annotated[float, Field(gt=0, le=0.1)] = 5e-4
    critic_learning_rate: Annotated[float, Field(gt=0, le=0.1)] = 5e-4
    pixel_weight: Annotated[float, Field(ge=0, description="Of pixels, on photos.")] = 4.0
    feature_weight: Annotated[float, Field(ge=0, description="Of features, on photos.")] = 1.0
    critic_weight: Annotated[float, Field(ge=0, description="Of the critic's judgement.")] = 0.1


class UpscalerCard(CompanionCard):
    """What is known of a trained upscaler; its dataset is that of the large photos."""

    settings: UpscalerSettings
    generator_nimg: int
    judged: Annotated[int, Field(ge=1, description="Validation photos, and generated images.")]
    photos: EnlargedDistances
    generated: EnlargedDistances


def build_upscaler(info: DatasetInfo, settings: UpscalerSettings) -> Upscaler:
    """An upscaler for a run's images with its initial weights, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(settings.seed, Purpose.UPSCALER))
        return Upscaler(UpscalerShape(channels=info.channels, factor=settings.factor))


def save_upscaler(
    run: Path, upscaler: Upscaler, card: dict[str, Any], sheet: bytes
) -> UpscalerCard:
    """Write the upscaler into its run.

    Args:
        run: The training run.
        upscaler: What was trained.
        card: The fields of UpscalerCard but for the weights' hash.
        sheet: enlarged.png.

    Raises:
        CompanionError: It can't be written.
    """
    folder = run / UPSCALER_FOLDER
    try:
        folder.mkdir(exist_ok=True)
        replace_file(folder / SHEET_FILE, sheet)
        return write_companion(folder, _NAME, upscaler, UpscalerCard, card)
    except OSError as error:
        raise CompanionError(f"can't write {folder}: {error}") from error


def load_upscaler(run: Path, info: DatasetInfo) -> tuple[Upscaler, UpscalerCard] | None:
    """The run's upscaler, or None if none was trained.

    It may have been trained beside an earlier moment of the run: it knows a catalogue's detail,
    and no generator's weights.

    Args:
        run: The training run.
        info: The run's dataset.

    Raises:
        CompanionError: It is damaged.
    """
    folder = run / UPSCALER_FOLDER
    if not (folder / f"{_NAME}.json").exists():
        return None
    again = f"run `catalogan train-upscaler {run}` again, or export with --no-upscaler"
    card = read_card(folder, _NAME, UpscalerCard, again)
    upscaler = build_upscaler(info, card.settings)
    load_weights(folder, _NAME, upscaler, again)
    return upscaler, card
