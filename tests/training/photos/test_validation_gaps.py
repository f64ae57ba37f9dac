"""Categories without validation photos: `prepare` says why, and only where it should."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from training.photos.catalogue import prepare_dataset
from training.photos.options import PrepareOptions


@pytest.fixture
def reasons(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Any:
    """Reasons by category, as in the report, all of them logged."""

    def prepare(photos: Path, **options: Any) -> dict[str, str]:
        out = tmp_path / "out"
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            prepare_dataset(photos, out, PrepareOptions(width=8, height=8, **options))
        found: dict[str, str] = json.loads((out / "report.json").read_text())["no_validation"]
        shown = [message for message in caplog.messages if "has no validation photo" in message]
        assert shown == [f"Category {k!r} has no validation photo: {v}" for k, v in found.items()]
        return found

    return prepare


def test_nothing_drawn_and_too_few_to_expect_any(catalogue: Path, fill: Any, reasons: Any) -> None:
    fill(catalogue / "cups", range(8, 10))  # ten, where hats are eight
    found = reasons(catalogue, validation_share=0)
    assert list(found) == ["cups"]
    assert "none of its 10 photos was drawn at a fraction of 0" in found["cups"]
    assert "--validation-share" in found["cups"]


def test_no_word_where_there_are_some(catalogue: Path, fill: Any, reasons: Any) -> None:
    fill(catalogue / "cups", range(8, 16))
    assert reasons(catalogue, validation_share=0.5) == {}


def test_all_drawn_look_like_training_photos(catalogue: Path, reasons: Any) -> None:
    # Each photo as six files of other bytes and pixels: some are drawn for training.
    for file in sorted((catalogue / "cups").glob("*.png")):
        with Image.open(file) as image:
            for quality in (80, 84, 88, 92, 95):
                image.save(file.with_name(f"{file.stem}-{quality}.jpg"), quality=quality)
    found = reasons(catalogue, validation_share=0.3)
    assert "of its 48 photos were drawn for validation, but look like" in found["cups"]


def test_given_folder_has_none_or_loses_them(
    catalogue: Path, fill: Any, tmp_path: Path, reasons: Any
) -> None:
    fill(catalogue / "cups", range(8, 12))
    fill(catalogue / "hats", range(1008, 1012))
    given = tmp_path / "given"
    fill(given / "hats", range(500, 501))
    assert reasons(catalogue, validation=given) == {
        "cups": "the folder given by --validation has no photo of it"
    }
    (given / "cups").mkdir()
    (given / "cups" / "broken.jpg").write_text("no image")
    shutil.rmtree(tmp_path / "out")
    found = reasons(catalogue, validation=given)
    assert "none of its photos given by --validation was used (the first:" in found["cups"]
    assert "broken.jpg" in found["cups"]
