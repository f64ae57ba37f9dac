"""Exports with an upscaler: larger sizes from it wherever images are made, and bad ones refused."""

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from starlette.testclient import TestClient
from typer.testing import CliRunner

from catalogan import app
from models.manifest import GeneratorManifest
from service.errors import BadRequest, OperatorError
from service.inference.generation import GeneratorSession, ImageSpec
from service.model_store.exports import read_export
from service.model_store.inspection import inspect_export
from service.model_store.registry import Registry
from service.rendering.presentation import Presentation, choose_presentation

from .conftest import UPSCALER_RECORD, model_store, running_service, write_upscaled_export
from .small_graphs import upscaler_file
from .test_augmentations_http import photo
from .test_generations_http import decoded, pixels

GENERATIONS = "/v1/images/generations"


@pytest.fixture(scope="module")
def upscaled_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_upscaled_export(tmp_path_factory.mktemp("exports") / "large")


@pytest.fixture(scope="module")
def upscaled(
    tmp_path_factory: pytest.TempPathFactory, upscaled_export: Path, export: Path
) -> Iterator[TestClient]:
    """A service whose default model has an upscaler; "shop" has none."""
    clear = tmp_path_factory.mktemp("exports") / "clear"
    with model_store(tmp_path_factory.mktemp("bentoml")):
        Registry().register(upscaled_export)
        Registry().register(export)
        Registry().register(write_upscaled_export(clear, channels=4, name="clear"))
        with running_service() as client:
            yield client


def enlarged(image: np.ndarray, factor: int = 4) -> np.ndarray:
    """What the small upscaler makes of an image."""
    return 255 - image.repeat(factor, axis=0).repeat(factor, axis=1)


