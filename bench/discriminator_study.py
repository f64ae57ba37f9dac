"""Which discriminator and recipe? Arms of settings, each with equal CPU time of one thread.

    python bench/discriminator_study.py train ARMS.json --data DATASET ... --work DIR
    python bench/discriminator_study.py judge ARMS.json --data DATASET ... --work DIR

ARMS.json names each arm's settings as `--set` would, in a tree; "preset" among them, and
"checkout" for the folder of another commit whose code is to train it. Arms take turns, a slice of
CPU time each, so that what else the machine does meets all alike. DIR/ledger.jsonl says how far
each run is; a study that was stopped goes on where it was. Evaluation is no part of the time.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import geometric_mean, mean
from typing import Any, Final

REPOSITORY: Final = Path(__file__).resolve().parent.parent
NEVER_KIMG: Final = 1e6
SAMPLES_PER_PHOTO: Final = 4
SHEET_COLUMNS: Final = 10


@dataclass(frozen=True, order=True)
class Run:
    """One arm on one dataset with one seed."""

    seed: int
    data: str
    arm: str

    def folder(self, work: Path) -> Path:
        """Where it is trained."""
        return work / "runs" / f"{Path(self.data).name}-{self.arm}-{self.seed}"


def settings_of(arm: dict[str, Any], seed: int) -> dict[str, Any]:
    """A run's settings, over its preset; nothing is judged while it trains."""
    own = {key: value for key, value in arm.items() if key != "checkout"}
    never = dict.fromkeys(("max_kimg", "grid_kimg", "checkpoint_kimg"), NEVER_KIMG)
    return {"preset": "cpu-demo", **own, **never, "seed": seed, "keep_checkpoints": 2}


def train_slice(folder: Path, data: Path, settings: dict[str, Any], cpu_sec: float) -> None:
    """Train a run for so long, in a process whose path chooses the code; prints how far it got."""
    import torch

    from training.dataset import PreparedDataset
    from training.learning import trainer as trainer_module
    from training.learning.checkpoint import list_checkpoints
    from training.learning.config import merge, resolve
    from training.learning.device import keep_freed_memory
    from training.learning.distributed import Ranks
    from training.learning.presets import PRESETS
    from training.learning.run import write_run

    torch.set_num_threads(1)
    keep_freed_memory()
    dataset = PreparedDataset(data)
    config = resolve(merge(PRESETS[settings["preset"]], settings))
    folder.mkdir(parents=True, exist_ok=True)
    # Judged afterwards, all by the same code.
    trainer_module.ValidationMonitor.is_possible = staticmethod(lambda _: False)  # type: ignore[method-assign]
    trainer = trainer_module.Trainer(folder, dataset, config, torch.device("cpu"), Ranks())
    if list_checkpoints(folder):
        trainer.resume()
    else:
        write_run(folder, config, dataset)
    started = time.process_time()
    trainer.train(lambda _: None, lambda: time.process_time() - started >= cpu_sec)
    spent = time.process_time() - started
    print(json.dumps({"cpu_sec": spent, "nimg": trainer.nimg}))


