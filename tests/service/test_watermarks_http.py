"""The watermark over HTTP: laid over pictures, and found in what became of them."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper
from PIL import Image
from pydantic import ValidationError
from starlette.testclient import TestClient

from models.manifest import UPSCALER_FILE, WATERMARK_FILES
from service.model_store.registry import Registry

from .conftest import UPSCALER_RECORD, model_store, running_service, write_export
from .small_graphs import generator_graph, upscaler_file, watermark_graphs
from .test_cli import run
from .test_marks_cli import run as run_marks

HELD = {"treatment": "as marked", "pictures": 1000, "found": 1.0, "bits_right": 1.0}
RECORD: dict[str, Any] = {
    "nimg": 1000,
    "dataset_hash": "0" * 64,
    "psnr_db": 40.3,
    "detections": [HELD],
    "unmarked": 100_000,
    "payloads": 100_000,
    "false_positives": 7e-7,
    "max_abs_error": 0.0,
}


def soft_generator(side: int = 128) -> Any:
    """The small generator, less stark: black and white parts can't be marked."""
    model = generator_graph(side, side, 3)
    for tensor in model.graph.initializer:
        if tensor.name in ("to_map", "noise_strength"):
            faint = numpy_helper.to_array(tensor) * np.float32(0.01)
            tensor.CopyFrom(numpy_helper.from_array(faint, tensor.name))
    return model


def marking_export(folder: Path, **changes: Any) -> Path:
    return write_export(
        folder,
        soft_generator(),
        size=(128, 128, 3),
        others=dict(zip(WATERMARK_FILES, watermark_graphs(), strict=True)),
        watermark=RECORD | changes,
    )


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return marking_export(tmp_path_factory.mktemp("exports") / "proven")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, proven: Path) -> Iterator[TestClient]:
    with model_store(tmp_path_factory.mktemp("bentoml")):
        Registry().register(proven)
        with running_service() as client:
            yield client


def generate(client: TestClient, **fields: Any) -> bytes:
    answer = client.post("/v1/images/generations", json={"seed": 7, "n": 1, **fields})
    assert answer.status_code == 200, answer.text
    return base64.b64decode(answer.json()["data"][0]["b64_json"])


def verify(client: TestClient, data: bytes) -> dict[str, Any]:
    answer = client.post("/v1/verifications", files={"image": data})
    assert answer.status_code == 200, answer.text
    return answer.json()


def layer(found: dict[str, Any]) -> dict[str, Any]:
    (one,) = [one for one in found["layers"] if one["layer"] == "watermark"]
    return one


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def test_what_became_of_a_picture_is_known_again(shop: TestClient) -> None:
    whole = opened(generate(shop))
    changed = {
        "saved anew": saved(whole),
        "JPEG": saved(whole, "JPEG", quality=80),
        "half": saved(whole.resize((64, 64), Image.Resampling.LANCZOS)),
        "crop": saved(whole.crop((0, 26, 102, 128))),
    }
    model = shop.get("/v1/models").json()["data"][0]
    for name, data in changed.items():
        found = verify(shop, data)
        assert found["verdict"] == "derived", name
        assert not found["ours"]
        assert layer(found)["status"] == "found"
        assert layer(found)["strength"] == "evidence"
        assert found["claims"]["model_hash"] == model["model_hash"]


def test_an_intact_picture_is_not_searched(shop: TestClient) -> None:
    found = verify(shop, generate(shop))
    assert found["verdict"] == "ours"
    assert "watermark" not in {one["layer"] for one in found["layers"]}


def test_other_pictures_have_none(shop: TestClient) -> None:
    rng = np.random.default_rng(0)
    for size in (40, 128):
        noise = Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
        found = verify(shop, saved(noise))
        assert (found["verdict"], layer(found)["status"]) == ("unknown", "absent")


def test_damaged_pictures_are_not_looked_at(shop: TestClient) -> None:
    found = verify(shop, saved(Image.new("RGB", (64, 64)))[:60])
    assert layer(found)["status"] == "unreadable"


def test_small_pictures_get_none(shop: TestClient) -> None:
    found = verify(shop, saved(opened(generate(shop, size="64x64"))))
    assert layer(found)["status"] == "absent"


def test_an_enlarged_picture_is_marked_at_its_final_size(tmp_path: Path) -> None:
    """A model of 32 px whose upscaler returns 128 px, as base:clothing's does from 64."""
    marks = dict(zip(WATERMARK_FILES, watermark_graphs(), strict=True))
    export = write_export(
        tmp_path / "export",
        soft_generator(32),
        size=(32, 32, 3),
        others=marks | {UPSCALER_FILE: upscaler_file(size=(32, 32))},
        upscaler=UPSCALER_RECORD,
        watermark=RECORD,
    )
    with model_store(tmp_path / "home"):
        Registry().register(export)
        with running_service() as client:
            for size, status in (("128x128", "found"), ("96x96", "absent")):
                whole = opened(generate(client, size=size))
                assert f"{whole.width}x{whole.height}" == size
                for data in (saved(whole), saved(whole, "JPEG", quality=80)):
                    assert layer(verify(client, data))["status"] == status, size


def test_models_say_so(shop: TestClient) -> None:
    (model,) = shop.get("/v1/models").json()["data"]
    assert model["marks"]["watermark"] is True


@pytest.mark.parametrize(
    ("setting", "found", "marked"),
    [("proven", 1.0, True), ("proven", 0.98, False), ("on", 0.98, True), ("off", 1.0, False)],
)
def test_the_operator_decides(tmp_path: Path, setting: str, found: float, marked: bool) -> None:
    export = marking_export(tmp_path / "export", detections=[HELD | {"found": found}])
    with model_store(tmp_path / "home", watermark=setting):
        Registry().register(export)
        with running_service() as client:
            (model,) = client.get("/v1/models").json()["data"]
            assert model["marks"]["watermark"] is marked
            again = verify(client, saved(opened(generate(client))))
    assert layer(again)["status"] == ("found" if marked else "absent")


def test_the_command_line_marks_and_finds(
    proven: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with model_store(tmp_path / "home"):
        Registry().register(proven)
        assert run("generate", "--out", tmp_path / "out", "--count", 1, "--seed", 3).exit_code == 0
        (picture,) = (tmp_path / "out").glob("*.png")
        copy = tmp_path / "copy.jpg"
        opened(picture.read_bytes()).save(copy, quality=85)
        result = run_marks("verify", copy)
    assert result.exit_code == 1, result.output
    assert "its watermark is there" in " ".join(result.output.split())


def test_a_watermark_and_its_files_go_together(tmp_path: Path) -> None:
    files = dict(zip(WATERMARK_FILES, watermark_graphs(), strict=True))
    half = {WATERMARK_FILES[0]: files[WATERMARK_FILES[0]]}
    for name, others, record in (
        ("half", half, RECORD),
        ("none", {}, RECORD),
        ("lone", files, None),
    ):
        with pytest.raises(ValidationError, match="go together"):
            write_export(tmp_path / name, others=others, watermark=record)
    swapped = dict(zip(WATERMARK_FILES, reversed(files.values()), strict=True))
    export = write_export(tmp_path / "swapped", others=swapped, watermark=RECORD)
    with model_store(tmp_path / "home"):
        result = run("register", export)
    assert result.exit_code == 2
    assert "watermark_encoder.onnx" in result.output


def test_verifying_makes_no_model_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "none"))
    picture = tmp_path / "picture.png"
    picture.write_bytes(saved(Image.new("RGB", (64, 64))))
    result = run_marks("verify", picture)
    assert result.exit_code == 1, result.output
    assert not (tmp_path / "none").exists()