def lanczos(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def generate(client: TestClient, **body: Any) -> list[np.ndarray]:
    return decoded(client.post(GENERATIONS, json={"category": "boxes", "seed": 3, **body}).json())


@pytest.mark.parametrize("size", ["25x17", "48x32", "72x48", "96x64"])
def test_larger_sizes_come_from_the_upscaler(upscaled_export: Path, size: str) -> None:
    manifest, _ = read_export(upscaled_export)
    wanted = choose_presentation(size, None, manifest)
    assert (wanted.size, wanted.upscaled) == (size, True)


@pytest.mark.parametrize("size", [None, "auto", "24x16"])
def test_the_models_own_size_does_not(upscaled_export: Path, size: str | None) -> None:
    manifest, _ = read_export(upscaled_export)
    assert choose_presentation(size, None, manifest) == Presentation(24, 16)


def test_an_upscaler_of_a_smaller_factor_does_the_first_step(upscaled_export: Path) -> None:
    manifest, _ = read_export(upscaled_export)
    assert manifest.upscaler is not None
    twice = manifest.upscaler.model_copy(update={"factor": 2})
    for upscaler in (manifest.upscaler, twice):
        model = manifest.model_copy(update={"upscaler": upscaler})
        assert choose_presentation("96x64", None, model).enlargement == "upscaler"
        with pytest.raises(BadRequest, match=r'to "96x64"'):
            choose_presentation("120x80", None, model)


def test_an_image_is_enlarged_by_the_graph(upscaled_export: Path) -> None:
    manifest, files = read_export(upscaled_export)
    others = {"upscaler.onnx": files["upscaler.onnx"]}
    session = GeneratorSession(files["generator.onnx"], manifest, others=others, device="cpu")
    specs = [ImageSpec(seed, 1, 0.7) for seed in range(3)]
    for image, large in zip(session.render(specs), session.render(specs, True), strict=True):
        np.testing.assert_array_equal(large, enlarged(image))


def test_without_the_graph_an_upscaled_image_is_an_error(upscaled_export: Path) -> None:
    manifest, files = read_export(upscaled_export)
    session = GeneratorSession(files["generator.onnx"], manifest, device="cpu")
    with pytest.raises(OperatorError, match=r"upscaler.onnx was not loaded"):
        session.render([ImageSpec(1, 1, 0.7)], True)


def test_generations_at_all_sizes(upscaled: TestClient) -> None:
    (native,) = generate(upscaled)
    large = enlarged(native)
    np.testing.assert_array_equal(generate(upscaled, size="24x16"), [native])
    np.testing.assert_array_equal(generate(upscaled, size="96x64"), [large])
    np.testing.assert_array_equal(generate(upscaled, size="72x48"), [lanczos(large, (72, 48))])


def test_a_seed_gives_the_same_large_image_alone_or_among_others(upscaled: TestClient) -> None:
    together = generate(upscaled, size="96x64", n=3)
    for index, image in enumerate(together):
        np.testing.assert_array_equal(generate(upscaled, size="96x64", seed=3 + index), [image])


def test_a_model_without_an_upscaler_is_enlarged_by_lanczos(upscaled: TestClient) -> None:
    (native,) = generate(upscaled, model="shop")
    (large,) = generate(upscaled, model="shop", size="96x64")
    np.testing.assert_array_equal(large, lanczos(native, (96, 64)))
    refused = upscaled.post(GENERATIONS, json={"model": "shop", "size": "120x80"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "size")


def test_responses_say_which_it_was(upscaled: TestClient) -> None:
    for model, size, enlargement in (
        *(("shop", "96x64", "lanczos"), ("shop", "24x16", "none")),
        *(("large", "48x32", "upscaler"), ("large", "24x16", "none")),
    ):
        body = {"model": model, "size": size, "category": "boxes"}
        assert upscaled.post(GENERATIONS, json=body).json()["enlargement"] == enlargement
        bare = upscaled.post(GENERATIONS, json=body, headers={"Accept": "image/png"})
        assert bare.headers["X-Catalogan-Enlargement"] == enlargement


def test_models_say_how_large_their_images_can_be(upscaled: TestClient) -> None:
    models = {model["id"]: model for model in upscaled.get("/v1/models").json()["data"]}
    sizes = {name: (model["size"], model["max_size"]) for name, model in models.items()}
    assert sizes["large"] == sizes["clear"] == ("24x16", "96x64")
    assert sizes["shop"] == ("24x16", "96x64")


def test_a_background_lies_under_what_the_upscaler_made_clear(upscaled: TestClient) -> None:
    (native,) = generate(upscaled, model="clear")
    (large,) = generate(upscaled, model="clear", size="96x64")
    np.testing.assert_array_equal(large, enlarged(native))
    (red,) = generate(upscaled, model="clear", size="96x64", background="#ff0000")
    clear = large[..., 3] == 0
    assert clear.any()
    assert (red[clear] == (255, 0, 0)).all()


def test_variations(upscaled: TestClient) -> None:
    def vary(**fields: str) -> list[np.ndarray]:
        files = {"image": ("p.png", photo((24, 16)))}
        data = {"category": "boxes", "seed": "5", **fields}
        return decoded(upscaled.post("/v1/images/variations", files=files, data=data).json())

    np.testing.assert_array_equal(vary(size="96x64"), [enlarged(image) for image in vary()])


def test_interpolations(upscaled: TestClient) -> None:
    def frames(**body: Any) -> list[np.ndarray]:
        body = {"seeds": [3, 8], "frames": 3, "category": "boxes", **body}
        response = upscaled.post("/v1/images/interpolations", json=body)
        archive = zipfile.ZipFile(io.BytesIO(response.content))
        return [pixels(archive.read(name)) for name in archive.namelist() if name.endswith("png")]

    large = frames(size="96x64")
    assert len(large) == 3
    np.testing.assert_array_equal(large, [enlarged(image) for image in frames()])


def test_datasets(upscaled: TestClient, upscaled_export: Path, tmp_path: Path) -> None:
    body = {"categories": {"boxes": 2}, "seed": 3, "size": "96x64"}
    archive = zipfile.ZipFile(io.BytesIO(upscaled.post("/v1/datasets", json=body).content))
    images = {name: pixels(archive.read(name)) for name in archive.namelist() if ".png" in name}
    assert len(images) == 2
    rows = json.loads(archive.read("manifest.json"))
    assert rows["size"] == "96x64"
    small = zipfile.ZipFile(
        io.BytesIO(upscaled.post("/v1/datasets", json={**body, "size": "auto"}).content)
    )
    for name, image in images.items():
        np.testing.assert_array_equal(image, enlarged(pixels(small.read(name))))


def test_the_command_line(upscaled_export: Path, tmp_path: Path) -> None:
    def generated(out: str, *options: str) -> np.ndarray:
        given = ["generate", "--export", str(upscaled_export), "--out", str(tmp_path / out)]
        given += ["--count", "1", "--seed", "3", *options]
        result = CliRunner().invoke(app, given)
        assert result.exit_code == 0, result.output
        (file,) = (tmp_path / out).iterdir()
        return pixels(file.read_bytes())

    large = generated("large", "--size", "96x64")
    np.testing.assert_array_equal(large, enlarged(generated("small")))


def test_an_upscaler_is_read_as_it_was_registered(bento_home: Path, upscaled_export: Path) -> None:
    model = Registry().register(upscaled_export)
    assert model.read_others()["upscaler.onnx"] == (upscaled_export / "upscaler.onnx").read_bytes()
    (model.folder / "upscaler.onnx").write_bytes(upscaler_file(2))
    with pytest.raises(OperatorError, match=r"upscaler.onnx was changed"):
        model.read_others()


def test_a_changed_upscaler_is_refused(tmp_path: Path) -> None:
    export = write_upscaled_export(tmp_path / "large")
    (export / "upscaler.onnx").write_bytes(upscaler_file(2))
    with pytest.raises(OperatorError, match=r"upscaler.onnx is not the file that was exported"):
        inspect_export(export)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (upscaler_file(2), r"upscaler.onnx: upscaled has shape"),
        (upscaler_file(channels=1), r"upscaler.onnx: (images|upscaled) has shape"),
        (b"no graph", r"upscaler.onnx is no ONNX model"),
    ],
)
def test_an_upscaler_that_is_not_as_declared_is_refused(
    make_export: Callable[..., Path], data: bytes, message: str
) -> None:
    export = make_export(others={"upscaler.onnx": data}, upscaler=UPSCALER_RECORD)
    with pytest.raises(OperatorError, match=message):
        inspect_export(export)


def test_file_and_record_go_together(make_export: Callable[..., Path]) -> None:
    with pytest.raises(ValidationError, match=r"upscaler and upscaler.onnx go together"):
        make_export(others={"upscaler.onnx": upscaler_file()})
    with pytest.raises(ValidationError, match=r"upscaler and upscaler.onnx go together"):
        make_export(upscaler=UPSCALER_RECORD)


def test_older_exports_have_none(export: Path) -> None:
    record = json.loads((export / "manifest.json").read_text())
    del record["upscaler"]
    assert GeneratorManifest.model_validate(record).upscaler is None
