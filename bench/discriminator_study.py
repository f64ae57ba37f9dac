"""Which discriminator and recipe? Arms of settings, each with equal CPU time of one thread.

    python bench/discriminator_study.py train ARMS.json --data DATASET ... --work DIR
    python bench/discriminator_study.py judge ARMS.json --data DATASET ... --work DIR

ARMS.json names each arm's settings as `--set` would, in a tree; "preset" among them, and
"checkout" for the folder of another commit whose code is to train it. Arms take turns, a slice of
CPU time each, so that what else the machine does meets all alike. DIR/ledger.jsonl says how far
each run is; a study that was stopped goes on where it was. Evaluation is no part of the time: it
judges all arms by this checkout's code, with what `catalogan evaluate` finds.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import geometric_mean, mean, stdev
from typing import Any, Final

from scipy.stats import t as student

REPOSITORY: Final = Path(__file__).resolve().parent.parent
NEVER_KIMG: Final = 1e6
DISTANCE: Final = "kernel_distance"
FLOORS: Final = (
    "kernel_distance_floor",
    "recall_floor",
    "coverage_floor",
    "accuracy_trained_on_photos",
    "label_agreement_floor",
)
FIGURES: Final = (
    DISTANCE,
    "recall",
    "coverage",
    "accuracy_trained_on_generated",
    "label_agreement",
)


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
    """Evaluate each run as it is now, into its folder and DIR/judged.jsonl; then compare."""
    from training.dataset import PreparedDataset
    from training.evaluation.evaluation import evaluate
    from training.evaluation.options import EvaluationOptions
    from training.learning.samplers import RunSampler

    # Sheets show what the figures are of.
    wanted = EvaluationOptions(
        samples=options.samples, served_truncation_psi=1.0, served_noise_scale=1.0
    )
    path, done = options.work / "judged.jsonl", progress(options.work)
    names = ("data", "arm", "seed", "nimg", "samples")
    known = [tuple(j.get(name) for name in names) for j in read_lines(path)]
    for run in (run for run in runs if run in done):
        found = {**asdict(run), **done[run], "samples": options.samples}
        if tuple(found[name] for name in names) in known:
            continue
        folder, dataset = run.folder(options.work), PreparedDataset(Path(run.data))
        report = evaluate(RunSampler(folder), dataset, wanted, folder / "evaluation")
        append(path, {**found, **report.headline()})
    judged = [j for j in read_lines(path) if j.get("samples") == options.samples]
    for line in summary(judged, options.reference or next(iter(arms)), list(arms)):
        print(line)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All records of a file; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def with_interval(values: list[float]) -> tuple[float, float, float]:
    """Mean of paired differences over seeds and its 95 % interval by Student's t."""
    centre = mean(values)
    if len(values) < 2:
        return centre, -math.inf, math.inf
    half = student.ppf(0.975, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return centre, centre - half, centre + half


def summary(judged: list[dict[str, Any]], reference: str, arms: list[str]) -> Iterator[str]:
    """Each arm's means, and how it compares with the reference on the same seeds.

    Kernel distances are compared by their ratio, all else by its difference; an interval needs
    two seeds.
    """
    newest = {(j["data"], j["arm"], j["seed"]): j for j in judged}
    ratios: dict[str, list[float]] = {arm: [] for arm in arms if arm != reference}
    for data in sorted({data for data, _, _ in newest}):
        photos = next(j for j in newest.values() if j["data"] == data)
        floors = [f"{n} {photos[n]:.4g}" for n in photos if n in FLOORS]
        yield f"{Path(data).name}: photos {', '.join(floors)}"
        for arm in arms:
            own = {seed: j for (d, a, seed), j in newest.items() if (d, a) == (data, arm)}
            both = [seed for seed in own if (data, reference, seed) in newest]
            pairs = [(own[seed], newest[data, reference, seed]) for seed in both]
            if own:
                yield arm_line(arm, list(own.values()), pairs if arm in ratios else [])
            distances = [(a[DISTANCE], b[DISTANCE]) for a, b in pairs]
            if arm in ratios and distances and min(map(min, distances)) > 0:
                ratios[arm].append(geometric_mean(a / b for a, b in distances))
    for arm, found in ratios.items():
        if found:
            over = f"over {reference} on {len(found)} datasets: {geometric_mean(found):.3f}"
            yield f"{arm:22s} {DISTANCE} {over}"


def arm_line(
    arm: str, own: list[dict[str, Any]], pairs: list[tuple[dict[str, Any], dict[str, Any]]]
) -> str:
    """An arm's means on one dataset, each beside its comparison with the reference."""
    cells = [f"  {arm:20s} {len(own)} seeds, {mean(j['nimg'] for j in own) / 1000:.0f} kimg"]
    for name in FIGURES:
        if all(name in j for j in own):
            known = [(a[name], b[name]) for a, b in pairs if name in b]
            cells.append(f"{name} {mean(j[name] for j in own):.4g}{compared(name, known)}")
    return "; ".join(cells)


def compared(name: str, pairs: list[tuple[float, float]]) -> str:
    """The paired comparison of one figure, in words; empty without pairs."""
    if not pairs:
        return ""
    if name != DISTANCE:
        centre, low, high = with_interval([a - b for a, b in pairs])
        return f" ({centre:+.3f}, {low:+.3f} to {high:+.3f})"
    if min(min(pair) for pair in pairs) <= 0:
        return " (a distance is not above 0)"
    logs = [math.log(a / b) for a, b in pairs]
    centre, low, high = map(math.exp, with_interval(logs))
    return f" (x {centre:.3f}, {low:.3f} to {high:.3f})"


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
    parser.add_argument("--samples", type=int, default=2000, help="images of a run judged")
    parser.add_argument("--reference", help="arm that others are compared with; the first")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    arms = json.loads(options.arms.read_text(encoding="utf-8"))
    runs = [
        Run(s, str(Path(d).resolve()), a) for s in options.seeds for d in options.data for a in arms
    ]
    (train if options.what == "train" else judge)(options, arms, runs)


if __name__ == "__main__":
    main()
