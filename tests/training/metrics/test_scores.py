"""Which scores there are, and what photos themselves score."""

import numpy as np
import pytest
from numpy.typing import NDArray

from training.metrics.scores import FeatureSet, Scores, real_floor, score

KINDS = ("kernel_distance", "frechet_distance", "precision", "recall", "density", "coverage")


def photos(seed: int, *counts: int) -> FeatureSet:
    """So many photos of each category, whose features lie around the category's number."""
    labels: NDArray[np.int64] = np.repeat(np.arange(len(counts)), counts)
    noise = np.random.default_rng(seed).normal(size=(len(labels), 6))
    return FeatureSet(features=noise + 5 * labels[:, None], labels=labels)


def given(scores: Scores) -> set[str]:
    return {name for name in KINDS if getattr(scores, name) is not None}


@pytest.mark.parametrize(
    ("count", "left_out"),
    [(19, set(KINDS)), (20, set(KINDS[1:])), (99, set(KINDS[1:])), (100, set())],
)
def test_a_score_needs_photos_and_images_enough(count: int, left_out: set[str]) -> None:
    for real, compared in ((count, 150), (150, count)):
        scores = score(photos(0, real), photos(1, compared))
        assert given(scores) == set(KINDS) - left_out
        assert set(scores.reasons) == left_out
        assert (scores.kernel_distance_interval is None) == ("kernel_distance" in left_out)
    if left_out:
        assert scores.reasons["recall"] == f"{count} photos, needs 100"


def test_the_floor_takes_train_photos_in_the_validation_photos_mix() -> None:
    validation = photos(0, 90, 30)
    lopsided = photos(1, 200, 400)
    order = np.random.default_rng(2).permutation(600)
    floor = real_floor(lopsided.rows(order), validation, compared=1000)
    assert floor.compared_count == 200 + 67  # all of the first, a third as many of the second
    low, high = floor.kernel_distance_interval or (1, 1)
    assert low < 0 < high
    assert score(validation, lopsided).kernel_distance > 10 * high
    assert real_floor(lopsided.rows(order), validation, compared=120).compared_count == 120


def test_a_collapsed_generator_covers_little_of_a_hundred_photos() -> None:
    rng = np.random.default_rng(3)
    real = FeatureSet(features=rng.normal(size=(100, 64)), labels=np.zeros(100, np.int64))
    one = FeatureSet(features=np.tile(rng.normal(size=64), (100, 1)), labels=real.labels)
    scores = score(real, one)
    assert scores.recall == 0
    assert scores.coverage is not None
    assert scores.coverage < 0.4
