"""The other graphs of an export: mapping, encoder, upscaler, watermark, compared with torch."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from models.encoder import Encoder
from models.generator import Generator
from models.manifest import (
    ENCODER_INPUT_NAMES,
    MAPPING_INPUT_NAMES,
    MAPPING_OUTPUT_NAME,
    PARITY_TOLERANCE,
    STYLE_OFFSET_NAME,
    UPSCALER_INPUT_NAMES,
    UPSCALER_OUTPUT_NAME,
    ParityCertificate,
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
from training.export.graphs import example_inputs, seal, trace
from training.export.parity import (
    PARITY_BATCHES,
    Case,
    certificate,
    check_parity,
    feeds,
    generate,
    worst_difference,
)
from training.learning.samplers import Arrays


class _Mapping(nn.Module):
    """z, category and truncation -> w, the style before any offset."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.mapping = generator.mapping

    def forward(self, z: Tensor, category: Tensor, truncation_psi: Tensor) -> Tensor:
        return self.mapping.truncate(self.mapping(z, category), category, truncation_psi)


def mapping_to_onnx(generator: Generator) -> bytes:
    """Export the mapping network with truncation, and compare its styles of every category.

    Raises:
        ExportError: The graph is not portable, or a value differs by more than the tolerance.
    """
    network, given = _Mapping(generator), example_inputs(generator)
    example = {name: given[name] for name in MAPPING_INPUT_NAMES}
    graph = seal(trace(network, example, MAPPING_OUTPUT_NAME))
    inputs = ({name: feed[name] for name in MAPPING_INPUT_NAMES} for feed in feeds(generator))
    worst = worst_difference(graph, _cases(network, inputs))
    certificate("mapping", worst, "fp32", generator)
    return graph


def encoder_to_onnx(encoder: Encoder, generator: Generator) -> tuple[bytes, ParityCertificate]:
    """Export the encoder, and compare its style offsets of generated images of every category.

    Raises:
        ExportError: The graph is not portable, or a value differs by more than the tolerance.
    """
    shape = encoder.shape
    images = torch.rand(2, shape.channels, shape.height, shape.width)
    category = torch.eye(shape.categories)[[0, -1]]
    example = dict(zip(ENCODER_INPUT_NAMES, (images, category), strict=True))
    graph = seal(trace(encoder, example, STYLE_OFFSET_NAME))
    generated = ((generate(generator, f).clip(-1, 1), f["category"]) for f in feeds(generator))
    inputs = (dict(zip(ENCODER_INPUT_NAMES, pair, strict=True)) for pair in generated)
    worst = worst_difference(graph, _cases(encoder, inputs))
    return graph, certificate("encoder", worst, "fp32", generator)


def upscaler_to_onnx(upscaler: Upscaler, generator: Generator) -> tuple[bytes, ParityCertificate]:
    """Export the upscaler, and compare its enlarged images of every category.

    Raises:
        ExportError: The graph is not portable, or a pixel differs by more than the tolerance.
    """
    shape, (name,) = generator.shape, UPSCALER_INPUT_NAMES
    example = {name: torch.rand(2, shape.channels, shape.height, shape.width)}
    graph = seal(trace(upscaler, example, UPSCALER_OUTPUT_NAME))
    inputs = ({name: generate(generator, feed).clip(-1, 1)} for feed in feeds(generator))
    worst = worst_difference(graph, _cases(upscaler, inputs))
    return graph, certificate("upscaler", worst, "fp32", generator)


def watermark_to_onnx(
    encoder: WatermarkEncoder, decoder: WatermarkDecoder
) -> tuple[tuple[bytes, bytes], float]:
    """Export a watermark's encoder and decoder, and compare them with torch.

    Returns:
        Both graphs, and the largest difference of patterns and logits, each relative to torch's
        largest value.

    Raises:
        ExportError: A graph is not portable, or the difference is over the tolerance.
    """
    images, bits = (3, PATTERN_PX, PATTERN_PX), (PAYLOAD_BITS,)
    networks: tuple[tuple[nn.Module, dict[str, tuple[int, ...]], str], ...] = (
        (encoder, dict(zip(ENCODER_NAMES, (images, bits), strict=True)), PATTERN_NAME),
        (decoder, dict.fromkeys(DECODER_NAMES, (3, FRAME_PX, FRAME_PX)), LOGIT_NAME),
    )
    random = np.random.default_rng(0)

    def inputs(shapes: dict[str, tuple[int, ...]]) -> Iterator[Arrays]:
        for batch in PARITY_BATCHES:
            yield {
                name: random.uniform(-1, 1, (batch, *shape)).astype(np.float32)
                for name, shape in shapes.items()
            }

    graphs, worst = [], 0.0
    for network, shapes, output in networks:
        example = {name: torch.rand(2, *shape) for name, shape in shapes.items()}
        graphs.append(seal(trace(network, example, output)))
        cases = _cases(network, inputs(shapes))
        worst = max(worst, worst_difference(graphs[-1], cases, relative=True))
    check_parity("watermark", worst, PARITY_TOLERANCE["fp32"])
    return (graphs[0], graphs[1]), worst


@torch.no_grad()
def _cases(network: nn.Module, inputs: Iterator[Arrays]) -> Iterator[Case]:
    """Pair inputs with torch's outputs."""
    for feed in inputs:
        yield feed, network(*(torch.from_numpy(a) for a in feed.values())).numpy()
