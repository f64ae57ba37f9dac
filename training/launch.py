"""From a dataset and settings to a finished run: everything around the loop."""

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

# What a run that starts from trained weights does otherwise. A fresh Adam's first steps are as
# long as its learning rate, whatever the gradient; and there is no first noise that a longer
# average would drag along.
FINE_TUNING: Final[dict[str, Any]] = {"optimizer": {"warmup_kimg": 1.0, "ema_rampup": 0.25}}

# The networks hang on these.
DECIDED_AT_THE_START: Final = (
    "preset",
    "model",
    "discriminator",
    "projected.input_px",
    "masking.level",
    "fine_tuning",
)
ENDS: Final = ("max_kimg", "max_minutes")

# Shows a run, from its configuration, device and image count on; what it yields takes each tick.
Display = Callable[[TrainingConfig, str, int], AbstractContextManager[Callable[[Tick], None]]]


class LaunchError(RuntimeError):
    """Training could not start or go on; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What the person who trains asks for."""

    dataset: Path
    run: Path
    preset: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    source: str | None = None  # run, export, model:version or base:name to fine-tune
    resume: bool = False
    device: Device = "auto"


def launch(wanted: Launch, show: Display) -> Outcome | None:
    """Train a run on a dataset; None in all processes but the first.

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
                torch.cuda.set_device(device)  # of what names none, as pinned memory
            source = None
            if wanted.resume:
                config = _resumed(wanted, data)
            else:
                source = None if wanted.source is None else open_source(wanted.source)
                config = _fresh(wanted, data, device.type, source)
            check_shares(config, ranks)
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
                    if ranks.is_main:  # not before it is known that the settings fit
                        write_run(wanted.run, config, data)
                elif source is not None:
                    trainer.start_from(source)
                try:
                    return _shown(trainer, show)
                finally:  # also of a run that failed: that is when it is looked at
                    if ranks.is_main:
                        # Imported late: what draws is of no use while training.
                        from training.report.report import try_report

                        try_report(wanted.run)
    except (ValueError, CheckpointError, TrainingDiverged) as error:
        raise LaunchError(str(error)) from error
    except torch.OutOfMemoryError as error:
        raise LaunchError(
            "the GPU's memory is full: go on with fewer images at a time, which changes no result, "
            f"as by --set batch_gpu={GROUP_SIZE} ({error})"
        ) from error
    except RuntimeError as error:
        if "RANK" not in os.environ:
            raise
        raise LaunchError(
            f"rank {os.environ['RANK']}: {str(error).splitlines()[0]}. If another process of this "
            "run ended, its own message says why; checkpoints are whole: go on with --resume"
        ) from error
    except OSError as error:
        raise LaunchError(
            f"{wanted.run}: {error}. Checkpoints written so far are whole: put it right, then "
            "go on with --resume"
        ) from error


def _shown(trainer: Trainer, show: Display) -> Outcome | None:
    """Train; the first process shows how it goes."""
    with stop_on_signals() as should_stop:
        if not trainer.ranks.is_main:
            trainer.train(lambda _: None, should_stop)
            return None
        with show(trainer.config, str(trainer.device), trainer.nimg) as on_tick:
            return trainer.train(on_tick, should_stop)


def _fresh(
    wanted: Launch, data: PreparedDataset, device: str, source: Source | None
) -> TrainingConfig:
    """Preset plus overrides, for a run that is not there yet."""
    run = wanted.run
    if run.exists() and list_checkpoints(run):
        raise RunError(f"{run} holds a run already: go on with --resume, or choose another --out")
    name = wanted.preset or default_preset(max(data.info.width, data.info.height), device == "cpu")
    if name not in PRESETS:
        raise ConfigError(f"--preset {name}: choose one of {', '.join(PRESETS)}")
    _refuse(wanted.overrides, {"preset": "use --preset", "fine_tuning.source": "use --from"})
    settings = {**PRESETS[name], "preset": name}
    levels = Pyramid.of(data.info.height, data.info.width).doublings
    if levels == 1:  # the smallest pictures: the base is all that there is to mask
        settings = merge(settings, {"masking": {"level": 0}})
    if source is not None:  # the widths must be its own, and its weights eased in
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


def _resumed(wanted: Launch, data: PreparedDataset) -> TrainingConfig:
    """The saved configuration, with a new end or learning rate where given."""
    saved = config_to_resume(wanted.run, data)
    for option, value in (("--preset", wanted.preset), ("--from", wanted.source)):
        if value is not None:
            raise ConfigError(f"{option} is for a new run: leave it out, or leave --resume out")
    reason = f"is decided at the start of a run: use --from {wanted.run}"
    _refuse(wanted.overrides, dict.fromkeys(DECIDED_AT_THE_START, reason))
    before = saved.model_dump()
    if any(wanted.overrides.get(end) is not None for end in ENDS):  # in place of the one before
        before |= dict.fromkeys(ENDS)
    return resolve(merge(before, wanted.overrides))


def _refuse(overrides: dict[str, Any], reasons: dict[str, str]) -> None:
    """Refuse settings that can't be given here.

    Args:
        overrides: What was asked for, as a tree; None = not given.
        reasons: Setting, or group of settings, by its path: what to do.

    Raises:
        ConfigError: One of them is given.
    """
    for path, reason in reasons.items():
        found: Any = overrides
        for name in path.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        if found is not None:
            raise ConfigError(f"{path}: {reason}")


def check_shares(config: TrainingConfig, ranks: Ranks) -> None:
    """Minibatch deviation compares images in groups, which no processes and no passes share.

    Raises:
        ConfigError: The batch size, or the part of it that goes through at once, does not do.
    """
    together = ranks.world_size * GROUP_SIZE
    if config.batch_size % together:
        raise ConfigError(
            f"--batch-size {config.batch_size}: every process takes pictures in groups of "
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

    def note(number: int, _frame: object) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
