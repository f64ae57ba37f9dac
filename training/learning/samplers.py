"""Pictures from a training run or an export, by labels and a seed: what evaluation judges."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

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


def random_inputs(
    labels: NDArray[np.int64],
    *,
    categories: int,
    z_dim: int,
    noise_dim: int,
    seed: int,
    noise_scale: float = 1.0,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Latents z [N, z_dim], one-hot category [N, categories] and noise [N, noise_dim]."""
    random = np.random.default_rng(seed)
    z = random.standard_normal((len(labels), z_dim), dtype=np.float32)
    noise = random.standard_normal((len(labels), noise_dim), dtype=np.float32)
    return z, np.eye(categories, dtype=np.float32)[labels], noise * np.float32(noise_scale)


class GeneratorSampler:
    """A generator in torch."""

    def __init__(self, generator: Generator, categories: tuple[str, ...]) -> None:
        """Sample from `generator` where it is; its labels index `categories`."""
        self.generator = generator
        self.categories = categories

    @torch.no_grad()
    def sample(
        self,
        labels: NDArray[np.int64],
        *,
        seed: int,
        truncation_psi: float = 1.0,
        noise_scale: float = 1.0,
    ) -> NDArray[np.uint8]:
        """See training.evaluation.generated.Sampler."""
        inputs = random_inputs(
            labels,
            categories=len(self.categories),
            z_dim=self.generator.z_dim,
            noise_dim=self.generator.noise_dim,
            seed=seed,
            noise_scale=noise_scale,
        )
        parts = [
            _paint(self.generator, [a[i : i + BATCH] for a in inputs], truncation_psi)
            for i in range(0, len(labels), BATCH)
        ]
        return np.concatenate(parts)


class RunSampler(GeneratorSampler):
    """The averaged generator of a run."""

    def __init__(
        self, run: Path, device: torch.device | None = None, snapshot: Snapshot = "last"
    ) -> None:
        """Load the newest whole checkpoint of `run`, or its best snapshot."""
        generator, self.config, self.info, self.nimg = load_generator(run, snapshot)
        super().__init__(generator.to(device or torch.device("cpu")), self.info.categories)


def _paint(
    generator: Generator, arrays: list[NDArray[np.float32]], truncation_psi: float
) -> NDArray[np.uint8]:
    device = generator.mapping.w_avg.device
    z, category, noise = (torch.from_numpy(a).to(device) for a in arrays)
    psi = torch.full((len(z),), truncation_psi, device=device)
    return to_pixels(generator(z, category, psi, noise))


class ExportSampler:
    """An export, in ONNX Runtime on the CPU."""

    def __init__(self, export: Path) -> None:
        """Load `export` after checking its hashes.

        Raises:
            ManifestError: A file is missing or not the one that was exported.
        """
        import onnxruntime

        try:
            text = (export / MANIFEST_FILE).read_bytes()
            self.manifest = GeneratorManifest.model_validate_json(text)
            self.manifest.verify_files(lambda name: (export / name).read_bytes())
        except (OSError, ValidationError) as error:
            raise ManifestError(f"{export} is no usable export: {first_fault(error)}") from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # silent about the optional input
        self.session = onnxruntime.InferenceSession(
            str(export / GENERATOR_FILE), options, providers=["CPUExecutionProvider"]
        )

    @property
    def categories(self) -> tuple[str, ...]:
        """Names that labels index."""
        return self.manifest.categories

    @property
    def nimg(self) -> int:
        """Images that the generator had seen."""
        return self.manifest.nimg

    def sample(
        self,
        labels: NDArray[np.int64],
        *,
        seed: int,
        truncation_psi: float = 1.0,
        noise_scale: float = 1.0,
    ) -> NDArray[np.uint8]:
        """See training.evaluation.generated.Sampler."""
        manifest = self.manifest
        z, category, noise = random_inputs(
            labels,
            categories=len(manifest.categories),
            z_dim=manifest.z_dim,
            noise_dim=manifest.noise_dim,
            seed=seed,
            noise_scale=noise_scale,
        )
        psi = np.full(len(labels), truncation_psi, dtype=np.float32)
        arrays = dict(zip(INPUT_NAMES, (z, category, psi, noise), strict=True))
        parts = []
        for i in range(0, len(labels), BATCH):
            feed: dict[str, Any] = {name: array[i : i + BATCH] for name, array in arrays.items()}
            (images,) = self.session.run([OUTPUT_NAME], feed)
            parts.append(to_pixels(torch.from_numpy(images)))
        return np.concatenate(parts)


def open_sampler(
    path: Path, device: torch.device | None = None, snapshot: Snapshot = "last"
) -> RunSampler | ExportSampler:
    """A run or an export, by what lies in the folder; `snapshot` is for a run.

    Raises:
        RunError: It is neither.
    """
    if (path / MANIFEST_FILE).exists():
        return ExportSampler(path)
    if not path.is_dir():
        raise RunError(f"{path} is neither a run nor an export: there is no such folder")
    return RunSampler(path, device, snapshot)
