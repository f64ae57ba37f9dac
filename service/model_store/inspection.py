"""Looks an export over before it is registered: files, graph, and one inference."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto

from models.manifest import (
    GENERATOR_FILE,
    STYLE_OFFSET_NAME,
    WEIGHTS_FILE,
    GeneratorManifest,
)
from service.errors import RegistryError
from service.inference.generation import GeneratorSession, ImageSpec
from service.inference.graphs import try_graph
from service.inference.signatures import signatures
from service.model_store.exports import read_export
from service.model_store.weights import check_weights

# Older operators are not what our exporter writes; newer ones ONNX Runtime may not know.
OPSETS: Final = range(17, 26)
STANDARD_DOMAINS: Final = ("", "ai.onnx")
# Loops may never end; random nodes would give the same seed different images.
REFUSED_OPERATORS: Final = frozenset(
    {"Loop", "Scan", "If", "SequenceMap", "PyOp", "Bernoulli", "Multinomial"}
    | {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)


def inspect_export(export: Path) -> tuple[GeneratorManifest, dict[str, bytes]]:
    """Check an export directory thoroughly, up to one inference.

    Args:
        export: Directory that holds the manifest and exactly the files it lists.

    Returns:
        The manifest, and the checked bytes of all files by name, the manifest's included,
        so that what is stored is what was checked.

    Raises:
        RegistryError: Names the file or operator at fault and the way out.
    """
    manifest, files = read_export(export)
    graphs = signatures(manifest)
    for name in graphs:
        check_graph(files[name], name, manifest.opset)
    _check_default(files[GENERATOR_FILE])
    if WEIGHTS_FILE in files:
        check_weights(files[WEIGHTS_FILE])
    session = GeneratorSession(files[GENERATOR_FILE], manifest, device="cpu")
    last = len(manifest.categories) - 1
    (image,) = session.render([ImageSpec(seed=1, category=last, truncation_psi=1.0)])
    if not np.ptp(image):
        raise RegistryError(f"{GENERATOR_FILE} generates images of one colour: train it first")
    for name, signature in graphs.items():
        if name != GENERATOR_FILE:
            try_graph(files[name], signature)
    return manifest, files


def check_graph(graph: bytes, name: str, exported_opset: int) -> None:
    """Refuse graphs that reach beyond themselves or beyond standard operators.

    Args:
        graph: The file's bytes.
        name: The file's name, for errors.
        exported_opset: The opset that the manifest says.

    Raises:
        RegistryError: Names the tensor, operator or opset at fault.
    """
    try:
        model = onnx.load_model_from_string(graph)
    except Exception as error:  # protobuf's own exceptions differ between its versions
        raise RegistryError(f"{name} is no ONNX model") from error
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    opset = opsets.get("", opsets.get("ai.onnx", 0))
    if opset != exported_opset or opset not in OPSETS:
        raise RegistryError(
            f"{name} has opset {opset}, the manifest says {exported_opset}; "
            f"{OPSETS.start} to {OPSETS.stop - 1} are accepted"
        )
    if model.training_info:
        raise RegistryError(f"{name} holds training graphs: export for inference")
    for scope in _scopes(model):
        for node in scope.node:
            _check_node(node, name)
    for tensor in _tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise RegistryError(
                f"{name}: tensor {tensor.name[:60]!r} keeps its data in another file: "
                "export with all weights inside"
            )


def _check_default(generator: bytes) -> None:
    """An offset that callers leave out must be zero, or their images would be others."""
    for tensor in onnx.load_model_from_string(generator).graph.initializer:
        if tensor.name == STYLE_OFFSET_NAME and np.any(onnx.numpy_helper.to_array(tensor)):
            raise RegistryError(f"{GENERATOR_FILE}: the default of {tensor.name} is not zero")


def _check_node(node: NodeProto, name: str) -> None:
    if node.domain not in STANDARD_DOMAINS:
        raise RegistryError(
            f"{name}: {node.op_type[:60]!r} is a custom operator of "
            f"{node.domain[:60]!r}: only standard ONNX operators are accepted"
        )
    if node.op_type in REFUSED_OPERATORS:
        raise RegistryError(f"{name}: operator {node.op_type} is not accepted")


def _scopes(model: onnx.ModelProto) -> Iterator[GraphProto | FunctionProto]:
    """The graph, all functions, and all graphs inside their nodes' attributes."""
    waiting: list[GraphProto | FunctionProto] = [model.graph, *model.functions]
    while waiting:
        scope = waiting.pop()
        yield scope
        for attribute in _attributes(scope):
            waiting += (
                [attribute.g, *attribute.graphs] if attribute.HasField("g") else attribute.graphs
            )


def _attributes(scope: GraphProto | FunctionProto) -> Iterator[AttributeProto]:
    for node in scope.node:
        yield from node.attribute
    if isinstance(scope, FunctionProto):
        yield from scope.attribute_proto


def _tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every tensor wherever it may hide: initialisers, sparse ones, attributes."""
    for scope in _scopes(model):
        sparse = []
        if isinstance(scope, GraphProto):
            yield from scope.initializer
            sparse += scope.sparse_initializer
        for attribute in _attributes(scope):
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            sparse += attribute.sparse_tensors
            if attribute.HasField("sparse_tensor"):
                sparse.append(attribute.sparse_tensor)
        for tensor in sparse:
            yield tensor.values
            yield tensor.indices
