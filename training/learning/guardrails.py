"""Guards that make a run safe to leave alone: when to roll back, when to raise an alarm.

A run is rolled back if losses or gradients are not finite, or if gradients are far larger than
before. An alarm is raised if a run still works but no longer improves.
"""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any, Final

import torch

MAX_ROLLBACKS: Final = 3
ROLLBACK_RATE: Final = 0.5  # learning rate after a rollback, relative
# A tick's gradient norm, relative to the median of the previous ones, that counts as exploding:
# R1's gradients vary by a factor of ten or so within a healthy run.
EXPLODING: Final = 1000.0
NORM_HISTORY: Final = 32
MIN_NORM_HISTORY: Final = 4
# Where the discriminator's logits place unseen photos between training photos and generated
# images: 0 = like training photos, 1 = like generated images.
OVERFITTING: Final = 0.8
# Spread of generated images' features within a category, relative to that of the photos.
COLLAPSE: Final = 0.1
# Checkpoints hold the pair, its averages, Adam's two moments and the lag reference.
_CHECKPOINT_COPIES: Final = 8


class TrainingDiverged(RuntimeError):
    """Losses or gradients diverged repeatedly; checkpoints are from before that."""


class ResourceError(ValueError):
    """Too little disk or memory for the run; the message says how much is missing."""


class Guardrails:
    """Checks the means of each tick, and counts the rollbacks of a run."""

    def __init__(self) -> None:
        self.rollbacks = 0
        self.gradient_norms: list[float] = []

    @property
    def learning_rate_factor(self) -> float:
        """Factor on the learning rate after all rollbacks so far."""
        return ROLLBACK_RATE**self.rollbacks

    def check(self, means: Mapping[str, float]) -> None:
        """Check the means of a tick.

        Raises:
            TrainingDiverged: A value is not finite, or the gradients exploded.
        """
        broken = [name for name, value in means.items() if not math.isfinite(value)]
        if broken:
            raise TrainingDiverged(f"{', '.join(broken)} not finite")
        norm = means.get("gradient_norm")
        if norm is None:
            return
        if len(self.gradient_norms) >= MIN_NORM_HISTORY:
            usual = median(self.gradient_norms)
            if norm > EXPLODING * usual:
                raise TrainingDiverged(f"gradients exploded (norm {norm:.3g}, usually {usual:.3g})")
        self.gradient_norms = [*self.gradient_norms, norm][-NORM_HISTORY:]

    def roll_back(self, reason: str) -> str:
        """Count a rollback.

        Returns:
            A description for log and report.

        Raises:
            TrainingDiverged: There were too many rollbacks.
        """
        if self.rollbacks >= MAX_ROLLBACKS:
            raise TrainingDiverged(
                f"{reason}, after {MAX_ROLLBACKS} rollbacks with ever smaller steps: start again "
                "with a lower --learning-rate or a higher --r1-gamma; the last checkpoint is good"
            )
        self.rollbacks += 1
        return (
            f"{reason}: back to the last checkpoint, with {self.learning_rate_factor:g} of the "
            f"learning rate (rollback {self.rollbacks} of {MAX_ROLLBACKS})"
        )

    def state_dict(self) -> dict[str, Any]:
        """State to resume from."""
        return {"rollbacks": self.rollbacks, "gradient_norms": list(self.gradient_norms)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""
        self.rollbacks = state["rollbacks"]
        self.gradient_norms = list(state["gradient_norms"])


def alarms(measured: Mapping[str, float]) -> dict[str, str]:
    """Derive alarms from validation measurements (training/learning/validation.py).

    Returns:
        "overfitting" or "collapse" -> message.
    """
    found = {}
    if measured["overfitting"] > OVERFITTING:
        found["overfitting"] = (
            "the discriminator takes unseen photos for generated ones "
            f"({measured['overfitting']:.2f}): more photos, stronger --augment, or stop here"
        )
    if measured["diversity"] < COLLAPSE:
        found["collapse"] = (
            "generated images of a category are nearly the same (spread "
            f"{measured['diversity']:.2f} of the photos'): go back to the best snapshot, and "
            "try a lower --learning-rate"
        )
    return found


def check_disk(run: Path, networks: tuple[torch.nn.Module, ...], keep_checkpoints: int) -> None:
    """Refuse to start a run whose checkpoints would not fit.

    Raises:
        ResourceError: The message names the folder and the space needed.
    """
    # The newest is written before the oldest is deleted, and there is the best snapshot.
    needed = _checkpoint_bytes(networks) * (keep_checkpoints + 2)
    free = shutil.disk_usage(run).free
    if free < needed:
        raise ResourceError(
            f"{run}: checkpoints need {needed / 1e6:.1f} MB of disk, {free / 1e6:.1f} MB are "
            "free: free disk space, choose another --out, or --set keep_checkpoints=2"
        )


def check_memory(networks: tuple[torch.nn.Module, ...], device: torch.device) -> None:
    """Refuse to start a run whose weights and optimisers alone would not fit.

    Raises:
        ResourceError: The message names the device and the memory needed.
    """
    needed = 2 * _checkpoint_bytes(networks)  # twice, for loading a checkpoint
    free = _free_memory(device)
    if free is not None and free < needed:
        raise ResourceError(
            f"{device}: the networks need at least {needed / 1e6:.0f} MB of memory, "
            f"{free / 1e6:.0f} MB are free: choose a smaller --preset or end other programs"
        )


def _checkpoint_bytes(networks: tuple[torch.nn.Module, ...]) -> int:
    parameters = sum(p.numel() for network in networks for p in network.parameters())
    return parameters * 4 * _CHECKPOINT_COPIES


def _free_memory(device: torch.device) -> int | None:
    """Free memory of the device in bytes; None if the system does not report it."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = {name: value for name, _, value in (line.partition(":") for line in lines)}
    return int(found["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in found else None
