"""Exports: parity, portability, refusal of graphs that differ from torch."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors.torch import load

from models.manifest import (
    INPUT_NAMES,
    MAPPING_INPUT_NAMES,
    GeneratorManifest,
    ManifestError,
)
from training.dataset import PreparedDataset
from training.export import parity as parity_module
from training.export.card import model_card
from training.export.export import ExportOptions, _portable, export_run
from training.export.graphs import ExportError, graph_inputs, to_onnx
from training.export.parity import measure_parity, open_graph
from training.learning.checkpoint import load_newest
from training.learning.fine_tuning import find_likeness, transfer
from training.learning.loader import to_float
from training.learning.run import RunError, build_networks, load_generator, load_networks
from training.learning.samplers import ExportSampler, RunSampler, open_sampler
from training.learning.sources import open_source


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory, tiny_run: Path) -> Path:
    out = tmp_path_factory.mktemp("exports") / "tiny"
    options = ExportOptions(
        name="tiny", licence="CC0-1.0", author="Us", data="Ours", metrics={"x": 1.0}
    )
    export_run(tiny_run, out, options)
    return out


def test_the_manifest_says_what_was_exported(export: Path, tiny_run: Path) -> None:
    manifest = GeneratorManifest.model_validate_json((export / "manifest.json").read_bytes())
    assert manifest.categories == ("cups", "hats", "mats")
    assert (manifest.width, manifest.height, manifest.channels) == (16, 16, 3)
    assert (manifest.nimg, manifest.preset, manifest.opset) == (200, "tiny", 20)
    assert (manifest.licence, manifest.author, manifest.metrics) == ("CC0-1.0", "Us", {"x": 1.0})
    assert manifest.masking["mode"] == "dynamic"
    assert manifest.training["batch_size"] == 8
    info = json.loads((tiny_run / "dataset.json").read_text())
    assert manifest.dataset_hash == info["hash"]
    parity = manifest.parity
    assert parity.max_abs_error <= 1e-4
    assert (parity.batch_sizes, parity.truncation_psi, parity.categories) == (
        (1, 2, 7),
        (0.5, 1.0),
        3,
    )
    manifest.verify_files(lambda name: (export / name).read_bytes())
    assert sorted(p.name for p in export.iterdir()) == [
        "README.md",
        "generator.onnx",
        "manifest.json",
        "mapping.onnx",
        "preview.png",
        "weights.safetensors",
    ]
    with Image.open(export / "preview.png") as preview:
        assert preview.size == (8 * 16, 3 * 16)
    card = (export / "README.md").read_text()
    for said in ("# tiny", "cups, hats, mats", "16 x 16 px", "| Ours (dataset", "| x | 1 |"):
        assert said in card
    assert "| 200 |" in card
    assert "| CC0-1.0 |" in card


@pytest.mark.parametrize(
    ("file", "inputs"),
    [
        ("generator.onnx", [*INPUT_NAMES, "style_offset"]),
        ("mapping.onnx", ["z", "category", "truncation_psi"]),
    ],
)
def test_graphs_are_portable_and_keep_no_trace_of_the_machine(
    export: Path, file: str, inputs: list[str]
) -> None:
    data = (export / file).read_bytes()
    model = onnx.load_from_string(data)
    assert [i.name for i in model.graph.input] == inputs
    assert {node.domain for node in model.graph.node} <= {""}
    assert all(i.type.tensor_type.shape.dim[0].dim_param for i in model.graph.input)
    assert not any(t.external_data for t in model.graph.initializer)
    random = {"RandomNormal", "RandomNormalLike", "RandomUniform", "Bernoulli"}
    assert not random & {node.op_type for node in model.graph.node}
    assert str(Path.home()).encode() not in data
    assert b"site-packages" not in data
    assert b".py" not in data


def test_the_weights_are_those_of_generator_and_discriminator(export: Path, tiny_run: Path) -> None:
    tensors = load((export / "weights.safetensors").read_bytes())
    generator, *_ = load_generator(tiny_run)
    state = load_newest(tiny_run)
    expected = {f"generator.{k}": v for k, v in generator.state_dict().items()}
    expected |= {f"discriminator.{k}": v for k, v in state["discriminator"].items()}
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == torch.float16
        assert torch.equal(tensor, expected[name].half()), name


def test_a_run_with_heads_exports_without_the_network_that_they_look_through(
    tmp_path: Path, run_with_heads: Path, tiny_dataset: Path
) -> None:
    """And the export is a source whose heads see what they saw."""
    export_run(run_with_heads, tmp_path / "export", ExportOptions(name="heads"))
    assert (tmp_path / "export/weights.safetensors").stat().st_size < 8e6  # the network has 9 MB
    _, trained, config, info, _ = load_networks(run_with_heads)
    source = open_source(str(tmp_path / "export"))
    assert source.discriminator.keys() == trained.state_dict().keys()
    dataset = PreparedDataset(tiny_dataset)
    generator, started = build_networks(config.model_copy(update={"seed": 1}), info)
    fresh = transfer(source, generator, started, find_likeness(source, dataset, None))
    assert fresh == ["mapping.w_avg"]
    photos = to_float(torch.from_numpy(np.array(dataset.images[:8])))
    category = torch.eye(3)[torch.from_numpy(dataset.labels[:8])]
    logits = [d.eval()(photos, category) for d in (trained, started)]
    torch.testing.assert_close(*logits, rtol=0.02, atol=0.02)  # float16 lies between
    sampled = ExportSampler(tmp_path / "export").sample(np.arange(3), seed=0)
    difference = sampled - RunSampler(run_with_heads).sample(np.arange(3), seed=0).astype(int)
    assert np.abs(difference).max() <= 1


def test_the_style_offset_may_be_left_out_and_changes_nothing_then(
    export: Path, tiny_run: Path
) -> None:
    """Callers of before the offset get the images of a graph that never had one."""
    generator, *_ = load_generator(tiny_run)

    class Before(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.generator = generator

        def forward(self, z: Any, category: Any, truncation_psi: Any, noise: Any) -> Any:
            return self.generator(z, category, truncation_psi, noise)

    labels = np.arange(2, dtype=np.int64)
    example = graph_inputs(generator, labels, seed=0, truncation_psi=0.7)
    arguments = tuple(torch.from_numpy(a) for a in example.values())
    batch = torch.export.Dim("batch", min=1, max=64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Before(),
            arguments,
            dynamo=True,
            opset_version=20,
            input_names=list(INPUT_NAMES),
            output_names=["images"],
            dynamic_shapes=({0: batch},) * 4,
            verbose=False,
        )
    before = open_graph(program.model_proto.SerializeToString())
    session = open_graph((export / "generator.onnx").read_bytes())
    (optional,) = session.get_overridable_initializers()
    assert (optional.name, optional.shape[1:]) == ("style_offset", list(generator.style_shape))
    random = np.random.default_rng(0)
    for count in (1, 2, 5, 16):
        labels = np.arange(count) % generator.shape.categories
        feed = graph_inputs(generator, labels, seed=0, truncation_psi=0.7)
        (plain,) = session.run(None, feed)
        np.testing.assert_allclose(plain, before.run(None, feed)[0], atol=1e-5)
        for rows in {1, count}:
            offset = random.standard_normal((rows, *generator.style_shape), np.float32)
            (moved,) = session.run(None, feed | {"style_offset": offset})
            assert moved.shape == plain.shape
            assert np.abs(moved - plain).max() > 0.01


def test_mapping_gives_the_styles_that_offsets_are_made_of(export: Path, tiny_run: Path) -> None:
    """Swapping the styles of two latents by offsets swaps their images."""
    mapping = open_graph((export / "mapping.onnx").read_bytes())
    session = open_graph((export / "generator.onnx").read_bytes())
    generator, *_ = load_generator(tiny_run)
    feed = graph_inputs(generator, np.array([1, 1]), seed=1, truncation_psi=0.7)
    feed["noise"][1] = feed["noise"][0]
    (w,) = mapping.run(None, {name: feed[name] for name in MAPPING_INPUT_NAMES})
    offset = np.repeat((w[::-1] - w)[:, None], generator.style_shape[0], axis=1)
    (plain,) = session.run(None, feed)
    (swapped,) = session.run(None, feed | {"style_offset": offset})
    np.testing.assert_allclose(swapped, plain[::-1], atol=1e-4)
    assert np.abs(plain[0] - plain[1]).max() > 0.01


def test_latents_of_zero_give_finite_images(export: Path) -> None:
    session = open_graph((export / "generator.onnx").read_bytes())
    sizes = {i.name: i.shape[1:] for i in session.get_inputs()}
    feed = {name: np.zeros((1, *size), dtype=np.float32) for name, size in sizes.items()}
    feed["category"][0, 0] = 1
    assert np.isfinite(session.run(None, feed)[0]).all()


def test_run_and_export_generate_the_same(export: Path, tiny_run: Path) -> None:
    labels = np.arange(7, dtype=np.int64) % 3
    ours, theirs = RunSampler(tiny_run), ExportSampler(export)
    assert ours.categories == theirs.categories
    for psi in (0.5, 1.0):
        a = ours.sample(labels, seed=3, truncation_psi=psi).astype(int)
        b = theirs.sample(labels, seed=3, truncation_psi=psi).astype(int)
        assert np.abs(a - b).max() <= 1
        assert a.std() > 1


def test_a_graph_that_differs_fails_the_parity_check(tiny_run: Path) -> None:
    generator, *_ = load_generator(tiny_run)
    graph = to_onnx(generator, "fp32")
    with torch.no_grad():
        generator.synthesis.constant.add_(0.01)
    with pytest.raises(ExportError, match="differs from torch"):
        measure_parity(generator, graph, "fp32")


def test_fp16_is_smaller_and_within_its_own_tolerance(tmp_path: Path, tiny_run: Path) -> None:
    manifest = export_run(tiny_run, tmp_path / "half", ExportOptions(name="h", precision="fp16"))
    assert manifest.precision == "fp16"
    assert 1e-6 < manifest.parity.max_abs_error <= manifest.parity.tolerance
    sampler = ExportSampler(tmp_path / "half")
    assert sampler.sample(np.zeros(2, dtype=np.int64), seed=0).shape == (2, 16, 16, 3)


def test_an_existing_folder_is_left_alone(tmp_path: Path, tiny_run: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ExportError, match="exists"):
        export_run(tiny_run, tmp_path / "out", ExportOptions(name="x"))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_failed_export_leaves_nothing(
    tmp_path: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(parity_module.PARITY_TOLERANCE, "fp32", 1e-12)
    with pytest.raises(ExportError, match="over the tolerance"):
        export_run(tiny_run, tmp_path / "out", ExportOptions(name="x"))
    assert list(tmp_path.iterdir()) == []


def test_a_changed_file_is_refused(tmp_path: Path, export: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(export, copy)
    data = bytearray((copy / "generator.onnx").read_bytes())
    data[-5] ^= 1
    (copy / "generator.onnx").write_bytes(data)
    with pytest.raises(ManifestError, match=r"generator\.onnx"):
        open_sampler(copy)


@pytest.mark.parametrize("size", [(12, 16), (16, 12)])
@pytest.mark.parametrize(("channels", "noise_max_px"), [(1, None), (4, 8)])
def test_other_shapes_channels_and_levels_of_noise_export(
    size: tuple[int, int], channels: int, noise_max_px: int | None
) -> None:
    from models.generator import Generator, GeneratorShape

    torch.manual_seed(0)
    generator: Any = Generator(
        GeneratorShape(
            height=size[0],
            width=size[1],
            channels=channels,
            categories=2,
            z_dim=8,
            w_dim=8,
            channel_base=64,
            channel_max=8,
            noise_max_px=noise_max_px,
        )
    ).eval()
    generator.requires_grad_(False).update_w_avg(64)
    parity = measure_parity(generator, to_onnx(generator, "fp32"), "fp32")
    assert parity.max_abs_error <= 1e-4


@pytest.mark.parametrize(
    ("source", "exported"),
    [("/home/me/runs/first", "first"), ("base:clothing", "base:clothing"), (None, None)],
)
def test_an_export_contains_no_folders_of_its_machine(
    source: str | None, exported: str | None
) -> None:
    assert _portable({"fine_tuning": {"source": source}}) == {"fine_tuning": {"source": exported}}


def test_nothing_in_a_card_is_markup_of_its_author(export: Path) -> None:
    manifest = GeneratorManifest.model_validate_json((export / "manifest.json").read_text())
    evil = "<img src=x onerror=alert(1)> [a](javascript:b)"
    hostile = manifest.model_copy(
        update={
            "categories": (evil, *manifest.categories[1:]),
            "licence": evil,
            "author": evil,
            "data": evil,
            "metrics": {evil: 1.0},
        }
    )
    card = model_card(hostile).decode()
    assert card.count("&lt;img src=x onerror=alert\\(1\\)&gt; \\[a\\]\\(javascript:b\\)") == 5
    assert "<" not in card
    assert "](javascript" not in card


def test_the_card_says_what_its_images_come_on_top_of(export: Path) -> None:
    manifest = GeneratorManifest.model_validate_json((export / "manifest.json").read_bytes())
    assert "| 200 |" in model_card(manifest).decode()
    begun = manifest.model_copy(update={"training": {"fine_tuning": {"source": "base:clothing"}}})
    assert "| 200, from base:clothing on |" in model_card(begun).decode()


def test_fine_tuning_starts_from_an_export_as_from_its_run(export: Path, tiny_run: Path) -> None:
    ours, theirs = open_source(str(export)), open_source(str(tiny_run))
    assert ours.categories == theirs.categories
    assert ours.model == theirs.model
    for mine, other in (
        (ours.generator, theirs.generator),
        (ours.discriminator, theirs.discriminator),
    ):
        names = mine.keys() - {"mapping.w_avg"}  # an export's is up to date
        assert names == other.keys() - {"mapping.w_avg"}
        assert all(torch.equal(mine[n], other[n].half().float()) for n in names)


@pytest.mark.parametrize("damage", ["missing", "changed", "unlisted"])
def test_fine_tuning_refuses_an_export_without_its_weights(
    export: Path, tmp_path: Path, damage: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(export, copy)
    weights, manifest = copy / "weights.safetensors", copy / "manifest.json"
    if damage == "missing":
        weights.unlink()
    elif damage == "changed":
        weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    else:  # as exported before there were weights
        record = json.loads(manifest.read_text())
        del record["files"]["weights.safetensors"]
        manifest.write_text(json.dumps(record))
    with pytest.raises(RunError, match=r"weights\.safetensors"):
        open_source(str(copy))
