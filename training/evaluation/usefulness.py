"""Do generated pictures help where photos are few?

A small classifier learns from a few real photos of each category, and from the same few
with help, for equally many steps of equally large batches; it is scored on validation
photos. Over several seeds, each of which draws other photos, weights and pictures.

What it does not say: that ten photos are enough to train a generator. The generator has
seen all training photos, and the question is whether its pictures hand on what it learnt.
"""

from collections.abc import Callable, Iterable
from statistics import mean, stdev
from typing import Annotated, Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from training.dataset import PreparedDataset
from training.evaluation.classifier import (
    INPUT_PX,
    CategoryClassifier,
    LabelledPhotos,
    training_photos,
)
from training.evaluation.record import Usefulness, UsefulnessArm, UsefulnessArmName
from training.metrics.features import to_rgb_tensor

# A share needs no more: 2,000 photos put it within a point or so.
_MAX_VALIDATION_PHOTOS: Final = 2000
_BATCH: Final = 256

# Labels [N] and the number of the first picture -> uint8 pictures [n, height, width, channels],
# a batch at a time.
Generate = Callable[[NDArray[np.int64], int], Iterable[NDArray[np.uint8]]]


class UsefulnessOptions(BaseModel):
    """Settings of the comparison."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    photos_per_category: Annotated[int, Field(ge=1, le=10_000, description="Real ones.")] = 10
    generated_per_category: Annotated[int, Field(ge=1, le=10_000)] = 64
    seeds: Annotated[int, Field(ge=2, le=100, description="Repetitions.")] = 3
    steps: Annotated[int, Field(ge=10, le=100_000, description="Batches in each training.")] = 150


def measure_usefulness(
    dataset: PreparedDataset,
    labels: NDArray[np.int64],
    generate: Generate,
    options: UsefulnessOptions,
    *,
    seed: int,
    device: str = "cpu",
) -> Usefulness:
    """Train every arm with every seed, and score it on validation photos.

    Args:
        dataset: Real photos.
        labels: The categories that count, two or more.
        generate: Makes pictures of the dataset's labels.
        options: How many of everything.
        seed: The first of the seeds.
        device: A torch device's name.

    Raises:
        ValueError: There are fewer than two categories with train photos.
    """
    trained = np.intersect1d(labels, dataset.labels[dataset.indices("train")])
    if len(trained) < 2:
        raise ValueError(
            f"{dataset.path} has {len(trained)} categories with train photos that the model "
            "knows: usefulness is measured by telling categories apart, and needs two"
        )
    rows = _validation_rows(dataset, trained, seed)
    asked = np.repeat(trained, options.generated_per_category)
    accuracies: dict[UsefulnessArmName, list[float]] = {}
    for repetition in range(options.seeds):
        real = training_photos(
            dataset,
            seed=seed + repetition,
            per_category=options.photos_per_category,
            labels=trained,
        )
        generated = _as_source(generate(asked, repetition * len(asked)), asked)
        arms: dict[UsefulnessArmName, tuple[list[LabelledPhotos], bool]] = {
            "real": ([real], False),
            "augmented": ([real], True),
            "generated": ([real, generated], False),
            "generated_augmented": ([real, generated], True),
        }
        for name, (sources, augment) in arms.items():
            classifier = CategoryClassifier(
                sources,
                len(dataset.info.categories),
                seed=seed + repetition,
                device=device,
                steps=options.steps,
                augment=augment,
            )
            accuracies.setdefault(name, []).append(_accuracy(classifier, dataset, rows))
    return Usefulness(
        photos_per_category=options.photos_per_category,
        generated_per_category=options.generated_per_category,
        categories=len(trained),
        steps=options.steps,
        validation_count=len(rows),
        arms={
            name: UsefulnessArm(mean=mean(values), spread=stdev(values), accuracies=tuple(values))
            for name, values in accuracies.items()
        },
    )


def _validation_rows(
    dataset: PreparedDataset, labels: NDArray[np.int64], seed: int
) -> NDArray[np.int64]:
    """Validation photos of these categories, drawn by the seed where there are many."""
    rows = dataset.indices("validation")
    rows = rows[np.isin(dataset.labels[rows], labels)]
    return np.sort(np.random.default_rng(seed).permutation(rows)[:_MAX_VALIDATION_PHOTOS])


def _as_source(batches: Iterable[NDArray[np.uint8]], labels: NDArray[np.int64]) -> LabelledPhotos:
    """Generated pictures as the classifier takes them; no more than a batch is held in full."""
    return LabelledPhotos(torch.cat([to_rgb_tensor(b, INPUT_PX) for b in batches]), labels)


def _accuracy(
    classifier: CategoryClassifier, dataset: PreparedDataset, rows: NDArray[np.int64]
) -> float:
    """Share of photos whose category is named."""
    predicted = [
        classifier.predict(dataset.images[rows[start : start + _BATCH]])
        for start in range(0, len(rows), _BATCH)
    ]
    return float((np.concatenate(predicted) == dataset.labels[rows]).mean())
