"""Preparing a dataset: split, duplicates, reproducibility, and what is refused."""

import os
import resource
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageEnhance, ImageOps
from pydantic import ValidationError

from training.dataset import PreparedDataset
from training.photos.catalogue import PrepareReport, prepare_dataset
from training.photos.options import PrepareOptions, parse_size
from training.photos.scan import PrepareError

SMALL = {"width": 8, "height": 8}


def prepare(photos: Path, out: Path, **options: Any) -> PrepareReport:
    return prepare_dataset(photos, out, PrepareOptions(**(SMALL | options)))


def sides(out: Path) -> dict[str, str]:
    index = pq.read_table(out / "index.parquet").to_pydict()
    return dict(zip(index["path"], index["split"], strict=True))


def refused(photos: Path, **options: Any) -> str:
    """The message; nothing may be left beside the photos."""
    before = sorted(photos.parent.iterdir())
    with pytest.raises(PrepareError) as caught:
        prepare(photos, photos.parent / "refused", **options)
    assert sorted(photos.parent.iterdir()) == before
    return str(caught.value)


def test_same_photos_same_hash_whatever_order_time_and_cores(
    catalogue: Path, tmp_path: Path
) -> None:
    first = prepare(catalogue, tmp_path / "a")
    other = tmp_path / "elsewhere"
    for file in sorted(catalogue.rglob("*.png"), reverse=True):
        copy = other / file.relative_to(catalogue)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
        os.utime(copy, (1, 1))
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        second = prepare(other, tmp_path / "b")
    finally:
        os.sched_setaffinity(0, cores)
    assert first.dataset_hash == second.dataset_hash
    files = ("images.npy", "index.parquet", "dataset.json")
    assert all(
        (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        for name in files
    )


def test_hash_covers_pixels_labels_sides_and_shape(catalogue: Path, tmp_path: Path) -> None:
    hashes = {
        prepare(catalogue, tmp_path / "a").dataset_hash,
        prepare(catalogue, tmp_path / "b", width=16).dataset_hash,
        prepare(catalogue, tmp_path / "c", validation_share=0.6).dataset_hash,
        prepare(catalogue, tmp_path / "d", fit="pad").dataset_hash,
    }
    (catalogue / "hats").rename(catalogue / "caps")
    hashes.add(prepare(catalogue, tmp_path / "e").dataset_hash)
    assert len(hashes) == 5


def test_no_photo_changes_sides_as_the_catalogue_grows(
    catalogue: Path, tmp_path: Path, fill: Any
) -> None:
    prepare(catalogue, tmp_path / "before", validation_share=0.5)
    fill(catalogue / "cups", range(100, 112))
    fill(catalogue / "socks", range(200, 208))
    shutil.move(catalogue / "hats" / "1000.png", catalogue / "hats" / "renamed.png")
    prepare(catalogue, tmp_path / "after", validation_share=0.5)
    before, after = sides(tmp_path / "before"), sides(tmp_path / "after")
    after["hats/1000.png"] = after["hats/renamed.png"]
    assert set(before.values()) == {"train", "validation"}
    assert {path: after[path] for path in before} == before


def test_near_duplicates_are_kept_flagged_and_on_one_side(catalogue: Path, tmp_path: Path) -> None:
    for file in sorted((catalogue / "cups").glob("*.png")):
        with Image.open(file) as image:
            image.save(file.with_name(f"copy-{file.stem}.jpg"), quality=80)
            darker = ImageEnhance.Brightness(image.resize((60, 72))).enhance(0.98)
            darker.save(file.with_name(f"zoom-{file.stem}.webp"), quality=90)
    report = prepare(catalogue, tmp_path / "out", validation_share=0.5)
    side = sides(tmp_path / "out")
    assert report.used == 32
    assert len(report.near_duplicates) == 8
    assert all(len(group) == 3 for group in report.near_duplicates)
    assert all(len({side[path] for path in group}) == 1 for group in report.near_duplicates)
    index = pq.read_table(tmp_path / "out" / "index.parquet").to_pydict()
    flagged = dict(zip(index["path"], index["near_duplicate"], strict=True))
    assert flagged["cups/0003.png"] == flagged["cups/copy-0003.jpg"] == 3
    assert flagged["hats/1000.png"] is None


def test_given_validation_photos_stay_and_their_twins_leave_train(
    catalogue: Path, tmp_path: Path, fill: Any
) -> None:
    given = tmp_path / "given"
    fill(given / "cups", range(500, 503))
    shutil.copy(catalogue / "cups" / "0001.png", given / "cups" / "exact.png")
    with Image.open(catalogue / "cups" / "0002.png") as image:
        image.save(given / "cups" / "near.jpg", quality=70)
    report = prepare(catalogue, tmp_path / "out", validation=given)
    side = sides(tmp_path / "out")
    assert report.counts["validation"] == {"cups": 5, "hats": 0}
    assert report.counts["train"] == {"cups": 6, "hats": 8}
    assert all((s == "validation") == path.startswith("given/") for path, s in side.items())
    left_out = {item["path"]: item["reason"] for item in report.left_out_photos}
    assert left_out == {
        "cups/0001.png": "exact_duplicate",
        "cups/0002.png": "near_duplicate_of_validation",
    }


def test_a_mirrored_twin_never_straddles_the_split(catalogue: Path, tmp_path: Path) -> None:
    for file in sorted((catalogue / "cups").glob("*.png")):
        with Image.open(file) as image:
            ImageOps.mirror(image).save(file.with_name(f"twin-{file.name}"))
    report = prepare(catalogue, tmp_path / "out", validation_share=0.5)
    side = sides(tmp_path / "out")
    assert len(report.near_duplicates) == 8
    assert all(len({side[path] for path in group}) == 1 for group in report.near_duplicates)
    given = tmp_path / "given" / "cups"
    given.mkdir(parents=True)
    shutil.move(catalogue / "cups" / "twin-0003.png", given)
    report = prepare(catalogue, tmp_path / "again", validation=given.parent)
    assert [(item["path"], item["reason"]) for item in report.left_out_photos] == [
        ("cups/0003.png", "near_duplicate_of_validation")
    ]


def test_refused_validation_folder(catalogue: Path, tmp_path: Path, fill: Any) -> None:
    fill(tmp_path / "given" / "boots", range(500, 503))
    assert "'boots'" in refused(catalogue, validation=tmp_path / "given")
    assert "no readable folder" in refused(catalogue, validation=tmp_path / "gone")


def test_categories_that_differ_in_case_are_one(catalogue: Path, tmp_path: Path, fill: Any) -> None:
    fill(catalogue / "Hats", range(300, 302))
    report = prepare(catalogue, tmp_path / "out")
    assert report.merged_categories == {"hats": "Hats"}
    assert PreparedDataset(tmp_path / "out").info.categories == ("Hats", "cups")


def test_what_can_not_be_a_catalogue(catalogue: Path, fill: Any) -> None:
    assert "no readable folder" in refused(catalogue / ".." / "gone")
    (catalogue / "empty").mkdir()
    assert "without a photo: 'empty'" in refused(catalogue)
    (catalogue / "empty" / "notes.txt").write_text("no image")
    message = refused(catalogue)
    assert "without a usable photo: 'empty'" in message
    assert "1 not_an_image" in message
    shutil.rmtree(catalogue / "empty")
    assert "16 usable photos, fewer than the minimum of 17" in refused(catalogue, min_photos=17)
    (catalogue / ("x" * 230)).mkdir()
    assert "200 letters" in refused(catalogue)


def test_folder_without_categories_and_folder_of_sides(tmp_path: Path, fill: Any) -> None:
    fill(tmp_path / "flat", range(12))
    assert "there is no category" in refused(tmp_path / "flat")
    fill(tmp_path / "sides" / "train" / "cups", range(12))
    fill(tmp_path / "sides" / "validation" / "cups", range(20, 24))
    assert "no categories but a split" in refused(tmp_path / "sides")


def test_category_that_nothing_is_trained_on(catalogue: Path, tmp_path: Path, fill: Any) -> None:
    given = tmp_path / "given"
    for file in fill(given / "hats", range(1000, 1008)):
        with Image.open(file) as image:
            image.save(file.with_suffix(".jpg"), quality=70)
        file.unlink()
    message = refused(catalogue, validation=given)
    assert "without a training photo: 'hats'" in message


def test_small_categories_are_trained_on(catalogue: Path, tmp_path: Path, fill: Any) -> None:
    for i in range(30):
        (photo,) = fill(catalogue / f"cat{i}", range(2000 + i, 2001 + i))
        shutil.copy(photo, catalogue / "hats" / f"again-{i}.png")  # is left out
    report = prepare(catalogue, tmp_path / "out", validation_share=0.5)
    assert all(report.counts["train"].values())
    assert sum(report.counts["validation"].values()) >= 4
    lone = [name for name in report.counts["train"] if name.startswith("cat")]
    assert all(report.counts["validation"][name] == 0 for name in lone)
    assert min(prepare(catalogue, tmp_path / "b", validation_share=0.999).counts["train"].values())


def test_place_of_the_dataset(catalogue: Path, tmp_path: Path) -> None:
    def attempt(out: Path, **more: Any) -> str:
        with pytest.raises(PrepareError) as caught:
            prepare_dataset(catalogue, out, PrepareOptions(**SMALL), **more)
        return str(caught.value)

    assert "must be apart" in attempt(catalogue / "cups")
    assert "must be apart" in attempt(tmp_path, overwrite=True)
    assert "no folder" in attempt(tmp_path / "no" / "such")
    (tmp_path / "file").write_text("mine")
    assert "is a file" in attempt(tmp_path / "file", overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    assert "holds other things" in attempt(tmp_path / "mine", overwrite=True)
    (tmp_path / "new").mkdir()
    first = prepare(catalogue, tmp_path / "new")
    assert "--overwrite" in attempt(tmp_path / "new")
    options = PrepareOptions(**(SMALL | {"width": 16}))
    second = prepare_dataset(catalogue, tmp_path / "new", options, overwrite=True)
    assert PreparedDataset(tmp_path / "new").info.hash == second.dataset_hash
    assert first.dataset_hash != second.dataset_hash
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "mine", "new", "photos"]


def test_interrupted_leaves_nothing_and_keeps_what_was_there(
    catalogue: Path, tmp_path: Path
) -> None:
    before = prepare(catalogue, tmp_path / "out").dataset_hash

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_dataset(
            catalogue,
            tmp_path / "out",
            PrepareOptions(**SMALL),
            overwrite=True,
            on_progress=interrupt,
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "photos"]
    assert PreparedDataset(tmp_path / "out").info.hash == before


def test_no_disk_space_for_the_images(catalogue: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        assert "can't be written: File too large" in refused(catalogue)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("text", "size"), [("64", (64, 64)), ("192x256", (192, 256)), (" 32X48 ", (32, 48))]
)
def test_size(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "64x", "64x64x3", "-5", "6.5", "٦٤", "9" * 9])
def test_no_size(text: str) -> None:
    with pytest.raises(PrepareError, match="192x256"):
        parse_size(text)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", 4),
        ("channels", 2),
        ("fit", "stretch"),
        ("background", "blanc"),
        ("validation_share", 1),
        ("validation_share", float("nan")),
        ("min_photos", 0),
        ("max_pixels", 10**12),
        ("colour", "red"),
    ],
)
def test_refused_options_name_the_field(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        PrepareOptions.model_validate({field: value})


@pytest.mark.slow
def test_real_photos(real_photos: Path, tmp_path: Path) -> None:
    report = prepare_dataset(
        real_photos / "train",
        tmp_path / "out",
        PrepareOptions(width=24, height=32, validation=real_photos / "validation"),
    )
    given = [p for p in (real_photos / "validation").glob("*/*") if p.is_file()]
    assert sum(report.counts["validation"].values()) >= 0.97 * len(given)
    assert report.used >= 0.97 * report.found
    images = PreparedDataset(tmp_path / "out").images
    assert images.shape == (report.used, 32, 24, 3)
    assert 60 < images.mean() < 220
    assert images.std(axis=(1, 2, 3)).min() > 1
