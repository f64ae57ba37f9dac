"""Trained weights to start from: a run, an export, a registered model, or a shipped base."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import safetensors.torch
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor

from models.generator import Generator, GeneratorShape
from models.manifest import MANIFEST_FILE, WEIGHTS_FILE, GeneratorManifest, ManifestError
from models.pyramid import Pyramid
from training.bases import base_names, base_path
from training.faults import first_fault
from training.learning.checkpoint import load_newest
from training.learning.config import ModelConfig
from training.learning.run import CONFIG_FILE, RunError, read_run

BASE_PREFIX: Final = "base:"
_TAG: Final = re.compile(r"[a-z0-9][a-z0-9_.-]*:[a-z0-9][a-z0-9_.-]*")
Weights = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Weights of a trained pair of networks, with its sizes and categories."""

    name: str
    model: ModelConfig
    categories: tuple[str, ...]
    height: int
    width: int
    channels: int
    generator: Weights
    discriminator: Weights

    @property
    def pyramid(self) -> Pyramid:
        """Resolutions of its images."""
        return Pyramid.of(self.height, self.width)

    def build_generator(self) -> Generator:
        """Build its generator with its weights."""
        generator = Generator(
            GeneratorShape(
                height=self.height,
                width=self.width,
                channels=self.channels,
                categories=len(self.categories),
                **self.model.model_dump(),
            )
        )
        generator.load_state_dict(self.generator)
        # A run updates its mean styles with its grids, not with its checkpoints.
        generator.eval().requires_grad_(False).update_w_avg()
        return generator


def open_source(text: str) -> Source:
    """Read RUN, EXPORT, `model:version` of the Model Store, or `base:name`.

    Raises:
        RunError: It does not exist, or has no weights to start from.
        CheckpointError: None of the run's checkpoints is intact.
    """
    path = Path(text)
    if text.startswith(BASE_PREFIX):
        return _open_export(_base(text.removeprefix(BASE_PREFIX)), text)
    if (path / MANIFEST_FILE).is_file():
        return _open_export(path, text)
    if (path / CONFIG_FILE).is_file():
        return _open_run(path, text)
    if not path.exists() and _TAG.fullmatch(text):
        return _open_export(_registered(text), text)
    raise RunError(
        f"--from {text}: neither a run, nor an export, nor a registered model:version, nor "
        f"one of {', '.join(BASE_PREFIX + name for name in base_names()) or 'the shipped bases'}"
    )


def _base(name: str) -> Path:
    if name not in base_names():
        known = ", ".join(BASE_PREFIX + known for known in base_names()) or "none"
        raise RunError(f"--from {BASE_PREFIX}{name}: there is no such base; shipped: {known}")
    return base_path(name)


def _registered(tag: str) -> Path:
    import bentoml
    from bentoml.exceptions import BentoMLException

    try:
        return Path(bentoml.models.get(tag).path)
    except BentoMLException as error:
        raise RunError(
            f"--from {tag}: {error}; `catalogan models list` shows what is registered"
        ) from error


def _open_run(run: Path, name: str) -> Source:
    config, info = read_run(run)
    state = load_newest(run)
    return Source(
        name=name,
        model=config.model,
        categories=info.categories,
        height=info.height,
        width=info.width,
        channels=info.channels,
        generator=state["ema"],
        discriminator=state["discriminator"],
    )


def _open_export(folder: Path, name: str) -> Source:
    try:
        manifest = GeneratorManifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
        if WEIGHTS_FILE not in manifest.files:
            raise RunError(
                f"--from {name}: it was exported without {WEIGHTS_FILE}; export the run again, "
                "or start from the run itself"
            )
        manifest.verify_files(lambda file: (folder / file).read_bytes())
        weights = safetensors.torch.load((folder / WEIGHTS_FILE).read_bytes())
        model = ModelConfig.model_validate(manifest.training.get("model", {}))
    except (OSError, ManifestError, ValidationError, SafetensorError) as error:
        raise RunError(f"--from {name}: {first_fault(error)}") from error

    def part(prefix: str) -> Weights:
        return {
            k.removeprefix(prefix): w.float() for k, w in weights.items() if k.startswith(prefix)
        }

    return Source(
        name=name,
        model=model,
        categories=manifest.categories,
        height=manifest.height,
        width=manifest.width,
        channels=manifest.channels,
        generator=part("generator."),
        discriminator=part("discriminator."),
    )
