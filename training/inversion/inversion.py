"""Trains an encoder for a run, evaluates it, and saves it in the run."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from training.companion import CompanionError, CompanionTick
from training.dataset import PreparedDataset
from training.features.load import load_extractor
from training.inversion.encoder_run import (
    EncoderCard,
    EncoderSettings,
    build_encoder,
    generator_digest,
    save_encoder,
)
from training.inversion.encoder_training import EncoderTrainer, Inversion
from training.inversion.reconstruction import evaluate_encoder, evaluation_rows, reconstructed
from training.learning.device import compute_dtype, keep_freed_memory
from training.learning.run import load_networks, locked
from training.sheets import draw_sheet

logger = logging.getLogger(__name__)

# How far a variation departs from the photo: a fraction of a random latent's distance.
VARIATION_PSI: Final = 0.6
_SHEET_COLUMNS: Final = 12
_VARIATIONS: Final = 3


def train_encoder(
    run: Path,
    dataset: PreparedDataset,
    settings: EncoderSettings,
    device: torch.device,
    on_tick: Callable[[CompanionTick], None],
    should_stop: Callable[[], bool],
) -> EncoderCard:
    """Train an encoder for one moment of a run, evaluate it, and save it in the run.

    Args:
        run: A training run, which must not be in training meanwhile.
        dataset: The dataset that the run was trained on.
        settings: Training settings.
        device: Where to train.
        on_tick: Receives the losses from time to time.
        should_stop: Ends training early; the encoder is evaluated and saved as it is.

    Raises:
        CompanionError: The dataset is another one or has no validation photos, or a loss is
            not finite.
        RunError, CheckpointError: The run has no generator.
    """
    keep_freed_memory()
    generator, discriminator, config, info, nimg = load_networks(run, settings.snapshot)
    if info.hash != dataset.info.hash:
        raise CompanionError(
            f"{run} was trained on another dataset (hash {info.hash[:12]}, not "
            f"{dataset.info.hash[:12]} of {dataset.path}): give --data the run's own dataset"
        )
    evaluation_rows(dataset)  # refuse before minutes are spent
    with locked(run):
        networks = Inversion(
            encoder=build_encoder(config, generator, settings.seed).to(device),
            generator=generator.to(device),
            discriminator=discriminator.to(device),
            dtype=compute_dtype(config, device),
        )
        trainer = EncoderTrainer(networks, dataset, settings, config.augment.mirror)
        trainer.train(on_tick, should_stop)
        logger.info("encoder: %d photos shown; evaluating it", trainer.nimg)
        errors = evaluate_encoder(
            partial(reconstructed, networks), dataset, load_extractor(device=str(device))
        )
        card = {
            "settings": settings,
            "nimg": trainer.nimg,
            "generator_sha256": generator_digest(generator),
            "generator_nimg": nimg,
            "dataset_hash": info.hash,
            "errors": errors,
        }
        return save_encoder(run, networks.encoder, card, _sheet(networks, dataset))


def _sheet(networks: Inversion, dataset: PreparedDataset) -> bytes:
    """Draw validation photos of alternating categories, their reconstructions and variations."""
    rows = _alternating(evaluation_rows(dataset), dataset.labels)[:_SHEET_COLUMNS]
    photos, labels = dataset.images[rows], dataset.labels[rows]
    lines = [("photo", photos), ("reconstruction", reconstructed(networks, photos, labels))]
    for seed in range(1, _VARIATIONS + 1):
        varied = reconstructed(networks, photos, labels, truncation_psi=VARIATION_PSI, seed=seed)
        lines.append((f"variation {seed}", varied))
    return draw_sheet(lines, [dataset.info.categories[label] for label in labels])


def _alternating(rows: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Reorder `rows`: the first of every category, then the second of every category, ..."""
    of_rows = labels[rows]
    position = np.zeros(len(rows), dtype=np.int64)  # within its category
    for label in np.unique(of_rows):
        of_label = of_rows == label
        position[of_label] = np.arange(of_label.sum())
    return rows[np.lexsort((of_rows, position))]
