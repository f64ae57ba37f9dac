"""Features of a dataset's photos: computed once, then kept with the dataset."""

import logging
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from training.dataset import PreparedDataset, Split
from training.features.extractor import FeatureExtractor
from training.files import replace_file

_logger = logging.getLogger(__name__)

FOLDER: Final = "features"
_KEY: Final = "features"
_READ_AT_ONCE: Final = 256


def photo_features(
    dataset: PreparedDataset, extractor: FeatureExtractor, split: Split, *, mirrored: bool = False
) -> NDArray[np.float32]:
    """Features of a split's photos, from DATASET/features where they are there.

    Args:
        dataset: The photos.
        extractor: What computes them.
        split: Which photos.
        mirrored: Of the photos mirrored left to right.

    Returns:
        [N, D], in the order of `dataset.indices(split)`.
    """
    name = f"{extractor.info.name}-{split}{'-mirrored' if mirrored else ''}.safetensors"
    path = dataset.path / FOLDER / name
    # What the file must be of; it is not used where one of them is another.
    made_from = {
        "dataset": dataset.info.hash,
        "extractor": extractor.info.sha256,
        "input_px": str(extractor.info.input_px),
    }
    kept = _read(path, made_from)
    rows = dataset.indices(split)
    if kept is not None and kept.shape == (len(rows), extractor.info.dimensions):
        return kept
    computed = _compute(dataset, extractor, rows, step=-1 if mirrored else 1)
    try:
        path.parent.mkdir(exist_ok=True)
        replace_file(path, save({_KEY: computed}, metadata=made_from))
    except OSError as error:
        _logger.info("photos' features are not kept: %s can't be written (%s)", path, error)
    return computed


def _read(path: Path, made_from: dict[str, str]) -> NDArray[np.float32] | None:
    """The features of a file; None where it is missing, damaged, or made from something else."""
    try:
        with safe_open(path, framework="numpy") as file:
            if file.metadata() != made_from:
                return None
            features: NDArray[np.float32] = file.get_tensor(_KEY)
            return features
    except (OSError, SafetensorError):
        return None


def _compute(
    dataset: PreparedDataset, extractor: FeatureExtractor, rows: NDArray[np.int64], step: int
) -> NDArray[np.float32]:
    """Features of the photos of `rows`, read some at a time."""
    features = np.empty((len(rows), extractor.info.dimensions), dtype=np.float32)
    if len(rows) > _READ_AT_ONCE:
        _logger.info("computing the features of %d photos, once", len(rows))
    for start in range(0, len(rows), _READ_AT_ONCE):
        photos = dataset.images[rows[start : start + _READ_AT_ONCE]][:, :, ::step]
        features[start : start + _READ_AT_ONCE] = extractor(photos)
    return features
