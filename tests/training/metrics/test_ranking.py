"""The yardstick ranks as the eye does: photos before corrupted ones, before melted shapes."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from training.features.extractor import LiteFeatures
from training.metrics.distances import (
    Features,
    coverage,
    frechet_distance,
    kernel_distance,
    kernel_distance_interval,
)

SIZE_PX = 64
# 340 images of the first base (5acf454) at psi 1, 20 a row, in the clothing validation photos'
# mix of categories: soft, melted shapes that nobody takes for photos.
BASE = Path(__file__).with_name("base-of-5acf454.webp")

Corrupt = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


def each(change: Callable[[Image.Image], Image.Image]) -> Corrupt:
    """The same change of every image."""
    return lambda images: np.stack([np.asarray(change(Image.fromarray(image))) for image in images])


def jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    return Image.open(buffer).convert("RGB")


def blur(radius_px: float) -> Corrupt:
    return each(lambda image: image.filter(ImageFilter.GaussianBlur(radius_px)))


# From the least to the worst, as an eye sees it.
CORRUPTED: dict[str, Corrupt] = {"JPEG 40": each(jpeg), "blur 1 px": blur(1), "blur 2 px": blur(2)}


@dataclass(frozen=True)
class Catalogue:
    """Features of photos to be matched, of others of the same categories, and of worse ones."""

    wanted: Features
    others: Features
    labels: NDArray[np.int64]  # of the others
    corrupted: dict[str, Features]

    def without(self, dropped: int) -> Features:
        """As many of the others, but none of the first categories."""
        kept = self.others[self.labels >= dropped]
        return kept[np.arange(len(self.others)) % len(kept)]


def catalogue_of(
    extractor: LiteFeatures,
    wanted: NDArray[np.uint8],
    others: NDArray[np.uint8],
    labels: NDArray[np.int64],
) -> Catalogue:
    return Catalogue(
        wanted=extractor(wanted),
        others=extractor(others),
        labels=labels,
        corrupted={name: extractor(change(others)) for name, change in CORRUPTED.items()},
    )


@pytest.fixture(scope="module")
def extractor() -> LiteFeatures:
    return LiteFeatures()


@pytest.fixture(scope="module")
def rendered(
    extractor: LiteFeatures, sample_images: Callable[[str, int, int], NDArray[np.uint8]]
) -> Catalogue:
    """Six categories, 12 photos each on both sides."""
    names = ("bag", "bottle", "chair", "lamp", "mug", "shoe")
    photos = np.stack([sample_images(name, 24, SIZE_PX) for name in names])
    halves = photos.reshape(len(names), 2, 12, SIZE_PX, SIZE_PX, 3).swapaxes(0, 1)
    wanted, others = halves.reshape(2, -1, SIZE_PX, SIZE_PX, 3)
    return catalogue_of(extractor, wanted, others, np.repeat(np.arange(len(names)), 12))


@pytest.fixture(scope="module")
def clothing(extractor: LiteFeatures, real_photos: Path) -> Catalogue:
    """Ten categories: every second validation photo, and train photos in the same mix."""

    def read(path: Path) -> NDArray[np.uint8]:
        photo = Image.open(path).convert("RGB")
        side = min(photo.size)
        left, top = (photo.width - side) // 2, (photo.height - side) // 2
        square = photo.crop((left, top, left + side, top + side))
        return np.asarray(square.resize((SIZE_PX, SIZE_PX), Image.Resampling.LANCZOS))

    wanted, others, labels = [], [], []
    for label, folder in enumerate(sorted((real_photos / "validation").iterdir())):
        validation = sorted(folder.iterdir())[::2]
        train = sorted((real_photos / "train" / folder.name).iterdir())[:: len(validation) // 4]
        wanted += [read(path) for path in validation]
        others += [read(path) for path in train[: len(validation)]]
        labels += [label] * len(train[: len(validation)])
    return catalogue_of(extractor, np.stack(wanted), np.stack(others), np.asarray(labels))


def ranks_corruption(catalogue: Catalogue, *names: str) -> None:
    """Photos are nearer than the first corruption, beyond chance, and that than the next."""
    _, others = kernel_distance_interval(catalogue.wanted, catalogue.others)
    worse = [kernel_distance(catalogue.wanted, catalogue.corrupted[name]) for name in names]
    assert [others, *worse] == sorted([others, *worse])
    sets = [catalogue.others, *(catalogue.corrupted[name] for name in names)]
    distances = [frechet_distance(catalogue.wanted, features) for features in sets]
    assert distances == sorted(distances)


def ranks_dropped_categories(catalogue: Catalogue) -> None:
    distances = [kernel_distance(catalogue.wanted, catalogue.without(n)) for n in (0, 1, 3)]
    assert distances[0] < distances[1] < distances[2]
    whole, *fewer = (coverage(catalogue.wanted, catalogue.without(n)) for n in (0, 1, 3))
    assert whole > fewer[0] > fewer[1]


@pytest.mark.slow
def test_corrupted_photos_are_farther_the_worse_they_are(rendered: Catalogue) -> None:
    # On smooth products that blur leaves much as they were, JPEG's blocks are the worse.
    ranks_corruption(rendered, "JPEG 40")
    ranks_corruption(rendered, "blur 1 px", "blur 2 px")


@pytest.mark.slow
def test_fewer_categories_are_farther(rendered: Catalogue) -> None:
    ranks_dropped_categories(rendered)


@pytest.mark.slow
def test_corrupted_user_photos_are_farther_the_worse_they_are(clothing: Catalogue) -> None:
    ranks_corruption(clothing, *CORRUPTED)


@pytest.mark.slow
def test_fewer_categories_of_user_photos_are_farther(clothing: Catalogue) -> None:
    ranks_dropped_categories(clothing)


@pytest.mark.slow
def test_photos_are_far_below_melted_shapes(extractor: LiteFeatures, clothing: Catalogue) -> None:
    grid = np.asarray(Image.open(BASE).convert("RGB"))
    rows, columns = grid.shape[0] // SIZE_PX, grid.shape[1] // SIZE_PX
    base = grid.reshape(rows, SIZE_PX, columns, SIZE_PX, 3).swapaxes(1, 2)
    features = extractor(base.reshape(-1, SIZE_PX, SIZE_PX, 3)[::2])
    assert kernel_distance_interval(clothing.wanted, clothing.others)[1] < 0.01
    assert kernel_distance(clothing.wanted, features) > 0.15
    assert coverage(clothing.wanted, features) < 0.3 < coverage(clothing.wanted, clothing.others)
