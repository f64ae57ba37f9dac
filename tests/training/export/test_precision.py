"""Exports in fp16 and int8: what is quantised, what it costs, and when it is refused."""

import copy
import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.numpy_helper import to_array
from typer.testing import CliRunner

from models.generator import Generator, GeneratorShape
from models.manifest import INPUT_NAMES, GeneratorManifest
from service.inference.generation import GeneratorSession, ImageSpec
from service.model_store.inspection import inspect_export
from training.export import loss as loss_module
from training.export.export import generator_graph
from training.export.graphs import ExportError, to_onnx
from training.export.loss import FULL_VARIETY, Setting, inputs, measure_loss, psnr
from training.export.parity import open_graph
from training.export.quantization import quantize
from training.learning.run import load_generator
from training.learning.samplers import ExportSampler
from training.model_cli import app

SERVED = Setting(truncation_psi=0.7, noise_scale=1.0)


def invoke(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, " ".join(re.sub("[│╭╮╰╯─]", " ", result.output).split())


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory, tiny_run: Path) -> dict[str, Path]:
    """The same run in each precision, by the command line."""
    folder = tmp_path_factory.mktemp("precisions")
    for precision in ("fp32", "fp16", "int8"):
        code, output = invoke(
            "export", tiny_run, "--out", folder / precision, "--precision", precision
        )
        assert code == 0, output
        assert ("against fp32: PSNR" in output) == (precision != "fp32")
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def generator(tiny_run: Path) -> Generator:
    return load_generator(tiny_run)[0]


def read(export: Path) -> GeneratorManifest:
    return GeneratorManifest.model_validate_json((export / "manifest.json").read_bytes())


def graph(export: Path) -> bytes:
    return (export / "generator.onnx").read_bytes()


def read_in_int8(model: onnx.ModelProto) -> set[str]:
    """Operators that read what was quantised: convolutions, and what reads their outputs."""
    made = {
        out
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        for out in node.output
    }
    return {node.op_type for node in model.graph.node if made & set(node.input)}


