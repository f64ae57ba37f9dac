"""Starts or resumes a training run from a dataset and settings: everything around the loop."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

from models.discriminator import GROUP_SIZE
from models.pyramid import Pyramid
from training.dataset import PreparedDataset
from training.learning.checkpoint import CheckpointError, list_checkpoints
from training.learning.config import ConfigError, Device, TrainingConfig, merge, resolve
from training.learning.device import keep_freed_memory, pick_device
from training.learning.distributed import Ranks, joined
from training.learning.guardrails import TrainingDiverged, check_disk, check_memory
from training.learning.presets import PRESETS, default_preset
from training.learning.recorder import Tick
from training.learning.run import RunError, config_to_resume, locked, write_run
from training.learning.sources import Source, open_source
from training.learning.trainer import Outcome, Trainer

# Settings that differ for a run that starts from trained weights. A reinitialised Adam's first
# steps are as large as its learning rate, whatever the gradient; and there is no initial noise
# that would stay in a longer average.
FINE_TUNING: Final[dict[str, Any]] = {"optimizer": {"warmup_kimg": 1.0, "ema_rampup": 0.25}}

# The networks' shapes and initial weights depend on these.
DECIDED_AT_THE_START: Final = (
    "preset",
    "model",
    "discriminator",
    "projected.input_px",
    "masking.level",
    "fine_tuning",
)
ENDS: Final = ("max_kimg", "max_minutes")

# Displays a run with this configuration, device and image count; yields a function for its ticks.
Display = Callable[[TrainingConfig, str, int], AbstractContextManager[Callable[[Tick], None]]]


class LaunchError(RuntimeError):
    """Training could not start or continue; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Options of `catalogan train`."""

    dataset: Path
    run: Path
    preset: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    source: str | None = None  # run, export, model:version or base:name to fine-tune
    resume: bool = False
    device: Device = "auto"


def launch(wanted: Launch, show: Display) -> Outcome | None:
    """Train a run on a dataset; returns None in all processes but the first.

    Raises:
        LaunchError: Bad settings or data, a full disk, or losses that are not finite.
    """
    try:
        device = pick_device(wanted.device)
        keep_freed_memory()
        data = PreparedDataset(wanted.dataset)
        with joined(device.type) as ranks:
            if ranks.world_size > 1 and device.type == "cuda":
                device = torch.device("cuda", ranks.local_rank)
                torch.cuda.set_device(device)  # for operations that name none, like pinned memory
            source = None
            if wanted.resume:
                config = _config_to_resume(wanted, data)
            else:
                source = None if wanted.source is None else open_source(wanted.source)
                config = _new_config(wanted, data, device.type, source)
            check_batch_size(config, ranks)
            wanted.run.mkdir(parents=True, exist_ok=True)
            with locked(wanted.run) if ranks.is_main else nullcontext():
                if ranks.is_main and not wanted.resume:
                    write_run(wanted.run, config, data)
                trainer = Trainer(wanted.run, data, config, device, ranks)
                if ranks.is_main:
                    networks = (trainer.generator, trainer.discriminator)
                    check_disk(wanted.run, networks, config.keep_checkpoints)
                    check_memory(networks, device)
                if wanted.resume:
                    trainer.resume()
                    if ranks.is_main:  # only once the settings are known to fit the checkpoint
                        write_run(wanted.run, config, data)
                elif source is not None:
                    trainer.start_from(source)
                try:
                    return _train(trainer, show)
                finally:  # also for a run that failed, when the report is needed most
                    if ranks.is_main:
                        # Imported late, since training does not need the plotting library.
                        from training.report.report import try_report

                        try_report(wanted.run)
    except (ValueError, CheckpointError, TrainingDiverged) as error:
        raise LaunchError(str(error)) from error
    except torch.OutOfMemoryError as error:
        raise LaunchError(
            "the GPU's memory is full: use fewer images at a time, which changes no result, with "
            f"--set batch_gpu={GROUP_SIZE} ({error})"
        ) from error
    except RuntimeError as error:
        if "RANK" not in os.environ:
            raise
        raise LaunchError(
            f"rank {os.environ['RANK']}: {str(error).splitlines()[0]}. If another process of this "
            "run ended, its own message says why. Checkpoints are intact: continue with --resume"
        ) from error
    except OSError as error:
        raise LaunchError(
            f"{wanted.run}: {error}. Checkpoints written so far are intact: solve this, then "
            "continue with --resume"
        ) from error


def _train(trainer: Trainer, show: Display) -> Outcome | None:
    """Train; the first process displays the progress."""
    with stop_on_signals() as should_stop:
        if not trainer.ranks.is_main:
            trainer.train(lambda _: None, should_stop)
            return None
        with show(trainer.config, str(trainer.device), trainer.nimg) as on_tick:
            return trainer.train(on_tick, should_stop)


def _new_config(
    wanted: Launch, data: PreparedDataset, device: str, source: Source | None
) -> TrainingConfig:
    """Configure a new run: preset plus overrides."""
    run = wanted.run
    if run.exists() and list_checkpoints(run):
        raise RunError(f"{run} holds a run: continue it with --resume, or choose another --out")
    name = wanted.preset or default_preset(max(data.info.width, data.info.height), device == "cpu")
    if name not in PRESETS:
        raise ConfigError(f"--preset {name}: choose one of {', '.join(PRESETS)}")
    _refuse(wanted.overrides, {"preset": "use --preset", "fine_tuning.source": "use --from"})
    settings = {**PRESETS[name], "preset": name}
    levels = Pyramid.of(data.info.height, data.info.width).doublings
    if levels == 1:  # in the smallest images only the base can be masked
        settings = merge(settings, {"masking": {"level": 0}})
    if source is not None:  # with the source's widths
        model = source.model.model_dump()
        settings = merge(settings, {"model": model, **FINE_TUNING})
        settings = merge(settings, {"fine_tuning": {"source": source.name}})
    config = resolve(merge(settings, wanted.overrides))
    if config.masking.level >= levels:
        size = f"{data.info.width}x{data.info.height}"
        raise ConfigError(
            f"masking.level {config.masking.level}: {size} px allow at most {levels - 1}"
        )
    return config


def _config_to_resume(wanted: Launch, data: PreparedDataset) -> TrainingConfig:
    """Load the saved configuration and apply overrides, such as a new end or learning rate."""
    saved = config_to_resume(wanted.run, data)
    for option, value in (("--preset", wanted.preset), ("--from", wanted.source)):
        if value is not None:
            raise ConfigError(f"{option} is for a new run: leave it out, or leave --resume out")
    reason = f"is fixed when a run starts: use --from {wanted.run}"
    _refuse(wanted.overrides, dict.fromkeys(DECIDED_AT_THE_START, reason))
    before = saved.model_dump()
    if any(wanted.overrides.get(end) is not None for end in ENDS):  # it replaces the saved end
        before |= dict.fromkeys(ENDS)
    return resolve(merge(before, wanted.overrides))


def _refuse(overrides: dict[str, Any], reasons: dict[str, str]) -> None:
    """Refuse settings that can't be given here.

    Args:
        overrides: Requested settings as a tree; None = not given.
        reasons: Path of a setting, or group of settings -> what to do instead.

    Raises:
        ConfigError: One of them is given.
    """
    for path, reason in reasons.items():
        found: Any = overrides
        for name in path.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        if found is not None:
            raise ConfigError(f"{path}: {reason}")


def check_batch_size(config: TrainingConfig, ranks: Ranks) -> None:
    """Check that each process, and each part of its batch, gets whole groups of images.

    Minibatch standard deviation compares the images of a group, which can't be split.

    Raises:
        ConfigError: batch_size or batch_gpu does not divide into whole groups.
    """
    together = ranks.world_size * GROUP_SIZE
    if config.batch_size % together:
        raise ConfigError(
            f"--batch-size {config.batch_size}: every process takes images in groups of "
            f"{GROUP_SIZE}, so give a multiple of {together}"
        )
    shard = config.batch_size // ranks.world_size
    if config.batch_gpu and (config.batch_gpu % GROUP_SIZE or shard % config.batch_gpu):
        raise ConfigError(
            f"batch_gpu {config.batch_gpu}: give a multiple of {GROUP_SIZE} that divides the "
            f"{shard} images of a process"
        )


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Turn SIGINT and SIGTERM into a flag; a second SIGINT interrupts as usual."""
    caught: list[int] = []

    def handle(number: int, _frame: object) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
