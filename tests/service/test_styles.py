"""Exports with styles: the optional offset, the mapping and the encoder, in order or spoiled."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from pydantic import ValidationError

from models.manifest import GeneratorManifest
from service.errors import OperatorError
from service.exports import read_export
from service.generation import GeneratorSession, PictureSpec
from service.inspection import inspect_export

NUM_WS, W_DIM, CATEGORIES, Z_DIM = 2, 3, 4, 8
STYLES = {"num_ws": NUM_WS, "w_dim": W_DIM}
ERRORS = {"reconstruction": 0.1, "nearest_photo": 0.2, "mean_photo": 0.3}
RECORD = {
    "nimg": 1000,
    "parity": {
        "max_abs_error": 1e-6,
        "tolerance": 1e-4,
        "truncation_psi": [1.0],
        "batch_sizes": [1, 2, 7],
        "categories": CATEGORIES,
        "torch_version": "none",
        "onnxruntime_version": "none",
    },
    "errors": {"photos": 30, "pixel_mse": ERRORS, "feature_distance": ERRORS},
}


def value(name: str, *shape: int | str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def constant(name: str, array: Any) -> Any:
    return numpy_helper.from_array(np.asarray(array), name)


def with_offset(model: Any, default: float = 0.0, shape: tuple[int, int] = (NUM_WS, W_DIM)) -> Any:
    """Let the mean of the offset, all layers and values together, move every pixel."""
    zeros = np.full((1, *shape), default, dtype=np.float32)
    model.graph.input.append(value("style_offset", "M", *shape))
    model.graph.initializer.append(constant("style_offset", zeros))
    model.graph.initializer.append(constant("style_axes", np.array([1, 2], dtype=np.int64)))
    model.graph.node.insert(
        0,
        helper.make_node("ReduceMean", ["style_offset", "style_axes"], ["shift"], keepdims=1),
    )
    model.graph.node.insert(1, helper.make_node("Unsqueeze", ["shift", "last_axis"], ["shift4"]))
    tanh = model.graph.node[-1]
    model.graph.node.insert(
        len(model.graph.node) - 1, helper.make_node("Add", [tanh.input[0], "shift4"], ["moved"])
    )
    tanh.input[0] = "moved"
    return model


def graph_file(nodes: list[Any], inputs: list[Any], output: Any, constants: list[Any]) -> bytes:
    graph = helper.make_graph(nodes, "graph", inputs, [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    return bytes(model.SerializeToString())


def encoder_file(operator: str = "Sigmoid", w_dim: int = W_DIM, domain: str = "") -> bytes:
    """Pictures of 16 x 24 x 3 and a category to an offset, by one matrix and `operator`."""
    weights = np.random.default_rng(0).normal(0, 0.1, (3 * 16 * 24, NUM_WS * w_dim))
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["mixed"]),
        helper.make_node("ReduceSum", ["category", "axis"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["mixed", "sum"], ["weighed"]),
        helper.make_node(operator, ["weighed"], ["bent"], domain=domain),
        helper.make_node("Reshape", ["bent", "shape"], ["style_offset"]),
    ]
    constants = [
        constant("weights", weights.astype(np.float32)),
        constant("axis", np.array([1], dtype=np.int64)),
        constant("shape", np.array([-1, NUM_WS, w_dim], dtype=np.int64)),
    ]
    inputs = [value("images", "N", 3, 16, 24), value("category", "N", CATEGORIES)]
    return graph_file(nodes, inputs, value("style_offset", "N", NUM_WS, w_dim), constants)


def mapping_file(output: str = "w") -> bytes:
    nodes = [
        helper.make_node("MatMul", ["z", "weights"], ["mixed"]),
        helper.make_node("MatMul", ["category", "means"], ["mean"]),
        helper.make_node("Unsqueeze", ["truncation_psi", "axis"], ["psi"]),
        helper.make_node("Mul", ["mixed", "psi"], ["pulled"]),
        helper.make_node("Add", ["pulled", "mean"], [output]),
    ]
    constants = [
        constant("weights", np.ones((Z_DIM, W_DIM), dtype=np.float32)),
        constant("means", np.ones((CATEGORIES, W_DIM), dtype=np.float32)),
        constant("axis", np.array([1], dtype=np.int64)),
    ]
    inputs = [value("z", "N", Z_DIM), value("category", "N", CATEGORIES)]
    inputs.append(value("truncation_psi", "N"))
    return graph_file(nodes, inputs, value(output, "N", W_DIM), constants)


def test_styles_mapping_and_encoder_are_accepted(
    make_export: Callable[..., Path], make_graph: Callable[..., Any]
) -> None:
    others = {"mapping.onnx": mapping_file(), "encoder.onnx": encoder_file()}
    export = make_export(with_offset(make_graph()), others=others, encoder=RECORD, **STYLES)
    manifest, files = inspect_export(export)
    assert manifest.encoder is not None
    assert manifest.encoder.errors.photos == 30
    assert files["encoder.onnx"] == others["encoder.onnx"]


def test_an_offset_left_out_changes_no_pixel(
    make_export: Callable[..., Path], make_graph: Callable[..., Any]
) -> None:
    pictures = []
    for export in (make_export(), make_export(with_offset(make_graph()), **STYLES)):
        manifest, files = read_export(export)
        session = GeneratorSession(files["generator.onnx"], manifest, device="cpu")
        pictures.append(session.render([PictureSpec(seed, 1, 0.7) for seed in range(3)]))
    np.testing.assert_array_equal(pictures[0], pictures[1])


def test_an_offset_that_is_not_as_declared_is_refused(
    make_export: Callable[..., Path], make_graph: Callable[..., Any]
) -> None:
    fixed = with_offset(make_graph())
    fixed.graph.input[-1].type.tensor_type.shape.dim[0].dim_value = 1
    renamed = with_offset(make_graph())
    renamed.graph.input[-1].name = renamed.graph.initializer[-2].name = "secret"
    renamed.graph.node[0].input[0] = "secret"
    for model, changes, message in (
        (with_offset(make_graph()), {}, "leave out"),
        (make_graph(), STYLES, "leave out"),
        (renamed, STYLES, "leave out"),
        (with_offset(make_graph(), shape=(NUM_WS, 4)), STYLES, "style_offset has shape"),
        (fixed, STYLES, "style_offset has a fixed batch"),
        (with_offset(make_graph(), default=0.5), STYLES, "default of style_offset is not zero"),
    ):
        with pytest.raises(OperatorError, match=message):
            inspect_export(make_export(model, **changes))


@pytest.mark.parametrize(
    ("file", "data", "message"),
    [
        ("encoder.onnx", b"\xff" * 100, "encoder.onnx is no ONNX model"),
        ("encoder.onnx", encoder_file(w_dim=4), "encoder.onnx: style_offset has shape"),
        ("encoder.onnx", encoder_file("Log"), "encoder.onnx gives .* finite"),
        ("encoder.onnx", encoder_file("Evil", domain="evil"), "encoder.onnx: 'Evil' is a custom"),
        ("encoder.onnx", mapping_file(), "encoder.onnx: the graph takes"),
        ("mapping.onnx", mapping_file("style"), "mapping.onnx: the graph gives"),
        ("mapping.onnx", encoder_file(), "mapping.onnx: the graph takes"),
    ],
)
def test_a_spoiled_graph_beside_the_generator_is_refused(
    make_export: Callable[..., Path],
    make_graph: Callable[..., Any],
    file: str,
    data: bytes,
    message: str,
) -> None:
    record = RECORD if file == "encoder.onnx" else None
    export = make_export(with_offset(make_graph()), others={file: data}, encoder=record, **STYLES)
    with pytest.raises(OperatorError, match=message):
        inspect_export(export)


@pytest.mark.parametrize(
    ("others", "changes", "message"),
    [
        ({"encoder.onnx": b"x"}, STYLES, "go together"),
        ({}, {**STYLES, "encoder": RECORD}, "go together"),
        ({"mapping.onnx": b"x"}, {}, "need num_ws and w_dim"),
        ({}, {"num_ws": 2}, "go together"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    make_export: Callable[..., Path], others: Any, changes: Any, message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        make_export(others=others, **changes)


def test_a_manifest_of_before_styles_is_still_valid(export: Path) -> None:
    text = (export / "manifest.json").read_text()
    manifest = GeneratorManifest.model_validate_json(text)
    assert (manifest.num_ws, manifest.w_dim, manifest.encoder) == (None, None, None)
