"""An export of 2026-11, trained for real: every later version must load and paint it."""

from pathlib import Path

import numpy as np
from PIL import Image

from models.manifest import GeneratorManifest
from service.inference.generation import GeneratorSession, ImageSpec

HERE = Path(__file__).parent
EXPORT = HERE / "golden-export"


def paint() -> np.ndarray:
    """A row of every category, seed 1."""
    manifest = GeneratorManifest.model_validate_json((EXPORT / "manifest.json").read_bytes())
    manifest.verify_files(lambda name: (EXPORT / name).read_bytes())
    session = GeneratorSession((EXPORT / "generator.onnx").read_bytes(), manifest, device="cpu")
    specs = [ImageSpec(1, category, 0.7) for category in range(len(manifest.categories))]
    return np.concatenate(session.render(specs), axis=1)


def test_the_golden_export_paints_what_it_painted() -> None:
    with Image.open(HERE / "golden-seed-1.png") as picture:
        expected = np.asarray(picture).astype(int)
    painted = paint().astype(int)
    assert painted.shape == expected.shape
    assert expected.std() > 10
    # Other processors and ONNX Runtime versions round differently, by no more than this.
    assert np.abs(painted - expected).max() <= 1
