"""A run's encoder on disk, and whether it still belongs to the run's generator.

RUN/encoder/
  encoder.safetensors    weights, float32
  encoder.json           EncoderCard: settings, whose generator it inverts, and how well
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
    """What decides an encoder besides its run and its dataset.

    A step takes as many generated images as photos.
    """

    snapshot: Snapshot = "last"
    learning_rate: LearningRate = 0.01
    pixel_weight: NonNegativeFloat = 1.0  # of pixels and coarse pixels
    feature_weight: NonNegativeFloat = 1.0  # of the discriminator's features
    style_weight: NonNegativeFloat = 0.5  # of the known styles of generated images
    pull_weight: NonNegativeFloat = 0.01  # of the pull to the category's mean style


class EncoderCard(CompanionCard):
    """What is known of a trained encoder."""

    settings: EncoderSettings
    generator_sha256: Sha256
    generator_nimg: int
    errors: ReconstructionErrors


def build_encoder(config: TrainingConfig, generator: Generator, seed: int) -> Encoder:
    """An encoder for `generator` with its initial weights, on the CPU."""
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
    """SHA-256 over all trained weights, by name: the same wherever the generator was loaded.

    Its mean styles are left out: they are computed on loading, and rounded by the machine.
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
        encoder: What was trained.
        card: The fields of EncoderCard but for the weights' hash.
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
    """The run's encoder, or None if none was trained.

    Args:
        run: The training run.
        config: The run's.
        generator: The averaged generator that the encoder has to invert.

    Raises:
        CompanionError: It is damaged, or was trained for another generator.
    """
    folder = run / ENCODER_FOLDER
    if not (folder / f"{_NAME}.json").exists():
        return None
    again = f"run `catalogan train-encoder {run}` again"
    card = read_card(folder, _NAME, EncoderCard, again)
    if card.generator_sha256 != generator_digest(generator):
        raise CompanionError(
            f"the encoder in {folder} was trained for another generator, that of "
            f"{card.generator_nimg / 1000:.1f} kimg: {again}, or export with --no-encoder"
        )
    encoder = build_encoder(config, generator, card.settings.seed)
    load_weights(folder, _NAME, encoder, again)
    return encoder, card
