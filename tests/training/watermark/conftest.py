"""A small dataset, and a watermark that was trained on it for two steps."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from models.watermark import MIN_SIDE_PX
from training.companion_cli import app as watermark_app
from training.photos.catalogue import prepare_dataset
from training.photos.options import PrepareOptions


def image_of(seed: int, side: int = MIN_SIDE_PX, channels: int = 3) -> np.ndarray:
    """Soft, colourful, away from black and white."""
    coarse = np.random.default_rng(seed).integers(60, 196, (6, 6, channels), dtype=np.uint8)
    planes = [
        np.asarray(Image.fromarray(coarse[..., i]).resize((side, side), Image.Resampling.BICUBIC))
        for i in range(channels)
    ]
    return np.stack(planes, axis=-1)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty soft images of 128 px, prepared."""
    folder = tmp_path_factory.mktemp("watermark")
    for i in range(60):
        file = folder / "photos" / "things" / f"{i:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image_of(i)).save(file)
    options = {"width": MIN_SIDE_PX, "height": MIN_SIDE_PX, "validation_share": 0.3}
    out = folder / "dataset"
    prepare_dataset(folder / "photos", out, PrepareOptions.model_validate(options))
    return out


def invoke(app: Any, *arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, " ".join(re.sub("[│╭╮╰╯─]", " ", result.output).split())


@pytest.fixture(scope="session")
def watermark(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Path:
    """A watermark of two steps, through the command line."""
    out = tmp_path_factory.mktemp("trained") / "watermark"
    options = ("--max-kimg", "0.032", "--judged", "3", "--unmarked", "100", "--device", "cpu")
    code, output = invoke(watermark_app, "train-watermark", dataset, "--out", out, *options)
    assert code == 0, output
    assert "JPEG 70" in output
    return out
