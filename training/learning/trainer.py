"""The training loop: photos in, a run directory out."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from models.discriminator import GROUP_SIZE
from models.manifest import category_index
from training.dataset import PreparedDataset
from training.features.load import load_extractor
from training.learning.adversarial import AdversarialPair
from training.learning.augment import AdaptiveProbability
from training.learning.checkpoint import checkpoint_path, load_newest, save_best, save_checkpoint
from training.learning.config import TrainingConfig
from training.learning.device import compute_dtype, memory_mb
from training.learning.distributed import Ranks, largest
from training.learning.ema import GeneratorEMA, only_average
from training.learning.fine_tuning import find_likeness, freeze, recognise_new, transfer
from training.learning.guardrails import Guardrails, TrainingDiverged, alarms
from training.learning.loader import Batch, BatchLoader
from training.learning.mask_control import MaskController, MaskEvent
from training.learning.meter import Clock, Meter
from training.learning.optimizer import rate_factor
from training.learning.recorder import GridSampler, Recorder, Tick
from training.learning.run import build_networks
from training.learning.sources import Source
from training.learning.validation import BestMoment, ValidationMonitor

logger = logging.getLogger(__name__)

# Of several processes on the time and whether to end: each vote waits for the device.
STEPS_BETWEEN_VOTES: Final = 16


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
        freeze(self.discriminator, config.fine_tuning.freeze_blocks)
        self.nimg = 0
        self.time_spent = 0.0  # fraction of max_minutes, as all ranks know it
        self.first_nimg = 0  # when the optimisers began; above 0 after weights alone were loaded
        self.loader = BatchLoader(
            dataset, config.batch_size, config.seed, device, GROUP_SIZE, config.augment.mirror
        )
        self.mask = MaskController(config.masking, config.seed)
        self.augmentation = AdaptiveProbability(config.augment)
        self.meter = Meter(device)
        self.guardrails = Guardrails()
        self.best = BestMoment()
        self.monitor: ValidationMonitor | None = None
        if ranks.is_main and ValidationMonitor.is_possible(dataset):
            self.monitor = ValidationMonitor(dataset, config.seed, device)
        self._place()

    def _place(self) -> None:
        """Move the networks to the device and build what hangs on their parameters."""
        self.generator.to(self.device)
        self.discriminator.to(self.device)
        self.pair = AdversarialPair(self.generator, self.discriminator, self.config, self.dtype)
        self.ema = GeneratorEMA(self.generator, self.config.optimizer)

    def start_from(self, source: Source) -> None:
        """Begin with trained weights.

        Raises:
            RunError: They don't fit.
        """
        nearest = self.config.fine_tuning.new_categories == "nearest"
        extractor = load_extractor() if nearest else None
        likeness = find_likeness(source, self.dataset, extractor)
        fresh = transfer(source, self.generator, self.discriminator, likeness)
        new = [category_index(name, source.categories) is None for name in likeness]
        recognise_new(self.discriminator.eval(), self.dataset, new)
        logger.info("from %s; afresh: %s", source.name, ", ".join(fresh) or "nothing")
        self._place()

    def train(self, on_tick: Callable[[Tick], None], should_stop: Callable[[], bool]) -> Outcome:
        """Train until the configured end, or until should_stop.

        Losses, gradients or weights that break send the run back to its last checkpoint with
        smaller steps, a few times (see training.learning.guardrails).

        Raises:
            TrainingDiverged: That did not help; checkpoints are from before.
            CheckpointError: A checkpoint can't be written.
        """
        clock = Clock(self.nimg, self.config)
        recorder = self._recorder()
        if self.nimg == self.first_nimg:
            self._save()  # what the first minutes are rolled back to
        elif recorder:
            recorder.note("resume", self.nimg)
        while True:
            try:
                return self._train(clock, recorder, on_tick, should_stop)
            except TrainingDiverged as error:
                self._roll_back(f"{error} before {self.nimg} images", recorder)
                clock.rewind(self.nimg)

    def _train(
        self,
        clock: Clock,
        recorder: Recorder | None,
        on_tick: Callable[[Tick], None],
        should_stop: Callable[[], bool],
    ) -> Outcome:
        if self._is_long_enough():  # resumed after its end
            return Outcome(self.nimg, "finished", checkpoint_path(self.run, self.nimg))
        for batch in self.loader.batches(self.nimg, self.ranks):
            events = self._advance(batch)
            tick = self._tick(clock) if clock.due("tick", self.nimg) else None
            reason = self._reason_to_end(clock, should_stop)
            if recorder:
                recorder.record(tick, events)
            if tick:
                on_tick(tick)
            if clock.due("grid", self.nimg) or reason:
                self._look(recorder, judge=reason != "stopped")  # a resumed run judges in time
            if clock.due("checkpoint", self.nimg) or reason:
                path = self._save()
            if reason:
                return Outcome(self.nimg, reason, path)
        raise AssertionError("the loader is endless")

    def _roll_back(self, reason: str, recorder: Recorder | None) -> None:
        """Load the last checkpoint and save it again with the smaller steps noted."""
        message = self.guardrails.roll_back(reason)
        rollbacks, best = self.guardrails.rollbacks, self.best
        self.resume()
        # The best snapshot stays, even where it is of the stretch that is now left.
        self.guardrails.rollbacks, self.best = rollbacks, best
        self._save()
        logger.warning("%s", message)
        if recorder:
            recorder.note("rollback", self.nimg, message=message)

    def _look(self, recorder: Recorder | None, judge: bool) -> None:
        """Draw a grid; measure on the validation photos, and keep the best generator so far."""
        self._refuse_broken_weights()
        if recorder is None:
            return
        monitor = self.monitor if judge else None
        if monitor is not None and len(self.ema.generators) > 1:
            self.ema.choose(monitor.distances(self.ema.generators, self.nimg))
        self.ema.generator.update_w_avg()
        recorder.snapshot(self.ema.generator, self.nimg)
        if monitor is None:
            return
        measured = monitor.measure(self.ema.generator, self.discriminator, self.dtype)
        recorder.note("validation", self.nimg, **measured, ema_length=self.ema.length)
        for name, message in alarms(measured).items():
            logger.warning("%s at %d images: %s", name, self.nimg, message)
            recorder.note("alarm", self.nimg, name=name, message=message)
        if self.best.is_now(measured["kernel_distance"]):
            save_best(self.run, self.nimg, self._snapshot())

    def _advance(self, batch: Batch) -> list[MaskEvent]:
        """One step of everything that a checkpoint holds."""
        events = self.mask.update(self.generator, self.discriminator, self.nimg, self.dtype)
        self.pair.set_learning_rate(self._learning_rate_factor())
        statistics = self.pair.step(batch, self.nimg, self.augmentation.p, self.ranks)
        self.meter.add(statistics, self.mask.is_masking)
        self.nimg += self.config.batch_size
        self.ema.update(self.nimg, self.config.batch_size)
        return events

    def _learning_rate_factor(self) -> float:
        config, shown = self.config, self.nimg + self.config.batch_size
        by_images = 0.0 if config.max_kimg is None else shown / (config.max_kimg * 1000)
        progress = max(by_images, self.time_spent)
        since = shown - self.first_nimg
        return self.guardrails.learning_rate_factor * rate_factor(config.optimizer, since, progress)

    def _recorder(self) -> Recorder | None:
        if not self.ranks.is_main:
            return None
        return Recorder(self.run, GridSampler(self.generator, self.config.seed))

    def _tick(self, clock: Clock) -> Tick:
        """Read the meter, adjust the augmentation, and refuse what is not healthy."""
        means = self.meter.means(self.ranks)
        self.guardrails.check(means)
        unmasked = self.meter.steps - self.meter.masked_steps
        if unmasked:
            self.augmentation.update(means["real_sign"], unmasked * self.config.batch_size)
        self.meter.reset()
        shown, seconds = clock.lap(self.nimg)
        return Tick(
            nimg=self.nimg,
            elapsed_sec=round(clock.elapsed(), 3),
            images_per_sec=round(shown / seconds, 1),
            augment_strength=self.augmentation.p,
            memory_mb=round(memory_mb(self.device), 1),
            **means,
        )

    def _is_long_enough(self) -> bool:
        return self.config.max_kimg is not None and self.nimg >= self.config.max_kimg * 1000

    def _reason_to_end(self, clock: Clock, should_stop: Callable[[], bool]) -> str | None:
        if self._is_long_enough():
            return "finished"
        step = self.nimg // self.config.batch_size
        if self.ranks.world_size > 1 and step % STEPS_BETWEEN_VOTES:
            return None
        votes = (clock.spent(), float(should_stop()))
        self.time_spent, stop = largest(votes, self.device, self.ranks)
        if self.time_spent >= 1:
            return "finished"
        return "stopped" if stop else None

    def _save(self) -> Path:
        self._refuse_broken_weights()
        state = self.state_dict()
        if not self.ranks.is_main:
            return self.run
        return save_checkpoint(self.run, self.nimg, state, self.config.keep_checkpoints)

    def _refuse_broken_weights(self) -> None:
        """Losses are looked at once a tick; nothing is judged or saved of a break before that."""
        if not _all_finite(self.generator) or not _all_finite(self.discriminator):
            raise TrainingDiverged("weights not finite")

    def _snapshot(self) -> dict[str, Any]:
        """What can be sampled, exported and fine-tuned, but not resumed."""
        return {
            "nimg": self.nimg,
            "ema": self.ema.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the steps to come."""
        return {
            **self._snapshot(),
            "averages": self.ema.state_dict(),
            "generator": self.generator.state_dict(),
            "generator_optimizer": self.pair.generator_optimizer.state_dict(),
            "discriminator_optimizer": self.pair.discriminator_optimizer.state_dict(),
            "augment": self.augmentation.state_dict(),
            "meter": self.meter.state_dict(self.ranks),
            "mask": self.mask.state_dict(),
            "guardrails": self.guardrails.state_dict(),
            "best": self.best.state_dict(),
        }

    def resume(self) -> None:
        """Take up where the newest whole checkpoint was.

        Raises:
            CheckpointError: The run has none.
        """
        state = load_newest(self.run, self.device)
        self.generator.load_state_dict(state["generator"])
        self.discriminator.load_state_dict(state["discriminator"])
        # Older runs have one average.
        self.ema.load_state_dict(state.get("averages") or only_average(state["ema"]))
        self.pair.load_optimizers(state["generator_optimizer"], state["discriminator_optimizer"])
        self.augmentation.load_state_dict(state["augment"])
        self.meter.load_state_dict(state["meter"])
        self.mask.load_state_dict(state["mask"], self.discriminator)
        self.guardrails.load_state_dict(state["guardrails"])
        self.best = BestMoment()
        if "best" in state:  # before, the lowest Frechet distance was kept
            self.best.load_state_dict(state["best"])
        self.nimg = int(state["nimg"])
        logger.info("resumed %s at %d images", self.run, self.nimg)


def _all_finite(module: torch.nn.Module) -> bool:
    """Whether every parameter is a number; one wait for the device."""
    sums = torch.stack([p.detach().float().abs().sum() for p in module.parameters()])
    return bool(torch.isfinite(sums).all())
