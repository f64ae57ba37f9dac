"""What a run leaves to look at: stats.jsonl and sample grids."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.generator import Generator
from training.learning.mask_control import MaskEvent
from training.learning.randomness import Purpose, generator_for
from training.learning.run import append_line

GRID_COLUMNS = 8


@dataclass(frozen=True, kw_only=True)
class Tick:
    """Means over the steps since the tick before; one line of stats.jsonl."""

    nimg: int
    elapsed_sec: float
    images_per_sec: float
    generator_loss: float
    discriminator_loss: float
    real_logits: float
    fake_logits: float
    augment_strength: float
    mask_active: float  # share of the steps with a mask held
    memory_mb: float  # resident, or allocated on the GPU
    # None where no step of the tick had R1, or was without a mask:
    real_sign: float | None = None
    r1_penalty: float | None = None
    gradient_norm: float | None = None


class Recorder:
    """Writes the records of one run; only the main process has one."""

    def __init__(self, run: Path, grid: "GridSampler") -> None:
        self.run = run
        self.grid = grid
        (run / "grids").mkdir(exist_ok=True)

    def record(self, tick: Tick | None, events: list[MaskEvent]) -> None:
        """Write one step's mask events, and the tick that it may have ended with."""
        for event in events:
            self.note(event.kind, event.nimg, **event.values)
        if tick is not None:
            append_line(self.run / "stats.jsonl", {"kind": "tick", **dataclasses.asdict(tick)})

    def note(self, kind: str, nimg: int, **values: float | str) -> None:
        """Write what happened: kind "validation", "alarm", "rollback", "resume" or a mask's."""
        append_line(self.run / "stats.jsonl", {"kind": kind, "nimg": nimg, **values})

    def snapshot(self, generator: Generator, nimg: int) -> None:
        """Draw the sample grid."""
        self.grid.draw(generator).save(self.run / "grids" / f"grid-{nimg:012d}.png")


def to_pixels(images: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """[N, C, H, W] in [-1, 1] -> uint8 [N, H, W, C], clamped and rounded."""
    scaled = images.float().mul(127.5).add(127.5).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


class GridSampler:
    """The same latents in every grid, a row for each category."""

    def __init__(
        self, generator: Generator, seed: int, truncation_psi: float = 0.8, noise_scale: float = 1.0
    ) -> None:
        categories = generator.shape.categories
        rows = min(categories, 16)
        random = generator_for(seed, Purpose.GRID)
        count = rows * GRID_COLUMNS
        self.z = torch.randn(count, generator.z_dim, generator=random)
        self.noise = noise_scale * torch.randn(count, generator.noise_dim, generator=random)
        self.category = torch.eye(categories)[:rows].repeat_interleave(GRID_COLUMNS, dim=0)
        self.truncation_psi = torch.full((count,), truncation_psi)

    @torch.no_grad()
    def draw(self, generator: Generator) -> Image.Image:
        """Draw the grid with `generator`, whose w_avg must be up to date."""
        device = generator.mapping.w_avg.device
        latents = (self.z, self.category, self.truncation_psi, self.noise)
        rows = zip(*(x.to(device).split(2 * GRID_COLUMNS) for x in latents), strict=True)
        pixels = np.concatenate([to_pixels(generator(*row)) for row in rows])
        count, height, width, channels = pixels.shape
        tiled = pixels.reshape(count // GRID_COLUMNS, GRID_COLUMNS, height, width, channels)
        sheet = tiled.swapaxes(1, 2).reshape(-1, GRID_COLUMNS * width, channels)
        return Image.fromarray(sheet.squeeze(2) if channels == 1 else sheet)
