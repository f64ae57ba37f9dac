"""Altered copies of training photos are nearer than photos that were never trained on."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from training.dataset import PreparedDataset
from training.evaluation.copy_distance import TrainingPhotos
from training.evaluation.memorisation import MemorisationCheck
from training.features.extractor import LiteFeatures
from training.photos.catalogue import prepare_dataset
from training.photos.options import PrepareOptions

Alter = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
COPIES = 30  # of each kind


def each(change: Callable[[Image.Image], Image.Image]) -> Alter:
    return lambda images: np.stack([np.asarray(change(Image.fromarray(i))) for i in images])


def jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=75)
    return Image.open(buffer).convert("RGB")


def shifted(by_px: int) -> Alter:
    def alter(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        padded = np.pad(images, ((0, 0), (by_px, 0), (by_px, 0), (0, 0)), mode="edge")
        return padded[:, :-by_px, :-by_px]

    return alter


def levels(images: NDArray[np.float64]) -> NDArray[np.uint8]:
    return images.clip(0, 255).astype(np.uint8)


# As a generator that copies might alter a photo.
ALTERED: dict[str, Alter] = {
    "mirrored": lambda images: images[:, :, ::-1],
    "noise": lambda images: levels(images + np.random.default_rng(0).normal(0, 8, images.shape)),
    "JPEG 75": each(jpeg),
    "blur 0.5 px": each(lambda image: image.filter(ImageFilter.GaussianBlur(0.5))),
    "blur 1 px": each(lambda image: image.filter(ImageFilter.GaussianBlur(1))),
    "10 of 255 lighter": lambda images: levels(images + 10.0),
    "shifted by 1 px": shifted(1),
    "shifted by 2 px": shifted(2),
}


class Copies:
    """The check of a dataset, and how many altered training photos it takes for copies."""

    def __init__(self, dataset: PreparedDataset, every: int) -> None:
        """Of every so many training photos, for the time that their features take."""
        self.extractor = LiteFeatures()
        self.rows = dataset.indices("train")[::every]
        self.photos = dataset.images[self.rows]
        upright, mirrored = (self.extractor(self.photos[:, :, ::step]) for step in (1, -1))
        self.training = TrainingPhotos(self.rows, upright, mirrored, [self.photos])
        validation = dataset.images[dataset.indices("validation")]
        held_out = self.training.nearest(validation, self.extractor(validation))
        self.threshold = MemorisationCheck(held_out, len(self.rows)).threshold

    def found(self, alter: Alter) -> float:
        """Share of altered photos that are too near, and nearest to the photo itself."""
        chosen = np.random.default_rng(1).permutation(len(self.rows))[:COPIES]
        images = alter(self.photos[chosen])
        nearest = self.training.nearest(images, self.extractor(images))
        right = nearest.rows == self.rows[chosen]
        return float(((nearest.distances <= self.threshold) & right).mean())


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory, sample_catalogue: Path) -> Copies:
    out = tmp_path_factory.mktemp("rendered") / "dataset"
    prepare_dataset(sample_catalogue, out, PrepareOptions(width=64, height=64))
    return Copies(PreparedDataset(out), every=6)


@pytest.fixture(scope="module")
def clothing(tmp_path_factory: pytest.TempPathFactory, real_photos: Path) -> Copies:
    out = tmp_path_factory.mktemp("clothing") / "dataset"
    options = PrepareOptions(width=64, height=64, validation=real_photos / "validation")
    prepare_dataset(real_photos / "train", out, options)
    return Copies(PreparedDataset(out), every=18)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALTERED)
def test_copies_of_user_photos_are_found(clothing: Copies, kind: str) -> None:
    assert clothing.found(ALTERED[kind]) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mirrored", "JPEG 75", "shifted by 1 px"])
def test_copies_of_rendered_photos_are_found(rendered: Copies, kind: str) -> None:
    assert rendered.found(ALTERED[kind]) >= 0.95


def test_a_photo_itself_is_at_no_distance_and_named() -> None:
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (5, 20, 30, 3), dtype=np.uint8)
    upright, mirrored = rng.normal(size=(2, 5, 7)).astype(np.float32)
    training = TrainingPhotos(10 * np.arange(5), upright, mirrored, [photos[:2], photos[2:]])
    images = np.concatenate([photos[3:], photos[:1, :, ::-1]])
    features = np.concatenate([upright[3:], mirrored[:1]])
    found = training.nearest(images, features)
    np.testing.assert_allclose(found.distances, 0, atol=0.05)
    assert found.rows.tolist() == [30, 40, 0]
    assert found.mirrored.tolist() == [False, False, True]
    unlike = training.nearest(255 - images, -features).distances
    assert (unlike > 0.5).all()


def test_a_shift_of_a_thirty_second_does_not_hide_a_copy() -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    photos = coarse.repeat(8, axis=1).repeat(8, axis=2)  # 64 px: an eighth of one pattern each
    features = np.eye(4, 7, dtype=np.float32)
    near = features + 0.1
    training = TrainingPhotos(np.arange(4), features, -features, [photos])
    itself, moved, farther = (
        training.nearest(images, near).distances
        for images in (photos, shifted(2)(photos), shifted(6)(photos))
    )
    assert (moved < 2 * itself.max() + 0.1).all()
    assert (farther > 2 * moved).all()


def test_plain_images_are_compared_without_a_warning() -> None:
    white = np.full((2, 16, 16, 3), 255, dtype=np.uint8)
    features = np.eye(2, 3, dtype=np.float32)
    training = TrainingPhotos(np.arange(2), features, features, [white])
    assert np.isfinite(training.nearest(white, features).distances).all()
