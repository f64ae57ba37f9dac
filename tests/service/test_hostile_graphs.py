"""Graphs whose bytes, sizes or files are not what they seem, on every way into the service."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from models.manifest import GeneratorManifest
from service.errors import OperatorError
from service.inference.generation import GeneratorSession, ImageSpec
from service.inference.graph_inspection import inspect_graph
from service.inference.signatures import signatures
from service.model_store.registry import Registry
from service.model_store.sessions import open_session
from service.settings import Settings, load_settings

from .small_graphs import constant, generator_graph, with_offset
from .test_cli import run

MakeExport = Callable[..., Path]


def manifest_of(export: Path) -> GeneratorManifest:
    return GeneratorManifest.model_validate_json((export / "manifest.json").read_bytes())


def add(model: Any, *nodes: Any) -> Any:
    model.graph.node.extend(nodes)
    return model


def external() -> Any:
    """Adds to its images what a file of the working directory holds."""
    model = generator_graph()
    secret = TensorProto(name="secret", data_type=TensorProto.FLOAT, dims=[1, 3, 16, 24])
    secret.data_location = TensorProto.EXTERNAL
    secret.external_data.add(key="location", value="secret.bin")
    model.graph.initializer.append(secret)
    model.graph.node[-1].output[0] = "clean"
    return add(model, helper.make_node("Add", ["clean", "secret"], ["images"]))


def sized_by_its_noise() -> Any:
    """Takes gigabytes where the noise is far from zero, as no first trial shows."""
    model = generator_graph()
    model.graph.initializer.extend([constant("huge", np.float32(1e8)), constant("once", [1])])
    model.graph.node[-1].output[0] = "clean"
    return add(
        model,
        helper.make_node("ReduceMax", ["noise"], ["peak"], keepdims=0),
        helper.make_node("Mul", ["peak", "huge"], ["many"]),
        helper.make_node("Cast", ["many"], ["count"], to=TensorProto.INT64),
        helper.make_node("Max", ["count", "once"], ["size"]),
        helper.make_node("Expand", ["peak", "size"], ["expanded"]),
        helper.make_node("ReduceMax", ["expanded"], ["most"], keepdims=0),
        helper.make_node("Add", ["clean", "most"], ["images"]),
    )


def of_what_is_not_zero() -> Any:
    """As many as there are numbers above zero; the file says that there are ten."""
    model = add(generator_graph(), helper.make_node("NonZero", ["z"], ["found"]))
    model.graph.value_info.append(
        helper.make_tensor_value_info("found", TensorProto.INT64, [2, 10])
    )
    return model


def gigabytes() -> Any:
    model = generator_graph()
    model.graph.initializer.append(constant("sides", [30_000, 30_000]))
    return add(model, helper.make_node("ConstantOfShape", ["sides"], ["zeros"]))


def gigabytes_for_a_full_batch() -> Any:
    """(N - 1) * 10,000 by 10,000: nothing at all where the batch is one."""
    model = generator_graph()
    numbers = {"one": [1], "side": [10_000]}
    model.graph.initializer.extend(constant(name, value) for name, value in numbers.items())
    return add(
        model,
        helper.make_node("Shape", ["z"], ["batch"], start=0, end=1),
        helper.make_node("Sub", ["batch", "one"], ["others"]),
        helper.make_node("Mul", ["others", "side"], ["rows"]),
        helper.make_node("Concat", ["rows", "side"], ["sides"], axis=0),
        helper.make_node("ConstantOfShape", ["sides"], ["zeros"]),
    )


def doubled() -> Any:
    """A vector that is twice as long with each node: what follows shapes must not follow it."""
    model = add(generator_graph(), helper.make_node("Shape", ["z"], ["v0"]))
    nodes = [
        helper.make_node("Concat", [f"v{k}", f"v{k}"], [f"v{k + 1}"], axis=0) for k in range(34)
    ]
    return add(model, *nodes)


def many_at_once() -> Any:
    """Each tensor is small enough, and none may be dropped before the last."""
    model = generator_graph()
    model.graph.initializer.append(constant("sides", [5_000, 5_000]))
    names = [f"zeros{k}" for k in range(8)]
    add(model, *(helper.make_node("ConstantOfShape", ["sides"], [name]) for name in names))
    return add(model, helper.make_node("Sum", names, ["sum"]))


def sequence() -> Any:
    return add(generator_graph(), helper.make_node("SequenceConstruct", ["z"], ["sequence"]))


def words() -> Any:
    node = helper.make_node("Constant", [], ["words"], value_strings=[b"a" * 1000])
    return add(generator_graph(), node)


def computed_twice() -> Any:
    return add(generator_graph(), helper.make_node("Identity", ["z"], ["map"]))


def not_an_operator() -> Any:
    return add(generator_graph(), helper.make_node("Summon", ["z"], ["unused"]))


def sparse() -> Any:
    model = generator_graph()
    values = onnx.numpy_helper.from_array(np.ones(1, np.float32), "w")
    places = onnx.numpy_helper.from_array(np.zeros(1, np.int64), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [10**9]))
    return model


def function() -> Any:
    model = generator_graph()
    body = [helper.make_node("Identity", ["x"], ["y"])]
    opsets = [helper.make_opsetid("", 20)]
    model.functions.append(helper.make_function("", "Tanh", ["x"], ["y"], body, opsets))
    return model


HOSTILE = {
    external: "'secret' keeps its data in another file",
    sized_by_its_noise: "the size of what Expand returns is known only when it runs",
    of_what_is_not_zero: "the size of what NonZero returns is known only when it runs",
    gigabytes: r"needs 3,600 MB at once for a batch of 1",
    gigabytes_for_a_full_batch: r"needs 1,200 MB at once for a batch of 4",
    doubled: r"MB at once for a batch of 1",
    many_at_once: r"needs 900 MB at once for a batch of 1",
    sequence: "what SequenceConstruct returns is known only",
    words: "what Constant returns is known only",
    computed_twice: "'map' is not computed once",
    not_an_operator: "'Summon' is not used as ONNX defines it",
    sparse: "holds sparse tensors",
    function: "holds functions",
}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_is_not_known_before_it_runs_is_refused(
    make_export: MakeExport, hostile: Callable[[], Any]
) -> None:
    export = make_export(hostile())
    signature = signatures(manifest_of(export))["generator.onnx"]
    began = time.process_time()
    with pytest.raises(OperatorError, match=r"generator\.onnx.*" + HOSTILE[hostile]):
        inspect_graph((export / "generator.onnx").read_bytes(), signature)
    assert time.process_time() - began < 5


def test_an_optional_input_has_a_batch_of_its_own(make_export: MakeExport) -> None:
    """A graph that takes gigabytes only where the offset's batch differs from the others'."""
    model = with_offset(generator_graph())
    model.graph.initializer.append(constant("side", [10_000]))
    add(
        model,
        helper.make_node("Shape", ["z"], ["batch"], start=0, end=1),
        helper.make_node("Shape", ["style_offset"], ["given"], start=0, end=1),
        helper.make_node("Sub", ["batch", "given"], ["difference"]),
        helper.make_node("Mul", ["difference", "side"], ["rows"]),
        helper.make_node("Concat", ["rows", "side"], ["sides"], axis=0),
        helper.make_node("ConstantOfShape", ["sides"], ["zeros"]),
    )
    export = make_export(model, num_ws=3, w_dim=8)
    with pytest.raises(OperatorError, match="1,200 MB at once for a batch of 4"):
        inspect_graph(
            (export / "generator.onnx").read_bytes(),
            signatures(manifest_of(export))["generator.onnx"],
        )


def registered(export: Path, _: Settings) -> None:
    Registry().register(export)


def generated(export: Path, settings: Settings) -> None:
    open_session(None, export, settings)


def served(export: Path, settings: Settings) -> None:
    """A Model Store that somebody else filled: what they put there was not registered here."""
    manifest = manifest_of(export)
    version = hashlib.sha256((export / "manifest.json").read_bytes()).hexdigest()[:12]
    folder = Path(Registry()._store) / manifest.name / version
    shutil.copytree(export, folder)
    open_session(f"{manifest.name}:{version}", None, settings)


@pytest.mark.parametrize("way_in", [registered, generated, served])
@pytest.mark.parametrize("hostile", [external, sized_by_its_noise])
def test_every_way_in_inspects(
    make_export: MakeExport,
    bento_home: Path,
    way_in: Callable[[Path, Settings], None],
    hostile: Callable[[], Any],
) -> None:
    with pytest.raises(OperatorError, match=HOSTILE[hostile]):
        way_in(make_export(hostile()), load_settings())


@pytest.mark.parametrize("command", ["generate", "synthesize"])
def test_no_file_of_the_working_directory_gets_into_an_image(
    make_export: MakeExport,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bento_home: Path,
    command: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("secret.bin").write_bytes(np.ones(3 * 16 * 24, np.float32).tobytes())
    result = run(command, "--export", make_export(external()), "--out", "out", "--count", "1")
    assert result.exit_code == 2
    assert "keeps its data in another file" in result.stderr
    assert not Path("out").exists()


def test_the_graph_that_was_inspected_is_the_one_that_runs(make_export: MakeExport) -> None:
    """A file that is one model as ONNX, and another in ONNX Runtime's own format."""
    honest, other = generator_graph(seed=0), generator_graph(seed=1)
    export = make_export(honest)
    manifest = manifest_of(export)
    both = two_models(honest.SerializeToString(), ort_format(other, export.parent))
    assert onnx.load_model_from_string(both).graph.initializer == honest.graph.initializer

    def image(data: bytes) -> Any:
        session = GeneratorSession(data, manifest, device="cpu")
        return session.render([ImageSpec(seed=1, category=0, truncation_psi=1.0)])[0]

    expected = image(honest.SerializeToString())
    assert np.array_equal(image(both), expected)
    assert not np.array_equal(image(other.SerializeToString()), expected)
    # That it is both, or this test would show nothing.
    feeds = {
        given.name: np.ones([1, *[d.dim_value for d in given.type.tensor_type.shape.dim][1:]], "f4")
        for given in honest.graph.input
    }
    found, wanted = (
        onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, feeds)[0]
        for data in (both, other.SerializeToString())
    )
    assert np.allclose(found, wanted, atol=1e-5)


