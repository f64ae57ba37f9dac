"""A small classifier of categories, trained from scratch."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from training.dataset import PreparedDataset
from training.features.extractor import to_rgb_tensor

_logger = logging.getLogger(__name__)

INPUT_PX: Final = 32
_WIDTHS: Final = (24, 48, 96)
_BATCH: Final = 64
_PEAK_LEARNING_RATE: Final = 3e-3
_LABEL_SMOOTHING: Final = 0.1
_MAX_SHIFT_PX: Final = 3
# More photos of one category teach a small network little and cost memory.
_MAX_PHOTOS_PER_CATEGORY: Final = 2000


@dataclass(frozen=True)
class LabelledPhotos:
    """Images and labels to train a classifier on.

    Attributes:
        photos: float32 [N, 3, INPUT_PX, INPUT_PX] in [-1, 1].
        labels: int64 [N], index into the categories.
    """

    photos: Tensor
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


class CategoryClassifier:
    """Predicts the category of an image.

    Trained for a fixed number of steps on batches that draw all categories with equal
    probability: a rare category counts as much as a common one, and training takes the same time
    for any catalogue.
    """

    def __init__(
        self,
        sources: Sequence[LabelledPhotos],
        categories: int,
        *,
        seed: int,
        device: str = "cpu",
        steps: int = 200,
        augment: bool = True,
    ) -> None:
        """Train.

        Args:
            sources: Sets of images; each makes up an equal part of every batch, whatever its
                size, and all have the same set of labels.
            categories: Number of categories.
            seed: Determines weights, order and augmentation.
            device: A torch device's name.
            steps: Batches of 64 photos.
            augment: Whether images are flipped, shifted, scaled and recoloured.

        Raises:
            ValueError: A source is empty or has other labels than the first.
        """
        if any(set(source.labels) != set(sources[0].labels) for source in sources):
            raise ValueError("every source must hold images of the same categories")
        if not len(sources[0]):
            raise ValueError("a classifier needs images to learn from")
        self._device = torch.device(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = _network(categories)
        # This layout trains a third faster on a CPU.
        self._network = network.to(self._device).to(memory_format=torch.channels_last)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # for dropout
            self._train(sources, seed=seed, steps=steps, augment=augment)
        self._network.eval().requires_grad_(False)

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Most likely label of each image.

        Args:
            images: uint8 [N, height, width, 1 | 3 | 4].

        Returns:
            int64 [N], index into the dataset's categories.
        """
        labels = np.empty(len(images), dtype=np.int64)
        with torch.inference_mode():
            for start in range(0, len(images), 256):
                batch = to_rgb_tensor(images[start : start + 256], INPUT_PX).to(self._device)
                logits = self._network(batch)
                labels[start : start + 256] = logits.argmax(dim=1).cpu().numpy()
        return labels

    def _train(
        self, sources: Sequence[LabelledPhotos], *, seed: int, steps: int, augment: bool
    ) -> None:
        """Adam with a one-cycle learning rate."""
        rng = np.random.default_rng(seed)
        generator = torch.Generator().manual_seed(seed)
        photos = torch.cat([source.photos for source in sources])
        labels = np.concatenate([source.labels for source in sources])
        by_label = _rows_by_label(sources)
        optimizer = torch.optim.AdamW(self._network.parameters(), weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK_LEARNING_RATE, steps)
        self._network.train()
        for _ in range(steps):
            drawn = rng.integers(len(by_label), size=_BATCH)
            # The sources alternate within the batch.
            rows = np.asarray(
                [rng.choice(by_label[c][i % len(sources)]) for i, c in enumerate(drawn)]
            )
            batch = photos[torch.from_numpy(rows)]
            if augment:
                batch = _augmented(batch, generator)
            batch = batch.to(self._device, memory_format=torch.channels_last)
            targets = torch.from_numpy(labels[rows]).to(self._device)
            loss = functional.cross_entropy(
                self._network(batch), targets, label_smoothing=_LABEL_SMOOTHING
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        _logger.info("category classifier: %d photos, last loss %.3f", len(photos), loss.item())


def training_photos(
    dataset: PreparedDataset,
    *,
    seed: int,
    per_category: int = _MAX_PHOTOS_PER_CATEGORY,
    labels: NDArray[np.int64] | None = None,
) -> LabelledPhotos:
    """Draw at most `per_category` training photos of each category.

    Args:
        dataset: Photos; only the split "train" is used.
        seed: Determines which photos are drawn.
        per_category: Largest number of photos per category.
        labels: Draw from these categories only; None = all.

    Raises:
        ValueError: There are no train photos.
    """
    rng = np.random.default_rng(seed)
    train = dataset.indices("train")
    if labels is not None:
        train = train[np.isin(dataset.labels[train], labels)]
    if len(train) == 0:
        raise ValueError(f"{dataset.path} has no train photos: prepare it again")
    of = dataset.labels[train]
    kept = [rng.permutation(train[of == label])[:per_category] for label in np.unique(of)]
    return read_photos(dataset, np.sort(np.concatenate(kept)))


def read_photos(dataset: PreparedDataset, rows: NDArray[np.int64]) -> LabelledPhotos:
    """Read photos of `rows`, one or more, at the classifier's size."""
    batches = [
        to_rgb_tensor(dataset.images[rows[start : start + 256]], INPUT_PX)
        for start in range(0, len(rows), 256)
    ]
    return LabelledPhotos(torch.cat(batches), dataset.labels[rows])


def _rows_by_label(sources: Sequence[LabelledPhotos]) -> list[list[NDArray[np.int64]]]:
    """Rows of each label and source, in the concatenation of all sources."""
    starts = np.cumsum([0, *(len(source) for source in sources)])
    return [
        [
            start + np.flatnonzero(source.labels == label)
            for start, source in zip(starts, sources, strict=False)
        ]
        for label in np.unique(sources[0].labels)
    ]


def _network(categories: int) -> nn.Module:
    """Build three stages of two convolutions each; each stage halves the image's side."""
    layers: list[nn.Module] = []
    in_channels = 3
    for width in _WIDTHS:
        for stride in (1, 2):
            layers += [
                nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            in_channels = width
    pooled = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.2)]
    return nn.Sequential(*layers, *pooled, nn.Linear(4 * in_channels, categories))


def _augmented(photos: Tensor, generator: torch.Generator) -> Tensor:
    """Flip, shift, scale and recolour photos at random; [N, 3, H, W] in [-1, 1]."""
    n, _, height, width = photos.shape

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator) * 2 - 1

    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = uniform(n).sign() * (1 + 0.15 * uniform(n))
    theta[:, 1, 1] = 1 + 0.15 * uniform(n)
    theta[:, 0, 2] = uniform(n) * 2 * _MAX_SHIFT_PX / width
    theta[:, 1, 2] = uniform(n) * 2 * _MAX_SHIFT_PX / height
    grid = functional.affine_grid(theta, [n, 3, height, width], align_corners=False)
    moved = functional.grid_sample(photos, grid, padding_mode="border", align_corners=False)
    return moved * (1 + 0.25 * uniform(n, 1, 1, 1)) + 0.2 * uniform(n, 3, 1, 1)
