"""Scores a generator that trains against a dataset's validation photos, for the studies."""

import numpy as np

from training.dataset import PreparedDataset
from training.features.load import load_extractor
from training.learning.samplers import GeneratorSampler
from training.learning.trainer import Trainer
from training.metrics.photo_features import photo_features
from training.metrics.scores import FeatureSet, score

SAMPLES = 2048
METRICS = ("frechet_distance", "kernel_distance", "precision", "recall", "coverage")


class Judge:
    """The same latents and the validation photos' own mix of categories each time."""

    def __init__(self, dataset: PreparedDataset) -> None:
        rows = dataset.indices("validation")
        self.extractor = load_extractor()
        self.real = FeatureSet(
            features=photo_features(dataset, self.extractor, "validation"),
            labels=dataset.labels[rows],
        )
        rng = np.random.default_rng(0)
        repeats = -(-SAMPLES // len(rows))
        self.labels = rng.permutation(np.tile(dataset.labels[rows], repeats))[:SAMPLES]

    def scores(self, trainer: Trainer) -> dict[str, float]:
        """Metrics of the averaged generator."""
        sampler = GeneratorSampler(trainer.ema.generator, trainer.dataset.info.categories)
        images = sampler.sample(self.labels, seed=0)
        generated = FeatureSet(features=self.extractor(images), labels=self.labels)
        found = score(self.real, generated)
        values = {name: getattr(found, name) for name in METRICS}
        return {name: round(value, 5) for name, value in values.items() if value is not None}
