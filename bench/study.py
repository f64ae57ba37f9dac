"""Which settings are better? Runs of several arms on several datasets, with several seeds.

    python bench/study.py STUDY.json --data NAME=DATASET ... --work DIR

One that was run is bench/masking.json. To measure it again, move its STUDY.jsonl away.

STUDY.json holds "arms": settings by name, in a tree, as `--set` takes them one by one. Beside them
an arm may name a "checkout", the folder of another commit that is to train it, "from", what it
starts from, a "peer" (peers.py), or "like": it has that arm's settings beneath its own. "stages"
come one after the other; each has "data", "arms", "seeds" and its length: "kimg", or "minutes" of
one thread's CPU time, in so many "slices". Among the names of "arms" may be {"best": 2, "data":
NAME, "seeds": [0]}: those that came out best there, of which "like" takes the first. "score" is
what counts, the mean over a run's last "evaluations" slices, over that of the arm "reference" with
the same seed; "samples" images are judged after each slice, or after the last "judged" of a stage.
In a stage with "moments", which needs no slices, kernel distances on two networks are measured so
many times in the last third of its images (moments.py); a GPU does that, too (--device). NAME-300
in "data" means the first 300 training photos of NAME in random order.

Runs of a stage take turns, slice by slice, so that what else the machine does meets all alike, each
on one thread. After a slice its images are judged by the code here, which is no part of its time,
and a line goes into STUDY.jsonl; a study that was stopped goes on where it was.
"""

import argparse
import functools
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from measuring import REPOSITORY, commit, cores
from tables import between, markdown, ratio, spread

NEVER_KIMG = 1e6
RESUMED_KIMG = 5.0  # between the checkpoints of a run whose moments are judged
SAMPLES = 2048
# Of what is found, for tables.
METRICS = (
    *("kernel_distance", "kernel_distance_lite1"),
    *("frechet_distance", "precision", "recall", "coverage"),
    *("accuracy_trained_on_generated", "label_agreement"),
)
Record = dict[str, Any]


