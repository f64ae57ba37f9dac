"""Finished runs of the masking study, a line each, and what they say against each other."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from masking_plan import LAST_EVALUATIONS, CatalogueName
from measuring import REPOSITORY
from scipy.stats import t as student

LEDGER = REPOSITORY / "bench" / "masking-runs.jsonl"
Ledger = dict[str, dict[str, Any]]


def read_ledger() -> Ledger:
    """Finished runs by name."""
    if not LEDGER.exists():
        return {}
    lines = LEDGER.read_text(encoding="utf-8").splitlines()
    return {record["name"]: record for record in map(json.loads, lines)}


def append(record: Mapping[str, Any]) -> None:
    """Add a finished run to the file."""
    with LEDGER.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def present(
    ledger: Ledger, catalogue: CatalogueName, name: str, seeds: Iterable[int]
) -> list[dict[str, Any]]:
    """The finished runs of a configuration."""
    names = [f"{catalogue}/{name}/{seed}" for seed in seeds]
    return [ledger[n] for n in names if n in ledger]


def last_mean(record: Mapping[str, Any], metric: str) -> float:
    """A metric's mean over a run's last evaluations."""
    return mean(e[metric] for e in record["evaluations"][-LAST_EVALUATIONS:])


def final_score(record: Mapping[str, Any]) -> float:
    """Mean Frechet distance of the last evaluations."""
    return last_mean(record, "frechet_distance")


def log_ratios(
    ledger: Ledger,
    catalogue: CatalogueName,
    configuration: str,
    seeds: Iterable[int],
    reference: str = "off",
) -> dict[int, float]:
    """Logarithm of a configuration's score over the reference's, for each seed that has both."""
    logs = {}
    for seed in seeds:
        pair = [ledger.get(f"{catalogue}/{name}/{seed}") for name in (configuration, reference)]
        if pair[0] is not None and pair[1] is not None:
            logs[seed] = math.log(final_score(pair[0]) / final_score(pair[1]))
    return logs


def interval(logs: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean and its 95 % interval (Student's t), of logarithms."""
    centre = mean(logs)
    if len(logs) < 2:
        return math.exp(centre), float("nan"), float("nan")
    half = student.ppf(0.975, len(logs) - 1) * stdev(logs) / math.sqrt(len(logs))
    return math.exp(centre), math.exp(centre - half), math.exp(centre + half)


def best(ledger: Ledger, names: Iterable[str], seeds: Iterable[int], count: int) -> list[str]:
    """The `count` configurations with the lowest paired ratio over all of `seeds`."""
    wanted = list(seeds)

    def ratio(name: str) -> float:
        logs = log_ratios(ledger, "clothing-300", name, wanted)
        if len(logs) < len(wanted):
            raise KeyError(f"{name} has not run on each of the seeds {wanted}")
        return mean(logs.values())

    return sorted(names, key=ratio)[:count]
