"""`make bench-masking`: runs the study of masking_plan.py, run by run, and writes its page.

Each finished run is a line of bench/masking-runs.jsonl; a study that was stopped goes on
with the first run that has none. A run computes on one thread and as many run side by side
as there are cores: on two cores that shows a fifth more images than one run on both.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from judge import Judge
from machine import commit
from masking_ledger import Ledger, append, best, final_score, read_ledger
from masking_plan import (
    CONFIGURATIONS,
    CONFIRMATION_SEEDS,
    FEW_SEEDS,
    FLOOR_SEEDS,
    KEPT_AFTER_FIRST,
    KEPT_AFTER_SECOND,
    LENGTHS_KIMG,
    OBJECTIVES,
    OFF,
    R1_GAMMA,
    SCREENING_SEEDS,
    STRENGTHS,
    STRONG,
    CatalogueName,
    Run,
    controls,
)
from measuring import CATALOGAN, REPOSITORY, cores

from training.dataset import PreparedDataset
from training.learning.config import merge, resolve
from training.learning.device import keep_freed_memory
from training.learning.distributed import Ranks
from training.learning.presets import PRESETS
from training.learning.recorder import Tick
from training.learning.trainer import Trainer

PRESET = "cpu-demo"
SIZE_PX = 32
FEW_PER_CATEGORY = 30


def prepare_catalogues(photos: Path, validation: Path, work: Path) -> None:
    """Prepare the datasets by the public commands; those that are there stay."""
    everything = work / "photos"
    if not everything.exists():
        aside = work / "photos.partial"
        shutil.rmtree(aside, ignore_errors=True)
        subprocess.run([CATALOGAN, "sample-catalogue", "--out", str(aside / "sample")], check=True)
        split_off_few(photos, validation, aside / "clothing-300")
        split_off_few(aside / "sample", None, aside / "sample-300")
        aside.rename(everything)
    for name, train, held_out in (
        ("clothing-300", everything / "clothing-300/train", everything / "clothing-300/validation"),
        ("sample-300", everything / "sample-300/train", everything / "sample-300/validation"),
        ("clothing", photos, validation),
    ):
        out = work / "datasets" / name
        if not out.exists():
            out.parent.mkdir(exist_ok=True)
            command = [CATALOGAN, "prepare", str(train), "--out", str(out), "--size", str(SIZE_PX)]
            subprocess.run([*command, "--validation", str(held_out)], check=True)


def split_off_few(photos: Path, validation: Path | None, out: Path) -> None:
    """Copy the first photos of each category to out/train and all others to out/validation."""
    sources = [photos, *([] if validation is None else [validation])]
    for source in sources:
        for category in sorted(p for p in source.iterdir() if p.is_dir()):
            for i, photo in enumerate(sorted(category.iterdir())):
                few = source is photos and i < FEW_PER_CATEGORY
                target = out / ("train" if few else "validation") / category.name
                target.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(photo, target / photo.name)


def train(run: Run, work: Path) -> dict[str, Any]:
    """Do one run, on one thread, and give its line of the ledger."""
    torch.set_num_threads(1)
    keep_freed_memory()
    dataset = PreparedDataset(work / "datasets" / run.catalogue.removesuffix("-long"))
    kimg, evaluation_kimg = LENGTHS_KIMG[run.catalogue]
    settings = {
        "preset": PRESET,
        "seed": run.seed,
        "masking": run.masking,
        "max_kimg": kimg,
        "tick_kimg": 1.0,
        "checkpoint_kimg": 10 * kimg,
        "grid_kimg": 10 * kimg,
    }
    folder = work / "runs" / run.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    penalty = {"optimizer": {"r1_gamma": R1_GAMMA}}
    config = resolve(merge(merge(merge({**PRESETS[PRESET]}, settings), penalty), run.settings))
    trainer = Trainer(folder, dataset, config, torch.device("cpu"), Ranks())
    judge = Judge(dataset)
    evaluations: list[dict[str, float]] = []
    spent = 0.0

    def on_tick(tick: Tick) -> None:
        nonlocal spent
        started = time.perf_counter()
        if tick.nimg >= (len(evaluations) + 1) * evaluation_kimg * 1000:
            evaluations.append({"nimg": tick.nimg, **judge.scores(trainer)})
        spent += time.perf_counter() - started

    started = time.perf_counter()
    trainer.train(on_tick, lambda: False)
    seconds = time.perf_counter() - started - spent
    stats = [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]
    ticks = [s for s in stats if s["kind"] == "tick"]
    for checkpoint in folder.glob("checkpoint-*"):
        checkpoint.unlink()
    return {
        "name": run.name,
        **asdict(run),
        "commit": commit(),
        "torch": torch.__version__,
        "images_per_s": round(trainer.nimg / seconds, 1),
        "masked_share": round(float(np.mean([t["mask_active"] for t in ticks])), 4),
        "augment_strength": round(ticks[-1]["augment_strength"], 4),
        "real_sign": [round(t["real_sign"], 3) for t in ticks],
        "evaluations": evaluations,
        "events": [{k: _rounded(v) for k, v in s.items()} for s in stats if s["kind"] != "tick"],
    }


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def stages(ledger: Ledger) -> Iterator[list[Run]]:
    """The study's stages in order; each may look at the ledger of those before."""

    def runs(
        catalogue: CatalogueName, wanted: Mapping[str, dict[str, Any]], seeds: Iterable[int]
    ) -> list[Run]:
        return [Run(catalogue, name, seed, wanted[name]) for seed in seeds for name in wanted]

    few: CatalogueName = "clothing-300"
    yield runs(few, {"off": OFF}, FLOOR_SEEDS)
    first, second, *others = SCREENING_SEEDS
    yield runs(few, CONFIGURATIONS, [first])
    kept = best(ledger, list(CONFIGURATIONS), [first], KEPT_AFTER_FIRST)
    yield runs(few, {name: CONFIGURATIONS[name] for name in kept}, [second])
    kept = best(ledger, kept, [first, second], KEPT_AFTER_SECOND)
    yield runs(few, {name: CONFIGURATIONS[name] for name in kept}, others)
    (winner,) = best(ledger, kept, SCREENING_SEEDS, 1)
    masking = CONFIGURATIONS[winner]
    pair = {"off": OFF, winner: masking}
    yield runs(few, pair, CONFIRMATION_SEEDS)
    yield runs("sample-300", pair, CONFIRMATION_SEEDS)
    yield runs(few, controls(masking), CONFIRMATION_SEEDS)
    yield [
        Run(few, name, seed, OFF, settings)
        for seed in FEW_SEEDS
        for name, settings in OBJECTIVES.items()
    ]
    yield runs("clothing-300-long", pair, CONFIRMATION_SEEDS)
    yield runs("clothing", pair, FEW_SEEDS)
    first = FEW_SEEDS[0]
    yield [Run(few, name, first, OFF, settings) for name, settings in STRENGTHS.items()]
    strong = STRENGTHS[STRONG]
    yield [Run(few, STRONG, seed, OFF, strong) for seed in FEW_SEEDS]
    yield [Run(few, f"{STRONG}-{winner}", seed, masking, strong) for seed in FEW_SEEDS]
    yield [Run("clothing-300-long", STRONG, first, OFF, strong)]


def main() -> None:
    """Run what is missing, stage by stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="a folder for each category")
    parser.add_argument("--validation", type=Path, required=True, help="the same, held out")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "build" / "masking")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    options.work.mkdir(parents=True, exist_ok=True)
    prepare_catalogues(options.photos, options.validation, options.work)
    ledger = read_ledger()
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cores(), mp_context=spawned, max_tasks_per_child=1) as pool:
        for stage in stages(ledger):
            missing = [run for run in stage if run.name not in ledger]
            for done in as_completed([pool.submit(train, run, options.work) for run in missing]):
                record = done.result()
                ledger[record["name"]] = record
                append(record)
                print(f"{record['name']}: {final_score(record):.3f}", flush=True)


if __name__ == "__main__":
    main()
