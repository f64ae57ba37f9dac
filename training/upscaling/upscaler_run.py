"""A run's upscaler on disk.

RUN/upscaler/
  upscaler.safetensors   weights, float32
  upscaler.json          UpscalerCard: settings, and how well it enlarges
  enlarged.png           validation photos and generated images, by Lanczos and by the upscaler
"""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Final

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load, save

from models.manifest import EnlargedDistances, Sha256
from models.upscaler import Factor, Upscaler, UpscalerShape
from training.dataset import DatasetInfo
from training.faults import first_fault
from training.files import replace_file
from training.learning.config import Snapshot
from training.learning.randomness import Purpose, seed_for

UPSCALER_FOLDER: Final = "upscaler"
WEIGHTS_FILE: Final = "upscaler.safetensors"
CARD_FILE: Final = "upscaler.json"
SHEET_FILE: Final = "enlarged.png"


class UpscalerError(ValueError):
    """An upscaler that can't be trained or used; the message says what to do."""


class UpscalerSettings(BaseModel):
    """What decides an upscaler besides its run and its photos."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    factor: Factor = 4
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    snapshot: Snapshot = "last"
    max_kimg: Annotated[float | None, Field(gt=0)] = None
    max_minutes: Annotated[float | None, Field(gt=0)] = None
    batch_size: Annotated[
        int, Field(ge=2, le=4096, description="Crops of photos a step, beside as many generated.")
    ] = 8
    crop_px: Annotated[int, Field(ge=16, description="Of the large photos.")] = 96
    learning_rate: Annotated[float, Field(gt=0, le=0.1)] = 5e-4
    critic_learning_rate: Annotated[float, Field(gt=0, le=0.1)] = 5e-4
    pixel_weight: Annotated[float, Field(ge=0, description="Of pixels, on photos.")] = 1.0
    feature_weight: Annotated[float, Field(ge=0, description="Of features, on photos.")] = 1.0
    critic_weight: Annotated[float, Field(ge=0, description="Of the critic's judgement.")] = 0.1
    fidelity_weight: Annotated[
        float, Field(ge=0, description="Of coarse pixels, on generated images.")
    ] = 2.0


class UpscalerCard(BaseModel):
    """What is known of a trained upscaler."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    settings: UpscalerSettings
    nimg: Annotated[int, Field(ge=0, description="Crops of photos shown to it.")]
    generator_nimg: int
    photos_hash: Sha256
    weights_sha256: Sha256
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
    """Write the upscaler into its run; the card comes last and vouches for the weights.

    Args:
        run: The training run.
        upscaler: What was trained.
        card: The fields of UpscalerCard but for the weights' hash.
        sheet: enlarged.png.

    Raises:
        UpscalerError: It can't be written.
    """
    weights = save(
        {name: t.detach().float().cpu().contiguous() for name, t in upscaler.state_dict().items()}
    )
    whole = UpscalerCard(weights_sha256=hashlib.sha256(weights).hexdigest(), **card)
    folder = run / UPSCALER_FOLDER
    try:
        folder.mkdir(exist_ok=True)
        replace_file(folder / WEIGHTS_FILE, weights)
        replace_file(folder / SHEET_FILE, sheet)
        replace_file(folder / CARD_FILE, (whole.model_dump_json(indent=2) + "\n").encode())
    except OSError as error:
        raise UpscalerError(f"can't write {folder}: {error}") from error
    return whole


def load_upscaler(run: Path, info: DatasetInfo) -> tuple[Upscaler, UpscalerCard] | None:
    """The run's upscaler, or None if none was trained.

    It may have been trained beside an earlier moment of the run: it knows a catalogue's detail,
    and no generator's weights.

    Args:
        run: The training run.
        info: The run's dataset.

    Raises:
        UpscalerError: It is damaged.
    """
    folder = run / UPSCALER_FOLDER
    if not (folder / CARD_FILE).exists():
        return None
    again = f"run `catalogan train-upscaler {run}` again, or export with --no-upscaler"
    try:
        card = UpscalerCard.model_validate_json((folder / CARD_FILE).read_bytes())
        data = (folder / WEIGHTS_FILE).read_bytes()
    except (OSError, ValueError) as error:
        raise UpscalerError(f"{folder} can't be read ({first_fault(error)}): {again}") from error
    if hashlib.sha256(data).hexdigest() != card.weights_sha256:
        raise UpscalerError(f"{folder / WEIGHTS_FILE} is damaged (SHA-256 differs): {again}")
    upscaler = build_upscaler(info, card.settings)
    try:
        upscaler.load_state_dict(load(data))
    except (RuntimeError, SafetensorError) as error:
        raise UpscalerError(f"{folder / WEIGHTS_FILE} does not fit its run: {again}") from error
    return upscaler.eval().requires_grad_(False), card