def ort_format(model: Any, folder: Path) -> bytes:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "other.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return (folder / "other.ort").read_bytes()


def two_models(onnx_model: bytes, ort_model: bytes) -> bytes:
    """Put both into one file.

    A flatbuffer begins with the place of its root and "ORTM". As a protocol buffer these eight
    bytes are unknown fields: 0x78 0 (a varint), then 0x7a 4 and the four bytes "ORTM". Another
    unknown field at the end holds a new root, which points into the flatbuffer, and all of it.
    """
    header = bytes([0x78, 0, 0x7A, 4])
    root = int.from_bytes(header, "little")
    old = int.from_bytes(ort_model[:4], "little")
    layout_at = old - int.from_bytes(ort_model[old : old + 4], "little", signed=True)
    length = int.from_bytes(ort_model[layout_at : layout_at + 2], "little")
    layout = ort_model[layout_at : layout_at + length]
    table_length = int.from_bytes(layout[2:4], "little")
    start = root + 64
    table = bytearray(length.to_bytes(4, "little")) + bytes(table_length - 4)
    for place in (int.from_bytes(layout[k : k + 2], "little") for k in range(4, length, 2)):
        if place:
            at = old + place
            target = at + int.from_bytes(ort_model[at : at + 4], "little") + start
            table[place : place + 4] = (target - root - place).to_bytes(4, "little")
    before = header + b"ORTM" + onnx_model + b"\x7a"
    room = root - length - len(before) - 5
    tail = bytes(room) + layout + table + bytes(64 - table_length) + ort_model
    return before + padded_varint(len(tail)) + tail


def padded_varint(number: int) -> bytes:
    """A varint of exactly five bytes."""
    septets = [(number >> (7 * k)) & 0x7F for k in range(5)]
    return bytes([*(septet | 0x80 for septet in septets[:-1]), septets[-1]])


def test_a_model_of_another_format_is_no_export(make_export: MakeExport, tmp_path: Path) -> None:
    data = ort_format(generator_graph(), tmp_path)
    export = make_export()
    manifest = json.loads((export / "manifest.json").read_bytes())
    manifest["files"]["generator.onnx"] = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
    }
    (export / "generator.onnx").write_bytes(data)
    (export / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(OperatorError, match=r"generator\.onnx is no ONNX model"):
        open_session(None, export, load_settings())
