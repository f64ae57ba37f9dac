"""Trains a base: clothes at 32 px first, then grown to 64 px, and an encoder.

    python bench/train_base.py --photos DIR --validation DIR --out training/data/bases/clothing

An image costs little at 32 px; the blocks that 64 px add then start from a generator that knows
the shapes. Datasets that are there are not prepared again, and what was stopped goes on where it
was. Smaller steps at the end take the distance down once more: fewer --large-kimg end a run sooner,
and well. Hours of a processor. Not run to its end yet: the base that ships was trained by this file
as of commit 5acf454.
"""

import argparse
import subprocess
from pathlib import Path

from measuring import CATALOGAN, REPOSITORY

WIDTHS = ("--set", "model.channel_base=2048")
# Ticks and sample grids less often than in the demo: the run is fifty times as long.
PACE = ("--set", "tick_kimg=2", "--set", "grid_kimg=10", "--set", "checkpoint_kimg=10")
ADAPTATION = ("--set", "augment.adjust_kimg=200")

DATA = "3,068 photos of clothes: alexeygrigorev/clothing-dataset-small on GitHub, CC0 1.0"


def catalogan(*arguments: object) -> None:
    """Run one command; a failure ends all."""
    print("$ catalogan", *arguments, flush=True)
    subprocess.run([CATALOGAN, *map(str, arguments)], check=True)


def train(dataset: Path, run: Path, kimg: float, *settings: str) -> None:
    """Train, or go on where it was stopped."""
    checkpoints = list(run.glob("checkpoint-*.pt"))
    how = ("--resume",) if checkpoints else (*settings, *PACE, *ADAPTATION)
    catalogan("train", dataset, "--out", run, "--max-kimg", f"{kimg:g}", *how)


def main() -> None:
    """Make it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="a folder for each category")
    parser.add_argument("--validation", type=Path, required=True, help="the same, held out")
    parser.add_argument("--out", type=Path, required=True, help="the export; must not exist")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "build" / "base")
    parser.add_argument("--small-kimg", type=float, default=150, help="thousand images at 32 px")
    parser.add_argument("--large-kimg", type=float, default=600, help="thousand images at 64 px")
    parser.add_argument("--encoder-kimg", type=float, default=60, help="photos to the encoder")
    options = parser.parse_args()
    data = {size: options.work / f"dataset-{size}" for size in (32, 64)}
    runs = {size: options.work / f"run-{size}" for size in (32, 64)}
    photos = (options.photos, "--validation", options.validation)
    for size, dataset in data.items():
        if not dataset.exists():
            catalogan("prepare", *photos, "--out", dataset, "--size", size)
    train(
        data[32], runs[32], options.small_kimg, "--preset", "cpu-demo", "--learning-rate", "0.005",
        *WIDTHS,
    )  # fmt: skip
    train(
        data[64], runs[64], options.large_kimg, "--from", str(runs[32]), "--discriminator", "both",
        "--batch-size", "16", "--learning-rate", "0.003",
        "--set", "optimizer.mapping_multiplier=0.3",
        "--set", "optimizer.r1_gamma=2", "--set", "optimizer.decay=0.15",
    )  # fmt: skip
    encoder_kimg = f"{options.encoder_kimg:g}"
    catalogan("train-encoder", runs[64], "--data", data[64], "--max-kimg", encoder_kimg)
    catalogan("evaluate", runs[64], "--data", data[64])
    shown = 1000 * (options.small_kimg + options.large_kimg)
    catalogan(
        "export", runs[64], "--out", options.out, "--name", options.out.name,
        "--licence", "CC0-1.0", "--author", "Catalogan contributors",
        "--photos", f"{DATA}; {shown:,.0f} images shown in all",
    )  # fmt: skip


if __name__ == "__main__":
    main()
