"""How a run does on photos that it does not learn from, measured while it trains."""

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from models.discriminator import GROUP_SIZE, Discriminator
from models.generator import Generator
from models.masking import lifted
from training.dataset import PreparedDataset
from training.features.load import load_extractor
from training.learning.ema import SMOOTHED
from training.learning.loader import to_float
from training.learning.randomness import Purpose, epoch_order, seed_for
from training.learning.samplers import GeneratorSampler
from training.metrics.distances import coverage, kernel_distance, recall
from training.metrics.photo_features import photo_features
from training.metrics.scores import MIN_KERNEL_PHOTOS, MIN_NEIGHBOUR_PHOTOS, FeatureSet

MAX_PHOTOS: Final = 1000
# On a processor 50 images take a second, and every measurement is training time lost.
SAMPLES: Final = 256
LOGIT_PHOTOS: Final = 256
# With which averages of a generator are compared: of the same latents, their distances differ by
# less than each by itself wavers, and three measurements of other latents each are taken together.
COMPARED: Final = 64
_BATCH: Final = 64


class BestMoment:
    """Finds the moment whose kernel distance, averaged with those just before, is the lowest.

    A single measurement wavers by more than late training gains: the lowest of many would be
    the luckiest.
    """

    def __init__(self) -> None:
        self.recent: list[float] = []
        self.lowest = math.inf

    def is_now(self, kernel_distance: float) -> bool:
        """Take a measurement; whether its moment is the best so far."""
        self.recent = [*self.recent, kernel_distance][-SMOOTHED:]
        mean = sum(self.recent) / len(self.recent)
        if mean >= self.lowest:
            return False
        self.lowest = mean
        return True

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"recent": list(self.recent), "lowest": self.lowest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where the saved run was."""
        self.recent, self.lowest = list(state["recent"]), float(state["lowest"])


class ValidationMonitor:
    """Compares the averaged generator with validation photos, on the same latents each time."""

    def __init__(self, dataset: PreparedDataset, seed: int, device: torch.device) -> None:
        """Have the validation photos' features at hand."""
        self.dataset, self.seed, self.device = dataset, seed, device
        self.extractor = load_extractor(device=str(device))
        rng = np.random.default_rng(seed_for(seed, Purpose.VALIDATION))
        features = photo_features(dataset, self.extractor, "validation")
        chosen = np.sort(rng.permutation(len(features))[:MAX_PHOTOS])
        labels = dataset.labels[dataset.indices("validation")[chosen]]
        self.real = FeatureSet(features=features[chosen], labels=labels)
        self.labels = rng.permutation(np.tile(labels, -(-SAMPLES // len(labels))))[:SAMPLES]

    @staticmethod
    def is_possible(dataset: PreparedDataset) -> bool:
        """Whether there are validation photos enough to say anything."""
        return len(dataset.indices("validation")) >= MIN_KERNEL_PHOTOS

    def distances(self, generators: Sequence[Generator], nimg: int) -> list[float]:
        """Kernel distance of each, of COMPARED images of the same latents, drawn by `nimg`."""
        labels = self.labels[:COMPARED]
        samplers = (GeneratorSampler(g, self.dataset.info.categories) for g in generators)
        images = (sampler.sample(labels, seed=self.seed + nimg) for sampler in samplers)
        return [kernel_distance(self.real.features, self.extractor(made)) for made in images]

    def measure(
        self, generator: Generator, discriminator: Discriminator, dtype: torch.dtype
    ) -> dict[str, float]:
        """Judge the pair.

        Returns:
            kernel_distance, and where there are photos enough recall and coverage, of SAMPLES
            images on the frozen features; diversity: their spread within categories over the
            photos'; overfitting: how far from training photos (0) to generated images (1) the
            discriminator places validation photos (Karras et al. 2020, arXiv 2006.06676).
        """
        sampler = GeneratorSampler(generator, self.dataset.info.categories)
        images = sampler.sample(self.labels, seed=self.seed)
        generated = FeatureSet(features=self.extractor(images), labels=self.labels)
        real, made = self.real.features, generated.features
        measured = {"kernel_distance": kernel_distance(real, made)}
        count = min(len(real), len(made))
        if count >= MIN_NEIGHBOUR_PHOTOS:
            measured["recall"] = recall(real[:count], made[:count])
            measured["coverage"] = coverage(real[:count], made[:count])
        measured["diversity"] = _spread(generated) / max(_spread(self.real), 1e-12)
        measured["overfitting"] = self._overfitting(discriminator, images, dtype)
        return measured

    @torch.no_grad()
    def _overfitting(
        self, discriminator: Discriminator, fakes: NDArray[np.uint8], dtype: torch.dtype
    ) -> float:
        photos, labels = self.dataset.images, self.dataset.labels
        categories = len(self.dataset.info.categories)

        def mean_logit(
            images: NDArray[np.uint8], labels: NDArray[np.int64], rows: NDArray[np.int64]
        ) -> float:
            """Of some of `rows`, in groups of one category, as in training."""
            rows = rows[epoch_order(self.seed, 0, labels[rows], GROUP_SIZE)[:LOGIT_PHOTOS]]
            logits: list[Tensor] = []
            for start in range(0, len(rows), _BATCH):
                part = rows[start : start + _BATCH]
                shown = to_float(torch.from_numpy(np.array(images[part])).to(self.device))
                category = one_hot(torch.from_numpy(labels[part]), categories).float()
                logits.append(discriminator(shown, category.to(self.device), dtype).float())
            return float(torch.cat(logits).mean())

        with lifted(discriminator.masks):
            train = mean_logit(photos, labels, self.dataset.indices("train"))
            validation = mean_logit(photos, labels, self.dataset.indices("validation"))
            generated = mean_logit(fakes, self.labels, np.arange(len(fakes)))
        gap = train - generated
        return (train - validation) / gap if abs(gap) > 1e-6 else 0.0


def _spread(images: FeatureSet) -> float:
    """Mean squared distance of features from their category's mean."""
    total = 0.0
    for label in np.unique(images.labels):
        features = images.of(label).features
        total += float(np.square(features - features.mean(axis=0)).sum())
    return total / len(images)
