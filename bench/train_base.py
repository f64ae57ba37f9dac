"""Makes the bases that ship: clothes at 64 px with an encoder, and grown from them at 128 px.

    python bench/train_base.py --photos DIR --validation DIR --out training/data/bases

trains on the GPU that is there, for minutes, or for days on a processor. What is there is not made
again, and what was stopped goes on where it was. Where a GPU is had without a network, `make gpu`
trains instead, at 64 px and from its weights at 128 px; --weights DIR then holds what the two calls
left in DIR/64 and DIR/128. So the bases that ship were made.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from measuring import CATALOGAN, REPOSITORY

NAMES = {64: "clothing", 128: "clothing-128"}
DECAY = ("--set", "optimizer.decay=0.3")
DATA = "3,068 photos of clothes: alexeygrigorev/clothing-dataset-small on GitHub, CC0 1.0"


def catalogan(*arguments: object) -> None:
    """Run one command; a failure ends all."""
    print("$ catalogan", *arguments, flush=True)
    subprocess.run([CATALOGAN, *map(str, arguments)], check=True)


def train(dataset: Path, run: Path, kimg: float, *settings: str) -> None:
    """Train, or go on where it was stopped."""
    if not any(run.glob("checkpoint-*.pt")):
        catalogan("train", dataset, "--out", run, "--max-kimg", f"{kimg:g}", *settings, *DECAY)
    else:
        catalogan("train", dataset, "--out", run, "--max-kimg", f"{kimg:g}", "--resume")
    shown = max(int(path.stem.split("-")[1]) for path in run.glob("checkpoint-*.pt"))
    if shown < 1000 * kimg:  # a signal ends it without an error
        sys.exit(f"{run}: stopped at {shown:,} images; the same command goes on with it")


def main() -> None:
    """Make them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="a folder for each category")
    parser.add_argument("--validation", type=Path, required=True, help="the same, held out")
    parser.add_argument("--out", type=Path, required=True, help="of the exports; none may exist")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "build" / "base")
    parser.add_argument("--weights", type=Path, help="of make gpu, in a folder for each size")
    parser.add_argument("--kimg", type=float, default=175, help="thousand images at each size")
    parser.add_argument("--encoder-kimg", type=float, default=60, help="photos to the encoder")
    options = parser.parse_args()
    photos = (options.photos, "--validation", options.validation)
    for size, name in NAMES.items():
        dataset, run = (options.work / f"{kind}-{size}" for kind in ("dataset", "run"))
        if not dataset.exists():
            catalogan("prepare", *photos, "--out", dataset, "--size", size)
        if not options.weights:
            smaller = ("--from", str(options.work / "run-64")) if size > 64 else ()
            train(dataset, run, options.kimg, "--preset", f"gpu-{size}", *smaller)
        elif not run.exists():
            pieces = options.weights / str(size)
            join = [sys.executable, REPOSITORY / "bench" / "gpu_weights.py", pieces, run, dataset]
            subprocess.run(join, check=True)
        moment = ("--snapshot", "best" if options.weights else "last")
        if size == 64:
            end = ("--max-kimg", f"{options.encoder_kimg:g}")
            catalogan("train-encoder", run, "--data", dataset, *end, *moment)
        catalogan("evaluate", run, "--data", dataset, *moment)
        catalogan(
            "export", run, "--out", options.out / name, "--name", name, *moment,
            "--licence", "CC0-1.0", "--author", "Catalogan contributors", "--photos", DATA,
        )  # fmt: skip


if __name__ == "__main__":
    main()
