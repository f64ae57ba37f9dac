"""Small catalogues of our own, and real photos where a folder of them is given."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
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


def _draw_image(seed: int, size: tuple[int, int] = (40, 48)) -> Image.Image:
    """Soft random blobs: no two seeds look alike."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def draw_image() -> Callable[..., Image.Image]:
    return _draw_image


@pytest.fixture(scope="session")
def fill() -> Callable[[Path, range], list[Path]]:
    """Writes a different image for each seed."""

    def write(folder: Path, seeds: range) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"{seed:04d}.png" for seed in seeds]
        for seed, file in zip(seeds, files, strict=True):
            _draw_image(seed).save(file)
        return files

    return write


@pytest.fixture
def catalogue(tmp_path: Path, fill: Callable[[Path, range], list[Path]]) -> Path:
    """Two categories of 8 different images."""
    folder = tmp_path / "photos"
    fill(folder / "cups", range(8))
    fill(folder / "hats", range(1000, 1008))
    return folder


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system with little more than a megabyte of space."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="session")
def sample_catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 1,000 rendered product photos that ship, 125 in the folder of each of 8 categories."""
    from training.sample_catalogue import unpack_sample_catalogue

    folder = tmp_path_factory.mktemp("sample") / "catalogue"
    unpack_sample_catalogue(folder)
    return folder


@pytest.fixture(scope="session")
def sample_images(sample_catalogue: Path) -> Callable[[str, int, int], NDArray[np.uint8]]:
    """Loads the first photos of a category at a size: uint8 [count, size_px, size_px, 3]."""

    def load(category: str, count: int, size_px: int) -> NDArray[np.uint8]:
        paths = sorted((sample_catalogue / category).iterdir())[:count]
        assert len(paths) == count
        size = (size_px, size_px)
        photos = [Image.open(path).resize(size, Image.Resampling.LANCZOS) for path in paths]
        return np.asarray([np.asarray(photo.convert("RGB")) for photo in photos])

    return load


@pytest.fixture(scope="session")
def tiny_dataset(
    tmp_path_factory: pytest.TempPathFactory, fill: Callable[[Path, range], list[Path]]
) -> Path:
    """60 soft blobs in three categories, prepared at 16 px."""
    from training.photos.catalogue import prepare_dataset
    from training.photos.options import PrepareOptions

    root = tmp_path_factory.mktemp("tiny")
    for i, category in enumerate(("cups", "hats", "mats")):
        fill(root / "photos" / category, range(1000 * i, 1000 * i + 20))
    options = PrepareOptions.model_validate({"width": 16, "height": 16, "validation_share": 0.2})
    prepare_dataset(root / "photos", root / "dataset", options)
    return root / "dataset"


TINY_SETTINGS: dict[str, Any] = {
    "preset": "tiny",
    "batch_size": 8,
    "tick_kimg": 0.04,
    "grid_kimg": 0.1,
    "checkpoint_kimg": 0.1,
    "precision": "fp32",
    "model": {"z_dim": 16, "w_dim": 16, "channel_base": 128, "channel_max": 16},
    "optimizer": {"r1_interval_steps": 4},
    "augment": {"adjust_kimg": 0.5, "p": 0.2},
    "masking": {
        **{"interval_kimg": 0.016, "period_kimg": 0.05, "probes": 8},
        **{"lag_baseline": 2, "lag_deviations": 0.0},
    },
}


@pytest.fixture(scope="session")
def tiny_settings() -> dict[str, Any]:
    """A network that trains some hundred images a second on one core."""
    return TINY_SETTINGS


def _finished(run: Path, dataset: Path, **settings: Any) -> Path:
    """Train a tiny run to its end."""
    from training.dataset import PreparedDataset
    from training.learning.config import resolve
    from training.learning.distributed import Ranks
    from training.learning.run import write_run
    from training.learning.trainer import Trainer

    run.mkdir()
    data = PreparedDataset(dataset)
    config = resolve({**TINY_SETTINGS, **settings})
    write_run(run, config, data)
    trainer = Trainer(run, data, config, torch.device("cpu"), Ranks())
    trainer.train(lambda _: None, lambda: False)
    return run


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> Path:
    """A finished run of 200 images."""
    return _finished(tmp_path_factory.mktemp("runs") / "tiny", tiny_dataset, max_kimg=0.2)


@pytest.fixture(scope="session")
def run_with_heads(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> Path:
    """A finished run of 24 images, whose discriminator looks through a pretrained network."""
    run = tmp_path_factory.mktemp("runs") / "both"
    return _finished(run, tiny_dataset, max_kimg=0.024, discriminator="both")


@contextmanager
def _silent(*_: Any) -> Iterator[Callable[[Any], None]]:
    """A display of a training run that shows nothing."""
    yield lambda _: None


@pytest.fixture(scope="session")
def silent() -> Any:
    """For launch, which shows a person how training goes."""
    return _silent
