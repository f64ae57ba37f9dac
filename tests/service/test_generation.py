"""GeneratorSession: a seed belongs to a picture, and the graph must keep its contract."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from models.manifest import GeneratorManifest
from service.errors import DeviceError, SessionError
from service.inference.generation import GeneratorSession, ImageSpec, latents
from service.model_store.exports import read_export


def load(export: Path, **options: Any) -> GeneratorSession:
    manifest, files = read_export(export)
    return GeneratorSession(files["generator.onnx"], manifest, **options)


def specs(manifest: GeneratorManifest, count: int) -> list[ImageSpec]:
    return [
        ImageSpec(seed, seed % len(manifest.categories), 0.5 + seed / 20) for seed in range(count)
    ]


def test_pictures_have_the_manifests_shape(trained_export: Path) -> None:
    session = load(trained_export)
    manifest = session.manifest
    for picture in session.render(specs(manifest, 2)):
        assert picture.dtype == np.uint8
        assert picture.shape == (manifest.height, manifest.width, manifest.channels)
        assert np.ptp(picture) > 20


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_same_pixels_alone_in_any_batch_and_at_any_thread_count(
    trained_export: Path, threads: int
) -> None:
    reference = load(trained_export)
    session = load(trained_export, intra_op_threads=threads)
    asked = specs(session.manifest, 7)
    alone = [reference.render([spec])[0] for spec in asked]
    for count in range(1, 8):
        for together, single in zip(session.render(asked[:count]), alone, strict=False):
            np.testing.assert_array_equal(together, single)


def test_each_part_of_a_spec_changes_the_picture(trained_export: Path) -> None:
    session = load(trained_export)
    changed = [
        ImageSpec(1, 0, 0.7),
        ImageSpec(2, 0, 0.7),
        ImageSpec(1, 1, 0.7),
        ImageSpec(1, 0, 1.0),
    ]
    pictures = {picture.tobytes() for picture in session.render(changed)}
    assert len(pictures) == len(changed)


def test_latents_stay_the_same_for_ever(export: Path) -> None:
    """Served seeds are promises: another numpy, or another order, must not redraw them."""
    manifest, _ = read_export(export)
    z, noise = latents(manifest, 2**53 - 1)
    assert (z.dtype, noise.dtype) == (np.float32, np.float32)
    digest = hashlib.sha256(z.tobytes() + noise.tobytes()).hexdigest()
    assert digest[:16] == "d007f29adb498ea6"


def test_nonsense_bytes_are_refused(export: Path) -> None:
    manifest, _ = read_export(export)
    with pytest.raises(SessionError, match="is no ONNX model"):
        GeneratorSession(b"not a graph", manifest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z_dim": 9}, "z has shape"),
        ({"noise_dim": 65}, "noise has shape"),
        ({"height": 24}, "images has shape"),
        ({"categories": ("a", "b")}, "category has shape"),
    ],
)
def test_a_graph_that_differs_from_its_manifest_is_refused(
    export: Path, change: dict[str, Any], message: str
) -> None:
    manifest, files = read_export(export)
    with pytest.raises(SessionError, match=message):
        GeneratorSession(files["generator.onnx"], manifest.model_copy(update=change))


def test_a_fixed_batch_is_refused(make_graph: Any, export: Path) -> None:
    manifest, _ = read_export(export)
    model = make_graph()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(SessionError, match="fixed batch"):
        GeneratorSession(model.SerializeToString(), manifest)


def test_other_names_and_types_are_refused(make_graph: Any, export: Path) -> None:
    manifest, _ = read_export(export)
    model = make_graph()
    model.graph.input.append(helper.make_tensor_value_info("extra", TensorProto.FLOAT, ["N"]))
    with pytest.raises(SessionError, match="extra"):
        GeneratorSession(model.SerializeToString(), manifest)
    model = make_graph()
    model.graph.node.append(
        helper.make_node("Cast", ["images_float"], ["images"], to=TensorProto.DOUBLE)
    )
    model.graph.node[-2].output[0] = "images_float"
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    with pytest.raises(SessionError, match="double"):
        GeneratorSession(model.SerializeToString(), manifest)


def test_values_that_are_not_finite_are_refused(make_graph: Any, export: Path) -> None:
    manifest, _ = read_export(export)
    model = make_graph()
    model.graph.node[-1].op_type = "Log"
    with pytest.raises(SessionError, match="not finite"):
        GeneratorSession(model.SerializeToString(), manifest)


def test_cuda_asked_for_in_vain_is_an_error(export: Path) -> None:
    session = load(export, device="auto")
    if session.device == "cuda":
        pytest.skip("CUDA is there")
    with pytest.raises(DeviceError, match="gpu"):
        load(export, device="cuda")


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu_within_one_level(trained_export: Path) -> None:
    cuda, cpu = load(trained_export), load(trained_export, device="cpu")
    if cuda.device != "cuda":
        pytest.skip("no CUDA here")
    asked = specs(cpu.manifest, 7)
    alone = [cuda.render([spec])[0] for spec in asked]
    for ours, theirs, single in zip(cuda.render(asked), cpu.render(asked), alone, strict=True):
        assert np.abs(ours.astype(int) - theirs).max() <= 1
        assert np.abs(ours.astype(int) - single).max() <= 1


def test_noise_is_drawn_at_the_scale_of_the_manifest(make_export: Callable[..., Path]) -> None:
    def drawn(**changes: Any) -> tuple[Any, Any]:
        folder = make_export(name="scaled", **changes)
        text = (folder / "manifest.json").read_text()
        return latents(GeneratorManifest.model_validate_json(text), 3)

    z, noise = drawn()  # as exported before there was a scale
    z_half, half = drawn(noise_scale=0.5)
    _, none = drawn(noise_scale=0.0)
    assert np.array_equal(z, z_half)
    assert np.array_equal(half, noise / 2)
    assert noise.std() > 0.5
    assert not none.any()