def read_lines(file: Path) -> list[Record]:
    """The records of a file of JSON lines, if it is there."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [json.loads(line) for line in lines]


class Run(NamedTuple):
    """One arm on one dataset with one seed."""

    data: str
    arm: str
    seed: int

    def folder(self, work: Path) -> Path:
        return work / "runs" / "-".join(map(str, self))


class Study:
    """A study's plan, and all that was found so far."""

    def __init__(self, plan: Path) -> None:
        self.plan: dict[str, Any] = json.loads(plan.read_text(encoding="utf-8"))
        self.ledger = plan.with_suffix(".jsonl")
        self.records: dict[Run, list[Record]] = {}
        self._writing = threading.Lock()
        for record in read_lines(self.ledger):
            self._take(record)

    def _take(self, record: Record) -> None:
        run = Run(record["data"], record["arm"], record["seed"])
        self.records.setdefault(run, []).append(record)

    def add(self, record: Record) -> None:
        """Note a slice."""
        with self._writing, self.ledger.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            self._take(record)

    def commits(self) -> list[str]:
        """Of all that was run."""
        return sorted({record["commit"] for records in self.records.values() for record in records})

    def values(self, data: str, arm: str, seeds: Iterable[int], metric: str) -> dict[int, float]:
        """A metric's mean over the last evaluations, by seeds that have run."""
        found = {}
        for seed in seeds:
            last = self.records.get(Run(data, arm, seed), [])[-self.plan.get("evaluations", 1) :]
            if last and metric in last[-1]:
                found[seed] = mean(record[metric] for record in last if metric in record)
        return found

    def log_ratios(self, data: str, arm: str, seeds: Iterable[int]) -> dict[int, float]:
        """Logarithm of an arm's score over the reference's, by seeds that both have run on."""
        over, under = (
            self.values(data, name, seeds, self.plan["score"])
            for name in (arm, self.plan["reference"])
        )
        both = [seed for seed in over if seed in under]
        positive = [seed for seed in both if min(over[seed], under[seed]) > 0]  # unbiased distances
        return {seed: math.log(over[seed] / under[seed]) for seed in positive}

    def arms_of(self, stage: dict[str, Any]) -> list[str]:
        """The names of a stage's arms."""
        names = []
        for arm in stage["arms"]:
            names += [arm] if isinstance(arm, str) else self._best(**arm)
        return names

    def _best(self, best: int, data: str, seeds: list[int]) -> list[str]:
        """Of the arms that have run on all these seeds, so many of the lowest score."""
        logs = {arm: self.log_ratios(data, arm, seeds) for arm in self.plan["arms"]}
        ran = {arm: mean(log.values()) for arm, log in logs.items() if len(log) == len(seeds)}
        ran.pop(self.plan["reference"], None)
        return sorted(ran, key=lambda arm: ran[arm])[:best]

    def run(self, datasets: dict[str, str], work: Path, processes: int, device: str) -> None:
        """Do what is missing, stage by stage."""
        take = functools.partial(self._slice, datasets=datasets, work=work, device=device)
        for stage in self.plan["stages"]:
            names = [(d, a) for d in stage["data"] for a in self.arms_of(stage)]
            runs = [Run(*name, seed) for seed in stage["seeds"] for name in names]
            with ThreadPoolExecutor(processes) as pool:
                for index in range(stage.get("slices", 1)):
                    due = [run for run in runs if len(self.records.get(run, ())) == index]
                    list(pool.map(functools.partial(take, stage=stage), due))

    def settings_of(self, arm: str) -> dict[str, Any]:
        """Return an arm's settings, over those of the one it is like."""
        own = dict(self.plan["arms"][arm])
        like = own.pop("like", None)
        return laid_over(self.settings_of(self._best(**like)[0]), own) if like else own

    def _slice(
        self, run: Run, stage: dict[str, Any], datasets: dict[str, str], work: Path, device: str
    ) -> None:
        before, slices = self.records.get(run, []), stage.get("slices", 1)
        settings = self.settings_of(run.arm)
        data, _, count = (run.data, "", "") if run.data in datasets else run.data.rpartition("-")
        checkout = Path(settings.pop("checkout", REPOSITORY))
        source = settings.pop("from", None)
        task: dict[str, Any] = {
            "run": str(run.folder(work)),
            "data": datasets[data],
            "photos": int(count or 0),
            "moments": stage.get("moments", 0),
            "device": device,
            "settings": {"preset": "cpu-demo", **settings, "seed": run.seed},
            "samples": self.plan.get("samples", SAMPLES),
            "source": source and str(run._replace(**source).folder(work)),
        }
        if "kimg" in stage:
            task["nimg"] = stage["kimg"] * 1000 * (len(before) + 1) / slices
        else:
            spent = sum(record["cpu_sec"] for record in before)
            task["cpu_sec"] = stage["minutes"] * 60 * (len(before) + 1) / slices - spent
        record = {**run._asdict(), "commit": commit(checkout)}
        record |= _in_process("train", task, checkout)
        if not task["moments"] and len(before) + 1 > slices - stage.get("judged", slices):
            record |= _in_process("judge", task, REPOSITORY)
        self.add(record)
        print(f"{' '.join(map(str, run))}: {record}", flush=True)

    def table(self, data: str, arms: Iterable[str], seeds: list[int]) -> str:
        """What arms reached on a dataset, a row for each."""
        last = {run: self.records[run][-1] for run in self.records if run.data == data}
        metrics = [name for name in METRICS if any(name in record for record in last.values())]
        rows = []
        for arm in arms:
            ends = [last[run] for seed in seeds if (run := Run(data, arm, seed)) in last]
            cells = [self._cell(data, arm, seeds, metric) for metric in metrics]
            is_reference = arm == self.plan["reference"]
            logs = list(self.log_ratios(data, arm, seeds).values())
            masked = mean(end["masked_share"] for end in ends) if ends else 0
            kimg = mean(end["nimg"] for end in ends) / 1000 if ends else 0
            over = "1" if is_reference else ratio(logs)
            rows.append([arm, *cells, over, f"{masked:.0%}", f"{kimg:.0f}", str(len(ends))])
        names = (name.replace("_", " ") for name in metrics)
        return markdown(["arm", *names, "paired ratio", "masked", "kimg", "seeds"], rows)

    def _cell(self, data: str, arm: str, seeds: list[int], metric: str) -> str:
        """A metric and how far it is from the reference's with the same seeds, in brackets."""
        values, others = (
            self.values(data, name, seeds, metric) for name in (arm, self.plan["reference"])
        )
        differences = [values[seed] - others[seed] for seed in values if seed in others]
        cell = spread(list(values.values()))
        # Distances have their ratio instead.
        if arm == self.plan["reference"] or metric.endswith("distance") or len(differences) < 2:
            return cell
        return f"{cell} ({between(differences)})"


