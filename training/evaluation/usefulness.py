"""Measures whether generated images help a classifier that has few photos.

A small classifier is trained on a few real photos of each category, and on the same photos with
augmentation, with generated images and with both, for the same number of steps and batch size; it
is scored on validation photos. This is repeated over several seeds, each with other photos,
weights and images.

It does not show that ten photos are enough to train a generator. The generator has seen all
training photos; the question is whether its images pass on what it learned.
"""

from collections.abc import Callable, Iterable
from statistics import mean, stdev
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from training.dataset import PreparedDataset
from training.evaluation.classifier import (
    INPUT_PX,
    CategoryClassifier,
    LabelledPhotos,
    training_photos,
)
from training.evaluation.record import Usefulness, UsefulnessArm, UsefulnessArmName
from training.evaluation.second_opinion import accuracy_on, validation_rows
from training.features.extractor import to_rgb_tensor
from training.records import Record

# Labels [N] and the number of the first image -> uint8 images [n, height, width, channels],
# a batch at a time.
Generate = Callable[[NDArray[np.int64], int], Iterable[NDArray[np.uint8]]]


class UsefulnessOptions(Record):
    """Settings of the comparison."""

    photos_per_category: Annotated[int, Field(ge=1, le=10_000)] = 10  # real ones
    generated_per_category: Annotated[int, Field(ge=1, le=10_000)] = 64
    seeds: Annotated[int, Field(ge=2, le=100)] = 3  # repetitions
    steps: Annotated[int, Field(ge=10, le=100_000)] = 150  # batches in each training


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
        labels: The categories to use, two or more.
        generate: Generates images of the dataset's labels.
        options: Counts and steps.
        seed: The first of the seeds.
        device: A torch device's name.

    Raises:
        ValueError: There are fewer than two categories with train photos.
    """
    trained = np.intersect1d(labels, dataset.labels[dataset.indices("train")])
    if len(trained) < 2:
        raise ValueError(
            f"{dataset.path} has {len(trained)} categories with train photos that the model "
            "knows: usefulness is measured by distinguishing categories, and needs two"
        )
    rows = validation_rows(dataset, trained, seed)
    requested = np.repeat(trained, options.generated_per_category)
    accuracies: dict[UsefulnessArmName, list[float]] = {}
    for repetition in range(options.seeds):
        real = training_photos(
            dataset,
            seed=seed + repetition,
            per_category=options.photos_per_category,
            labels=trained,
        )
        # Batch by batch: each is scaled down before the next is generated.
        batches = generate(requested, repetition * len(requested))
        small = torch.cat([to_rgb_tensor(batch, INPUT_PX) for batch in batches])
        generated = LabelledPhotos(small, requested)
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
            accuracies.setdefault(name, []).append(accuracy_on(classifier, dataset, rows))
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
