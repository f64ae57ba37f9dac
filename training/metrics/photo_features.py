"""Features of a dataset's photos, computed once and cached with the dataset."""

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
    dataset: PreparedDataset,
    extractor: FeatureExtractor,
    split: Split,
    *,
    mirrored: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.float32]:
    """Features of a split's photos, read from DATASET/features if they are cached there.

    Args:
        dataset: The photos.
        extractor: Computes the features.
        split: Which photos.
        mirrored: Mirror the photos left to right.
        on_progress: Is notified of how many of how many photos are done, if they are not cached.

    Returns:
        [N, D], in the order of `dataset.indices(split)`.
    """
    name = f"{extractor.info.name}-{split}{'-mirrored' if mirrored else ''}"
    rows = dataset.indices(split)
    depends_on = {"extractor": extractor.info.sha256, "input_px": str(extractor.info.input_px)}
    shape = (len(rows), extractor.info.dimensions)
    return cached(
        dataset,
        name,
        depends_on,
        shape,
        lambda: _compute(dataset, extractor, rows, -1 if mirrored else 1, on_progress),
    )


def cached(
    dataset: PreparedDataset,
    name: str,
    depends_on: dict[str, str],
    shape: tuple[int, ...],
    compute: Callable[[], NDArray[Any]],
) -> NDArray[Any]:
    """Return the result of `compute`, read from DATASET/features if it is cached there.

    Args:
        dataset: The dataset that it is computed from.
        name: Name of its file.
        depends_on: What else it depends on; a file with other values is not used.
        shape: Shape of the result.
        compute: Called if there is no such file.
    """
    path = dataset.path / FOLDER / f"{name}.safetensors"
    metadata = {"dataset": dataset.info.hash, **depends_on}
    found = _read(path, metadata)
    if found is not None and found.shape == shape:
        return found
    computed = compute()
    try:
        path.parent.mkdir(exist_ok=True)
        replace_file(path, save({_KEY: computed}, metadata=metadata))
    except OSError as error:
        _logger.info("not cached, so computed again each time: %s (%s)", path, error)
    return computed


def _read(path: Path, metadata: dict[str, str]) -> NDArray[Any] | None:
    """Read a file's values; None if it is missing, damaged, or depends on something else."""
    try:
        with safe_open(path, framework="numpy") as file:
            if file.metadata() != metadata:
                return None
            values: NDArray[Any] = file.get_tensor(_KEY)
            return values
    except (OSError, SafetensorError):
        return None


def _compute(
    dataset: PreparedDataset,
    extractor: FeatureExtractor,
    rows: NDArray[np.int64],
    step: int,
    on_progress: Callable[[int, int], None],
) -> NDArray[np.float32]:
    """Compute the features of the photos of `rows`, some at a time."""
    features = np.empty((len(rows), extractor.info.dimensions), dtype=np.float32)
    if len(rows) > _READ_AT_ONCE:
        _logger.info("computing the features of %d photos, once", len(rows))
    for start in range(0, len(rows), _READ_AT_ONCE):
        photos = dataset.images[rows[start : start + _READ_AT_ONCE]][:, :, ::step]
        features[start : start + _READ_AT_ONCE] = extractor(photos)
        on_progress(start + len(photos), len(rows))
    return features
