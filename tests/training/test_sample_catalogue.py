"""The sample catalogue: what is promised to the demo, to users and to other tests."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.images import decode_image
from training import sample_catalogue as shipped
from training.photos.catalogue import prepare_dataset
from training.photos.options import PrepareOptions
from training.sample_catalogue import PARTS, SampleCatalogueError, unpack_sample_catalogue

CATEGORIES = ["bag", "bottle", "box", "chair", "lamp", "mug", "shirt", "shoe"]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_it_is_a_thousand_different_photos_of_128_px(sample_catalogue: Path) -> None:
    paths = sorted(sample_catalogue.glob("*/*.webp"))
    assert len(paths) == len(files(sample_catalogue)) == 1000
    assert Counter(path.parent.name for path in paths) == dict.fromkeys(CATEGORIES, 125)
    photos = [decode_image(path.read_bytes()) for path in paths]
    assert {photo.shape for photo in photos} == {(128, 128, 3)}
    assert len({photo.tobytes() for photo in photos}) == 1000


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_product_fills_the_middle_of_a_plain_backdrop(
    sample_catalogue: Path, category: str
) -> None:
    for path in (sample_catalogue / category).iterdir():
        photo = np.asarray(Image.open(path).resize((64, 64)), np.float32)
        border = np.concatenate([photo[:2].reshape(-1, 3), photo[:, :2].reshape(-1, 3)])
        assert border.min() > 120, "the backdrop is light"
        assert border.std(axis=0).max() < 25, "the backdrop is plain"
        differs = np.abs(photo - np.median(border, axis=0)).max(axis=2) > 25
        rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
        extent = max(np.ptp(rows), np.ptp(columns)) / 64
        assert 0.5 < extent < 1, "the product is of a size that shows at 32 px"
        assert abs(rows.mean() + columns.mean() - 64) < 20, "and about centred"


def test_the_parts_are_the_whole(sample_catalogue: Path, tmp_path: Path) -> None:
    counts = {part: unpack_sample_catalogue(tmp_path / part, part) for part in PARTS}
    assert [len(counts["first"]), len(counts["second"])] == [6, 2]
    assert counts["first"] | counts["second"] == dict.fromkeys(CATEGORIES, 125)
    first, second = files(tmp_path / "first"), files(tmp_path / "second")
    assert not first & second
    assert first | second == files(sample_catalogue)


@pytest.mark.slow
def test_prepare_uses_every_photo_and_validates_on_each_category(
    sample_catalogue: Path, tmp_path: Path
) -> None:
    options = PrepareOptions.model_validate({"width": 32, "height": 32})
    report = prepare_dataset(sample_catalogue, tmp_path / "dataset", options)
    assert report.used == report.found == 1000
    assert min(report.counts["validation"].values()) >= 5


def test_a_folder_is_made_with_its_parents_and_an_empty_one_is_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    for out in (tmp_path / "not" / "yet", tmp_path / "link"):
        assert unpack_sample_catalogue(out, "second") == {"shirt": 125, "shoe": 125}
        assert len(files(out)) == 250
        assert not list(out.resolve().parent.glob(".*"))
    assert (tmp_path / "link").is_symlink()


def test_others_may_read_it(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        unpack_sample_catalogue(tmp_path / "shop", "second")
    finally:
        os.umask(before)
    assert (tmp_path / "shop").stat().st_mode & 0o777 == 0o755


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    for out in (tmp_path, tmp_path / "mine"):
        with pytest.raises(SampleCatalogueError, match=r"--out .* is not an empty folder: choose"):
            unpack_sample_catalogue(out)
    assert files(tmp_path) == {"mine"}
    assert (tmp_path / "mine").read_text() == "kept"


def test_a_full_disk_is_named_and_keeps_nothing(full_disk: Path) -> None:
    with pytest.raises(SampleCatalogueError, match=r"--out .*shop can't be written: No space left"):
        unpack_sample_catalogue(full_disk / "shop")
    assert not list(full_disk.iterdir())


def test_it_ships_small_with_a_card_that_names_licence_and_renderer() -> None:
    folder = Path(shipped.__file__).parent / "data" / "sample-catalogue"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 3_000_000
    card = (folder / "README.md").read_text()
    assert shipped.LICENCE in card
    assert "5acf454" in card
