"""Tests on real photos a classifier that was trained on generated images only.

This measures something else than distances between features: whether the images show what
distinguishes the categories, in enough variety. Blur hardly matters to it. A choice between two
generators should consider both.

Source: Ravuri and Vinyals 2019, arXiv 1905.10887 (classification accuracy score).
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.dataset import PreparedDataset
from training.evaluation.classifier import CategoryClassifier, LabelledPhotos, read_photos
from training.evaluation.record import SecondOpinion
from training.metrics.photo_features import cached

# More images teach so small a network little.
MAX_IMAGES: Final = 4096
# The accuracy on 2,000 photos is known to within a point or so.
_MAX_VALIDATION_PHOTOS: Final = 2000
_BATCH: Final = 256


def second_opinion(
    dataset: PreparedDataset,
    generated: LabelledPhotos,
    *,
    seed: int,
    steps: int,
    device: str = "cpu",
) -> SecondOpinion:
    """Compare training on generated images with training on as many photos of their categories.

    The accuracy with photos is computed once and cached with the dataset.

    Args:
        dataset: Train photos to learn from, and validation photos to test on.
        generated: Images of two categories or more.
        seed: Determines weights, order and augmentation, and the photos drawn.
        steps: Steps of each training.
        device: A torch device's name.
    """
    rows = validation_rows(dataset, np.unique(generated.labels), seed)
    train = _photos_like(dataset, generated.labels, seed)

    def accuracy(source: LabelledPhotos) -> float:
        classifier = CategoryClassifier(
            [source], len(dataset.info.categories), seed=seed, device=device, steps=steps
        )
        return accuracy_on(classifier, dataset, rows)

    depends_on = {
        "images_of_category": str(np.bincount(dataset.labels[train]).tolist()),
        "seed": str(seed),
        "steps": str(steps),
    }
    trained_on_photos = cached(
        dataset,
        "second-opinion",
        depends_on,
        (1,),
        lambda: np.asarray([accuracy(read_photos(dataset, train))]),
    )
    return SecondOpinion(
        trained_on_generated=accuracy(generated),
        trained_on_photos=float(trained_on_photos[0]),
        generated_count=len(generated),
        photo_count=len(train),
    )


def validation_rows(
    dataset: PreparedDataset, labels: NDArray[np.int64], seed: int
) -> NDArray[np.int64]:
    """Validation photos of these categories; a random subset where there are many."""
    rows = dataset.indices("validation")
    rows = rows[np.isin(dataset.labels[rows], labels)]
    return np.sort(np.random.default_rng(seed).permutation(rows)[:_MAX_VALIDATION_PHOTOS])


def accuracy_on(
    classifier: CategoryClassifier, dataset: PreparedDataset, rows: NDArray[np.int64]
) -> float:
    """Fraction of the photos of `rows` whose category the classifier predicts."""
    predicted = [
        classifier.predict(dataset.images[rows[start : start + _BATCH]])
        for start in range(0, len(rows), _BATCH)
    ]
    return float((np.concatenate(predicted) == dataset.labels[rows]).mean())


def _photos_like(
    dataset: PreparedDataset, labels: NDArray[np.int64], seed: int
) -> NDArray[np.int64]:
    """Rows of train photos, at most as many of each category as in `labels`."""
    train = np.random.default_rng(seed).permutation(dataset.indices("train"))
    of = dataset.labels[train]
    names, counts = np.unique(labels, return_counts=True)
    taken = [train[of == n][:count] for n, count in zip(names, counts, strict=True)]
    return np.sort(np.concatenate(taken))