def laid_over(tree: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return the tree with settings of its own."""
    both = {
        name: laid_over(tree[name], own[name])
        for name in own
        if isinstance(own[name], dict) and isinstance(tree.get(name), dict)
    }
    return {**tree, **own, **both}


def _in_process(what: str, task: dict[str, Any], checkout: Path) -> Record:
    """Train or judge in a process whose path chooses the code."""
    paths = [str(checkout), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, __file__, what, json.dumps(task)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: Record = json.loads(done.stdout.splitlines()[-1])
    return found


def train(task: dict[str, Any]) -> Record:
    """Train for a slice."""
    if "peer" in task["settings"]:
        import peers

        return peers.train(task)
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
    run, dataset = Path(task["run"]), PreparedDataset(Path(task["data"]))
    if task.get("photos"):
        keep_some(dataset, task["photos"])
    never = dict.fromkeys(("max_kimg", "grid_kimg", "checkpoint_kimg"), NEVER_KIMG)
    settings = {**task["settings"], **never, "keep_checkpoints": 2}
    moments = task.get("moments")
    if moments:
        settings["checkpoint_kimg"] = RESUMED_KIMG
    config = resolve(merge(PRESETS[settings["preset"]], settings))
    # Judged afterwards, all by the same code.
    trainer_module.ValidationMonitor.is_possible = staticmethod(lambda _: False)  # type: ignore[method-assign]
    run.mkdir(parents=True, exist_ok=True)
    device = torch.device(task.get("device", "cpu"))
    trainer = trainer_module.Trainer(run, dataset, config, device, Ranks())
    if list_checkpoints(run):
        trainer.resume()
    else:
        write_run(run, config, dataset)
        if task["source"]:
            from training.learning.sources import open_source

            trainer.start_from(open_source(task["source"]))
    start, nimg, cpu_sec = time.process_time(), task.get("nimg", math.inf), task.get("cpu_sec")

    def is_over() -> bool:
        spent = time.process_time() - start
        return trainer.nimg >= nimg or (cpu_sec is not None and spent >= cpu_sec)

    if not moments:
        trainer.train(lambda _: None, is_over)
        return {"nimg": trainer.nimg, "cpu_sec": round(time.process_time() - start, 1)}
    from moments import Moments

    judge = Moments(run, dataset, trainer, nimg, moments, task["samples"])
    if trainer.nimg < nimg:
        trainer.train(lambda _: judge.look(), is_over)
    return {"nimg": trainer.nimg, "cpu_sec": round(time.process_time() - start, 1), **judge.means()}


def keep_some(dataset: Any, count: int) -> None:
    """Keep so many training photos, the first in random order."""
    import numpy as np

    rows = dataset.indices("train")
    dataset.splits = dataset.splits.astype("<U10")
    dataset.splits[rows[np.random.default_rng(0).permutation(len(rows))[count:]]] = "left out"


def judge(task: dict[str, Any]) -> Record:
    """What `catalogan evaluate` finds, and how long a mask was held."""
    from training.dataset import PreparedDataset
    from training.evaluation.evaluation import evaluate
    from training.evaluation.options import EvaluationOptions
    from training.learning.samplers import RunSampler, Sampler

    run, dataset = Path(task["run"]), PreparedDataset(Path(task["data"]))
    # The sheet shows what the figures are of.
    wanted = EvaluationOptions(
        samples=task["samples"], served_truncation_psi=1.0, served_noise_scale=1.0
    )
    if peer := task["settings"].get("peer"):
        from peers import PeerSampler

        sampler: Sampler = PeerSampler(peer, run, dataset)
    else:
        sampler = RunSampler(run)
    found = evaluate(sampler, dataset, wanted, run / "evaluation").headline()
    rounded = {name: float(f"{value:.5g}") for name, value in found.items()}
    return {**rounded, "masked_share": masked_share(run)}


def masked_share(run: Path) -> float:
    """Of a run's time, how much it held masks."""
    stats = read_lines(run / "stats.jsonl")  # none before the first tick
    masked = [tick["mask_active"] for tick in stats if tick["kind"] == "tick"]
    return round(mean(masked), 4) if masked else 0.0


def main() -> None:
    if sys.argv[1:2] in (["train"], ["judge"]):
        print(json.dumps({"train": train, "judge": judge}[sys.argv[1]](json.loads(sys.argv[2]))))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--data", nargs="+", default=[], help="NAME=DATASET, prepared")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=cores(), help="runs side by side")
    parser.add_argument("--device", default="cpu", help="of stages with moments")
    options = parser.parse_args()
    study = Study(options.study)
    datasets = dict(d.split("=", 1) for d in options.data)
    study.run(datasets, options.work, options.processes, options.device)
    for stage in study.plan["stages"]:
        for data in stage["data"]:
            print(f"\n{data}\n{study.table(data, study.arms_of(stage), stage['seeds'])}")


if __name__ == "__main__":
    main()
