"""Measures how far ONNX Runtime's outputs differ from torch's on the trained weights."""

import logging
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from models.generator import Generator
from models.manifest import INPUT_NAMES, PARITY_TOLERANCE, STYLE_OFFSET_NAME, ParityCertificate
from training.export.graphs import ExportError, Precision
from training.learning.samplers import Arrays, graph_inputs, open_graph

logger = logging.getLogger(__name__)

PARITY_PSI: Final = (0.5, 1.0)
PARITY_BATCHES: Final = (1, 2, 7)
# Standard deviation of the style offsets: an encoder's are about as large.
_OFFSET_SCALE: Final = 0.3

# Inputs of a graph, and torch's output for them.
Case = tuple[Arrays, NDArray[np.float32]]


def measure_parity(generator: Generator, graph: bytes, precision: Precision) -> ParityCertificate:
    """Compare images of every category at several psi and batch sizes.

    They are compared without `style_offset`, as in most requests, and with it.

    Raises:
        ExportError: A pixel differs by more than the precision's tolerance.
    """
    random = np.random.default_rng(0)

    def cases() -> Iterator[Case]:
        for feed in feeds(generator):
            offset = random.standard_normal((len(feed["z"]), *generator.style_shape), np.float32)
            for given in (feed, feed | {STYLE_OFFSET_NAME: offset * np.float32(_OFFSET_SCALE)}):
                yield given, generate(generator, given)

    return certificate("generator", worst_difference(graph, cases()), precision, generator)


def feeds(generator: Generator) -> Iterator[Arrays]:
    """Yield inputs that cover every category in each batch size and psi."""
    categories = generator.shape.categories
    for psi in PARITY_PSI:
        for batch in PARITY_BATCHES:
            for first in range(0, categories, batch):
                labels = (first + np.arange(batch)) % categories
                yield graph_inputs(generator, labels, seed=int(labels[0]), truncation_psi=psi)


@torch.no_grad()
def generate(generator: Generator, feed: Arrays) -> NDArray[np.float32]:
    """Generate images [N, C, H, W] with torch in float32, from a graph's inputs."""
    z, category, psi, noise = (torch.from_numpy(feed[name]) for name in INPUT_NAMES)
    given = feed.get(STYLE_OFFSET_NAME)
    offset = None if given is None else torch.from_numpy(given)
    images: NDArray[np.float32] = generator(z, category, psi, noise, style_offset=offset).numpy()
    return images


def worst_difference(graph: bytes, cases: Iterable[Case], *, relative: bool = False) -> float:
    """Largest absolute difference from torch; `relative` to torch's largest value of a batch."""
    session = open_graph(graph)
    differences = []
    for feed, expected in cases:
        (output,) = session.run(None, feed)
        scale = float(np.abs(expected).max()) if relative else 1.0
        differences.append(float(np.abs(output - expected).max()) / scale)
    return float(np.max(differences))


def check_parity(what: str, worst: float, tolerance: float) -> None:
    """Raise ExportError if a difference is over the tolerance."""
    if not worst <= tolerance:  # also if it is not a number
        raise ExportError(
            f"{what}: ONNX Runtime differs from torch by {worst:.2g}, over the tolerance of "
            f"{tolerance:g}"
        )


def certificate(
    what: str, worst: float, precision: Precision, generator: Generator
) -> ParityCertificate:
    """Certify a graph whose largest difference is `worst`; raises ExportError over tolerance."""
    tolerance = PARITY_TOLERANCE[precision]
    check_parity(what, worst, tolerance)
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
