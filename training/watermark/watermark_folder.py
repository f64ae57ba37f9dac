"""A trained watermark on disk.

WATERMARK/
  watermark.safetensors  weights of both networks, float32
  watermark.json         WatermarkCard: settings, and, once it was judged, how well it holds
  watermark.png          photos, marked photos, and what the mark changed, eight times as strong
"""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Final

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from models.manifest import Sha256, WatermarkDetection
from models.watermark_networks import WatermarkDecoder, WatermarkEncoder
from training.faults import first_fault
from training.files import folder_aside, replace_file

WEIGHTS_FILE: Final = "watermark.safetensors"
CARD_FILE: Final = "watermark.json"
SHEET_FILE: Final = "watermark.png"


class WatermarkError(ValueError):
    """A watermark that can't be trained or used; the message says what to do."""


class WatermarkSettings(BaseModel):
    """What decides a watermark besides its dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    max_kimg: Annotated[float | None, Field(gt=0)] = None
    max_minutes: Annotated[float | None, Field(gt=0)] = None
    batch_size: Annotated[int, Field(ge=2, le=4096)] = 16
    learning_rate: Annotated[float, Field(gt=0, le=0.1)] = 0.001


class JudgingSettings(BaseModel):
    """How much a watermark is judged by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    judged: Annotated[
        int, Field(ge=1, le=100_000, description="Marked pictures for each treatment.")
    ] = 1000
    unmarked: Annotated[
        int, Field(ge=1, le=1_000_000, description="Readings of pictures without a mark.")
    ] = 100_000


class Judgement(BaseModel):
    """How well a watermark holds; the fields are those of models.manifest.WatermarkRecord."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    psnr_db: float
    detections: tuple[WatermarkDetection, ...]
    unmarked: int
    payloads: int
    false_positives: float


class WatermarkCard(BaseModel):
    """What is known of a trained watermark."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    settings: WatermarkSettings
    nimg: Annotated[int, Field(ge=0)]
    dataset_hash: Sha256
    weights_sha256: Sha256
    judgement: Judgement | None = None


def save_watermark(
    out: Path,
    encoder: WatermarkEncoder,
    decoder: WatermarkDecoder,
    card: dict[str, Any],
    sheet: bytes,
) -> WatermarkCard:
    """Write a watermark's folder, whole or not at all.

    Args:
        out: Must not exist.
        encoder: What was trained.
        decoder: With it.
        card: The fields of WatermarkCard but for the weights' hash.
        sheet: watermark.png.

    Raises:
        WatermarkError: It can't be written.
    """
    tensors = {
        f"{name}.{key}": value.detach().cpu().contiguous()
        for name, network in (("encoder", encoder), ("decoder", decoder))
        for key, value in network.state_dict().items()
    }
    weights = save(tensors)
    whole = WatermarkCard(weights_sha256=hashlib.sha256(weights).hexdigest(), **card)
    try:
        with folder_aside(out) as aside:
            (aside / WEIGHTS_FILE).write_bytes(weights)
            (aside / SHEET_FILE).write_bytes(sheet)
            (aside / CARD_FILE).write_text(whole.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise WatermarkError(f"can't write {out}: {error}") from error
    return whole


def keep_judgement(folder: Path, card: WatermarkCard) -> None:
    """Put what a watermark was found to be worth into its folder.

    Raises:
        WatermarkError: It can't be written; the card is as it was.
    """
    try:
        replace_file(folder / CARD_FILE, f"{card.model_dump_json(indent=2)}\n".encode())
    except OSError as error:
        raise WatermarkError(f"can't write {folder / CARD_FILE}: {error}") from error


def load_watermark(folder: Path) -> tuple[WatermarkEncoder, WatermarkDecoder, WatermarkCard]:
    """Read what `save_watermark` wrote; both networks ready for use.

    Raises:
        WatermarkError: The folder is none, or is damaged.
    """
    try:
        card = WatermarkCard.model_validate_json((folder / CARD_FILE).read_bytes())
        data = (folder / WEIGHTS_FILE).read_bytes()
    except (OSError, ValueError) as error:
        raise WatermarkError(
            f"{folder} is not what `catalogan train-watermark` writes: {first_fault(error)}"
        ) from error
    if hashlib.sha256(data).hexdigest() != card.weights_sha256:
        raise WatermarkError(f"{folder / WEIGHTS_FILE} is damaged (SHA-256 differs): train again")
    encoder, decoder = WatermarkEncoder(), WatermarkDecoder()
    try:
        tensors = load(data)
        for name, network in (("encoder", encoder), ("decoder", decoder)):
            _fill(network, name, tensors)
    except (RuntimeError, SafetensorError) as error:
        raise WatermarkError(f"{folder / WEIGHTS_FILE} does not fit: train again") from error
    return encoder, decoder, card


def _fill(network: nn.Module, name: str, tensors: dict[str, torch.Tensor]) -> None:
    prefix = name + "."
    network.load_state_dict(
        {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
    )
    network.eval().requires_grad_(False)