def test_only_the_convolutions_are_in_int8_of_seven_bits(exports: dict[str, Path]) -> None:
    model = onnx.load_from_string(graph(exports["int8"]))
    made_by = {output: node for node in model.graph.node for output in node.output}
    weights = {one.name: to_array(one) for one in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 5
    for node in convolutions:
        assert {made_by[name].op_type for name in node.input[:2]} == {"DequantizeLinear"}
        kernel, scales, _ = (weights[name] for name in made_by[node.input[1]].input)
        assert kernel.dtype == np.int8
        assert np.abs(kernel.astype(int)).max() == 64  # 255 * 64 * 2 fits into 16 bits
        assert scales.shape == kernel.shape[:1]
        assert weights[made_by[node.input[0]].input[2]].dtype == np.uint8
    assert read_in_int8(model) <= {"Conv", "LeakyRelu", "Add"}
    assert {entry.domain for entry in model.opset_import} == {""}


def test_a_lower_precision_keeps_the_signature_and_is_smaller(exports: dict[str, Path]) -> None:
    sizes = {}
    for precision, export in exports.items():
        session = open_graph(graph(export))
        assert [i.name for i in session.get_inputs()] == list(INPUT_NAMES)
        assert [i.name for i in session.get_overridable_initializers()] == ["style_offset"]
        assert {i.type for i in (*session.get_inputs(), *session.get_outputs())} == {
            "tensor(float)"
        }
        model = onnx.load_from_string(graph(export))
        assert {node.domain for node in model.graph.node} == {""}
        assert str(Path.home()).encode() not in graph(export)
        assert b"/tmp" not in graph(export)
        sizes[precision] = sum(
            to_array(one).nbytes for one in model.graph.initializer if len(one.dims) == 4
        )
    assert sizes["fp16"] < 0.6 * sizes["fp32"]
    assert sizes["int8"] < 0.35 * sizes["fp32"]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_manifest_and_the_card_say_what_it_costs(
    exports: dict[str, Path], precision: str
) -> None:
    """The figures are those of images that ONNX Runtime generates from both exports."""
    manifest = read(exports[precision])
    assert manifest.precision == precision
    assert manifest.parity.max_abs_error <= manifest.parity.tolerance
    assert [(one.truncation_psi, one.noise_scale) for one in manifest.losses] == [(1, 1), (0.7, 1)]
    labels = np.arange(300) % 3
    for one in manifest.losses:
        ours, exact = (
            ExportSampler(exports[name])
            .sample(labels, seed=5, truncation_psi=one.truncation_psi, noise_scale=one.noise_scale)
            .astype(float)
            for name in (precision, "fp32")
        )
        assert one.pictures == 100
        assert one.mean_steps == pytest.approx(np.abs(ours - exact).mean(), rel=0.2)
        expected = 10 * np.log10(255**2 / np.square(ours - exact).mean())
        assert one.psnr_db == pytest.approx(expected, abs=1)
        assert one.worst_psnr_db is not None
        assert one.worst_psnr_db <= one.psnr_db
        assert one.max_steps >= one.mean_steps
    card = (exports[precision] / "README.md").read_text()
    assert f"## What {precision} costs" in card
    assert f"| 0.7 | 1 | 100 | {manifest.losses[1].psnr_db:.1f} |" in card


def test_fp32_costs_nothing_and_says_so(exports: dict[str, Path]) -> None:
    assert read(exports["fp32"]).losses == ()
    card = (exports["fp32"] / "README.md").read_text()
    assert "costs" not in card
    assert "| Precision | fp32 |" in card


def test_a_manifest_without_losses_loads(exports: dict[str, Path]) -> None:
    """As exported before they were measured."""
    record = json.loads((exports["fp16"] / "manifest.json").read_text())
    del record["losses"]
    assert GeneratorManifest.model_validate(record).losses == ()


def test_int8_images_do_not_depend_on_their_batch(
    exports: dict[str, Path], generator: Generator
) -> None:
    """But where a value lies between two levels: a processor may round it here and there."""
    session, exact = (open_graph(graph(exports[name])) for name in ("int8", "fp32"))
    feed = next(inputs(generator, FULL_VARIETY, 3))
    (together,) = session.run(None, feed)
    assert len(together) == 10
    one_by_one = [{name: a[i : i + 1] for name, a in feed.items()} for i in range(10)]
    alone = np.concatenate([session.run(None, one)[0] for one in one_by_one])
    cost = np.abs(together - exact.run(None, feed)[0]).mean()
    assert np.abs(alone - together).mean() < 0.1 * cost


@pytest.fixture(scope="module")
def wide() -> Generator:
    """Its weights are too large for the tracer to fold what follows from them."""
    torch.manual_seed(0)
    shape = GeneratorShape(
        height=16, width=16, channels=3, categories=2, z_dim=8, w_dim=8, channel_max=32
    )
    return Generator(shape).eval().requires_grad_(False)


def test_demodulation_is_that_of_the_float32_weights(wide: Generator) -> None:
    exact = to_onnx(wide, "fp32")
    assert sum(n.op_type == "ReduceSum" for n in onnx.load_from_string(exact).graph.node) == 5
    model = onnx.load_from_string(quantize(exact, wide, [FULL_VARIETY]))
    assert not any(node.op_type == "ReduceSum" for node in model.graph.node)
    assert read_in_int8(model) <= {"Conv", "LeakyRelu", "Add"}
    powers = [to_array(one) for one in model.graph.initializer if one.dims == [32, 32]]
    expected = wide.synthesis.conv.conv.weight.square().sum(dim=(2, 3)).t().numpy()
    assert any(np.allclose(power, expected, rtol=1e-5) for power in powers)


def test_fp16_keeps_no_convolution_in_float32(wide: Generator) -> None:
    stored = {
        precision: [
            to_array(one).dtype
            for one in onnx.load_from_string(to_onnx(wide, precision)).graph.initializer
            if len(one.dims) == 4 and one.dims[-1] == 3
        ]
        for precision in ("fp32", "fp16")
    }
    assert stored == {"fp32": [np.float32] * 5, "fp16": [np.float16] * 5}


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_service_loads_it_and_generates_the_same(
    exports: dict[str, Path], precision: str
) -> None:
    manifest, files = inspect_export(exports[precision])
    session = GeneratorSession(files["generator.onnx"], manifest, device="cpu")
    spec = ImageSpec(seed=4, category=1, truncation_psi=manifest.truncation_psi)
    (served,) = session.render([spec])
    sampler = ExportSampler(exports[precision])
    (sampled,) = sampler.sample(np.array([1]), seed=4, truncation_psi=0.7)
    np.testing.assert_array_equal(served, sampled)


def test_the_same_generator_gives_the_same_int8_graph(generator: Generator) -> None:
    exact = to_onnx(generator, "fp32")
    first, again = (quantize(exact, generator, [FULL_VARIETY]) for _ in range(2))
    assert first == again


def test_ranges_come_from_all_categories(generator: Generator) -> None:
    fed = np.concatenate([feed["category"] for feed in inputs(generator, FULL_VARIETY, 0)])
    assert fed.shape == (100, 3)
    assert (fed.sum(axis=0) >= 33).all()


def test_a_graph_of_another_generator_fails_the_loss_check(generator: Generator) -> None:
    graph, _, (full, served) = generator_graph(generator, "int8", SERVED)
    assert measure_loss(generator, graph, "int8", SERVED) == served
    assert full.psnr_db is not None
    other = copy.deepcopy(generator)
    for block in other.synthesis.blocks:
        block.conv1.conv.weight.mul_(-1)
    with pytest.raises(ExportError, match=r"int8 changes this generator's images too much: PSNR"):
        measure_loss(other, graph, "int8", SERVED)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_too_great_a_loss_ends_the_export(
    tmp_path: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.setitem(loss_module.LOSS_FLOOR_DB, precision, 99.0)
    code, output = invoke("export", tiny_run, "--out", tmp_path / "x", "--precision", precision)
    assert code == 2, output
    assert "under the floor of 99 dB; export it as fp32" in output
    assert list(tmp_path.iterdir()) == []


def test_psnr_is_that_of_uint8_images() -> None:
    assert psnr(1.0) == pytest.approx(48.13, abs=0.01)  # one step everywhere
    assert psnr(255.0**2) == 0
    assert psnr(0.0) is None
