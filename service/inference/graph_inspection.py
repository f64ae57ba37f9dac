"""Refuses graphs that reach beyond themselves, or beyond what can be known before they run."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
)

from service.errors import SessionError
from service.inference.graph_shapes import check_shapes
from service.inference.signatures import Signature

# Older operators are not what our exporter writes; newer ones ONNX Runtime may not know.
OPSETS: Final = range(17, 26)
STANDARD_DOMAINS: Final = ("", "ai.onnx")
# Loops may never end; random nodes would give the same seed different images.
REFUSED_OPERATORS: Final = frozenset(
    {"Loop", "Scan", "If", "SequenceMap", "PyOp", "Bernoulli", "Multinomial"}
    | {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)


def inspect_graph(data: bytes, signature: Signature) -> bytes:
    """Check a graph before anything runs it.

    Args:
        data: The ONNX file's bytes.
        signature: What the graph is to take and return.

    Returns:
        The graph, written again from what was checked: another reader of `data` could find
        another graph in it.

    Raises:
        SessionError: Names the file, the tensor, operator or opset at fault, and the way out.
    """
    try:
        return _inspect(data, signature)
    except SessionError as error:
        raise SessionError(f"{signature.file}{error}") from None


def _inspect(data: bytes, signature: Signature) -> bytes:
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's own exceptions differ between its versions
        raise SessionError(" is no ONNX model: export the run again") from error
    model.DiscardUnknownFields()
    _check_opset(model, signature)
    if model.training_info:
        raise SessionError(" holds training graphs: export for inference")
    for scope in _scopes(model):
        for node in scope.node:
            _check_node(node)
    _check_tensors(model)
    _check_defaults(model.graph, signature)
    # What a file says of its sizes is not what they are.
    del model.graph.value_info[:]
    check_shapes(model, signature)
    return bytes(model.SerializeToString())


def _check_opset(model: onnx.ModelProto, signature: Signature) -> None:
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    opset = opsets.get("", opsets.get("ai.onnx", 0))
    if opset not in OPSETS or signature.opset not in (None, opset):
        listed = "" if signature.opset is None else f", the manifest says {signature.opset}"
        raise SessionError(
            f" has opset {opset}{listed}; {OPSETS.start} to {OPSETS.stop - 1} are accepted"
        )


def _check_node(node: NodeProto) -> None:
    if node.domain not in STANDARD_DOMAINS:
        raise SessionError(
            f": {node.op_type[:60]!r} is a custom operator of {node.domain[:60]!r}: only "
            "standard ONNX operators are accepted"
        )
    if node.op_type in REFUSED_OPERATORS:
        raise SessionError(f": operator {node.op_type} is not accepted")


def _check_tensors(model: onnx.ModelProto) -> None:
    for tensor in _tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise SessionError(
                f": tensor {tensor.name[:60]!r} keeps its data in another file: export with all "
                "weights inside"
            )
    # A few numbers could stand for gigabytes.
    if any(True for scope in _scopes(model) for _ in _sparse(scope)):
        raise SessionError(" holds sparse tensors: export them dense")
    if model.functions:
        raise SessionError(" holds functions: export with all of them inlined")


def _check_defaults(graph: GraphProto, signature: Signature) -> None:
    """An offset that callers leave out must be zero, or their images would be others."""
    for tensor in graph.initializer:
        if tensor.name in signature.optional and np.any(onnx.numpy_helper.to_array(tensor)):
            raise SessionError(f": the default of {tensor.name} is not zero")


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
        if isinstance(scope, GraphProto):
            yield from scope.initializer
        for attribute in _attributes(scope):
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for tensor in _sparse(scope):
            yield tensor.values
            yield tensor.indices


def _sparse(scope: GraphProto | FunctionProto) -> Iterator[SparseTensorProto]:
    if isinstance(scope, GraphProto):
        yield from scope.sparse_initializer
    for attribute in _attributes(scope):
        yield from attribute.sparse_tensors
        if attribute.HasField("sparse_tensor"):
            yield attribute.sparse_tensor
