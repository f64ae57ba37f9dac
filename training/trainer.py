"""The training loop: photos in, a run directory out."""

import contextlib
import logging
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.adversarial import AdversarialPair, StepStatistics
from training.augment import AdaptiveStrength
from training.checkpoint import load_newest, save_checkpoint
from training.config import TrainingConfig
from training.dataset import PreparedDataset
from training.distributed import Ranks, any_rank, mean_over_ranks
from training.ema import GeneratorEMA, ema_decay
from training.loader import BatchLoader
from training.mask_control import MaskController
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


def compute_dtype(config: TrainingConfig, device: torch.device) -> torch.dtype:
    """bfloat16 where asked for, or where the device computes faster in it."""
    if config.precision == "fp32":
        return torch.float32
    if config.precision == "bf16":
        return torch.bfloat16
    if device.type == "cuda":
        good = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        good = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if good else torch.float32


class Meter:
    """Sums step statistics on the device; the host reads them once a tick."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, statistics: StepStatistics, masked: bool) -> None:
        """Count one step."""
        for name, value in vars(statistics).items():
            if value is not None:
                self.sums[name] = self.sums[name] + value if name in self.sums else value
                self.counts[name] = self.counts.get(name, 0) + 1
        self.counts["masked"] = self.counts.get("masked", 0) + masked

    def means(self, ranks: Ranks) -> dict[str, float]:
        """Means over steps and ranks since the last call; this waits for the device."""
        names = sorted(self.sums)
        values = torch.stack([self.sums[n].float() / self.counts[n] for n in names])
        means = dict(zip(names, mean_over_ranks(values, ranks).tolist(), strict=True))
        means["mask_active"] = self.counts["masked"] / self.counts["generator_loss"]
        self.sums, self.counts = {}, {}
        return means


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
        self.loader = BatchLoader(dataset, config.batch_size, config.seed, device)
        self.mask = MaskController(config.masking, config.seed)
        self.strength = AdaptiveStrength(config.augment)
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

    def train(
        self, on_tick: Callable[[Tick], None], should_stop: Callable[[], bool]
    ) -> Outcome:
        """Train until the configured end, or until should_stop.

        Raises:
            TrainingDiverged: A loss is not finite; checkpoints up to then are kept.
            CheckpointError: A checkpoint can't be written.
        """
        config, ranks = self.config, self.ranks
        recorder = self._recorder()
        clock = _Clock(self.nimg, config)
        meter = Meter()
        with contextlib.closing(recorder) if recorder else contextlib.nullcontext():
            for batch in self.loader.batches(self.nimg, ranks):
                events = self.mask.update(
                    self.generator, self.discriminator, self.nimg, self.dtype
                )
                if recorder:
                    for event in events:
                        recorder.event(event)
                masked = self.discriminator.mask.held is not None
                meter.add(self.pair.step(batch, self.nimg, self.strength.strength, ranks), masked)
                self.nimg += config.batch_size
                settings = config.optimizer
                self.ema.update(
                    self.generator,
                    ema_decay(
                        self.nimg, config.batch_size, settings.ema_kimg, settings.ema_rampup
                    ),
                )
                if clock.due("tick", self.nimg, config.tick_kimg):
                    tick = self._tick(meter, clock)
                    on_tick(tick)
                    if recorder:
                        recorder.tick(tick)
                reason = self._reason_to_end(clock, should_stop)
                if recorder and (reason or clock.due("grid", self.nimg, config.grid_kimg)):
                    self.ema.generator.update_w_avg()
                    recorder.snapshot(self.ema.generator, self.nimg)
                if reason or clock.due("checkpoint", self.nimg, config.checkpoint_kimg):
                    path = self._save()
                if reason:
                    return Outcome(self.nimg, reason, path)
        raise AssertionError("the loader is endless")

    def _recorder(self) -> Recorder | None:
        if not self.ranks.is_main:
            return None
        return Recorder(self.run, GridSampler(self.generator, self.config.seed))

    def _tick(self, meter: Meter, clock: "_Clock") -> Tick:
        """Read the meter, adjust the augmentation, and refuse losses that are not finite."""
        means = meter.means(self.ranks)
        broken = [n for n, value in means.items() if not math.isfinite(value)]
        if broken:
            raise TrainingDiverged(
                f"{', '.join(broken)} not finite before {self.nimg} images: the last checkpoint "
                "is from before that; resume with a lower --learning-rate, or raise --r1-gamma"
            )
        shown, seconds = clock.lap(self.nimg)
        self.strength.update(means["real_sign"], shown)
        return Tick(
            nimg=self.nimg,
            elapsed_sec=round(clock.elapsed(), 3),
            images_per_sec=round(shown / seconds, 1),
            r1_penalty=means.get("r1_penalty"),
            augment_strength=self.strength.strength,
            memory_mb=round(_memory_mb(self.device), 1),
            mask_active=means["mask_active"],
            **{
                name: means[name]
                for name in (
                    "generator_loss",
                    "discriminator_loss",
                    "real_logits",
                    "fake_logits",
                    "real_sign",
                )
            },
        )

    def _reason_to_end(self, clock: "_Clock", should_stop: Callable[[], bool]) -> str | None:
        config = self.config
        if config.max_kimg is not None and self.nimg >= config.max_kimg * 1000:
            return "finished"
        out_of_time = config.max_minutes is not None and clock.elapsed() >= config.max_minutes * 60
        if any_rank(out_of_time, self.device, self.ranks):
            return "finished"
        return "stopped" if any_rank(should_stop(), self.device, self.ranks) else None

    def _save(self) -> Path:
        if not self.ranks.is_main:
            return self.run
        return save_checkpoint(
            self.run, self.nimg, self.state_dict(), self.config.keep_checkpoints
        )

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
        self.pair.generator_optimizer.load_state_dict(state["generator_optimizer"])
        self.pair.discriminator_optimizer.load_state_dict(state["discriminator_optimizer"])
        self.strength.load_state_dict(state["augment"])
        self.mask.load_state_dict(state["mask"], self.generator, self.discriminator)
        self.nimg = int(state["nimg"])
        logger.info("resumed %s at %d images", self.run, self.nimg)


class _Clock:
    """Wall time, and what is due every so many images."""

    def __init__(self, nimg: int, config: TrainingConfig) -> None:
        self.started = self.lap_started = time.monotonic()
        self.lap_nimg = nimg
        self.next = {
            name: self._after(nimg, kimg)
            for name, kimg in (
                ("tick", config.tick_kimg),
                ("grid", config.grid_kimg),
                ("checkpoint", config.checkpoint_kimg),
            )
        }

    @staticmethod
    def _after(nimg: int, kimg: float) -> int:
        """The next multiple, so that a resumed run ticks where the first would have."""
        every = math.ceil(kimg * 1000)
        return (nimg // every + 1) * every

    def due(self, name: str, nimg: int, kimg: float) -> bool:
        """Whether `name` is due at `nimg`; it is then due again `kimg` later."""
        if nimg < self.next[name]:
            return False
        self.next[name] = self._after(nimg, kimg)
        return True

    def lap(self, nimg: int) -> tuple[int, float]:
        """Images and seconds since the lap before."""
        now = time.monotonic()
        images, seconds = nimg - self.lap_nimg, now - self.lap_started
        self.lap_nimg, self.lap_started = nimg, now
        return images, max(seconds, 1e-9)

    def elapsed(self) -> float:
        """Seconds since training started."""
        return time.monotonic() - self.started


def _memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 1e6
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def pick_device(name: str) -> torch.device:
    """The device for `auto`, `cpu`, `cuda` or `mps`.

    Raises:
        ValueError: The device that was asked for is not there.
    """
    available = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
        "cpu": lambda: True,
    }
    if name == "auto":
        name = next(n for n, there in available.items() if there())
    elif not available[name]():
        raise ValueError(f"--device {name}: torch finds none here; use --device auto or cpu")
    return torch.device(name)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Turn SIGINT and SIGTERM into a flag; a second SIGINT interrupts as usual."""
    import signal

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
