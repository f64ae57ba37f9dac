"""Scores a generator that trains against a dataset's validation photos, for the studies."""

import numpy as np

from training.dataset import PreparedDataset
from training.features.load import load_extractor
from training.learning.samplers import GeneratorSampler
from training.learning.trainer import Trainer
from training.metrics.scores import FeatureSet, score

SAMPLES = 2048
METRICS = ("frechet_distance", "kernel_distance", "precision", "recall", "coverage")


class Judge:
    """The same latents and the validation photos' own mix of categories each time."""

    def __init__(self, dataset: PreparedDataset) -> None:
        rows = dataset.indices("validation")
        self.extractor = load_extractor()
        self.real = FeatureSet(
            features=self.extractor(dataset.images[rows]), labels=dataset.labels[rows]
        )
        rng = np.random.default_rng(0)
        repeats = -(-SAMPLES // len(rows))
        self.labels = rng.permutation(np.tile(dataset.labels[rows], repeats))[:SAMPLES]

    def scores(self, trainer: Trainer) -> dict[str, float]:
        """Metrics of the averaged generator."""
        sampler = GeneratorSampler(trainer.ema.generator, trainer.dataset.info.categories)
        images = sampler.sample(self.labels, seed=0)
        generated = FeatureSet(features=self.extractor(images), labels=self.labels)
        found = score(self.real, generated, frechet_minimum=2)
        return {name: round(getattr(found, name), 5) for name in METRICS}
