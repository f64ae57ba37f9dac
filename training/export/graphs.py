"""Networks -> ONNX graphs: self-contained, of standard operators, with a dynamic batch."""

import warnings
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import onnx
import onnxscript.optimizer
import torch
from torch import Tensor, nn

from models.encoder import Encoder
from models.generator import Generator
from models.manifest import (
    ENCODER_INPUT_NAMES,
    INPUT_NAMES,
    MAPPING_INPUT_NAMES,
    MAPPING_OUTPUT_NAME,
    OUTPUT_NAME,
    STYLE_OFFSET_NAME,
    UPSCALER_INPUT_NAMES,
    UPSCALER_OUTPUT_NAME,
)
from models.upscaler import Upscaler
from models.watermark import (
    DECODER_NAMES,
    ENCODER_NAMES,
    FRAME_PX,
    LOGIT_NAME,
    PATTERN_NAME,
    PATTERN_PX,
    PAYLOAD_BITS,
)
from models.watermark_networks import WatermarkDecoder, WatermarkEncoder
from training.learning.samplers import random_inputs

OPSET: Final = 20
FloatPrecision = Literal["fp32", "fp16"]
Precision = Literal["fp32", "fp16", "int8"]


class ExportError(RuntimeError):
    """The export failed or would not paint what torch paints; nothing was written."""


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


class _Mapping(nn.Module):
    """z, category and truncation -> w: what the generator starts from, before any offset."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.mapping = generator.mapping

    def forward(self, z: Tensor, category: Tensor, truncation_psi: Tensor) -> Tensor:
        return self.mapping.truncate(self.mapping(z, category), category, truncation_psi)


def to_onnx(generator: Generator, precision: FloatPrecision) -> bytes:
    """The generator's graph, whose input `style_offset` may be left out.

    Raises:
        ExportError: The graph would depend on other files or on operators of ours.
    """
    dtype = torch.float16 if precision == "fp16" else torch.float32
    z, category, noise = (torch.from_numpy(a) for a in probe(generator, 2))
    offset = torch.full((2, *generator.style_shape), 0.1)
    example = (z, category, torch.full((2,), 0.7), noise, offset)
    names = (*INPUT_NAMES, STYLE_OFFSET_NAME)
    model = _trace(_Graph(generator, dtype), example, names, OUTPUT_NAME)
    if precision == "fp16":
        model = _folded(model)
    _give_default(model, STYLE_OFFSET_NAME, np.zeros((1, *generator.style_shape), np.float32))
    return seal(model)


def mapping_to_onnx(generator: Generator) -> bytes:
    """The mapping network's graph, with truncation.

    Raises:
        ExportError: The graph would depend on other files or on operators of ours.
    """
    z, category, _ = (torch.from_numpy(a) for a in probe(generator, 2))
    example = (z, category, torch.full((2,), 0.7))
    return seal(_trace(_Mapping(generator), example, MAPPING_INPUT_NAMES, MAPPING_OUTPUT_NAME))


def encoder_to_onnx(encoder: Encoder) -> bytes:
    """The encoder's graph.

    Raises:
        ExportError: The graph would depend on other files or on operators of ours.
    """
    shape = encoder.shape
    category = torch.eye(shape.categories)[[0, -1]]
    example = (torch.rand(2, shape.channels, shape.height, shape.width), category)
    return seal(_trace(encoder, example, ENCODER_INPUT_NAMES, STYLE_OFFSET_NAME))


def upscaler_to_onnx(upscaler: Upscaler, size: tuple[int, int]) -> bytes:
    """The upscaler's graph for images of `size` (height, width).

    Raises:
        ExportError: The graph would depend on other files or on operators of ours.
    """
    example = (torch.rand(2, upscaler.shape.channels, *size),)
    return seal(_trace(upscaler, example, UPSCALER_INPUT_NAMES, UPSCALER_OUTPUT_NAME))


def watermark_to_onnx(encoder: WatermarkEncoder, decoder: WatermarkDecoder) -> tuple[bytes, bytes]:
    """The graphs of a watermark's encoder and decoder.

    Raises:
        ExportError: A graph would depend on other files or on operators of ours.
    """
    pictures, bits = torch.rand(2, 3, PATTERN_PX, PATTERN_PX), torch.ones(2, PAYLOAD_BITS)
    frames = torch.rand(2, 3, FRAME_PX, FRAME_PX)
    return (
        seal(_trace(encoder, (pictures, bits), ENCODER_NAMES, PATTERN_NAME)),
        seal(_trace(decoder, (frames,), DECODER_NAMES, LOGIT_NAME)),
    )


def probe(generator: Generator, count: int, labels: Any = None) -> tuple[Any, Any, Any]:
    """Inputs z, category and noise of `count` pictures or of `labels`; the first seeds them."""
    labels = np.arange(count) % generator.shape.categories if labels is None else labels
    return random_inputs(
        labels,
        categories=generator.shape.categories,
        z_dim=generator.z_dim,
        noise_dim=generator.noise_dim,
        seed=int(labels[0]),
    )


def _trace(
    module: nn.Module, example: tuple[Tensor, ...], inputs: Sequence[str], output: str
) -> onnx.ModelProto:
    """Trace with a dynamic batch; only standard operators."""
    batch = torch.export.Dim("batch", min=1, max=4096)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own making
        program = torch.onnx.export(
            module.eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=tuple({0: batch} for _ in inputs),
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


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Compute all that depends on weights alone, so that they are stored as they are used."""
    size = onnx.checker.MAXIMUM_PROTOBUF
    folded: onnx.ModelProto = onnxscript.optimizer.optimize(
        model, input_size_limit=size, output_size_limit=size
    )
    return folded


def _give_default(model: onnx.ModelProto, name: str, value: np.ndarray[Any, Any]) -> None:
    """Let callers leave out the input `name`: an initializer of that name is its default.

    The default has a batch of one whatever the other inputs' batch, so the input's batch gets
    a name of its own: a runtime may hold equal names to be equal sizes.
    """
    model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    (declared,) = [entry for entry in model.graph.input if entry.name == name]
    declared.type.tensor_type.shape.dim[0].dim_param = f"{name}_batch"


def seal(model: onnx.ModelProto) -> bytes:
    """Check, and drop the tracer's notes: they hold paths of the machine that exported."""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))
