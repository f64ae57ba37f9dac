"""A run's encoder on disk, and whether it still belongs to the run's generator.

RUN/encoder/
  encoder.safetensors    weights, float32
  encoder.json           EncoderCard: settings, whose generator it inverts, and how well
  reconstructions.png    validation photos above their reconstructions and variations
"""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Final

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load, save

from models.encoder import Encoder, EncoderShape
from models.generator import Generator
from models.manifest import ReconstructionErrors, Sha256
from training.faults import first_fault
from training.files import replace_file
from training.learning.config import Snapshot, TrainingConfig
from training.learning.randomness import Purpose, seed_for

ENCODER_FOLDER: Final = "encoder"
WEIGHTS_FILE: Final = "encoder.safetensors"
CARD_FILE: Final = "encoder.json"
SHEET_FILE: Final = "reconstructions.png"


class EncoderError(ValueError):
    """An encoder that can't be trained or used; the message says what to do."""


class EncoderSettings(BaseModel):
    """What decides an encoder besides its run and its dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    snapshot: Snapshot = "last"
    max_kimg: Annotated[float | None, Field(gt=0)] = None
    max_minutes: Annotated[float | None, Field(gt=0)] = None
    batch_size: Annotated[
        int, Field(ge=2, le=4096, description="Photos a step, beside as many generated pictures.")
    ] = 16
    learning_rate: Annotated[float, Field(gt=0, le=0.1)] = 0.01
    pixel_weight: Annotated[float, Field(ge=0, description="Of pixels and coarse pixels.")] = 1.0
    feature_weight: Annotated[
        float, Field(ge=0, description="Of the discriminator's features.")
    ] = 1.0
    style_weight: Annotated[
        float, Field(ge=0, description="Of the known styles of generated pictures.")
    ] = 0.5
    pull_weight: Annotated[
        float, Field(ge=0, description="Of the pull to the category's mean style.")
    ] = 0.01


class EncoderCard(BaseModel):
    """What is known of a trained encoder."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    settings: EncoderSettings
    nimg: Annotated[int, Field(ge=0, description="Photos shown to it.")]
    generator_sha256: Sha256
    generator_nimg: int
    dataset_hash: Sha256
    weights_sha256: Sha256
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
    """Write the encoder into its run; the card comes last and vouches for the weights.

    Args:
        run: The training run.
        encoder: What was trained.
        card: The fields of EncoderCard but for the weights' hash.
        sheet: reconstructions.png.

    Raises:
        EncoderError: It can't be written.
    """
    weights = save(
        {name: t.detach().float().cpu().contiguous() for name, t in encoder.state_dict().items()}
    )
    whole = EncoderCard(weights_sha256=hashlib.sha256(weights).hexdigest(), **card)
    folder = run / ENCODER_FOLDER
    try:
        folder.mkdir(exist_ok=True)
        replace_file(folder / WEIGHTS_FILE, weights)
        replace_file(folder / SHEET_FILE, sheet)
        replace_file(folder / CARD_FILE, (whole.model_dump_json(indent=2) + "\n").encode())
    except OSError as error:
        raise EncoderError(f"can't write {folder}: {error}") from error
    return whole


def load_encoder(
    run: Path, config: TrainingConfig, generator: Generator
) -> tuple[Encoder, EncoderCard] | None:
    """The run's encoder, or None if none was trained.

    Args:
        run: The training run.
        config: The run's.
        generator: The averaged generator that the encoder has to invert.

    Raises:
        EncoderError: It is damaged, or was trained for another generator.
    """
    folder = run / ENCODER_FOLDER
    if not (folder / CARD_FILE).exists():
        return None
    again = f"run `catalogan train-encoder {run}` again"
    try:
        card = EncoderCard.model_validate_json((folder / CARD_FILE).read_bytes())
        data = (folder / WEIGHTS_FILE).read_bytes()
    except (OSError, ValueError) as error:
        raise EncoderError(f"{folder} can't be read ({first_fault(error)}): {again}") from error
    if hashlib.sha256(data).hexdigest() != card.weights_sha256:
        raise EncoderError(f"{folder / WEIGHTS_FILE} is damaged (SHA-256 differs): {again}")
    if card.generator_sha256 != generator_digest(generator):
        raise EncoderError(
            f"the encoder in {folder} was trained for another generator, that of "
            f"{card.generator_nimg / 1000:.1f} kimg: {again}, or export with --no-encoder"
        )
    encoder = build_encoder(config, generator, card.settings.seed)
    try:
        encoder.load_state_dict(load(data))
    except (RuntimeError, SafetensorError) as error:
        raise EncoderError(f"{folder / WEIGHTS_FILE} does not fit its run: {again}") from error
    return encoder.eval().requires_grad_(False), card
