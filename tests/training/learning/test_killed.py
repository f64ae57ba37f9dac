"""A run that is killed again and again ends where the undisturbed one does."""

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from training.learning.checkpoint import load_newest

from ...processes import started, wait_for

CATALOGAN = Path(sys.executable).with_name("catalogan")
SETTINGS = {
    "batch_size": 8,
    "tick_kimg": 0.04,
    "checkpoint_kimg": 0.08,
    "grid_kimg": 0.4,
    "model.channel_base": 128,
    "model.channel_max": 16,
    "masking.interval_kimg": 0.1,
    "masking.period_kimg": 0.15,
    "masking.lag_baseline": 2,
    "masking.lag_deviations": 0,
    "augment.adjust_kimg": 1.0,
    "optimizer.r1_interval_steps": 4,
    "optimizer.decay": 0.5,
    "precision": "fp32",
}


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def wait_for_a_checkpoint(run: Path, process: "subprocess.Popen[str]") -> float:
    """Until the process has got on; returns the seconds from then to one more checkpoint."""
    times = []
    for _ in range(2):
        before = set(run.glob("checkpoint-*.pt"))
        wait_for(lambda before=before: not set(run.glob("checkpoint-*.pt")) <= before, process)
        times.append(time.monotonic())
    return times[1] - times[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("discriminator", "kimg", "kills"),
    [("convolutional", 3, 5), ("both", 0.9, 3)],
)
def test_killed_at_random_moments_and_resumed_equals_undisturbed(
    tmp_path: Path, tiny_dataset: Path, discriminator: str, kimg: float, kills: int
) -> None:
    """A process is killed within three checkpoints, so that it never gets to the end."""
    options = [f"--set={name}={value}" for name, value in SETTINGS.items()]
    options += ["--discriminator", discriminator]
    common = ["train", str(tiny_dataset), "--device", "cpu", "--max-kimg", str(kimg)]

    def command(run: Path) -> list[str]:
        started = list(run.glob("checkpoint-*.pt"))
        return [str(CATALOGAN), *common, "--out", str(run), *(["--resume"] if started else options)]

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    subprocess.run(command(whole), check=True, capture_output=True)
    rng = random.Random(0)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    for kill in range(kills):
        with started(command(parts), **quiet) as process:
            if kill:
                time.sleep(rng.uniform(0, wait_for_a_checkpoint(parts, process)))
            else:  # hardly begun
                wait_for(parts.exists, process)
            assert process.poll() is None, "it ended before it was killed"
    subprocess.run(command(parts), check=True, capture_output=True)
    assert not list(parts.glob("*.partial"))
    assert equal(load_newest(whole), load_newest(parts))
