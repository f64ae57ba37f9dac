"""Graphs that reach beyond themselves, however they hide it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.errors import OperatorError
from service.model_store.inspection import inspect_export


def external_tensor(name: str) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def subgraph(tensor: TensorProto) -> Any:
    output = helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, [1])
    return helper.make_graph([], "hidden", [], [output], [tensor])


def in_initializer(model: Any) -> None:
    model.graph.initializer.append(external_tensor("w"))


def in_location_without_flag(model: Any) -> None:
    tensor = numpy_helper.from_array(np.zeros(1, dtype=np.float32), "w")
    tensor.external_data.add(key="location", value="weights.bin")
    model.graph.initializer.append(tensor)


def in_constant(model: Any) -> None:
    model.graph.node.append(
        helper.make_node("Constant", [], ["unused"], value=external_tensor("w"))
    )


def in_subgraph(model: Any) -> None:
    # An operator that is not refused itself, with a graph where nobody would look for one.
    node = helper.make_node("Identity", ["z"], ["unused"])
    node.attribute.append(helper.make_attribute("body", subgraph(external_tensor("w"))))
    model.graph.node.append(node)


def in_list_of_graphs(model: Any) -> None:
    node = helper.make_node("Identity", ["z"], ["unused"])
    node.attribute.append(helper.make_attribute("bodies", [subgraph(external_tensor("w"))]))
    model.graph.node.append(node)


def in_list_of_tensors(model: Any) -> None:
    node = helper.make_node("Identity", ["z"], ["unused"])
    node.attribute.append(helper.make_attribute("values", [external_tensor("w")]))
    model.graph.node.append(node)


def in_sparse_initializer(model: Any) -> None:
    indices = numpy_helper.from_array(np.zeros(1, dtype=np.int64), "i")
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(external_tensor("w"), indices, [4])
    )


def in_sparse_attribute(model: Any) -> None:
    indices = numpy_helper.from_array(np.zeros(1, dtype=np.int64), "i")
    sparse = helper.make_sparse_tensor(external_tensor("w"), indices, [4])
    node = helper.make_node("Constant", [], ["unused"])
    node.attribute.append(helper.make_attribute("sparse_value", sparse))
    model.graph.node.append(node)


def in_function(model: Any) -> None:
    constant = helper.make_node("Constant", [], ["y"], value=external_tensor("w"))
    opset = [helper.make_opsetid("", 20)]
    model.functions.append(helper.make_function("local", "F", [], ["y"], [constant], opset))


@pytest.mark.parametrize(
    "hide",
    [
        in_initializer,
        in_location_without_flag,
        in_constant,
        in_subgraph,
        in_list_of_graphs,
        in_list_of_tensors,
        in_sparse_initializer,
        in_sparse_attribute,
        in_function,
    ],
)
def test_external_data_is_found_wherever_it_hides(
    make_export: Callable[..., Path], make_graph: Callable[..., Any], hide: Callable[[Any], None]
) -> None:
    model = make_graph()
    hide(model)
    with pytest.raises(OperatorError, match="keeps its data in another file"):
        inspect_export(make_export(model))


def custom(model: Any) -> None:
    model.graph.node.append(helper.make_node("PyOp", ["z"], ["unused"], domain="ai.onnx.contrib"))


def microsoft(model: Any) -> None:
    model.graph.node.append(helper.make_node("Gelu", ["z"], ["unused"], domain="com.microsoft"))


def machine_learning(model: Any) -> None:
    model.graph.node.append(helper.make_node("Scaler", ["z"], ["unused"], domain="ai.onnx.ml"))


def custom_in_function(model: Any) -> None:
    node = helper.make_node("Evil", [], ["y"], domain="evil")
    opset = [helper.make_opsetid("evil", 1)]
    model.functions.append(helper.make_function("local", "F", [], ["y"], [node], opset))


def custom_in_subgraph(model: Any) -> None:
    node = helper.make_node("Identity", ["z"], ["unused"])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    body = helper.make_graph(
        [helper.make_node("Evil", [], ["y"], domain="evil")], "b", [], [output]
    )
    node.attribute.append(helper.make_attribute("body", body))
    model.graph.node.append(node)


@pytest.mark.parametrize(
    "add", [custom, microsoft, machine_learning, custom_in_function, custom_in_subgraph]
)
def test_custom_operators_are_refused(
    make_export: Callable[..., Path], make_graph: Callable[..., Any], add: Callable[[Any], None]
) -> None:
    model = make_graph()
    add(model)
    with pytest.raises(OperatorError, match="is a custom operator"):
        inspect_export(make_export(model))


@pytest.mark.parametrize("operator", ["Loop", "If", "Scan", "RandomNormal", "RandomUniformLike"])
def test_loops_and_chance_are_refused(
    make_export: Callable[..., Path], make_graph: Callable[..., Any], operator: str
) -> None:
    model = make_graph()
    model.graph.node.append(helper.make_node(operator, [], ["unused"]))
    with pytest.raises(OperatorError, match=f"operator {operator} is not accepted"):
        inspect_export(make_export(model))


def test_other_refusals(make_export: Callable[..., Path], make_graph: Callable[..., Any]) -> None:
    model = make_graph()
    model.opset_import[0].version = 99
    with pytest.raises(OperatorError, match="opset 99"):
        inspect_export(make_export(model, opset=99))
    model = make_graph()
    model.training_info.add()
    with pytest.raises(OperatorError, match="training graphs"):
        inspect_export(make_export(model))
    model = make_graph()
    model.graph.node[-1].op_type = "Log"
    with pytest.raises(OperatorError, match="not finite"):
        inspect_export(make_export(model))
    model = make_graph()
    for tensor in model.graph.initializer:
        if tensor.name == "kernel":
            tensor.raw_data = bytes(len(tensor.raw_data))
    with pytest.raises(OperatorError, match="one colour"):
        inspect_export(make_export(model))


def test_bytes_that_are_no_graph(make_export: Callable[..., Path]) -> None:
    class Garbage:
        def SerializeToString(self) -> bytes:
            return b"\xff" * 100

    with pytest.raises(OperatorError, match="no ONNX model"):
        inspect_export(make_export(Garbage()))


def test_a_trained_export_passes(trained_export: Path) -> None:
    manifest, files = inspect_export(trained_export)
    assert set(files) == {"manifest.json", *manifest.files}
    assert onnx.load_model_from_string(files["generator.onnx"]).graph.node
