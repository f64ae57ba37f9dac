"""Feature vectors of two sets of images -> the scores of a report."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from training.metrics import distances
from training.records import Record

# With fewer photos a score depends more on chance than on the images: docs/evaluation.md, "How
# many photos it takes".
MIN_KERNEL_PHOTOS: Final = 20
MIN_NEIGHBOUR_PHOTOS: Final = 100
MIN_FRECHET_PHOTOS: Final = 100


class Scores(Record):
    """Scores of one set of images against one set of real photos.

    A score that needs more photos is None, and `reasons` says why under its name.
    """

    real_count: int
    compared_count: int
    kernel_distance: float | None = None
    # Its 95 % interval, from halves drawn without replacement.
    kernel_distance_interval: tuple[float, float] | None = None
    frechet_distance: float | None = None
    precision: float | None = None
    recall: float | None = None
    density: float | None = None
    coverage: float | None = None
    reasons: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FeatureSet:
    """Features [N, D] and labels [N] of images."""

    features: NDArray[np.floating[Any]]
    labels: NDArray[np.int64]

    def of(self, label: int) -> "FeatureSet":
        """Select the images of one category, in order."""
        rows = self.labels == label
        return FeatureSet(features=self.features[rows], labels=self.labels[rows])

    def rows(self, positions: NDArray[np.int64]) -> "FeatureSet":
        """Select the images at `positions`, in that order."""
        return FeatureSet(features=self.features[positions], labels=self.labels[positions])

    def __len__(self) -> int:
        return len(self.labels)


def score(real: FeatureSet, compared: FeatureSet) -> Scores:
    """Compute all scores of one set of images against real photos.

    Args:
        real: The photos to compare with.
        compared: The images to score; the neighbour scores are averaged over rounds of as many
            images as there are photos, in order.

    Returns:
        Scores; a score that needs more images is None, with a reason.
    """
    count = min(len(real), len(compared))
    values: dict[str, Any] = {}
    reasons: dict[str, str] = {}

    def enough(minimum: int, *names: str) -> bool:
        if count < minimum:
            reasons.update(dict.fromkeys(names, f"{count} photos, needs {minimum}"))
        return count >= minimum

    if enough(MIN_KERNEL_PHOTOS, "kernel_distance"):
        pair = (real.features, compared.features)
        values["kernel_distance"] = distances.kernel_distance(*pair)
        values["kernel_distance_interval"] = distances.kernel_distance_interval(*pair)
    if enough(MIN_FRECHET_PHOTOS, "frechet_distance"):
        values["frechet_distance"] = distances.frechet_distance(real.features, compared.features)
    if enough(MIN_NEIGHBOUR_PHOTOS, "precision", "recall", "density", "coverage"):
        values |= _neighbour_scores(real.features, compared.features, count)
    return Scores(real_count=len(real), compared_count=len(compared), **values, reasons=reasons)


def real_floor(train: FeatureSet, validation: FeatureSet, compared: int) -> Scores:
    """Score train photos against validation photos: the best that a generator could reach.

    Args:
        train: Train photos in random order; they are selected in the validation photos' mix of
            categories, which the generated images have, too.
        validation: Validation photos.
        compared: Number of generated images that the floor is compared with: as many train
            photos are selected, or fewer if that keeps the mix.
    """
    labels, wanted = np.unique(validation.labels, return_counts=True)
    available = np.asarray([np.count_nonzero(train.labels == label) for label in labels])
    times = min(compared / len(validation), (available / wanted).min())
    rows = [
        np.flatnonzero(train.labels == label)[: round(times * count)]
        for label, count in zip(labels, wanted, strict=True)
    ]
    return score(validation, train.rows(np.sort(np.concatenate(rows))))


def covered_share(label: int, real: FeatureSet, compared: FeatureSet) -> float | None:
    """Fraction of a category's photos that have an image of the category near them.

    Near means within the photo's ball among all `real` photos, so a handful of photos of one
    category is enough.

    Args:
        label: The category.
        real: Photos of all categories.
        compared: The images to score, in rounds of as many as the category has photos.

    Returns:
        The mean over rounds; None if the category has no photo or fewer images than a round, or
        if there are too few photos in all for a ball.
    """
    rows = np.flatnonzero(real.labels == label)
    images = compared.of(label).features
    if not 0 < len(rows) <= len(images) or len(real) <= distances.NEAREST_K:
        return None
    photos = real.features[rows]
    radii = distances.ball_radii(photos, real.features)
    shares = [distances.covered_share(photos, radii, part) for part in _rounds(images, len(rows))]
    return float(np.mean(shares))


def _rounds(images: distances.Features, count: int) -> list[distances.Features]:
    """Split into complete rounds of `count` rows."""
    return [images[start : start + count] for start in range(0, len(images) - count + 1, count)]


def _neighbour_scores(
    real: distances.Features, compared: distances.Features, count: int
) -> dict[str, float]:
    """Precision, recall, density and coverage at equal counts, averaged over rounds."""
    # Evenly spaced rows keep the mix of categories, since an index is usually ordered by them.
    real = real[np.linspace(0, len(real) - 1, count).round().astype(int)]
    rounds = _rounds(compared, count)
    named = {
        "precision": distances.precision,
        "recall": distances.recall,
        "density": distances.density,
        "coverage": distances.coverage,
    }
    return {
        name: float(np.mean([measure(real, part) for part in rounds]))
        for name, measure in named.items()
    }
