"""Copies of training photos are found, and photos never seen are not."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from training.evaluation.copy_distance import Nearest
from training.evaluation.memorisation import KEPT_PAIRS, MemorisationCheck
from training.metrics.distances import nearest

DIMENSIONS = 16


def features(rng: np.random.Generator, count: int) -> NDArray[Any]:
    return rng.standard_normal((count, DIMENSIONS))


class Check:
    """A check whose training photos are points, numbered from 100."""

    def __init__(
        self, train: NDArray[Any], validation: NDArray[Any], mirrored: NDArray[Any] | None = None
    ) -> None:
        far = np.full_like(train, 1e3) if mirrored is None else mirrored
        self.known = np.concatenate([train, far])
        self.count = len(train)
        self.check = MemorisationCheck(self.nearest(validation), len(train))

    def nearest(self, points: NDArray[Any]) -> Nearest:
        distances, positions = nearest(points, self.known)
        mirrored, photos = np.divmod(positions, self.count)
        return Nearest(distances=distances, rows=100 + photos, mirrored=mirrored.astype(bool))

    def add(self, generated: NDArray[Any], batch: int = 64) -> None:
        """Images whose one pixel is their number, so that it is known which were kept."""
        for start in range(0, len(generated), batch):
            part = generated[start : start + batch]
            numbers = np.arange(start, start + len(part))
            images = np.broadcast_to(numbers[:, None, None, None], (len(part), 2, 2, 3))
            self.check.add(images.astype(np.uint8), self.nearest(part), numbers % 3)


def test_copies_are_found_and_their_photos_named() -> None:
    rng = np.random.default_rng(0)
    train = features(rng, 300)
    made = Check(train, features(rng, 200))
    made.add(train[50:150] + 1e-3 * features(rng, 100))
    assert made.check.share == 1
    pairs = made.check.pairs()
    assert len(pairs) == KEPT_PAIRS
    assert all(pair.too_near and not pair.mirrored for pair in pairs)
    assert [pair.distance for pair in pairs] == sorted(pair.distance for pair in pairs)
    for pair in pairs:
        number = int(pair.image[0, 0, 0])
        assert (pair.row, pair.label) == (100 + 50 + number, number % 3)


def test_a_mirrored_copy_is_a_copy() -> None:
    rng = np.random.default_rng(0)
    train, mirrored = features(rng, 80), features(rng, 80)
    made = Check(train, features(rng, 200), mirrored)
    made.add(np.concatenate([mirrored[7:8], features(rng, 20)]))
    nearest = made.check.pairs()[0]
    assert (nearest.row, nearest.mirrored, nearest.too_near) == (107, True, True)
    assert nearest.distance == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("validation", [20, 99, 250])
def test_an_honest_generator_has_the_expected_share(validation: int) -> None:
    shares, beyond_chance = [], 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        made = Check(features(rng, 60), features(rng, validation))
        made.add(features(rng, 200), batch=200)
        shares.append(made.check.share)
        beyond_chance += made.check.share > made.check.chance_share
    assert made.check.expected_share == pytest.approx(max(0.01, 1 / (validation + 1)))
    # Five standard errors of the mean.
    error = 5 * np.std(shares) / len(shares) ** 0.5
    assert np.mean(shares) == pytest.approx(made.check.expected_share, abs=error)
    assert error < made.check.expected_share / 2
    assert beyond_chance / 400 < 0.05 + 5 * (0.05 * 0.95 / 400) ** 0.5


@pytest.mark.parametrize("photos", [8, 20])
def test_the_batches_do_not_matter_and_a_photo_is_shown_once(photos: int) -> None:
    rng = np.random.default_rng(1)
    train, validation = features(rng, 40), features(rng, 50)
    # Three copies of each photo, the second the nearest.
    steps = (3e-3, 1e-3, 2e-3)
    generated = np.concatenate([train[:photos] + s * features(rng, photos) for s in steps])
    found = []
    for batch in (1, 7, 60):
        made = Check(train, validation)
        made.add(generated, batch)
        found.append([(pair.row, int(pair.image[0, 0, 0])) for pair in made.check.pairs()])
    assert found[0] == found[1] == found[2]
    distances = np.linalg.norm(generated.reshape(3, photos, -1) - train[:photos], axis=2)
    nearest = np.argsort(distances.min(axis=0))[:KEPT_PAIRS]
    assert found[0] == [(100 + i, photos * distances[:, i].argmin() + i) for i in nearest]


def test_the_record_names_category_and_photo() -> None:
    rng = np.random.default_rng(2)
    train = features(rng, 5)
    made = Check(train, features(rng, 30))
    made.add(train[:4])
    record = made.check.record(
        ("cups", "hats", "mats"), lambda rows: [f"photo-{row}" for row in rows]
    )
    assert (record.train_count, record.validation_count, record.generated_count) == (5, 30, 4)
    assert {pair.photo: pair.category for pair in record.nearest} == {
        "photo-100": "cups",
        "photo-101": "hats",
        "photo-102": "mats",
        "photo-103": "cups",
    }


@pytest.mark.parametrize("validation", [20, 150])
def test_twins_that_blind_the_check_are_named(validation: int) -> None:
    rng = np.random.default_rng(4)
    train, held_out, mirrored = features(rng, 60), features(rng, validation), features(rng, 60)
    assert Check(train, held_out, mirrored).check.twins is None
    held_out[11] = mirrored[31]
    if validation > 99:  # the 1 % quantile is no longer the nearest alone
        held_out[12] = mirrored[31]
    assert Check(train, held_out, mirrored).check.twins == (11, 131)
