"""Loss of a lower precision: its images against those in float32 of the same seeds."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from models.generator import Generator
from models.manifest import LOSS_FLOOR_DB, ImageLoss
from training.export.graphs import ExportError, Precision
from training.export.parity import generate
from training.learning.recorder import to_pixels
from training.learning.samplers import Arrays, graph_inputs, open_graph

# More would change a PSNR by tenths of a decibel; with more categories, each has one image.
_IMAGES: Final = 100
_BATCH: Final = 10
_LARGEST: Final = 255
# Far away from the seeds that a graph is calibrated with.
_SEED: Final = 1_000_000


@dataclass(frozen=True)
class Setting:
    """Truncation and noise scale of generated images."""

    truncation_psi: float
    noise_scale: float


FULL_VARIETY: Final = Setting(truncation_psi=1.0, noise_scale=1.0)


def inputs(generator: Generator, setting: Setting, first_seed: int) -> Iterator[Arrays]:
    """Yield batches of the graph's inputs for images of every category."""
    categories = generator.shape.categories
    count = max(_IMAGES, categories)
    for start in range(0, count, _BATCH):
        labels = np.arange(start, min(start + _BATCH, count)) % categories
        yield graph_inputs(
            generator,
            labels,
            seed=first_seed + start,
            truncation_psi=setting.truncation_psi,
            noise_scale=setting.noise_scale,
        )


def measure_loss(
    generator: Generator, graph: bytes, precision: Precision, setting: Setting
) -> ImageLoss:
    """Compare the graph's images with torch's in float32.

    Raises:
        ExportError: They differ by more than the precision's limit.
    """
    session = open_graph(graph)
    steps = np.concatenate(
        [_steps(session, generator, feed) for feed in inputs(generator, setting, _SEED)]
    )
    squared = np.square(steps).mean(axis=1)
    loss = ImageLoss(
        truncation_psi=setting.truncation_psi,
        noise_scale=setting.noise_scale,
        pictures=len(steps),
        mean_steps=float(steps.mean()),
        max_steps=float(steps.max()),
        psnr_db=psnr(float(squared.mean())),
        worst_psnr_db=psnr(float(squared.max())),
    )
    floor = LOSS_FLOOR_DB[precision]
    if loss.psnr_db is not None and loss.psnr_db < floor:
        raise ExportError(
            f"{precision} changes this generator's images too much: PSNR "
            f"{loss.psnr_db:.1f} dB at truncation {setting.truncation_psi:g} against fp32, "
            f"under the floor of {floor:g} dB; export it as fp32"
        )
    return loss


def psnr(mean_squared_steps: float) -> float | None:
    """Peak signal-to-noise ratio of uint8 images in dB; None where nothing differs."""
    if not mean_squared_steps:
        return None
    return float(10 * np.log10(_LARGEST**2 / mean_squared_steps))


def describe(loss: ImageLoss) -> str:
    """Describe a loss in one line, for people."""
    ratio = "no pixel differs" if loss.psnr_db is None else f"PSNR {loss.psnr_db:.1f} dB"
    return (
        f"{ratio}, {loss.mean_steps:.2g} of 255 steps in the mean, {loss.max_steps:g} at most "
        f"(truncation {loss.truncation_psi:g}, {loss.pictures} images)"
    )


def _steps(session: Any, generator: Generator, feed: Arrays) -> NDArray[np.float32]:
    """Absolute differences in steps of 255, [N, values of an image]."""
    (from_graph,) = session.run(None, feed)
    images = (to_pixels(torch.from_numpy(a)) for a in (from_graph, generate(generator, feed)))
    onnx, in_torch = (one.reshape(len(one), -1).astype(np.float32) for one in images)
    steps: NDArray[np.float32] = np.abs(onnx - in_torch)
    return steps
