"""Feature vectors of two sets of pictures -> the scores of a report."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from training.metrics import distances

# Below these a score says more about chance than about the pictures.
MIN_KERNEL_PHOTOS: Final = 10
MIN_NEIGHBOUR_PHOTOS: Final = 20
MIN_FRECHET_PHOTOS: Final = 20


class Scores(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """One set of pictures against one set of real photos.

    A score that the photos are too few for is None, and `reasons` says why under its name.
    """

    real_count: int
    compared_count: int
    frechet_distance: float | None = None
    kernel_distance: float | None = None
    precision: float | None = None
    recall: float | None = None
    density: float | None = None
    coverage: float | None = None
    reasons: dict[str, str] = Field(default_factory=dict)


class RealFloor(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Real photos against real photos, by the same procedure: how low a distance can go."""

    train_against_validation: Scores
    train_against_train: Scores


@dataclass(frozen=True, kw_only=True)
class FeatureSet:
    """Pictures as features [N, D] and labels [N]."""

    features: NDArray[np.floating[Any]]
    labels: NDArray[np.int64]

    def of(self, label: int) -> "FeatureSet":
        """The pictures of one category, in their order."""
        rows = self.labels == label
        return FeatureSet(features=self.features[rows], labels=self.labels[rows])

    def taken(self, rows: NDArray[np.int64]) -> "FeatureSet":
        """The pictures of `rows`, in that order."""
        return FeatureSet(features=self.features[rows], labels=self.labels[rows])

    def __len__(self) -> int:
        return len(self.labels)


def score(real: FeatureSet, compared: FeatureSet, *, frechet_minimum: int) -> Scores:
    """All scores of one set of pictures against real photos.

    Args:
        real: The photos to be matched.
        compared: The pictures judged; the neighbour scores take them in rounds of as many
            as there are photos, in order, and average.
        frechet_minimum: Photos or pictures below which no Frechet distance is given.

    Returns:
        Scores; each that the counts are too low for is None, with its reason.
    """
    count = min(len(real), len(compared))
    values: dict[str, float] = {}
    reasons: dict[str, str] = {}

    def lacking(minimum: int, *names: str) -> bool:
        if count < minimum:
            reasons.update(dict.fromkeys(names, f"{count} photos, needs {minimum}"))
        return count < minimum

    if not lacking(frechet_minimum, "frechet_distance"):
        values["frechet_distance"] = distances.frechet_distance(real.features, compared.features)
    if not lacking(MIN_KERNEL_PHOTOS, "kernel_distance"):
        values["kernel_distance"] = distances.kernel_distance(real.features, compared.features)
    if not lacking(MIN_NEIGHBOUR_PHOTOS, "precision", "recall", "density", "coverage"):
        values |= _neighbour_scores(real.features, compared.features, count)
    return Scores(real_count=len(real), compared_count=len(compared), **values, reasons=reasons)


def real_floor(train: FeatureSet, validation: FeatureSet, compared: int) -> RealFloor:
    """Real photos against real photos, at counts as near the generated ones as there are.

    Args:
        train: Train photos in random order.
        validation: Validation photos.
        compared: How many generated pictures the floor stands beside.
    """
    half = min(len(validation), len(train) // 2)
    rows = np.arange(len(train))
    return RealFloor(
        train_against_validation=score(
            validation, train.taken(rows[:compared]), frechet_minimum=MIN_FRECHET_PHOTOS
        ),
        train_against_train=score(
            train.taken(rows[:half]),
            train.taken(rows[half : half + compared]),
            frechet_minimum=MIN_FRECHET_PHOTOS,
        ),
    )


def covered_share(label: int, real: FeatureSet, compared: FeatureSet) -> float | None:
    """Share of a category's photos that have a picture of the category near them.

    Near: within the photo's ball among all `real` photos, so that a handful of photos of
    one category is enough.

    Args:
        label: The category.
        real: Photos of all categories.
        compared: The pictures judged; taken in rounds of as many as the category has photos.

    Returns:
        The mean over rounds; None with fewer pictures of the category than a round, without
        a photo of it, or with too few photos in all for a ball.
    """
    rows = np.flatnonzero(real.labels == label)
    pictures = compared.of(label).features
    if not 0 < len(rows) <= len(pictures) or len(real) <= distances.NEAREST_K:
        return None
    photos = real.features[rows]
    radii = distances.ball_radii(photos, real.features)
    shares = [distances.covered_share(photos, radii, part) for part in _rounds(pictures, len(rows))]
    return float(np.mean(shares))


def _rounds(pictures: distances.Features, count: int) -> list[distances.Features]:
    """Whole parts of `count` rows."""
    return [pictures[start : start + count] for start in range(0, len(pictures) - count + 1, count)]


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
