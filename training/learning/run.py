"""A training run on disk, and the networks in it.

RUN/
  config.json           TrainingConfig, resolved
  dataset.json          DatasetInfo of what it was trained on
  checkpoint-*.pt       with .sha256
  best-*.pt             weights of the best moment on the validation photos
  stats.jsonl           one line a tick; mask events with their image count
  grids/                sample grids with fixed latents
  encoder/              see training/inversion/encoder_run.py
  evaluation/           what `catalogan evaluate` found
  report.html           all of it on one page
"""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch

from models.discriminator import ConvolutionalDiscriminator, Discriminator, DiscriminatorShape
from models.generator import Generator, GeneratorShape
from models.projected import CombinedDiscriminator, ProjectedDiscriminator, ProjectedShape
from training.dataset import DatasetError, DatasetInfo, PreparedDataset
from training.faults import first_fault
from training.features.feature_maps import LiteFeatureMaps
from training.files import replace_file
from training.learning.checkpoint import load_best, load_newest
from training.learning.config import Snapshot, TrainingConfig
from training.learning.randomness import Purpose, seed_for

CONFIG_FILE: Final = "config.json"
INFO_FILE: Final = "dataset.json"
STATS_FILE: Final = "stats.jsonl"
GRID_FOLDER: Final = "grids"
EVALUATION_FOLDER: Final = "evaluation"


# Settings that are gone, and that older runs hold.
RETIRED: Final = (
    *("compile", "objective"),
    *(f"masking.{name}" for name in ("lag_measure", "threshold", "floor", "window")),
)


class RunError(ValueError):
    """A run directory that can't be used; the message says what to do."""


def build_networks(config: TrainingConfig, info: DatasetInfo) -> tuple[Generator, Discriminator]:
    """Both networks with their initial weights, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(config.seed, Purpose.INIT))
        return _build_generator(config, info), _build_discriminator(config, info)


def _build_generator(config: TrainingConfig, info: DatasetInfo) -> Generator:
    return Generator(
        GeneratorShape(
            height=info.height,
            width=info.width,
            channels=info.channels,
            categories=len(info.categories),
            **config.model.model_dump(),
        )
    )


def _build_discriminator(config: TrainingConfig, info: DatasetInfo) -> Discriminator:
    sizes = {"height": info.height, "width": info.width, "categories": len(info.categories)}
    level = config.masking.level

    convolutional = ConvolutionalDiscriminator(
        DiscriminatorShape(
            **sizes,
            channels=info.channels,
            channel_base=config.model.channel_base,
            channel_max=config.model.channel_max,
            mask_level=level,
        )
    )
    if config.discriminator == "convolutional":
        return convolutional
    shape = ProjectedShape(**sizes, input_px=config.projected.input_px, mask_level=level)
    return CombinedDiscriminator(convolutional, ProjectedDiscriminator(shape, LiteFeatureMaps()))


def read_run(run: Path) -> tuple[TrainingConfig, DatasetInfo]:
    """Configuration and dataset description of a run.

    Raises:
        RunError: `run` is no run directory.
    """
    try:
        saved = json.loads((run / CONFIG_FILE).read_bytes())
        if saved.get("projected", {}).get("interval_steps") == 1:  # as it always is by now
            del saved["projected"]["interval_steps"]
        config = TrainingConfig.model_validate(_without_retired(saved))
        info = DatasetInfo.model_validate_json((run / INFO_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(f"{run} is no training run ({first_fault(error)})") from error
    return config, info


def _without_retired(saved: dict[str, Any], inside: str = "") -> dict[str, Any]:
    return {
        name: _without_retired(value, f"{name}.") if isinstance(value, dict) else value
        for name, value in saved.items()
        if inside + name not in RETIRED
    }


def config_to_resume(run: Path, dataset: PreparedDataset) -> TrainingConfig:
    """Configuration of a run that can go on: with its objective, and on the photos of its start.

    Raises:
        RunError: `run` is no run directory, or had the relativistic objective.
        DatasetError: The dataset is another one.
    """
    config, info = read_run(run)
    objective = json.loads((run / CONFIG_FILE).read_bytes()).get("objective", "logistic")
    if objective != "logistic":
        raise RunError(
            f"{run} was trained by the {objective} objective, which is gone: "
            f"use --from {run} to go on from its weights in a new run"
        )
    if info.hash != dataset.info.hash:
        raise DatasetError(
            f"{run} was trained on another dataset (hash {info.hash[:12]}, not "
            f"{dataset.info.hash[:12]}): use --from {run} to fine-tune on this one"
        )
    return config


def write_run(run: Path, config: TrainingConfig, dataset: PreparedDataset) -> None:
    """Save what the run is trained with; each file whole or not at all."""
    for name, record in ((CONFIG_FILE, config), (INFO_FILE, dataset.info)):
        replace_file(run / name, f"{record.model_dump_json(indent=2)}\n".encode())


def load_generator(
    run: Path, snapshot: Snapshot = "last"
) -> tuple[Generator, TrainingConfig, DatasetInfo, int]:
    """The averaged generator of a run's newest whole checkpoint, or of its best moment.

    Returns:
        The generator, the run's configuration and dataset, and the generator's image count.

    Raises:
        RunError, CheckpointError: There is nothing usable.
    """
    generator, config, info, state = _load(run, snapshot)
    return generator, config, info, int(state["nimg"])


def load_networks(
    run: Path, snapshot: Snapshot = "last"
) -> tuple[Generator, Discriminator, TrainingConfig, DatasetInfo, int]:
    """As `load_generator`, with the discriminator of the same moment."""
    generator, config, info, state = _load(run, snapshot)
    discriminator = _build_discriminator(config, info)
    discriminator.load_state_dict(state["discriminator"])
    discriminator.eval().requires_grad_(False)
    return generator, discriminator, config, info, int(state["nimg"])


def _load(
    run: Path, snapshot: Snapshot
) -> tuple[Generator, TrainingConfig, DatasetInfo, dict[str, Any]]:
    config, info = read_run(run)
    state = load_best(run) if snapshot == "best" else load_newest(run)
    generator = _build_generator(config, info)
    generator.load_state_dict(state["ema"])
    generator.eval().requires_grad_(False).update_w_avg()
    return generator, config, info, state


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run directory, so that two trainers never write into it.

    What a killed one left half-written goes.

    Raises:
        RunError: Another process holds it.
    """
    with (run / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"{run} is being trained by another process") from error
        for half_written in run.glob("*.partial"):
            half_written.unlink(missing_ok=True)
        yield


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Append one JSON line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
