"""Networks -> ONNX graphs: self-contained, of standard operators, with a dynamic batch."""

import warnings
from typing import Any, Final, Literal

import numpy as np
import onnx
import onnxscript.optimizer
import torch
from torch import Tensor, nn

from models.generator import Generator
from models.manifest import OUTPUT_NAME, STYLE_OFFSET_NAME
from training.learning.samplers import graph_inputs

OPSET: Final = 20
FloatPrecision = Literal["fp32", "fp16"]
Precision = Literal["fp32", "fp16", "int8"]


class ExportError(RuntimeError):
    """The export failed or would differ from torch; nothing was written."""


class _Graph(nn.Module):
    """The exported signature: float32 in and out, feature maps in the chosen precision."""

    def __init__(self, generator: Generator, dtype: torch.dtype) -> None:
        super().__init__()
        self.generator = generator
        self.dtype = dtype

    def forward(
        self,
        z: Tensor,
        category: Tensor,
        truncation_psi: Tensor,
        noise: Tensor,
        style_offset: Tensor,
    ) -> Tensor:
        images: Tensor = self.generator(
            z, category, truncation_psi, noise, self.dtype, style_offset
        )
        return images


def to_onnx(generator: Generator, precision: FloatPrecision) -> bytes:
    """Export the generator's graph, whose input `style_offset` is optional.

    Raises:
        ExportError: The graph uses non-standard operators.
    """
    dtype = torch.float16 if precision == "fp16" else torch.float32
    offset = torch.full((2, *generator.style_shape), 0.1)
    example = example_inputs(generator) | {STYLE_OFFSET_NAME: offset}
    model = trace(_Graph(generator, dtype), example, OUTPUT_NAME)
    if precision == "fp16":  # fold constants, so that weights are stored as they are used
        size = onnx.checker.MAXIMUM_PROTOBUF
        model = onnxscript.optimizer.optimize(model, input_size_limit=size, output_size_limit=size)
    _give_default(model, STYLE_OFFSET_NAME, np.zeros((1, *generator.style_shape), np.float32))
    return seal(model)


def example_inputs(generator: Generator) -> dict[str, Tensor]:
    """Build inputs to trace a generator with."""
    labels = np.arange(2) % generator.shape.categories
    given = graph_inputs(generator, labels, seed=0, truncation_psi=0.7)
    return {name: torch.from_numpy(array) for name, array in given.items()}


def trace(module: nn.Module, example: dict[str, Tensor], output: str) -> onnx.ModelProto:
    """Trace with a dynamic batch and inputs named as in `example`; refuse custom operators."""
    batch = torch.export.Dim("batch", min=1, max=4096)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own code
        program = torch.onnx.export(
            module.eval(),
            tuple(example.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(example),
            output_names=[output],
            dynamic_shapes=tuple({0: batch} for _ in example),
            optimize=True,
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    for entry in (model.graph.node, *(f.node for f in model.functions)):
        foreign = {node.domain for node in entry} - {"", "ai.onnx"}
        if foreign:
            raise ExportError(f"the graph uses operators of {', '.join(sorted(foreign))}")
    return model


def _give_default(model: onnx.ModelProto, name: str, value: np.ndarray[Any, Any]) -> None:
    """Make the input `name` optional: an initializer of that name is its default.

    The default has a batch of one whatever the other inputs' batch, so the input's batch gets
    its own name: a runtime may assume that equal names mean equal sizes.
    """
    model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    (declared,) = [entry for entry in model.graph.input if entry.name == name]
    declared.type.tensor_type.shape.dim[0].dim_param = f"{name}_batch"


def seal(model: onnx.ModelProto) -> bytes:
    """Check the graph, and remove the tracer's metadata: it contains paths of this machine."""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))
