"""Catalogues of every shape work from photos to images out of ONNX Runtime."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from training.dataset import PreparedDataset
from training.evaluation.evaluation import evaluate
from training.evaluation.options import EvaluationOptions
from training.export.export import ExportOptions, export_run
from training.launch import Launch, launch
from training.learning.samplers import ExportSampler, RunSampler
from training.photos.catalogue import prepare_dataset
from training.photos.options import PrepareOptions


def transparent(image: Image.Image, seed: int) -> Image.Image:
    """A disc of the image on transparency."""
    y, x = np.mgrid[-1 : 1 : image.height * 1j, -1 : 1 : image.width * 1j]
    alpha = 255 * (np.hypot(x, y) < 0.5 + 0.04 * (seed % 9))
    image = image.convert("RGBA")
    image.putalpha(Image.fromarray(alpha.astype(np.uint8)))
    return image


@pytest.mark.slow
@pytest.mark.parametrize(
    ("categories", "photos", "shape", "change"),
    [
        (3, 20, {"width": 32, "height": 32}, lambda image, _: image),
        (1, 40, {"width": 32, "height": 32}, lambda image, _: image),
        (20, 4, {"width": 32, "height": 32}, lambda image, _: image),
        (2, 15, {"width": 96, "height": 128}, lambda image, _: image),
        (2, 15, {"width": 32, "height": 32, "channels": 1}, lambda image, _: image.convert("L")),
        (2, 15, {"width": 32, "height": 32, "channels": 4}, transparent),
    ],
    ids=["60 photos", "one category", "20 categories", "96x128", "grey", "transparent"],
)
def test_the_whole_way(
    tmp_path: Path,
    tiny_settings: dict[str, Any],
    draw_image: Callable[..., Image.Image],
    silent: Any,
    categories: int,
    photos: int,
    shape: dict[str, int],
    change: Callable[[Image.Image, int], Image.Image],
) -> None:
    for category in range(categories):
        folder = tmp_path / "photos" / f"kind {category}"
        folder.mkdir(parents=True)
        for i in range(photos):
            seed = 1000 * category + i
            change(draw_image(seed, (120, 144)), seed).save(folder / f"{i}.png")
    options = PrepareOptions.model_validate({**shape, "validation_share": 0.25})
    report = prepare_dataset(tmp_path / "photos", tmp_path / "dataset", options)
    assert report.used == categories * photos

    # Heads look at colours, so that those of other than three channels have them.
    discriminator = "both" if "channels" in shape else "convolutional"
    settings = {**tiny_settings, "max_kimg": 0.1, "discriminator": discriminator}
    del settings["preset"]
    wanted = Launch(
        dataset=tmp_path / "dataset", run=tmp_path / "run", overrides=settings, device="cpu"
    )
    outcome = launch(wanted, silent)
    assert outcome is not None
    assert outcome.nimg == 104
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000

    data = PreparedDataset(tmp_path / "dataset")
    sampler = RunSampler(tmp_path / "run", torch.device("cpu"))
    judged = evaluate(
        sampler, data, EvaluationOptions(samples=20, classifier_steps=10), tmp_path / "evaluation"
    )
    assert judged.headline()
    assert (tmp_path / "evaluation" / "contact-sheet.png").exists()

    export_run(tmp_path / "run", tmp_path / "export", ExportOptions(name="odd"))
    labels = np.arange(7) % categories
    generated = ExportSampler(tmp_path / "export").sample(labels, seed=1)
    channels = shape.get("channels", 3)
    assert generated.shape == (7, shape["height"], shape["width"], channels)
    difference = generated.astype(int) - sampler.sample(labels, seed=1)
    assert np.abs(difference).max() <= 1
