"""A trained watermark on disk.

WATERMARK/
  watermark.safetensors  weights of both networks, float32
  watermark.json         WatermarkCard: settings, and, after evaluation, its reliability
  watermark.png          photos, marked photos, and their difference, amplified eight times
"""

from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field
from torch import nn

from models.manifest import WatermarkDetection
from models.watermark_networks import WatermarkDecoder, WatermarkEncoder
from training.companion import (
    CompanionCard,
    CompanionError,
    load_weights,
    read_card,
    write_card,
    write_companion,
)
from training.files import temporary_folder
from training.records import Record

SHEET_FILE: Final = "watermark.png"
_NAME: Final = "watermark"
_AGAIN: Final = "train it again by `catalogan train-watermark`"


class JudgingSettings(Record):
    """Numbers of images to evaluate a watermark with."""

    # Marked images for each treatment, and readings of images without a mark.
    judged: Annotated[int, Field(ge=1, le=100_000)] = 1000
    unmarked: Annotated[int, Field(ge=1, le=1_000_000)] = 100_000


class Judgement(Record):
    """A watermark's reliability; the fields are those of models.manifest.WatermarkRecord."""

    psnr_db: float
    detections: tuple[WatermarkDetection, ...]
    unmarked: int
    payloads: int
    false_positives: float


class WatermarkCard(CompanionCard):
    """Metadata of a trained watermark."""

    judgement: Judgement | None = None


def pair(encoder: WatermarkEncoder, decoder: WatermarkDecoder) -> nn.Module:
    """Combine both networks in one module, with weights "encoder.…" and "decoder.…"."""
    return nn.ModuleDict({"encoder": encoder, "decoder": decoder})


def save_watermark(
    out: Path, networks: nn.Module, card: dict[str, Any], sheet: bytes
) -> WatermarkCard:
    """Write a watermark's folder, completely or not at all.

    Args:
        out: Must not exist.
        networks: The trained `pair`.
        card: The fields of WatermarkCard, except the weights' hash.
        sheet: watermark.png.

    Raises:
        CompanionError: It can't be written.
    """
    try:
        with temporary_folder(out) as temporary:
            (temporary / SHEET_FILE).write_bytes(sheet)
            return write_companion(temporary, _NAME, networks, WatermarkCard, card)
    except OSError as error:
        raise CompanionError(f"can't write {out}: {error}") from error


def add_judgement(folder: Path, card: WatermarkCard) -> None:
    """Replace a watermark's card by one with its evaluation.

    Raises:
        CompanionError: It can't be written; the card is unchanged.
    """
    try:
        write_card(folder, _NAME, card)
    except OSError as error:
        raise CompanionError(f"can't write into {folder}: {error}") from error


def load_watermark(folder: Path) -> tuple[WatermarkEncoder, WatermarkDecoder, WatermarkCard]:
    """Load a watermark's networks, ready for use, and its card.

    Raises:
        CompanionError: The folder has no watermark, or is damaged.
    """
    card = read_card(folder, _NAME, WatermarkCard, _AGAIN)
    encoder, decoder = WatermarkEncoder(), WatermarkDecoder()
    load_weights(folder, _NAME, pair(encoder, decoder), _AGAIN)
    return encoder, decoder, card
