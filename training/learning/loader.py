"""Prepared dataset -> batches on the device, in an order determined by seed and image count."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.dataset import DatasetError, PreparedDataset
from training.learning.distributed import Ranks
from training.learning.randomness import Purpose, epoch_order, seed_for


@dataclass(frozen=True)
class Batch:
    """One rank's slice of a step's photos.

    Attributes:
        images: float32 [N, C, H, W] in [-1, 1], channels_last.
        category: One-hot float32 [N, categories].
    """

    images: Tensor
    category: Tensor


def to_float(images: Tensor) -> Tensor:
    """uint8 [N, H, W, C] -> float32 [N, C, H, W] in [-1, 1], channels_last."""
    return images.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


class BatchLoader:
    """Yields batches of the training photos without end; the next one is read in advance."""

    def __init__(
        self,
        dataset: PreparedDataset,
        batch_size: int,
        seed: int,
        device: torch.device,
        group_size: int,
        mirror: bool = False,
    ) -> None:
        """Set up batches of a dataset's training photos.

        Args:
            dataset: Source of the photos.
            batch_size: Photos per step over all ranks.
            seed: Determines their order, and which are mirrored.
            device: Device of the batches.
            group_size: Consecutive photos in a batch that are of one category.
            mirror: Mirror each photo with probability 1/2, drawn again in each epoch.
        """
        self.dataset = dataset
        self.rows = dataset.indices("train")
        self.labels = dataset.labels[self.rows]
        self.group_size = group_size
        self.epoch_length = len(self.rows) - len(self.rows) % group_size
        if self.epoch_length == 0:
            raise DatasetError(
                f"{dataset.path} has {len(self.rows)} training photos, needs at least "
                f"{group_size}: prepare it with more"
            )
        self.batch_size = batch_size
        self.seed = seed
        self.device = device
        self.mirror = mirror
        # Sorting a million photos takes longer than a step. A batch spans at most two epochs,
        # unless there are fewer photos than in a batch.
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)

    def batches(self, nimg: int, ranks: Ranks) -> Iterator[Batch]:
        """Yield batches from image count `nimg` on; the next one is read in a thread."""
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self._read, nimg, ranks)
            while True:
                images, labels = ahead.result()
                nimg += self.batch_size
                ahead = pool.submit(self._read, nimg, ranks)
                category = torch.zeros(
                    len(labels), len(self.dataset.info.categories), device=self.device
                )
                category[
                    torch.arange(len(labels), device=self.device),
                    labels.to(self.device, non_blocking=True),
                ] = 1.0
                yield Batch(to_float(images.to(self.device, non_blocking=True)), category)

    def positions(self, nimg: int, ranks: Ranks) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Rows of the dataset for this rank at image count `nimg`, and which to mirror."""
        part = ranks.share(self.batch_size)
        counts = np.arange(nimg + part.start, nimg + part.stop)
        epochs, offsets = np.divmod(counts, self.epoch_length)
        drawn = (self._epoch(int(epoch))[:, o] for epoch, o in zip(epochs, offsets, strict=True))
        order, mirrored = np.stack(list(drawn), axis=1)
        return self.rows[order], mirrored.astype(bool)

    def _draw_epoch(self, epoch: int) -> NDArray[np.int64]:
        """Draw the order of an epoch's photos, and which are mirrored: [2, epoch_length]."""
        order = epoch_order(self.seed, epoch, self.labels, self.group_size)
        random = np.random.default_rng(seed_for(self.seed, Purpose.MIRROR, epoch))
        return np.stack([order, (random.random(len(order)) < 0.5) & self.mirror])

    def _read(self, nimg: int, ranks: Ranks) -> tuple[Tensor, Tensor]:
        rows, mirrored = self.positions(nimg, ranks)
        pixels = np.ascontiguousarray(self.dataset.images[rows])
        pixels[mirrored] = pixels[mirrored][:, :, ::-1]
        images = torch.from_numpy(pixels)
        labels = torch.from_numpy(self.dataset.labels[rows])
        if self.device.type == "cuda":
            return images.pin_memory(), labels.pin_memory()
        return images, labels
