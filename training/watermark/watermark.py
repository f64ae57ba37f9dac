"""From a prepared dataset to a trained, judged and saved watermark."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from models.watermark import PAYLOAD_BITS
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
    WatermarkCard,
    WatermarkError,
    WatermarkSettings,
    save_watermark,
)
from training.watermark.watermark_sheet import draw_sheet
from training.watermark.watermark_training import WatermarkTick, WatermarkTrainer

logger = logging.getLogger(__name__)

_SHOWN = 8


def train_watermark(
    dataset: PreparedDataset,
    out: Path,
    settings: WatermarkSettings,
    device: torch.device,
    on_tick: Callable[[WatermarkTick], None],
    should_stop: Callable[[], bool],
) -> WatermarkCard:
    """Train a watermark on a dataset's photos, judge it on its validation photos, and save it.

    Args:
        dataset: Of 128 px or more, with validation photos.
        out: The watermark's folder; must not exist.
        settings: How long, and how.
        device: Where to train.
        on_tick: Takes the share of bits read right now and then.
        should_stop: Ends training early; what is there is judged and saved.

    Raises:
        WatermarkError: The dataset doesn't do, `out` exists, or the loss is not finite.
    """
    if out.exists():
        raise WatermarkError(f"{out} exists: choose another --out, or remove it")
    shown = list(judged_pictures(dataset, _SHOWN))  # before minutes are spent
    keep_freed_memory()
    trainer = WatermarkTrainer(dataset, settings, device)
    trainer.train(on_tick, should_stop)
    logger.info("watermark: %d photos shown; judging", trainer.nimg)
    watermark = Watermark(trainer.encoder, trainer.decoder)
    psnr_db, detections = measure_detection(watermark, dataset, settings.judged)
    card = {
        "settings": settings,
        "nimg": trainer.nimg,
        "dataset_hash": dataset.info.hash,
        "psnr_db": psnr_db,
        "detections": detections,
        "unmarked": settings.unmarked,
        "payloads": PAYLOADS,
        "false_positives": measure_false_positives(watermark, dataset, settings.unmarked),
    }
    bits = np.random.default_rng(0).random((_SHOWN, PAYLOAD_BITS)) < 0.5
    marked = [watermark.mark(p, b) for p, b in zip(shown, bits, strict=True)]
    sheet = draw_sheet(shown, marked)
    return save_watermark(out, trainer.encoder, trainer.decoder, card, sheet)
