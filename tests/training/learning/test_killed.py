"""A run that is killed again and again ends where the undisturbed one does."""

import contextlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from training.learning.checkpoint import load_newest

CATALOGAN = Path(sys.executable).with_name("catalogan")
KILLS = 10
SETTINGS = {
    "batch_size": 8,
    "tick_kimg": 0.04,
    "checkpoint_kimg": 0.08,
    "grid_kimg": 0.4,
    "model.channel_base": 128,
    "model.channel_max": 16,
    "masking.interval_kimg": 0.1,
    "masking.period_kimg": 0.15,
    "masking.threshold": 1.5,
    "augment.adjust_kimg": 1.0,
    "optimizer.r1_interval_steps": 4,
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


def wait_for_a_checkpoint(run: Path, process: subprocess.Popen[bytes]) -> None:
    """Until the process has got on, however fast the machine is."""
    before = set(run.glob("checkpoint-*.pt"))
    while process.poll() is None and set(run.glob("checkpoint-*.pt")) <= before:
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_random_moments_and_resumed_equals_undisturbed(
    tmp_path: Path, tiny_dataset: Path
) -> None:
    options = [f"--set={name}={value}" for name, value in SETTINGS.items()]
    common = ["train", str(tiny_dataset), "--device", "cpu", "--max-kimg", "6"]

    def command(run: Path) -> list[str]:
        started = list(run.glob("checkpoint-*.pt"))
        return [str(CATALOGAN), *common, "--out", str(run), *(["--resume"] if started else options)]

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    subprocess.run(command(whole), check=True, capture_output=True, timeout=300)
    rng = random.Random(0)
    for kill in range(KILLS):
        with subprocess.Popen(
            command(parts), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            if kill:  # the first one may come before anything is there
                wait_for_a_checkpoint(parts, process)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=rng.uniform(0, 0.4 if kill else 4))
            assert process.returncode is None, "it ended before it was killed"
            process.send_signal(signal.SIGKILL)
    subprocess.run(command(parts), check=True, capture_output=True, timeout=300)
    assert not list(parts.glob("*.partial"))
    assert equal(load_newest(whole), load_newest(parts))
