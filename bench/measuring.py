"""What all measurements share: interleaved rounds, medians, and the figures they give."""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

CATALOGAN = str(Path(sys.executable).with_name("catalogan"))
REPOSITORY = Path(__file__).resolve().parent.parent

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Figure:
    """One measured quantity.

    Attributes:
        name: Flat key in results.json; its end names the unit where there is one.
        value: Median of the samples, unless another mean was asked for.
        samples: One for each round.
    """

    name: str
    value: float
    samples: tuple[float, ...]


@dataclass
class Measurement:
    """What one part of the bench found out; `raw` keeps whatever the figures were made of."""

    figures: list[Figure] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, samples: Sequence[float], value: float | None = None) -> None:
        """Take the median of `samples`, or `value`, as the figure `name`."""
        centre = statistics.median(samples) if value is None else value
        self.figures.append(Figure(name, centre, tuple(samples)))

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Measurement":
        """Read what `save` wrote."""
        stored = json.loads(path.read_text(encoding="utf-8"))
        figures = [Figure(f["name"], f["value"], tuple(f["samples"])) for f in stored["figures"]]
        return cls(figures, stored["raw"])


def interleaved(
    rounds: int, first: Callable[[], A], second: Callable[[], B]
) -> tuple[list[A], list[B]]:
    """Run both in turn, so that what else the machine does meets both alike.

    The order changes from round to round: a drift over time favours neither.
    """
    firsts: list[A] = []
    seconds: list[B] = []
    for index in range(rounds):
        if index % 2:
            seconds.append(second())
            firsts.append(first())
        else:
            firsts.append(first())
            seconds.append(second())
    return firsts, seconds


def quotients(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Round by round, one sequence divided by the other."""
    return [a / b for a, b in zip(over, under, strict=True)]


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_part(description: str | None, measure: Callable[[bool], Measurement]) -> None:
    """Command line of one part: measure, then print the figures or save them.

    Args:
        description: Shown by --help.
        measure: Takes whether to be quick.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="seconds, and rough")
    parser.add_argument("--out", type=Path, help="JSON file; else the figures are printed")
    options = parser.parse_args()
    measurement = measure(options.quick)
    if options.out:
        measurement.save(options.out)
        return
    for figure in measurement.figures:
        spread = f"{min(figure.samples):.4g} to {max(figure.samples):.4g}"
        print(f"{figure.name:32} {figure.value:10.4g}   ({spread}, n={len(figure.samples)})")
