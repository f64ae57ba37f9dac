"""A run's encoder on disk, and the check that it belongs to the run's generator.

RUN/encoder/
  encoder.safetensors    weights, float32
  encoder.json           EncoderCard: settings, the generator that it inverts, and its errors
  reconstructions.png    validation photos above their reconstructions and variations
"""

import hashlib
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import NonNegativeFloat

from models.encoder import Encoder, EncoderShape
from models.generator import Generator
from models.manifest import ReconstructionErrors, Sha256
from training.companion import (
    CompanionCard,
    CompanionError,
    CompanionSettings,
    load_weights,
    read_card,
    write_companion,
)
from training.files import replace_file
from training.learning.config import Snapshot, TrainingConfig
from training.learning.randomness import Purpose, seed_for
from training.records import LearningRate

ENCODER_FOLDER: Final = "encoder"
SHEET_FILE: Final = "reconstructions.png"
_NAME: Final = "encoder"


class EncoderSettings(CompanionSettings):
    """Training settings of an encoder.

    Each step uses as many generated images as photos.
    """

    snapshot: Snapshot = "last"
    learning_rate: LearningRate = 0.01
    pixel_weight: NonNegativeFloat = 1.0  # loss on pixels and coarse pixels
    feature_weight: NonNegativeFloat = 1.0  # loss on the discriminator's features
    style_weight: NonNegativeFloat = 0.5  # loss on the known styles of generated images
    pull_weight: NonNegativeFloat = 0.01  # penalty on the distance to the category's mean style


class EncoderCard(CompanionCard):
    """Settings and measured errors of a trained encoder."""

    settings: EncoderSettings
    generator_sha256: Sha256
    generator_nimg: int
    errors: ReconstructionErrors


def build_encoder(config: TrainingConfig, generator: Generator, seed: int) -> Encoder:
    """Build an encoder for `generator` with initial weights, on the CPU."""
    shape = generator.shape
    num_ws, w_dim = generator.style_shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, Purpose.ENCODER))
        return Encoder(
            EncoderShape(
                height=shape.height,
                width=shape.width,
                channels=shape.channels,
                categories=shape.categories,
                num_ws=num_ws,
                w_dim=w_dim,
                channel_base=config.model.channel_base,
                channel_max=config.model.channel_max,
            )
        )


def generator_digest(generator: Generator) -> str:
    """Hash all trained weights in order of their names; the result is the same on any machine.

    The mean styles are left out: they are computed on loading, so their rounding depends on the
    machine.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(generator.named_parameters()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_encoder(run: Path, encoder: Encoder, card: dict[str, Any], sheet: bytes) -> EncoderCard:
    """Write the encoder into its run.

    Args:
        run: The training run.
        encoder: The trained encoder.
        card: The fields of EncoderCard, except the weights' hash.
        sheet: reconstructions.png.

    Raises:
        CompanionError: It can't be written.
    """
    folder = run / ENCODER_FOLDER
    try:
        folder.mkdir(exist_ok=True)
        replace_file(folder / SHEET_FILE, sheet)
        return write_companion(folder, _NAME, encoder, EncoderCard, card)
    except OSError as error:
        raise CompanionError(f"can't write {folder}: {error}") from error


def load_encoder(
    run: Path, config: TrainingConfig, generator: Generator
) -> tuple[Encoder, EncoderCard] | None:
    """Load the run's encoder; None if none was trained.

    Args:
        run: The training run.
        config: The run's configuration.
        generator: The averaged generator that the encoder has to invert.

    Raises:
        CompanionError: It is damaged, or was trained for another generator.
    """
    folder = run / ENCODER_FOLDER
    if not (folder / f"{_NAME}.json").exists():
        return None
    remedy = f"run `catalogan train-encoder {run}` again"
    card = read_card(folder, _NAME, EncoderCard, remedy)
    if card.generator_sha256 != generator_digest(generator):
        raise CompanionError(
            f"the encoder in {folder} was trained for another generator, that of "
            f"{card.generator_nimg / 1000:.1f} kimg: {remedy}, or export with --no-encoder"
        )
    encoder = build_encoder(config, generator, card.settings.seed)
    load_weights(folder, _NAME, encoder, remedy)
    return encoder, card
