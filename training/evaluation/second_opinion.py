"""How well does a classifier that has only seen generated images name real photos?

An opinion of another kind than distances between features: what it needs are images that
show what tells a category from another, in enough variety. It does not mind blur. A choice between
two generators should rest on both.

Source: Ravuri and Vinyals 2019, arXiv 1905.10887 (classification accuracy score).
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.dataset import PreparedDataset
from training.evaluation.classifier import CategoryClassifier, LabelledPhotos, read_photos
from training.evaluation.record import SecondOpinion
from training.metrics.photo_features import kept

# More teach so small a network little.
MAX_IMAGES: Final = 4096
# A share needs no more: 2,000 photos put it within a point or so.
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
    """Train on generated images, and on as many photos of the same categories; compare.

    What photos teach is found once, and kept with the dataset.

    Args:
        dataset: Photos: train photos to learn from, validation photos to be named.
        generated: Images of two categories or more.
        seed: Of weights, order and augmentation, and of the photos drawn.
        steps: Of each training.
        device: A torch device's name.
    """
    rows = validation_rows(dataset, np.unique(generated.labels), seed)
    train = _photos_like(dataset, generated.labels, seed)

    def accuracy(source: LabelledPhotos) -> float:
        classifier = CategoryClassifier(
            [source], len(dataset.info.categories), seed=seed, device=device, steps=steps
        )
        return named_rightly(classifier, dataset, rows)

    made_from = {
        "images_of_category": str(np.bincount(dataset.labels[train]).tolist()),
        "seed": str(seed),
        "steps": str(steps),
    }
    trained_on_photos = kept(
        dataset,
        "second-opinion",
        made_from,
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
    """Validation photos of these categories, drawn by the seed where there are many."""
    rows = dataset.indices("validation")
    rows = rows[np.isin(dataset.labels[rows], labels)]
    return np.sort(np.random.default_rng(seed).permutation(rows)[:_MAX_VALIDATION_PHOTOS])


def named_rightly(
    classifier: CategoryClassifier, dataset: PreparedDataset, rows: NDArray[np.int64]
) -> float:
    """Share of the photos of `rows` whose category is named."""
    predicted = [
        classifier.predict(dataset.images[rows[start : start + _BATCH]])
        for start in range(0, len(rows), _BATCH)
    ]
    return float((np.concatenate(predicted) == dataset.labels[rows]).mean())


def _photos_like(
    dataset: PreparedDataset, labels: NDArray[np.int64], seed: int
) -> NDArray[np.int64]:
    """Rows of train photos, of each category at most as many as in `labels`."""
    train = np.random.default_rng(seed).permutation(dataset.indices("train"))
    of = dataset.labels[train]
    names, counts = np.unique(labels, return_counts=True)
    taken = [train[of == n][:count] for n, count in zip(names, counts, strict=True)]
    return np.sort(np.concatenate(taken))
