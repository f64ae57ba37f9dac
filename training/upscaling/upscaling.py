"""From a run and photos to a trained, judged and saved upscaler."""

import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from models.manifest import SERVED_NOISE_SCALE, SERVED_TRUNCATION_PSI
from training.companion import CompanionError, CompanionTick
from training.dataset import DatasetInfo, PreparedDataset
from training.features.extractor import LiteFeatures
from training.learning.device import compute_dtype, keep_freed_memory
from training.learning.run import locked
from training.learning.samplers import RunSampler
from training.photos.catalogue import prepare_dataset
from training.photos.options import PrepareOptions
from training.photos.scan import PrepareError
from training.sheets import draw_sheet
from training.upscaling.crops import CropSampler, Images, resize
from training.upscaling.judging import Enlarge, enlarge_by, judge
from training.upscaling.upscaler_run import (
    UpscalerCard,
    UpscalerSettings,
    build_upscaler,
    save_upscaler,
)
from training.upscaling.upscaler_training import UpscalerTrainer

logger = logging.getLogger(__name__)

# The largest photos that `prepare` makes.
MAX_SIDE_PX: Final = 1024
_POOL: Final = 500  # generated images to learn from, at each of these
_TRUNCATION_PSI: Final = (0.5, 0.7, 0.85, 1.0)
_MIN_JUDGED: Final = 10
_MAX_JUDGED: Final = 500
_SHEET_COLUMNS: Final = 6


@dataclass(frozen=True)
class Photos:
    """The catalogue's own photos, as `catalogan prepare` takes them.

    Attributes:
        folder: A folder for each category.
        validation: The same for photos to judge by; None = a tenth of the others.
    """

    folder: Path
    validation: Path | None = None


def train_upscaler(
    run: Path,
    photos: Photos,
    settings: UpscalerSettings,
    device: torch.device,
    on_tick: Callable[[CompanionTick], None],
    should_stop: Callable[[], bool],
) -> UpscalerCard:
    """Train an upscaler for one moment of a run, judge it, and save it in the run.

    Args:
        run: A training run; nobody may be training it meanwhile.
        photos: Of the same catalogue, larger than the run's images by the factor or more.
        settings: How long, and how.
        device: Where to train.
        on_tick: Takes the losses now and then.
        should_stop: Ends training early; what is there is judged and saved.

    Raises:
        CompanionError: The photos are too few or too small, or a loss is not finite.
        RunError, CheckpointError: The run has no generator to train for.
    """
    keep_freed_memory()
    sampler = RunSampler(run, device, settings.snapshot)
    with locked(run), tempfile.TemporaryDirectory(prefix=".photos-", dir=run) as folder:
        dataset = _prepare(photos, Path(folder) / "large", sampler.info, settings.factor)
        judged = dataset.images[_judged_rows(dataset)]
        trained = np.asarray(dataset.images)[dataset.indices("train")]
        crops = CropSampler(
            trained,
            _pool(sampler),
            settings.factor,
            settings.crop_px,
            sampler.config.augment.mirror,
        )
        upscaler = build_upscaler(sampler.info, settings).to(device)
        dtype = compute_dtype(sampler.config, device)
        trainer = UpscalerTrainer(upscaler, crops, settings, dtype)
        trainer.train(on_tick, should_stop)
        logger.info("upscaler: %d crops shown; judging", trainer.nimg)
        enlarge, generated = enlarge_by(trainer.trained), _as_served(sampler, len(judged))
        of_photos, of_generated = judge(enlarge, judged, generated, LiteFeatures(device))
        card = {
            "settings": settings,
            "nimg": trainer.nimg,
            "generator_nimg": sampler.nimg,
            "dataset_hash": dataset.info.hash,
            "judged": len(judged),
            "photos": of_photos,
            "generated": of_generated,
        }
        return save_upscaler(run, trainer.trained, card, _sheet(enlarge, judged, generated))


def _prepare(photos: Photos, out: Path, info: DatasetInfo, factor: int) -> PreparedDataset:
    """The photos at the larger size; those that are smaller are left out."""
    width, height = factor * info.width, factor * info.height
    if max(width, height) > MAX_SIDE_PX:
        raise CompanionError(
            f"--factor {factor} makes {width}x{height} of the run's {info.width}x{info.height}, "
            f"and photos are prepared at up to {MAX_SIDE_PX} px"
        )
    options = PrepareOptions(
        width=width,
        height=height,
        channels=info.channels,
        fit=info.fit,
        background=info.background,
        validation=photos.validation,
        min_side_px=min(width, height),
    )
    logger.info("photos: preparing them at %dx%d", width, height)
    try:
        prepare_dataset(photos.folder, out, options)
    except PrepareError as error:
        small = f"; photos below {min(width, height)} px teach no detail: try --factor 2"
        raise CompanionError(f"{error}{small if 'too_small' in str(error) else ''}") from error
    return PreparedDataset(out)


def _judged_rows(dataset: PreparedDataset) -> NDArray[np.int64]:
    """Validation photos of all categories, at most _MAX_JUDGED."""
    rows = dataset.indices("validation")
    if len(rows) < _MIN_JUDGED:
        raise CompanionError(
            f"{len(rows)} validation photos to judge by, fewer than {_MIN_JUDGED}: give more "
            "photos, or a folder of them as --validation"
        )
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), _MAX_JUDGED)).round().astype(np.int64)
    return rows[chosen]


def _pool(sampler: RunSampler) -> Images:
    """Generated images of all truncations that callers use."""
    return np.concatenate(
        [
            sampler.sample(
                _labels(sampler.info, _POOL, seed),
                seed=seed,
                truncation_psi=psi,
                noise_scale=SERVED_NOISE_SCALE,
            )
            for seed, psi in enumerate(_TRUNCATION_PSI, start=1)
        ]
    )


def _as_served(sampler: RunSampler, count: int) -> Images:
    """Images that none was trained with, at the settings that a service uses by default."""
    return sampler.sample(
        _labels(sampler.info, count, 0),
        seed=0,
        truncation_psi=SERVED_TRUNCATION_PSI,
        noise_scale=SERVED_NOISE_SCALE,
    )


def _labels(info: DatasetInfo, count: int, seed: int) -> NDArray[np.int64]:
    """Categories drawn as often as they occur in the run's dataset."""
    photos = np.array([info.counts["train"].get(name, 0) for name in info.categories])
    random = np.random.default_rng(seed)
    return random.choice(len(photos), count, p=photos / photos.sum())


def _sheet(enlarge: Enlarge, photos: Images, generated: Images) -> bytes:
    """Photos and generated images that were small, enlarged in both ways."""
    height, width = photos.shape[1:3]
    places = np.linspace(0, len(photos) - 1, _SHEET_COLUMNS).astype(np.int64)
    photos, generated = photos[places], generated[places]
    small = resize(photos, (generated.shape[2], generated.shape[1]))
    rows = [
        ("photo", photos),
        ("its small one, Lanczos", resize(small, (width, height))),
        ("upscaled", enlarge(small)),
        ("generated, Lanczos", resize(generated, (width, height))),
        ("upscaled", enlarge(generated)),
    ]
    return draw_sheet(rows, [""] * _SHEET_COLUMNS, label_px=190, cell_px=max(height, width))
