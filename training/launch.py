"""From a dataset and settings to a finished run: everything around the loop."""

import ctypes
import logging
import platform
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from training.checkpoint import CheckpointError, list_checkpoints
from training.config import ConfigError, Device, TrainingConfig, merge, resolve
from training.dataset import DatasetError, PreparedDataset
from training.distributed import Ranks, joined
from training.presets import PRESETS, default_preset
from training.recorder import Tick
from training.run import RunError, check_same_dataset, locked, read_run, write_run
from training.trainer import Outcome, Trainer, TrainingDiverged, pick_device, stop_on_signals

logger = logging.getLogger(__name__)


class LaunchError(RuntimeError):
    """Training could not start or go on; the message says why and what to do."""


class Display(Protocol):
    """Shows a run to a person."""

    def shown(self) -> AbstractContextManager[Callable[[Tick], None]]:
        """Draw while inside; the value takes each tick."""


def launch(
    dataset: Path,
    run: Path,
    *,
    preset: str | None,
    overrides: dict[str, Any],
    source: Path | None,
    resume: bool,
    device: Device,
    show: Callable[[TrainingConfig, str, int], Display],
) -> Outcome | None:
    """Train `run` on `dataset`; None in all processes but the first.

    Raises:
        LaunchError: Bad settings or data, a full disk, or losses that are not finite.
    """
    try:
        where = pick_device(device)
        keep_freed_memory()
        data = PreparedDataset(dataset)
        with joined(where.type) as ranks:
            if ranks.world_size > 1 and where.type == "cuda":
                where = type(where)("cuda", ranks.rank)
            config = (
                _resumed(run, data, overrides)
                if resume
                else _fresh(run, data, preset, overrides, where.type)
            )
            _check_shares(config, ranks)
            run.mkdir(parents=True, exist_ok=True)
            with locked(run) if ranks.is_main else nullcontext():
                return _train(run, data, config, where, ranks, source, resume, show)
    except (ValueError, CheckpointError, TrainingDiverged, OSError) as error:
        raise LaunchError(str(error)) from error


def _train(run, data, config, where, ranks, source, resume, show):  # type: ignore[no-untyped-def]
    if ranks.is_main:
        write_run(run, config, data)
    trainer = Trainer(run, data, config, where, ranks)
    if resume:
        trainer.resume()
    elif source is not None:
        trainer.start_from(source)
    with stop_on_signals() as should_stop:
        if not ranks.is_main:
            trainer.train(lambda _: None, should_stop)
            return None
        with show(config, str(where), trainer.nimg).shown() as on_tick:
            return trainer.train(on_tick, should_stop)


def _fresh(
    run: Path, data: PreparedDataset, preset: str | None, overrides: dict[str, Any], device: str
) -> TrainingConfig:
    if run.exists() and list_checkpoints(run):
        raise RunError(f"{run} holds a run already: go on with --resume, or choose another --out")
    name = preset or default_preset(max(data.info.width, data.info.height), device == "cpu")
    if name not in PRESETS:
        raise ConfigError(f"--preset {name}: choose one of {', '.join(PRESETS)}")
    return resolve(merge({**PRESETS[name], "preset": name}, overrides))


def _resumed(run: Path, data: PreparedDataset, overrides: dict[str, Any]) -> TrainingConfig:
    """The saved configuration, with a new end or learning rate where given."""
    saved, _ = read_run(run)
    check_same_dataset(run, data)
    return resolve(merge(saved.model_dump(), overrides))


def _check_shares(config: TrainingConfig, ranks: Ranks) -> None:
    if config.batch_size % ranks.world_size:
        raise ConfigError(
            f"--batch-size {config.batch_size} can't be shared among {ranks.world_size} processes"
        )


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks instead of returning them to the kernel.

    Each step frees and takes the same feature maps of some megabytes; giving them back
    costs a page fault for every 4 kB of them, a fifth of a step's time on a CPU.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    mallopt(mmap_threshold, 32 << 20)  # the largest that glibc takes
    mallopt(trim_threshold, (1 << 31) - 1)
    mallopt(top_pad, 64 << 20)
