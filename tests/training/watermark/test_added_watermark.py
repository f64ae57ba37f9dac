"""A watermark that is added to an export whose run is gone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from models.manifest import WATERMARK_FILES, GeneratorManifest
from models.watermark import payload
from service.inference.generation import GeneratorSession
from service.model_store.inspection import inspect_export
from training.companion_cli import app
from training.export.folder import read_export, write_export
from training.watermark.detection import Watermark
from training.watermark.watermark_folder import load_watermark

from .conftest import image_of, invoke

# Of an early version: it has no model card, no mapping and no weights.
EXPORT = Path(__file__).parents[2] / "service" / "golden-export"


def add(export: Path, watermark: Path, out: Path) -> tuple[int, str]:
    return invoke(app, "add-watermark", export, "--watermark", watermark, "--out", out)


@pytest.fixture(scope="module")
def marking(tmp_path_factory: pytest.TempPathFactory, watermark: Path) -> Path:
    out = tmp_path_factory.mktemp("added") / "export"
    code, output = add(EXPORT, watermark, out)
    assert code == 0, output
    assert "off by default" in output  # after two steps of training
    return out


def test_the_export_is_the_same_but_for_its_watermark(marking: Path) -> None:
    manifest, files = inspect_export(marking)
    before = GeneratorManifest.model_validate_json((EXPORT / "manifest.json").read_bytes())
    rest = {"watermark": None, "files": before.files}
    assert manifest.model_copy(update=rest) == before
    assert manifest.files.keys() - before.files.keys() == {*WATERMARK_FILES, "README.md"}
    for name in before.files:
        assert files[name] == (EXPORT / name).read_bytes(), name
    assert manifest.watermark is not None
    assert manifest.watermark.max_abs_error < 1e-4
    card = files["README.md"].decode()
    for said in ("# golden", "## Watermark", "| JPEG 70 | ", "Too few marks are found"):
        assert said in card


def test_the_service_marks_as_the_trained_networks_do(marking: Path, watermark: Path) -> None:
    manifest, files = inspect_export(marking)
    others = {name: files[name] for name in WATERMARK_FILES}
    session = GeneratorSession(files["generator.onnx"], manifest, others=others, device="cpu")
    assert session.watermark is not None
    encoder, decoder, _ = load_watermark(watermark)
    theirs = Watermark(encoder, decoder).mark(image_of(2), payload(manifest.model_hash))
    assert np.abs(session.watermark.mark(image_of(2)).astype(int) - theirs).max() <= 1


@pytest.mark.slow
def test_a_watermark_takes_the_place_of_an_earlier_one(
    marking: Path, watermark: Path, tmp_path: Path
) -> None:
    wanted, files = read_export(marking)
    earlier = write_export(tmp_path / "earlier", wanted, files | {WATERMARK_FILES[1]: b"earlier"})
    assert earlier != wanted
    code, output = add(tmp_path / "earlier", watermark, tmp_path / "again")
    assert code == 0, output
    assert inspect_export(tmp_path / "again")[0] == wanted


def test_what_can_not_be_added_is_named(watermark: Path, tmp_path: Path) -> None:
    """And nothing is written."""
    out, changed, unevaluated = (tmp_path / name for name in ("out", "changed", "unevaluated"))
    shutil.copytree(EXPORT, changed)
    (changed / "preview.png").write_bytes(b"other")
    shutil.copytree(watermark, unevaluated)
    card = unevaluated / "watermark.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"judgement": None}))
    for given, said in (
        ((tmp_path, watermark, out), f"{tmp_path} is no usable export"),
        ((changed, watermark, out), "preview.png is not the file that was exported"),
        ((EXPORT, watermark, changed), "exists: choose another --out"),
        ((EXPORT, tmp_path, out), "train it again by `catalogan train-watermark`"),
        ((EXPORT, unevaluated, out), "judge-watermark"),
    ):
        code, output = add(*given)
        assert code == 2
        assert said in output
        assert not out.exists()
