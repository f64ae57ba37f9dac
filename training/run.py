"""A training run on disk, and the networks in it.

RUN/
  config.json           TrainingConfig, resolved
  dataset.json          DatasetInfo of what it was trained on
  checkpoint-*.pt       with .sha256
  stats.jsonl           one line a tick; mask events with their image count
  tensorboard/          the same figures
  grids/                sample grids with fixed latents
  encoder/              see training/encoder_run.py
"""

import fcntl
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch

from models.discriminator import Discriminator, DiscriminatorShape
from models.generator import Generator, GeneratorShape
from training.checkpoint import load_newest
from training.config import TrainingConfig
from training.dataset import DatasetError, DatasetInfo, PreparedDataset
from training.randomness import Purpose, seed_for

logger = logging.getLogger(__name__)

CONFIG_FILE: Final = "config.json"
INFO_FILE: Final = "dataset.json"


class RunError(ValueError):
    """A run directory that can't be used; the message says what to do."""


def build_networks(config: TrainingConfig, info: DatasetInfo) -> tuple[Generator, Discriminator]:
    """Both networks with their initial weights, on the CPU."""
    model = config.model
    sizes: dict[str, Any] = {
        "height": info.height,
        "width": info.width,
        "channels": info.channels,
        "categories": len(info.categories),
        "channel_base": model.channel_base,
        "channel_max": model.channel_max,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(config.seed, Purpose.INIT))
        generator = Generator(
            GeneratorShape(
                **sizes,
                z_dim=model.z_dim,
                w_dim=model.w_dim,
                mapping_layers=model.mapping_layers,
            )
        )
        discriminator = Discriminator(DiscriminatorShape(**sizes, mask_level=config.masking.level))
    return generator, discriminator


def load_networks(run: Path) -> tuple[Generator, Discriminator, TrainingConfig, DatasetInfo, int]:
    """The averaged generator and the discriminator of one checkpoint, the newest whole one.

    Raises:
        RunError, CheckpointError: There is nothing usable.
    """
    config, info = read_run(run)
    state = load_newest(run)
    generator, discriminator = build_networks(config, info)
    generator.load_state_dict(state["ema"])
    discriminator.load_state_dict(state["discriminator"])
    generator.eval().requires_grad_(False).update_w_avg()
    discriminator.eval().requires_grad_(False)
    return generator, discriminator, config, info, int(state["nimg"])


def read_run(run: Path) -> tuple[TrainingConfig, DatasetInfo]:
    """Configuration and dataset description of a run.

    Raises:
        RunError: `run` is no run directory.
    """
    try:
        config = TrainingConfig.model_validate_json((run / CONFIG_FILE).read_bytes())
        info = DatasetInfo.model_validate_json((run / INFO_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(f"{run} is no training run ({error})") from error
    return config, info


def write_run(run: Path, config: TrainingConfig, dataset: PreparedDataset) -> None:
    """Save what the run was started with."""
    (run / CONFIG_FILE).write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (run / INFO_FILE).write_text(dataset.info.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load_generator(run: Path) -> tuple[Generator, TrainingConfig, DatasetInfo, int]:
    """The averaged generator of a run's newest whole checkpoint, with its image count.

    Raises:
        RunError, CheckpointError: There is nothing usable.
    """
    config, info = read_run(run)
    state = load_newest(run)
    generator, _ = build_networks(config, info)
    generator.load_state_dict(state["ema"])
    generator.eval().requires_grad_(False).update_w_avg()
    return generator, config, info, int(state["nimg"])


def transfer(
    source: Path, generator: Generator, discriminator: Discriminator, info: DatasetInfo
) -> int:
    """Start from another run's averaged generator and its discriminator.

    Weights of the same name and shape are taken over; category embeddings are matched by
    the categories' names, and a new category starts from the mean of the known ones.

    Returns:
        How many tensors were taken over.

    Raises:
        RunError: Nothing fits, as when the model's widths differ.
    """
    config, known = read_run(source)
    state = load_newest(source)
    rows = [known.categories.index(c) if c in known.categories else None for c in info.categories]
    taken = _transfer(generator, state["ema"], "mapping.embed.weight", 1, rows)
    taken += _transfer(discriminator, state["discriminator"], "embed", 0, rows)
    if taken == 0:
        raise RunError(
            f"{source} was trained with preset {config.preset} and other widths; choose the "
            "same --preset to start from it"
        )
    matched = [c for c in info.categories if c in known.categories]
    logger.info("from %s: %d tensors; categories matched: %s", source, taken, ", ".join(matched))
    return taken


def _transfer(
    module: torch.nn.Module,
    weights: dict[str, torch.Tensor],
    embedding: str,
    axis: int,
    rows: list[int | None],
) -> int:
    """Copy what fits; `axis` of `embedding` counts categories."""
    mine = module.state_dict()
    taken = 0
    for name, tensor in weights.items():
        if name == embedding:
            table = tensor.movedim(axis, 0)
            picked = [table.mean(dim=0) if row is None else table[row] for row in rows]
            mine[name] = torch.stack(picked).movedim(0, axis).contiguous()
            taken += 1
        elif name in mine and mine[name].shape == tensor.shape:
            mine[name] = tensor
            taken += 1
    module.load_state_dict(mine)
    return taken


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run directory, so that two trainers never write into it.

    Raises:
        RunError: Another process holds it.
    """
    with (run / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"{run} is being trained by another process") from error
        yield


def check_same_dataset(run: Path, dataset: PreparedDataset) -> None:
    """A run resumes only on the photos that it was started with.

    Raises:
        DatasetError: The dataset is another one.
    """
    _, info = read_run(run)
    if info.hash != dataset.info.hash:
        raise DatasetError(
            f"{run} was trained on another dataset (hash {info.hash[:12]}, not "
            f"{dataset.info.hash[:12]}): use --from {run} to fine-tune on this one"
        )


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Append one JSON line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
