"""Photos' features are computed once, and never taken from a file made of something else."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from training.dataset import PreparedDataset
from training.features.extractor import ExtractorInfo
from training.metrics.photo_features import photo_features


class Colours:
    """An extractor that is quick and counts: mean colour of the left and of the right half."""

    def __init__(self, sha256: str = "1" * 64) -> None:
        self.seen = 0
        self.info = ExtractorInfo(
            name="colours",
            sha256=sha256,
            dimensions=6,
            input_px=16,
            provenance="of this test",
            frechet_name="Frechet distance on colours",
        )

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.seen += len(images)
        halves = np.stack(np.split(images.astype(np.float32), 2, axis=2), axis=1)
        return halves.mean(axis=(2, 3)).reshape(len(images), 6)


@pytest.fixture
def dataset(tmp_path: Path, tiny_dataset: Path) -> PreparedDataset:
    shutil.copytree(tiny_dataset, tmp_path / "dataset", ignore=shutil.ignore_patterns("features"))
    return PreparedDataset(tmp_path / "dataset")


def test_they_are_computed_once_in_the_order_of_the_split(dataset: PreparedDataset) -> None:
    extractor = Colours()
    first = photo_features(dataset, extractor, "train")
    rows = dataset.indices("train")
    assert extractor.seen == len(rows)
    np.testing.assert_array_equal(first, Colours()(dataset.images[rows]))
    np.testing.assert_array_equal(photo_features(dataset, extractor, "train"), first)
    assert extractor.seen == len(rows)
    assert len(photo_features(dataset, extractor, "validation")) == len(
        dataset.indices("validation")
    )


def test_mirrored_photos_have_their_own(dataset: PreparedDataset) -> None:
    upright = photo_features(dataset, Colours(), "train")
    mirrored = photo_features(dataset, Colours(), "train", mirrored=True)
    np.testing.assert_allclose(mirrored, np.roll(upright, 3, axis=1), rtol=1e-5)
    assert not np.allclose(mirrored, upright)


def refill(dataset: PreparedDataset, **info: Any) -> PreparedDataset:
    """The same photos under other facts of dataset.json."""
    changed = dataset.info.model_copy(update=info)
    (dataset.path / "dataset.json").write_text(changed.model_dump_json())
    return PreparedDataset(dataset.path)


def test_those_of_another_dataset_or_network_are_not_used(dataset: PreparedDataset) -> None:
    photo_features(dataset, Colours(), "train")
    for extractor, data in (
        (Colours("2" * 64), dataset),
        (Colours("2" * 64), refill(dataset, hash="3" * 64)),
    ):
        photo_features(data, extractor, "train")
        assert extractor.seen == len(dataset.indices("train"))


def test_a_damaged_file_is_made_again(dataset: PreparedDataset) -> None:
    expected = photo_features(dataset, Colours(), "train")
    (file,) = (dataset.path / "features").iterdir()
    for damaged in (b"", file.read_bytes()[:-7]):
        file.write_bytes(damaged)
        np.testing.assert_array_equal(photo_features(dataset, Colours(), "train"), expected)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_dataset_that_cannot_be_written_is_no_obstacle(
    dataset: PreparedDataset, caplog: pytest.LogCaptureFixture
) -> None:
    (dataset.path / "features").write_text("a file where the folder should be")
    with caplog.at_level("INFO"):
        features = photo_features(dataset, Colours(), "train")
    assert len(features) == len(dataset.indices("train"))
    assert "not cached" in caplog.text
