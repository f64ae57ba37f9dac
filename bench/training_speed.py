"""How fast training is, how much of a step is more than its convolutions, and what masks cost.

The convolutions are those of the steps: the same calls on the same shapes.

The photos are the sample catalogue's at 32 px, the preset is cpu-demo. Its augmentation starts at
probability 0, at which it costs nothing, so that it is fixed above; what it is does not change
its cost.
"""

import itertools
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from convolutions import ConvolutionRecorder, ConvolutionReplay
from measuring import Measurement, catalogan, interleaved, quotients, seconds

from models.masking import FeatureMask
from training.dataset import PreparedDataset
from training.learning.config import TrainingConfig, merge, resolve
from training.learning.device import keep_freed_memory
from training.learning.distributed import Ranks
from training.learning.mask_control import MaskController
from training.learning.presets import PRESETS
from training.learning.run import write_run
from training.learning.trainer import Trainer

CPU = torch.device("cpu")
PRESET = "cpu-demo"
SIZE_PX = 32
AUGMENT_P = 0.3


def new_trainer(
    run: Path, dataset: PreparedDataset, config: TrainingConfig, device: torch.device = CPU
) -> Trainer:
    """As `catalogan train` creates it, in a run of its own."""
    run.mkdir(exist_ok=True)
    write_run(run, config, dataset)
    return Trainer(run, dataset, config, device, Ranks())


def configured(**masking: Any) -> TrainingConfig:
    """The preset, with a fixed augmentation."""
    augment = {"mode": "fixed", "p": AUGMENT_P}
    settings = {"preset": PRESET, "augment": augment, "masking": masking, "max_kimg": 1000}
    return resolve(merge(PRESETS[PRESET], settings))


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


def masking_share(steps: Intervals) -> float:
    """Share of the CPU time that measuring lag and looking through masks take.

    A mask's gradient, one multiplication, is not in it.
    """
    spent = 0.0

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal spent
            start = time.process_time()
            try:
                return function(*arguments)
            finally:
                spent += time.process_time() - start

        return call

    start = time.process_time()
    with (
        mock.patch.object(MaskController, "update", timed(MaskController.update)),
        mock.patch.object(FeatureMask, "forward", timed(FeatureMask.forward)),
    ):
        steps.run()
    return spent / (time.process_time() - start)


def measure(quick: bool) -> Measurement:
    """Measure all figures; a quick trial is of smaller images."""
    keep_freed_memory()
    measurement = Measurement()
    with tempfile.TemporaryDirectory(prefix="catalogan-bench-") as name:
        folder = Path(name)
        part = ["--part", "second"] if quick else []
        catalogan("sample-catalogue", "--out", folder / "photos", *part)
        size = 8 if quick else SIZE_PX
        catalogan("prepare", folder / "photos", "--out", folder / "dataset", "--size", size)
        dataset, level = PreparedDataset(folder / "dataset"), {"level": 0} if quick else {}

        # A mask is held all the time, as in the dearest of steps.
        steps = Intervals(
            new_trainer(
                folder / "steps",
                dataset,
                configured(mode="scheduled", schedule_kimg=[0], period_kimg=1e6, **level),
            )
        )
        steps.run()
        with ConvolutionRecorder() as recorder:
            steps.run()
        replay = ConvolutionReplay(recorder.calls)
        replay.run()
        whole, convolutions = interleaved(
            1 if quick else 9, partial(seconds, steps.run), partial(seconds, replay.run)
        )

        # As many steps as lie between two measurements of lag, and more.
        dynamic = Intervals(
            new_trainer(folder / "dynamic", dataset, configured(mode="dynamic", **level)),
            1 if quick else 8,
        )
        dynamic.run()
        shares = [masking_share(dynamic) for _ in range(1 if quick else 5)]
    images = steps.steps * steps.trainer.config.batch_size
    measurement.add("train_images_per_s", [images / taken for taken in whole])
    measurement.add("train_step_over_convolutions", quotients(whole, convolutions))
    measurement.add("masking_cost", shares)
    measurement.raw["training"] = {
        "threads": torch.get_num_threads(),
        "dtype": str(steps.trainer.dtype),
        "batch_size": steps.trainer.config.batch_size,
        "steps_in_interval": steps.steps,
        "convolutions_in_interval": len(recorder.calls),
        "interval_s": whole,
        "interval_convolutions_s": convolutions,
    }
    return measurement
