"""How a run does on photos that it does not learn from, measured while it trains."""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from models.discriminator import GROUP_SIZE, Discriminator
from models.generator import Generator
from training.dataset import PreparedDataset, Split
from training.learning.loader import to_float
from training.learning.randomness import Purpose, epoch_order, seed_for
from training.learning.samplers import GeneratorSampler
from training.metrics.features import load_extractor
from training.metrics.scores import FeatureSet, score

MAX_PHOTOS: Final = 1000
SAMPLES: Final = 512
MIN_PHOTOS: Final = 20
LOGIT_PHOTOS: Final = 256
_BATCH: Final = 64


class ValidationMonitor:
    """Compares the averaged generator with validation photos, on the same latents each time."""

    def __init__(self, dataset: PreparedDataset, seed: int, device: torch.device) -> None:
        """Extract the validation photos' features once."""
        self.dataset, self.seed, self.device = dataset, seed, device
        self.extractor = load_extractor("catalogan", device=str(device))
        rng = np.random.default_rng(seed_for(seed, Purpose.VALIDATION))
        rows = np.sort(rng.permutation(dataset.indices("validation"))[:MAX_PHOTOS])
        self.real = FeatureSet(
            features=self.extractor(dataset.images[rows]), labels=dataset.labels[rows]
        )
        repeats = -(-SAMPLES // len(rows))
        self.labels = rng.permutation(np.tile(dataset.labels[rows], repeats))[:SAMPLES]

    @staticmethod
    def is_possible(dataset: PreparedDataset) -> bool:
        """Whether there are validation photos enough to say anything."""
        return len(dataset.indices("validation")) >= MIN_PHOTOS

    def measure(
        self, generator: Generator, discriminator: Discriminator, dtype: torch.dtype
    ) -> dict[str, float]:
        """Judge the pair.

        Returns:
            frechet_distance, precision, recall and coverage of SAMPLES pictures on the
            frozen features; diversity: their spread within categories over the photos';
            overfitting: how far from training photos (0) to generated pictures (1) the
            discriminator places validation photos (Karras et al. 2020, arXiv 2006.06676).
        """
        sampler = GeneratorSampler(generator, self.dataset.info.categories)
        images = sampler.sample(self.labels, seed=self.seed)
        generated = FeatureSet(features=self.extractor(images), labels=self.labels)
        found = score(self.real, generated, frechet_minimum=2)
        names = ("frechet_distance", "precision", "recall", "coverage")
        measured = {n: float(v) for n in names if (v := getattr(found, n)) is not None}
        measured["diversity"] = _spread(generated) / max(_spread(self.real), 1e-12)
        measured["overfitting"] = self._overfitting(discriminator, images, dtype)
        return measured

    @torch.no_grad()
    def _overfitting(
        self, discriminator: Discriminator, fakes: NDArray[np.uint8], dtype: torch.dtype
    ) -> float:
        held = discriminator.mask.held
        discriminator.mask.hold(None)
        train, validation = (self._split_logits(discriminator, s, dtype) for s in _SPLITS)
        order = epoch_order(self.seed, 0, self.labels, GROUP_SIZE)
        order = order[:LOGIT_PHOTOS]
        generated = self._logits(discriminator, fakes[order], self.labels[order], dtype)
        discriminator.mask.hold(held)
        gap = train - generated
        return (train - validation) / gap if abs(gap) > 1e-6 else 0.0

    def _split_logits(
        self, discriminator: Discriminator, split: Split, dtype: torch.dtype
    ) -> float:
        rows = self.dataset.indices(split)
        order = epoch_order(self.seed, 0, self.dataset.labels[rows], GROUP_SIZE)
        rows = rows[order[:LOGIT_PHOTOS]]
        return self._logits(
            discriminator, self.dataset.images[rows], self.dataset.labels[rows], dtype
        )

    def _logits(
        self,
        discriminator: Discriminator,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        dtype: torch.dtype,
    ) -> float:
        """Mean logit of pictures in groups of one category, as in training."""
        categories = len(self.dataset.info.categories)
        logits: list[Tensor] = []
        for start in range(0, len(images), _BATCH):
            part = torch.from_numpy(np.array(images[start : start + _BATCH])).to(self.device)
            category = one_hot(torch.from_numpy(labels[start : start + _BATCH]), categories)
            logits.append(
                discriminator(to_float(part), category.float().to(self.device), dtype).float()
            )
        return float(torch.cat(logits).mean())


_SPLITS: Final[tuple[Split, Split]] = ("train", "validation")


def _spread(pictures: FeatureSet) -> float:
    """Mean squared distance of features from their category's mean."""
    total = 0.0
    for label in np.unique(pictures.labels):
        features = pictures.of(label).features
        total += float(np.square(features - features.mean(axis=0)).sum())
    return total / len(pictures)
