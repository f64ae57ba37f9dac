"""How fast training is, and how much of a step is more than its convolutions.

The photos are rendered ones at 32 px, the preset is cpu-demo. Its augmentation starts at
strength 0, at which it costs nothing, so that it is fixed above; how strong it is does not
change its cost.
"""

import itertools
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from convolutions import ConvolutionRecorder, ConvolutionReplay
from measuring import CATALOGAN, Measurement, interleaved, quotients, run_part

from training.dataset import PreparedDataset
from training.learning.config import merge as merge_settings
from training.learning.config import resolve
from training.learning.device import keep_freed_memory
from training.learning.distributed import Ranks
from training.learning.ema import ema_decay
from training.learning.presets import PRESETS
from training.learning.recorder import Tick
from training.learning.trainer import Trainer

PRESET = "cpu-demo"
SIZE_PX = 32
AUGMENT_STRENGTH = 0.3
WARM_UP_IMAGES = 512


def prepare_photos(folder: Path, count: int) -> PreparedDataset:
    """Render `count` photos and prepare them, by the public commands."""
    photos, dataset = folder / "photos", folder / "dataset"
    for arguments in (
        ("sample-catalogue", "--out", str(photos), "--count", str(count), "--size", "64"),
        ("prepare", str(photos), "--out", str(dataset), "--size", str(SIZE_PX)),
    ):
        subprocess.run([CATALOGAN, *arguments], check=True, capture_output=True)
    return PreparedDataset(dataset)


def make_trainer(run: Path, dataset: PreparedDataset, **overrides: Any) -> Trainer:
    """A trainer of the preset on the CPU, as `catalogan train` makes it."""
    augment = {"mode": "fixed", "strength": AUGMENT_STRENGTH}
    settings = merge_settings(
        {**PRESETS[PRESET], "preset": PRESET}, {"augment": augment, **overrides}
    )
    run.mkdir()
    return Trainer(run, dataset, resolve(settings), torch.device("cpu"), Ranks())


def time_training(
    folder: Path, dataset: PreparedDataset, intervals: int, rounds: int
) -> list[float]:
    """Images/s of the whole training loop, once a round.

    Args:
        folder: Where the run goes.
        dataset: What to train on.
        intervals: R1 intervals in a round; 4 hold one measurement of lag, too.
        rounds: How often to measure, after one round to warm up.
    """
    config = resolve({**PRESETS[PRESET], "max_kimg": 1})
    images = intervals * config.optimizer.r1_interval_steps * config.batch_size
    trainer = make_trainer(
        folder / "throughput",
        dataset,
        tick_kimg=images / 1000,
        max_kimg=(rounds + 1) * images / 1000,
    )
    ends: list[float] = []

    def on_tick(_: Tick) -> None:
        ends.append(time.perf_counter())

    trainer.train(on_tick, lambda: False)
    return [images / (end - start) for start, end in itertools.pairwise(ends)]


class Intervals:
    """Runs R1 intervals of training steps, `count` at a time."""

    def __init__(self, trainer: Trainer, count: int = 1) -> None:
        self._trainer = trainer
        self._batches = trainer.loader.batches(0, trainer.ranks)
        self.steps = count * trainer.config.optimizer.r1_interval_steps

    def run(self) -> None:
        """Run them once."""
        trainer, config = self._trainer, self._trainer.config
        for batch in itertools.islice(self._batches, self.steps):
            trainer.mask.update(
                trainer.generator, trainer.discriminator, trainer.nimg, trainer.dtype
            )
            trainer.pair.step(batch, trainer.nimg, trainer.strength.strength, trainer.ranks)
            trainer.nimg += config.batch_size
            settings = config.optimizer
            decay = ema_decay(
                trainer.nimg, config.batch_size, settings.ema_kimg, settings.ema_rampup
            )
            trainer.ema.update(trainer.generator, decay)

    def seconds(self) -> float:
        """Time of one run."""
        return _seconds(self.run)


def _seconds(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(quick: bool) -> Measurement:
    """Measure both figures."""
    os.environ["PYTHONWARNINGS"] = "ignore"
    keep_freed_memory()
    rounds = 2 if quick else 9
    measurement = Measurement()
    with tempfile.TemporaryDirectory(prefix="catalogan-bench-") as name:
        folder = Path(name)
        dataset = prepare_photos(folder, 24 if quick else 160)
        speeds = time_training(folder, dataset, 1 if quick else 4, 2 if quick else 5)
        measurement.add("train_images_per_s", speeds)

        # A mask is held all the time, as in the dearest of steps.
        trainer = make_trainer(folder / "steps", dataset, masking={"mode": "static"}, max_kimg=1000)
        intervals = Intervals(trainer)
        intervals.run()
        with ConvolutionRecorder() as recorder:
            intervals.run()
        replay = ConvolutionReplay(recorder.calls)
        replay.run()
        steps, convolutions = interleaved(rounds, intervals.seconds, lambda: _seconds(replay.run))
    measurement.add("train_step_over_convolutions", quotients(steps, convolutions))
    measurement.raw["training"] = {
        "threads": torch.get_num_threads(),
        "dtype": str(trainer.dtype),
        "batch_size": trainer.config.batch_size,
        "steps_in_interval": intervals.steps,
        "convolutions_in_interval": len(recorder.calls),
        "interval_s": steps,
        "interval_convolutions_s": convolutions,
    }
    return measurement


if __name__ == "__main__":
    run_part(__doc__, measure)