def progress(work: Path) -> dict[Run, dict[str, float]]:
    """CPU seconds and images of each run so far."""
    path = work / "ledger.jsonl"
    done: dict[Run, dict[str, float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        record = json.loads(line)
        run = Run(record["seed"], record["data"], record["arm"])
        spent = done.get(run, {"cpu_sec": 0.0})["cpu_sec"] + record["cpu_sec"]
        done[run] = {"cpu_sec": spent, "nimg": record["nimg"]}
    return done


def train(options: argparse.Namespace, arms: dict[str, Any], runs: list[Run]) -> None:
    """Bring every run to the budget, those of one seed and dataset slice by slice in turn."""
    budget = options.minutes * 60
    for block in sorted({(run.seed, run.data) for run in runs}):
        members = [run for run in runs if (run.seed, run.data) == block]
        while True:
            done = progress(options.work)
            spent = {run: done.get(run, {"cpu_sec": 0.0})["cpu_sec"] for run in members}
            # The last step of a slice goes over its end.
            left = [run for run in members if budget - spent[run] > 1.0]
            if not left:
                break
            run = min(left, key=lambda run: spent[run])
            take_turn(options, arms[run.arm], run, min(options.slice_sec, budget - spent[run]))


def take_turn(options: argparse.Namespace, arm: dict[str, Any], run: Run, cpu_sec: float) -> None:
    """Train one run for a slice, by the code of its checkout, and note it."""
    checkout = Path(arm.get("checkout", REPOSITORY))
    settings = json.dumps(settings_of(arm, run.seed))
    arguments = [str(run.folder(options.work)), run.data, settings, str(cpu_sec)]
    done = subprocess.run(
        [sys.executable, __file__, "slice", *arguments],
        env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    revision = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    commit = subprocess.run(revision, capture_output=True, text=True, check=True).stdout.strip()
    record = {**asdict(run), **json.loads(done.stdout.splitlines()[-1]), "commit": commit}
    append(options.work / "ledger.jsonl", record)
    print(record, flush=True)


def append(path: Path, record: dict[str, Any]) -> None:
    """Add a JSON line."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def judge(options: argparse.Namespace, arms: dict[str, Any], runs: list[Run]) -> None:
    """Kernel distance of each run's averaged generator at its present image count, and a sheet."""
    import numpy as np
    from PIL import Image

    from training.dataset import PreparedDataset
    from training.features.extractor import LiteFeatures
    from training.learning.samplers import RunSampler
    from training.metrics.distances import kernel_distance

    extractor, path = LiteFeatures(), options.work / "judged.jsonl"
    done = progress(options.work)
    known = {(j["folder"], j["nimg"]) for j in read_lines(path)}
    for data in sorted({run.data for run in runs}):
        dataset = PreparedDataset(Path(data))
        rows = dataset.indices("validation")
        labels = np.tile(dataset.labels[rows], SAMPLES_PER_PHOTO)
        real = None
        for run in (run for run in runs if run.data == data and run in done):
            folder = run.folder(options.work)
            if (str(folder), done[run]["nimg"]) in known:
                continue
            if real is None:
                real = extractor(dataset.images[rows])
            sampler = RunSampler(folder)
            distance = kernel_distance(real, extractor(sampler.sample(labels, seed=1)))
            record = {
                **asdict(run),
                **done[run],
                "folder": str(folder),
                "kernel_distance": distance,
            }
            append(path, record)
            shown = np.repeat(np.arange(len(dataset.info.categories)), SHEET_COLUMNS)
            sheet = sampler.sample(shown, seed=2)
            height, width, channels = sheet.shape[1:]
            sheet = sheet.reshape(-1, SHEET_COLUMNS, height, width, channels).swapaxes(1, 2)
            image = Image.fromarray(sheet.reshape(-1, SHEET_COLUMNS * width, channels).squeeze())
            image.resize((2 * image.width, 2 * image.height)).save(folder / "sheet.png")
    summarize(read_lines(path), options.reference, list(arms))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All records of a file; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def summarize(judged: list[dict[str, Any]], reference: str | None, arms: list[str]) -> None:
    """Print a row for each arm: images shown and kernel distance on each dataset, and the ratio."""
    newest = {(j["data"], j["arm"], j["seed"]): j for j in judged}
    datasets = sorted({data for data, _, _ in newest})
    for arm in arms:
        cells, ratios = [], []
        for data in datasets:
            of_arm = {s: j for (d, a, s), j in newest.items() if (d, a) == (data, arm)}
            if not of_arm:
                continue
            distances = [j["kernel_distance"] for j in of_arm.values()]
            kimg = mean(j["nimg"] for j in of_arm.values()) / 1000
            cells.append(f"{Path(data).name} {mean(distances):.4f} ({kimg:.0f} kimg)")
            for seed, j in of_arm.items():
                other = newest.get((data, reference or "", seed))
                if other:
                    ratios.append(j["kernel_distance"] / other["kernel_distance"])
        over = (
            f"  over {reference} {geometric_mean(ratios):.3f}" if ratios and min(ratios) > 0 else ""
        )
        print(f"{arm:28s} {'  '.join(cells)}{over}")


def main() -> None:
    """Train, or judge what was trained."""
    if sys.argv[1:2] == ["slice"]:
        folder, data, settings, cpu_sec = sys.argv[2:]
        train_slice(Path(folder), Path(data), json.loads(settings), float(cpu_sec))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("train", "judge"))
    parser.add_argument("arms", type=Path)
    parser.add_argument("--data", nargs="+", required=True, help="prepared datasets")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=12, help="CPU time of each run")
    parser.add_argument("--slice-sec", type=float, default=180, help="CPU time of a turn")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--reference", help="arm whose distances the others' are divided by")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    arms = json.loads(options.arms.read_text(encoding="utf-8"))
    runs = [
        Run(s, str(Path(d).resolve()), a) for s in options.seeds for d in options.data for a in arms
    ]
    (train if options.what == "train" else judge)(options, arms, runs)


if __name__ == "__main__":
    main()
