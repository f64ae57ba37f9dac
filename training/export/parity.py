"""How far ONNX Runtime is from torch on the trained weights."""

import logging
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from models.encoder import Encoder
from models.generator import Generator
from models.manifest import (
    ENCODER_INPUT_NAMES,
    INPUT_NAMES,
    MAPPING_INPUT_NAMES,
    PARITY_TOLERANCE,
    STYLE_OFFSET_NAME,
    UPSCALER_INPUT_NAMES,
    ParityCertificate,
)
from models.upscaler import Upscaler
from models.watermark import (
    DECODER_NAMES,
    ENCODER_NAMES,
    FRAME_PX,
    PATTERN_PX,
    PAYLOAD_BITS,
)
from models.watermark_networks import WatermarkDecoder, WatermarkEncoder
from training.export.graphs import ExportError, Precision, probe

logger = logging.getLogger(__name__)

PARITY_PSI: Final = (0.5, 1.0)
PARITY_BATCHES: Final = (1, 2, 7)
# Standard deviation of the offsets to paint with: what an encoder gives is about as large.
_OFFSET_SCALE: Final = 0.3

Arrays = dict[str, NDArray[np.float32]]


def open_graph(graph: bytes) -> Any:
    """A session on the CPU; silent about the optional input, which costs it no speed."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def measure_parity(generator: Generator, graph: bytes, precision: Precision) -> ParityCertificate:
    """Compare pictures of every category at several psi and batch sizes.

    Without `style_offset`, as most callers do, and with it.

    Raises:
        ExportError: A pixel differs by more than the precision's tolerance.
    """
    session = open_graph(graph)
    random = np.random.default_rng(0)
    worst = 0.0
    for feed in _feeds(generator):
        offset = random.standard_normal((len(feed["z"]), *generator.style_shape), np.float32)
        for given in (feed, feed | {STYLE_OFFSET_NAME: offset * np.float32(_OFFSET_SCALE)}):
            worst = max(worst, _difference(session, paint(generator, given), given))
    return _certificate("generator", worst, PARITY_TOLERANCE[precision], generator)


@torch.no_grad()
def measure_mapping_parity(generator: Generator, graph: bytes) -> ParityCertificate:
    """Compare the styles of every category at several psi and batch sizes.

    Raises:
        ExportError: A value differs by more than the tolerance.
    """
    session = open_graph(graph)
    worst = 0.0
    for feed in _feeds(generator):
        given = {name: feed[name] for name in MAPPING_INPUT_NAMES}
        z, category, psi = (torch.from_numpy(a) for a in given.values())
        w = generator.mapping.truncate(generator.mapping(z, category), category, psi)
        worst = max(worst, _difference(session, w.numpy(), given))
    return _certificate("mapping", worst, PARITY_TOLERANCE["fp32"], generator)


@torch.no_grad()
def measure_encoder_parity(
    encoder: Encoder, generator: Generator, graph: bytes
) -> ParityCertificate:
    """Compare the style offsets of generated pictures of every category.

    Raises:
        ExportError: A value differs by more than the tolerance.
    """
    session = open_graph(graph)
    worst = 0.0
    for feed in _feeds(generator):
        images = paint(generator, feed).clip(-1, 1)
        given = dict(zip(ENCODER_INPUT_NAMES, (images, feed["category"]), strict=True))
        offsets = encoder(*(torch.from_numpy(a) for a in given.values()))
        worst = max(worst, _difference(session, offsets.numpy(), given))
    return _certificate("encoder", worst, PARITY_TOLERANCE["fp32"], generator)


@torch.no_grad()
def measure_upscaler_parity(
    upscaler: Upscaler, generator: Generator, graph: bytes
) -> ParityCertificate:
    """Compare enlarged images of every category.

    Raises:
        ExportError: A pixel differs by more than the tolerance.
    """
    session = open_graph(graph)
    worst = 0.0
    for feed in _feeds(generator):
        images = paint(generator, feed).clip(-1, 1)
        expected = upscaler(torch.from_numpy(images)).numpy()
        given = dict(zip(UPSCALER_INPUT_NAMES, (images,), strict=True))
        worst = max(worst, _difference(session, expected, given))
    return _certificate("upscaler", worst, PARITY_TOLERANCE["fp32"], generator)


@torch.no_grad()
def measure_watermark_parity(
    encoder: WatermarkEncoder, decoder: WatermarkDecoder, graphs: tuple[bytes, bytes]
) -> float:
    """The largest difference of patterns and logits, each over the largest value of torch's.

    Raises:
        ExportError: It is over the tolerance.
    """
    random, worst = np.random.default_rng(0), 0.0
    shapes: tuple[dict[str, tuple[int, ...]], ...] = (
        {
            ENCODER_NAMES[0]: (3, PATTERN_PX, PATTERN_PX),
            ENCODER_NAMES[1]: (PAYLOAD_BITS,),
        },
        {DECODER_NAMES[0]: (3, FRAME_PX, FRAME_PX)},
    )
    for network, graph, inputs in zip((encoder, decoder), graphs, shapes, strict=True):
        session = open_graph(graph)
        for batch in PARITY_BATCHES:
            feed = {
                name: random.uniform(-1, 1, (batch, *shape)).astype(np.float32)
                for name, shape in inputs.items()
            }
            theirs = network(*(torch.from_numpy(a) for a in feed.values())).numpy()
            worst = max(worst, _difference(session, theirs, feed) / float(np.abs(theirs).max()))
    tolerance = PARITY_TOLERANCE["fp32"]
    if not worst <= tolerance:
        raise ExportError(
            f"watermark: ONNX Runtime differs from torch by {worst:.2g}, over the tolerance of "
            f"{tolerance:g}"
        )
    return worst


def _feeds(generator: Generator) -> Iterator[Arrays]:
    """Inputs that cover every category in each batch size and psi."""
    categories = generator.shape.categories
    for psi in PARITY_PSI:
        for batch in PARITY_BATCHES:
            for first in range(0, categories, batch):
                labels = (first + np.arange(batch)) % categories
                z, category, noise = probe(generator, batch, labels)
                truncation_psi = np.full(batch, psi, dtype=np.float32)
                yield dict(zip(INPUT_NAMES, (z, category, truncation_psi, noise), strict=True))


@torch.no_grad()
def paint(generator: Generator, feed: Arrays) -> NDArray[np.float32]:
    """Torch's pictures [N, C, H, W] in float32, for a graph's inputs."""
    z, category, psi, noise = (torch.from_numpy(feed[name]) for name in INPUT_NAMES)
    given = feed.get(STYLE_OFFSET_NAME)
    offset = None if given is None else torch.from_numpy(given)
    images: NDArray[np.float32] = generator(z, category, psi, noise, style_offset=offset).numpy()
    return images


def _difference(session: Any, theirs: NDArray[np.float32], feed: Arrays) -> float:
    """Largest absolute difference of one batch."""
    (ours,) = session.run(None, feed)
    return float(np.abs(ours - theirs).max())


def _certificate(
    what: str, worst: float, tolerance: float, generator: Generator
) -> ParityCertificate:
    if not worst <= tolerance:  # not a number, too
        raise ExportError(
            f"{what}: ONNX Runtime differs from torch by {worst:.2g}, over the tolerance of "
            f"{tolerance:g}"
        )
    categories = generator.shape.categories
    logger.info("parity of the %s: at most %.2g off over %d categories", what, worst, categories)
    return ParityCertificate(
        max_abs_error=worst,
        tolerance=tolerance,
        truncation_psi=PARITY_PSI,
        batch_sizes=PARITY_BATCHES,
        categories=categories,
        torch_version=torch.__version__,
        onnxruntime_version=onnxruntime.__version__,
    )
