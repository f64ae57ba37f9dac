"""The training loop: photos in, a run directory out."""

import contextlib
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.adversarial import AdversarialPair
from training.augment import AdaptiveStrength
from training.checkpoint import load_newest, save_checkpoint
from training.config import TrainingConfig
from training.dataset import PreparedDataset
from training.device import compute_dtype, memory_mb
from training.distributed import Ranks, any_rank
from training.ema import GeneratorEMA, ema_decay
from training.loader import Batch, BatchLoader
from training.mask_control import MaskController, MaskEvent
from training.meter import Clock, Meter
from training.recorder import GridSampler, Recorder, Tick
from training.run import build_networks, transfer

logger = logging.getLogger(__name__)


class TrainingDiverged(RuntimeError):
    """A loss is no longer finite; the last checkpoint is from before that."""


@dataclass(frozen=True)
class Outcome:
    """How training ended."""

    nimg: int
    reason: str  # "finished" or "stopped"
    checkpoint: Path


class Trainer:
    """Everything that a run holds in memory; what resumes has a state_dict."""

    def __init__(
        self,
        run: Path,
        dataset: PreparedDataset,
        config: TrainingConfig,
        device: torch.device,
        ranks: Ranks,
    ) -> None:
        self.run, self.config, self.device, self.ranks = run, config, device, ranks
        self.dataset = dataset
        self.dtype = compute_dtype(config, device)
        self.generator, self.discriminator = build_networks(config, dataset.info)
        self.nimg = 0
        self.loader = BatchLoader(
            dataset,
            config.batch_size,
            config.seed,
            device,
            self.discriminator.shape.group_size,
        )
        self.mask = MaskController(config.masking, config.seed)
        self.strength = AdaptiveStrength(config.augment)
        self.meter = Meter(device)
        self._place()

    def _place(self) -> None:
        """Move the networks to the device and build what hangs on their parameters."""
        self.generator.to(self.device)
        self.discriminator.to(self.device)
        self.pair = AdversarialPair(self.generator, self.discriminator, self.config, self.dtype)
        self.ema = GeneratorEMA(self.generator)

    def start_from(self, source: Path) -> None:
        """Begin with another run's weights (see training.run.transfer)."""
        transfer(source, self.generator, self.discriminator, self.dataset.info)
        self._place()

    def train(self, on_tick: Callable[[Tick], None], should_stop: Callable[[], bool]) -> Outcome:
        """Train until the configured end, or until should_stop.

        Raises:
            TrainingDiverged: A loss is not finite; checkpoints up to then are kept.
            CheckpointError: A checkpoint can't be written.
        """
        config = self.config
        recorder = self._recorder()
        clock = Clock(self.nimg, config)
        with contextlib.closing(recorder) if recorder else contextlib.nullcontext():
            for batch in self.loader.batches(self.nimg, self.ranks):
                events = self._advance(batch)
                tick = self._tick(clock) if clock.due("tick", self.nimg, config.tick_kimg) else None
                reason = self._reason_to_end(clock, should_stop)
                if recorder:
                    recorder.record(tick, events)
                    if reason or clock.due("grid", self.nimg, config.grid_kimg):
                        self.ema.generator.update_w_avg()
                        recorder.snapshot(self.ema.generator, self.nimg)
                if tick:
                    on_tick(tick)
                if reason or clock.due("checkpoint", self.nimg, config.checkpoint_kimg):
                    path = self._save()
                if reason:
                    return Outcome(self.nimg, reason, path)
        raise AssertionError("the loader is endless")

    def _advance(self, batch: Batch) -> list[MaskEvent]:
        """One step of everything that a checkpoint holds."""
        config, settings = self.config, self.config.optimizer
        events = self.mask.update(self.generator, self.discriminator, self.nimg, self.dtype)
        masked = self.discriminator.mask.held is not None
        statistics = self.pair.step(batch, self.nimg, self.strength.strength, self.ranks)
        self.meter.add(statistics, masked)
        self.nimg += config.batch_size
        decay = ema_decay(self.nimg, config.batch_size, settings.ema_kimg, settings.ema_rampup)
        self.ema.update(self.generator, decay)
        return events

    def _recorder(self) -> Recorder | None:
        if not self.ranks.is_main:
            return None
        return Recorder(self.run, GridSampler(self.generator, self.config.seed))

    def _tick(self, clock: Clock) -> Tick:
        """Read the meter, adjust the augmentation, and refuse losses that are not finite."""
        means = self._finite_means()
        self.strength.update(means["real_sign"], self.meter.steps * self.config.batch_size)
        self.meter.reset()
        shown, seconds = clock.lap(self.nimg)
        return Tick(
            nimg=self.nimg,
            elapsed_sec=round(clock.elapsed(), 3),
            images_per_sec=round(shown / seconds, 1),
            augment_strength=self.strength.strength,
            memory_mb=round(memory_mb(self.device), 1),
            **means,
        )

    def _finite_means(self) -> dict[str, float]:
        means = self.meter.means(self.ranks)
        broken = [name for name, value in means.items() if not math.isfinite(value)]
        if broken:
            raise TrainingDiverged(
                f"{', '.join(broken)} not finite before {self.nimg} images: the last checkpoint "
                "is from before that; resume with a lower --learning-rate, or a higher --r1-gamma"
            )
        return means

    def _reason_to_end(self, clock: Clock, should_stop: Callable[[], bool]) -> str | None:
        config = self.config
        if config.max_kimg is not None and self.nimg >= config.max_kimg * 1000:
            return "finished"
        out_of_time = config.max_minutes is not None and clock.elapsed() >= config.max_minutes * 60
        if any_rank(out_of_time, self.device, self.ranks):
            return "finished"
        return "stopped" if any_rank(should_stop(), self.device, self.ranks) else None

    def _save(self) -> Path:
        self._finite_means()
        if not self.ranks.is_main:
            return self.run
        return save_checkpoint(self.run, self.nimg, self.state_dict(), self.config.keep_checkpoints)

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the steps to come."""
        return {
            "nimg": self.nimg,
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "ema": self.ema.generator.state_dict(),
            "generator_optimizer": self.pair.generator_optimizer.state_dict(),
            "discriminator_optimizer": self.pair.discriminator_optimizer.state_dict(),
            "augment": self.strength.state_dict(),
            "meter": self.meter.state_dict(),
            "mask": self.mask.state_dict(self.discriminator),
        }

    def resume(self) -> None:
        """Take up where the newest whole checkpoint was.

        Raises:
            CheckpointError: The run has none.
        """
        state = load_newest(self.run, self.device)
        self.generator.load_state_dict(state["generator"])
        self.discriminator.load_state_dict(state["discriminator"])
        self.ema.generator.load_state_dict(state["ema"])
        self.pair.load_optimizers(state["generator_optimizer"], state["discriminator_optimizer"])
        self.strength.load_state_dict(state["augment"])
        self.meter.load_state_dict(state["meter"])
        self.mask.load_state_dict(state["mask"], self.generator, self.discriminator)
        self.nimg = int(state["nimg"])
        logger.info("resumed %s at %d images", self.run, self.nimg)
