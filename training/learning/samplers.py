"""Generates images from a training run or an export, by labels and a seed, for evaluation."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from models.generator import Generator
from models.manifest import (
    GENERATOR_FILE,
    INPUT_NAMES,
    MANIFEST_FILE,
    OUTPUT_NAME,
    GeneratorManifest,
    ManifestError,
)
from training.faults import first_fault
from training.learning.config import Snapshot
from training.learning.recorder import to_pixels
from training.learning.run import RunError, load_generator

BATCH = 64
Arrays = dict[str, NDArray[np.float32]]


def graph_inputs(
    model: Generator | GeneratorManifest,
    labels: NDArray[np.int64],
    *,
    seed: int,
    truncation_psi: float,
    noise_scale: float = 1.0,
) -> Arrays:
    """Draw a generator's inputs for images of `labels` [N], by INPUT_NAMES."""
    categories = model.shape.categories if isinstance(model, Generator) else len(model.categories)
    random = np.random.default_rng(seed)
    z = random.standard_normal((len(labels), model.z_dim), dtype=np.float32)
    noise = random.standard_normal((len(labels), model.noise_dim), dtype=np.float32)
    category = np.eye(categories, dtype=np.float32)[labels]
    psi = np.full(len(labels), truncation_psi, dtype=np.float32)
    inputs = (z, category, psi, noise * np.float32(noise_scale))
    return dict(zip(INPUT_NAMES, inputs, strict=True))


def open_graph(graph: bytes | str) -> Any:
    """Open an ONNX Runtime session of a graph, or of its file, on the CPU.

    Warnings are off: each session warns about the optional input, which costs no speed.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class Sampler(ABC):
    """Generates images: of a run or an export.

    Attributes:
        categories: Names that labels index.
    """

    def __init__(self, model: Generator | GeneratorManifest, categories: tuple[str, ...]) -> None:
        self._model, self.categories = model, categories

    def sample(
        self,
        labels: NDArray[np.int64],
        *,
        seed: int,
        truncation_psi: float = 1.0,
        noise_scale: float = 1.0,
    ) -> NDArray[np.uint8]:
        """Generate images [N, height, width, channels] of categories[labels], fixed by `seed`.

        Evaluation samples in batches, each with its own seed: the evaluation's plus the number
        of images before the batch.
        """
        inputs = graph_inputs(
            self._model, labels, seed=seed, truncation_psi=truncation_psi, noise_scale=noise_scale
        )
        starts = range(0, len(labels), BATCH)
        batches = ({name: a[i : i + BATCH] for name, a in inputs.items()} for i in starts)
        return np.concatenate([to_pixels(self._generate(batch)) for batch in batches])

    @abstractmethod
    def _generate(self, inputs: Arrays) -> Tensor:
        """Generate images [N, C, H, W] in [-1, 1] for one batch of inputs."""


class GeneratorSampler(Sampler):
    """A generator in torch, sampled on its own device."""

    def __init__(self, generator: Generator, categories: tuple[str, ...]) -> None:
        super().__init__(generator, categories)
        self.generator = generator

    @torch.no_grad()
    def _generate(self, inputs: Arrays) -> Tensor:
        device = self.generator.mapping.w_avg.device
        images: Tensor = self.generator(*(torch.from_numpy(a).to(device) for a in inputs.values()))
        return images


class RunSampler(GeneratorSampler):
    """The averaged generator of a run."""

    def __init__(
        self, run: Path, device: torch.device | None = None, snapshot: Snapshot = "last"
    ) -> None:
        """Load the newest intact checkpoint of `run`, or its best snapshot."""
        generator, self.config, self.info, self.nimg = load_generator(run, snapshot)
        super().__init__(generator.to(device or torch.device("cpu")), self.info.categories)


class ExportSampler(Sampler):
    """An export, in ONNX Runtime on the CPU."""

    def __init__(self, export: Path) -> None:
        """Load `export` after checking its hashes.

        Raises:
            ManifestError: A file is missing or differs from the exported one.
        """
        try:
            text = (export / MANIFEST_FILE).read_bytes()
            manifest = GeneratorManifest.model_validate_json(text)
            manifest.verify_files(lambda name: (export / name).read_bytes())
        except (OSError, ValidationError) as error:
            raise ManifestError(f"{export} is no usable export: {first_fault(error)}") from error
        super().__init__(manifest, manifest.categories)
        self.nimg = manifest.nimg
        self.session = open_graph(str(export / GENERATOR_FILE))

    def _generate(self, inputs: Arrays) -> Tensor:
        (images,) = self.session.run([OUTPUT_NAME], inputs)
        return torch.from_numpy(images)


def open_sampler(
    path: Path, device: torch.device | None = None, snapshot: Snapshot = "last"
) -> RunSampler | ExportSampler:
    """Open a run or an export, whichever the folder contains; `snapshot` is for a run.

    Raises:
        RunError: It is neither.
    """
    if (path / MANIFEST_FILE).exists():
        return ExportSampler(path)
    if not path.is_dir():
        raise RunError(f"{path} is neither a run nor an export: there is no such folder")
    return RunSampler(path, device, snapshot)
