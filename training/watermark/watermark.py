"""Trains a watermark on a prepared dataset, and evaluates a trained one."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from models.watermark import PAYLOAD_BITS
from training.companion import CompanionError, CompanionSettings, CompanionTick
from training.dataset import PreparedDataset
from training.learning.device import keep_freed_memory
from training.watermark.detection import (
    PAYLOADS,
    Watermark,
    evaluation_images,
    measure_detection,
    measure_false_positives,
)
from training.watermark.watermark_folder import (
    Judgement,
    JudgingSettings,
    WatermarkCard,
    add_judgement,
    load_watermark,
    save_watermark,
)
from training.watermark.watermark_sheet import draw_sheet
from training.watermark.watermark_training import WatermarkTrainer

logger = logging.getLogger(__name__)

_SHOWN = 8


def train_watermark(
    dataset: PreparedDataset,
    out: Path,
    settings: CompanionSettings,
    device: torch.device,
    on_tick: Callable[[CompanionTick], None],
    should_stop: Callable[[], bool],
) -> WatermarkCard:
    """Train a watermark on a dataset's photos, and save it without evaluating it.

    Args:
        dataset: Photos of 128 px or more, with validation photos.
        out: The watermark's folder; must not exist.
        settings: Training settings.
        device: Where to train.
        on_tick: Receives the fraction of correct bits from time to time.
        should_stop: Ends training early; the watermark is saved as it is.

    Raises:
        CompanionError: The dataset is unsuitable, `out` exists, or the loss is not finite.
    """
    if out.exists():
        raise CompanionError(f"{out} exists: choose another --out, or remove it")
    shown = list(evaluation_images(dataset, _SHOWN))  # fails before minutes are spent
    keep_freed_memory()
    trainer = WatermarkTrainer(dataset, settings, device)
    trainer.train(on_tick, should_stop)
    watermark = Watermark(trainer.encoder, trainer.decoder)
    card = {"settings": settings, "nimg": trainer.nimg, "dataset_hash": dataset.info.hash}
    bits = np.random.default_rng(0).random((_SHOWN, PAYLOAD_BITS)) < 0.5
    marked = [watermark.mark(p, b) for p, b in zip(shown, bits, strict=True)]
    saved = save_watermark(out, trainer.network, card, draw_sheet(shown, marked))
    logger.info("%s is trained on %d photos shown; not evaluated yet", out, saved.nimg)
    return saved


def judge_watermark(
    folder: Path,
    dataset: PreparedDataset,
    settings: JudgingSettings,
    device: torch.device,
    on_done: Callable[[int, int], None],
) -> Judgement:
    """Evaluate a trained watermark, and store the result in its folder.

    Args:
        folder: A folder of `train_watermark`.
        dataset: The dataset that it was trained on; its validation photos are marked.
        settings: Numbers of images.
        device: Where to run.
        on_done: Receives the number of images done, and their total.

    Raises:
        CompanionError: The folder has no watermark, or the dataset is another one.
    """
    encoder, decoder, card = load_watermark(folder)
    if dataset.info.hash != card.dataset_hash:
        raise CompanionError(f"{folder} was trained on another dataset than {dataset.path}")
    watermark = Watermark(encoder.to(device), decoder.to(device))
    total = settings.judged + settings.unmarked
    psnr_db, detections = measure_detection(
        watermark, dataset, settings.judged, lambda done: on_done(done, total)
    )
    false_positives = measure_false_positives(
        watermark, dataset, settings.unmarked, lambda done: on_done(settings.judged + done, total)
    )
    judgement = Judgement(
        psnr_db=psnr_db,
        detections=detections,
        unmarked=settings.unmarked,
        payloads=PAYLOADS,
        false_positives=false_positives,
    )
    add_judgement(folder, card.model_copy(update={"judgement": judgement}))
    return judgement
