"""What is found of a dataset's photos: computed once, then kept with the dataset."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

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
    name = f"{extractor.info.name}-{split}{'-mirrored' if mirrored else ''}"
    rows = dataset.indices(split)
    made_from = {"extractor": extractor.info.sha256, "input_px": str(extractor.info.input_px)}
    shape = (len(rows), extractor.info.dimensions)
    return kept(
        dataset,
        name,
        made_from,
        shape,
        lambda: _compute(dataset, extractor, rows, step=-1 if mirrored else 1),
    )


def kept(
    dataset: PreparedDataset,
    name: str,
    made_from: dict[str, str],
    shape: tuple[int, ...],
    compute: Callable[[], NDArray[Any]],
) -> NDArray[Any]:
    """What `compute` returns, from DATASET/features where it is there.

    Args:
        dataset: Whose photos it is of.
        name: Of its file.
        made_from: What it depends on beside the dataset; a file is not used where that is
            another.
        shape: Of the result.
        compute: Called where there is no such file.
    """
    path = dataset.path / FOLDER / f"{name}.safetensors"
    made_from = {"dataset": dataset.info.hash, **made_from}
    found = _read(path, made_from)
    if found is not None and found.shape == shape:
        return found
    computed = compute()
    try:
        path.parent.mkdir(exist_ok=True)
        replace_file(path, save({_KEY: computed}, metadata=made_from))
    except OSError as error:
        _logger.info("not kept, so computed again each time: %s (%s)", path, error)
    return computed


def _read(path: Path, made_from: dict[str, str]) -> NDArray[Any] | None:
    """The values of a file; None where it is missing, damaged, or made from something else."""
    try:
        with safe_open(path, framework="numpy") as file:
            if file.metadata() != made_from:
                return None
            values: NDArray[Any] = file.get_tensor(_KEY)
            return values
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
