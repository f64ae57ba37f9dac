"""How fast training is, and how much of a step is more than its convolutions.

The convolutions are those of the steps: the same calls on the same shapes.

The photos are the sample catalogue's at 32 px, the preset is cpu-demo. Its augmentation starts at
probability 0, at which it costs nothing, so that it is fixed above; what it is does not change
its cost.
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
from training.learning.presets import PRESETS
from training.learning.trainer import Trainer

PRESET = "cpu-demo"
SIZE_PX = 32
AUGMENT_P = 0.3


def prepare_photos(folder: Path, size_px: int = SIZE_PX) -> PreparedDataset:
    """Unpack the sample catalogue and prepare it, by the public commands."""
    photos, dataset = folder / "photos", folder / "dataset"
    for arguments in (
        ("sample-catalogue", "--out", str(photos)),
        ("prepare", str(photos), "--out", str(dataset), "--size", str(size_px)),
    ):
        subprocess.run([CATALOGAN, *arguments], check=True, capture_output=True)
    return PreparedDataset(dataset)


def make_trainer(run: Path, dataset: PreparedDataset, **overrides: Any) -> Trainer:
    """A trainer of the preset on the CPU, as `catalogan train` makes it."""
    augment = {"mode": "fixed", "p": AUGMENT_P}
    settings = merge_settings(
        {**PRESETS[PRESET], "preset": PRESET}, {"augment": augment, **overrides}
    )
    run.mkdir()
    return Trainer(run, dataset, resolve(settings), torch.device("cpu"), Ranks())


class Intervals:
    """Runs R1 intervals of training steps, `count` at a time."""

    def __init__(self, trainer: Trainer, count: int = 1) -> None:
        self.trainer = trainer
        self._batches = trainer.loader.batches(0, trainer.ranks)
        self.steps = count * trainer.config.optimizer.r1_interval_steps

    def run(self) -> None:
        """Run them once."""
        trainer, config = self.trainer, self.trainer.config
        for batch in itertools.islice(self._batches, self.steps):
            trainer.mask.update(
                trainer.generator, trainer.discriminator, trainer.nimg, trainer.dtype
            )
            trainer.pair.step(batch, trainer.nimg, trainer.augmentation.p, trainer.ranks)
            trainer.nimg += config.batch_size
            trainer.ema.update(trainer.nimg, config.batch_size)

    def seconds(self) -> float:
        """Time of one run."""
        return _seconds(self.run)


def _seconds(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(quick: bool) -> Measurement:
    """Measure all figures; a quick trial is of smaller images."""
    os.environ["PYTHONWARNINGS"] = "ignore"
    keep_freed_memory()
    rounds = 2 if quick else 9
    measurement = Measurement()
    with tempfile.TemporaryDirectory(prefix="catalogan-bench-") as name:
        folder = Path(name)
        dataset = prepare_photos(folder, 8 if quick else SIZE_PX)

        # A mask is held all the time, as in the dearest of steps.
        steps = Intervals(
            make_trainer(
                folder / "steps",
                dataset,
                masking={"mode": "static"} | ({"level": 0} if quick else {}),
                max_kimg=1000,
            )
        )
        steps.run()
        with ConvolutionRecorder() as recorder:
            steps.run()
        replay = ConvolutionReplay(recorder.calls)
        replay.run()
        intervals, convolutions = interleaved(rounds, steps.seconds, lambda: _seconds(replay.run))
    images = steps.steps * steps.trainer.config.batch_size
    measurement.add("train_images_per_s", [images / seconds for seconds in intervals])
    measurement.add("train_step_over_convolutions", quotients(intervals, convolutions))
    measurement.raw["training"] = {
        "threads": torch.get_num_threads(),
        "dtype": str(steps.trainer.dtype),
        "batch_size": steps.trainer.config.batch_size,
        "steps_in_interval": steps.steps,
        "convolutions_in_interval": len(recorder.calls),
        "interval_s": intervals,
        "interval_convolutions_s": convolutions,
    }
    return measurement


if __name__ == "__main__":
    run_part(__doc__, measure)
