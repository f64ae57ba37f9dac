"""Small catalogues of our own, and real photos where a folder of them is given."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

_VARIABLE = "CATALOGAN_TEST_PHOTOS"


@pytest.fixture(scope="session")
def real_photos() -> Path:
    """Folder with train/ and validation/, each with a folder for each category.

    Without the variable the test is skipped; with it, an unusable folder is an error.
    """
    given = os.environ.get(_VARIABLE)
    if not given:
        pytest.skip(f"{_VARIABLE} names no folder of real photos")
    folder = Path(given)
    for side in ("train", "validation"):
        if not any((folder / side).glob("*/*.*")):
            raise RuntimeError(f"{_VARIABLE}={given} has no photos in {side}/CATEGORY/")
    return folder


def _picture(seed: int, size: tuple[int, int] = (40, 48)) -> Image.Image:
    """Soft random blobs: no two seeds look alike."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def picture() -> Callable[..., Image.Image]:
    return _picture


@pytest.fixture(scope="session")
def fill() -> Callable[[Path, range], list[Path]]:
    """Writes a different picture for each seed."""

    def write(folder: Path, seeds: range) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"{seed:04d}.png" for seed in seeds]
        for seed, file in zip(seeds, files, strict=True):
            _picture(seed).save(file)
        return files

    return write


@pytest.fixture
def catalogue(tmp_path: Path, fill: Callable[[Path, range], list[Path]]) -> Path:
    """Two categories of 8 different pictures."""
    folder = tmp_path / "photos"
    fill(folder / "cups", range(8))
    fill(folder / "hats", range(1000, 1008))
    return folder
