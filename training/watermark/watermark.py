"""From a prepared dataset to a trained watermark, and from that to what it is worth."""

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
    judged_pictures,
    measure_detection,
    measure_false_positives,
)
from training.watermark.watermark_folder import (
    Judgement,
    JudgingSettings,
    WatermarkCard,
    keep_judgement,
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
    """Train a watermark on a dataset's photos, and save it; nobody has judged it yet.

    Args:
        dataset: Of 128 px or more, with validation photos.
        out: The watermark's folder; must not exist.
        settings: How long, and how.
        device: Where to train.
        on_tick: Takes the share of bits read right now and then.
        should_stop: Ends training early; what is there is saved.

    Raises:
        CompanionError: The dataset doesn't do, `out` exists, or the loss is not finite.
    """
    if out.exists():
        raise CompanionError(f"{out} exists: choose another --out, or remove it")
    shown = list(judged_pictures(dataset, _SHOWN))  # before minutes are spent
    keep_freed_memory()
    trainer = WatermarkTrainer(dataset, settings, device)
    trainer.train(on_tick, should_stop)
    watermark = Watermark(trainer.encoder, trainer.decoder)
    card = {"settings": settings, "nimg": trainer.nimg, "dataset_hash": dataset.info.hash}
    bits = np.random.default_rng(0).random((_SHOWN, PAYLOAD_BITS)) < 0.5
    marked = [watermark.mark(p, b) for p, b in zip(shown, bits, strict=True)]
    saved = save_watermark(out, trainer.network, card, draw_sheet(shown, marked))
    logger.info("%s is trained on %d photos shown; not judged yet", out, saved.nimg)
    return saved


def judge_watermark(
    folder: Path,
    dataset: PreparedDataset,
    settings: JudgingSettings,
    device: torch.device,
    on_done: Callable[[int, int], None],
) -> Judgement:
    """Measure how well a trained watermark holds, and note it in its folder.

    Args:
        folder: What `train_watermark` wrote.
        dataset: That it was trained on; its validation photos are marked.
        settings: How many pictures.
        device: Where to run.
        on_done: Takes how many pictures were seen, and of how many.

    Raises:
        CompanionError: The folder is none, or the dataset is another.
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
    keep_judgement(folder, card.model_copy(update={"judgement": judgement}))
    return judgement
