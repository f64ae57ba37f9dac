"""Measures how well reconstructions match photos that neither network was trained on.

They are compared with two trivial substitutes: the nearest training photo of the category, and
the mean of its training photos. An encoder that is not better than both is useless.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from models.manifest import Comparison, ReconstructionErrors
from training.companion import CompanionError
from training.dataset import PreparedDataset
from training.features.extractor import FeatureExtractor
from training.inversion.encoder_training import Inversion
from training.learning.loader import to_float
from training.learning.recorder import to_pixels

_BATCH: Final = 64
# Over this many photos the errors are known to within a few per cent.
_MAX_PHOTOS: Final = 500

Images = NDArray[np.uint8]
# Photos and labels -> their reconstructions.
Reconstruct = Callable[[Images, NDArray[np.int64]], Images]


def reconstructed(
    networks: Inversion,
    photos: Images,
    labels: NDArray[np.int64],
    *,
    truncation_psi: float = 0.0,
    seed: int = 0,
) -> Images:
    """Encode photos and generate images from their styles, as the exported graphs do.

    Args:
        networks: The encoder and its generator.
        photos: uint8 [N, height, width, channels].
        labels: Category of each, [N].
        truncation_psi: 0 reconstructs; larger values add a random style, for variations.
        seed: Determines noise and styles.
    """
    generator, device = networks.generator, networks.device
    random = torch.Generator().manual_seed(seed)
    z = torch.randn(len(photos), generator.z_dim, generator=random).to(device)
    noise = torch.randn(len(photos), generator.noise_dim, generator=random).to(device)
    psi = torch.full((len(photos),), truncation_psi, device=device)
    category = torch.eye(generator.shape.categories)[torch.from_numpy(labels)].to(device)
    parts = []
    with torch.inference_mode():
        for start in range(0, len(photos), _BATCH):
            part = slice(start, start + _BATCH)
            images = to_float(torch.from_numpy(np.array(photos[part])).to(device))
            offset = networks.encoder(images, category[part])
            generated = generator(
                z[part], category[part], psi[part], noise[part], style_offset=offset
            )
            parts.append(to_pixels(generated))
    return np.concatenate(parts)


def evaluation_rows(dataset: PreparedDataset) -> NDArray[np.int64]:
    """Validation photos of categories with training photos; evenly spaced ones if many.

    Raises:
        CompanionError: There are none.
    """
    known = np.unique(dataset.labels[dataset.indices("train")])
    rows = dataset.indices("validation")
    rows = rows[np.isin(dataset.labels[rows], known)]
    if len(rows) == 0:
        raise CompanionError(
            f"{dataset.path} has no validation photos to compare reconstructions with: prepare it "
            "with --validation, or a larger --validation-share"
        )
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), _MAX_PHOTOS)).round().astype(np.int64)
    return np.asarray(rows[chosen])


def evaluate_encoder(
    reconstruct: Reconstruct, dataset: PreparedDataset, extractor: FeatureExtractor
) -> ReconstructionErrors:
    """Compare reconstructions, nearest photos and mean photos with validation photos.

    Raises:
        CompanionError: The dataset has no validation photos.
    """
    rows = evaluation_rows(dataset)
    photos, labels = dataset.images[rows], dataset.labels[rows]
    nearest, mean = np.empty_like(photos), np.empty_like(photos)
    for label in np.unique(labels):
        of_label = labels == label
        train = dataset.indices("train")
        train = train[dataset.labels[train] == label]
        nearest[of_label] = dataset.images[train[_nearest(photos[of_label], dataset, train)]]
        mean[of_label] = _mean(dataset, train)
    substitutes = {
        "reconstruction": reconstruct(photos, labels),
        "nearest_photo": nearest,
        "mean_photo": mean,
    }
    features = extractor(photos)
    distances = {
        name: np.linalg.norm(extractor(images) - features, axis=1)
        for name, images in substitutes.items()
    }
    return ReconstructionErrors(
        photos=len(rows),
        pixel_mse=Comparison(**{n: _pixel_mse(i, photos) for n, i in substitutes.items()}),
        feature_distance=Comparison(**{n: float(d.mean()) for n, d in distances.items()}),
    )


def _pixel_mse(images: Images, photos: Images) -> float:
    """Mean squared difference of pixels in [-1, 1]."""
    total = sum(
        float(np.square(_scaled(a) - _scaled(b)).sum(dtype=np.float64))
        for a, b in zip(images, photos, strict=True)
    )
    return total / photos.size


def _scaled(images: Images) -> NDArray[np.float32]:
    return images.astype(np.float32) / np.float32(127.5) - 1


def _nearest(
    photos: Images, dataset: PreparedDataset, train: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Position in `train` of the nearest photo by squared error; reads `train` in chunks."""
    vectors = _scaled(photos).reshape(len(photos), -1)
    best = np.full(len(photos), np.inf, dtype=np.float32)
    found = np.zeros(len(photos), dtype=np.int64)
    for start in range(0, len(train), _BATCH):
        chunk = _scaled(dataset.images[train[start : start + _BATCH]])
        chunk = chunk.reshape(len(chunk), -1)
        # |a - b|^2 without |a|^2, which is the same for all b.
        distances = np.square(chunk).sum(axis=1) - 2 * vectors @ chunk.T
        position = distances.argmin(axis=1)
        smallest = distances[np.arange(len(photos)), position]
        nearer = smallest < best
        best[nearer], found[nearer] = smallest[nearer], start + position[nearer]
    return found


def _mean(dataset: PreparedDataset, train: NDArray[np.int64]) -> Images:
    """The mean photo [height, width, channels]."""
    total = np.zeros(dataset.images.shape[1:], dtype=np.float64)
    for start in range(0, len(train), _BATCH):
        total += dataset.images[train[start : start + _BATCH]].sum(axis=0, dtype=np.float64)
    return np.rint(total / len(train)).astype(np.uint8)
