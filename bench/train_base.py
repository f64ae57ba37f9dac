"""Trains the bases that ship: clothes at 64 px, with encoder and upscaler; from these, at 128 px.

    python bench/train_base.py --photos DIR --validation DIR --out training/data/bases

trains for minutes on a GPU, or for days on a CPU. Existing results are not trained
again, and an interrupted training continues. If the GPU machine has no network, `make gpu`
trains instead, at 64 px and from its weights at 128 px; --weights DIR then contains the output of
both calls in DIR/64 and DIR/128. The bases that ship were trained in this way.
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
    """Run one command; if it fails, the program ends."""
    print("$ catalogan", *arguments, flush=True)
    subprocess.run([CATALOGAN, *map(str, arguments)], check=True)


def train(dataset: Path, run: Path, kimg: float, *settings: str) -> None:
    """Train, or continue an interrupted training."""
    if not any(run.glob("checkpoint-*.pt")):
        catalogan("train", dataset, "--out", run, "--max-kimg", f"{kimg:g}", *settings, *DECAY)
    else:
        catalogan("train", dataset, "--out", run, "--max-kimg", f"{kimg:g}", "--resume")
    shown = max(int(path.stem.split("-")[1]) for path in run.glob("checkpoint-*.pt"))
    if shown < 1000 * kimg:  # a signal ends it without an error
        sys.exit(f"{run}: stopped at {shown:,} images; run the same command to continue")


def main() -> None:
    """Train, evaluate and export both bases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="a folder for each category")
    parser.add_argument("--validation", type=Path, required=True, help="the same, held out")
    parser.add_argument("--out", type=Path, required=True, help="of the exports; none may exist")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "build" / "base")
    parser.add_argument("--weights", type=Path, help="of make gpu, in a folder for each size")
    parser.add_argument("--kimg", type=float, default=175, help="thousand images at each size")
    parser.add_argument("--encoder-kimg", type=float, default=60, help="photos to the encoder")
    parser.add_argument("--upscaler-kimg", type=float, default=130, help="crops to the upscaler")
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
            end = ("--max-kimg", f"{options.upscaler_kimg:g}")
            catalogan("train-upscaler", run, "--photos", *photos, *end, *moment)
        catalogan("evaluate", run, "--data", dataset, *moment)
        catalogan(
            "export", run, "--out", options.out / name, "--name", name, *moment,
            "--licence", "CC0-1.0", "--author", "Catalogan contributors", "--photos", DATA,
        )  # fmt: skip


if __name__ == "__main__":
    main()
