"""Feature vectors of two sets of images -> the scores of a report."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from training.metrics import distances
from training.records import Record

# Below these a score says more about chance than about the images: docs/evaluation.md,
# "How many photos it takes".
MIN_KERNEL_PHOTOS: Final = 20
MIN_NEIGHBOUR_PHOTOS: Final = 100
MIN_FRECHET_PHOTOS: Final = 100


class Scores(Record):
    """One set of images against one set of real photos.

    A score that the photos are too few for is None, and `reasons` says why under its name.
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
    """Pictures as features [N, D] and labels [N]."""

    features: NDArray[np.floating[Any]]
    labels: NDArray[np.int64]

    def of(self, label: int) -> "FeatureSet":
        """The images of one category, in their order."""
        rows = self.labels == label
        return FeatureSet(features=self.features[rows], labels=self.labels[rows])

    def taken(self, rows: NDArray[np.int64]) -> "FeatureSet":
        """The images of `rows`, in that order."""
        return FeatureSet(features=self.features[rows], labels=self.labels[rows])

    def __len__(self) -> int:
        return len(self.labels)


def score(real: FeatureSet, compared: FeatureSet) -> Scores:
    """All scores of one set of images against real photos.

    Args:
        real: The photos to be matched.
        compared: The images judged; the neighbour scores take them in rounds of as many
            as there are photos, in order, and average.

    Returns:
        Scores; each that the counts are too low for is None, with its reason.
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
    """Train photos against validation photos: how well a generator could do at best.

    Args:
        train: Train photos in random order; taken in the validation photos' mix of
            categories, which is that of the generated images.
        validation: Validation photos.
        compared: How many generated images the floor stands beside: as many are taken, or
            as many as keep the mix.
    """
    labels, wanted = np.unique(validation.labels, return_counts=True)
    there = np.asarray([np.count_nonzero(train.labels == label) for label in labels])
    times = min(compared / len(validation), (there / wanted).min())
    rows = [
        np.flatnonzero(train.labels == label)[: round(times * count)]
        for label, count in zip(labels, wanted, strict=True)
    ]
    return score(validation, train.taken(np.sort(np.concatenate(rows))))


def covered_share(label: int, real: FeatureSet, compared: FeatureSet) -> float | None:
    """Share of a category's photos that have an image of the category near them.

    Near: within the photo's ball among all `real` photos, so that a handful of photos of
    one category is enough.

    Args:
        label: The category.
        real: Photos of all categories.
        compared: The images judged; taken in rounds of as many as the category has photos.

    Returns:
        The mean over rounds; None with fewer images of the category than a round, without
        a photo of it, or with too few photos in all for a ball.
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
    """Whole parts of `count` rows."""
    return [images[start : start + count] for start in range(0, len(images) - count + 1, count)]


def _neighbour_scores(
    real: distances.Features, compared: distances.Features, count: int
) -> dict[str, float]:
    """Precision and its kin, which depend on the counts: equal ones, averaged over rounds."""
    # Evenly spaced rows keep the mix of categories, by which an index is usually ordered.
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
