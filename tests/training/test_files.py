"""Folders that are there whole or not at all."""

from pathlib import Path

import pytest

from training.files import temporary_folder


def test_what_was_there_comes_back_where_the_new_folder_cannot_take_its_place(
    tmp_path: Path,
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "kept").write_text("old")
    with pytest.raises(OSError, match="partial"), temporary_folder(place, replace=True) as aside:
        aside.rmdir()  # so that it can't be renamed
    assert (place / "kept").read_text() == "old"
    assert list(tmp_path.iterdir()) == [place]
