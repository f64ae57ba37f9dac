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
# The keys of results.json that `make soak` writes, and `make bench` leaves as they are.
SOAK = ("soak_rss_growth", "soak")

A = TypeVar("A")


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


def interleaved(rounds: int, *sides: Callable[[], A]) -> list[list[A]]:
    """Run all in turn, so that what else the machine does meets them alike.

    The order is turned round from round to round: a drift over time favours none.

    Returns:
        What each gave, round by round.
    """
    given: list[list[A]] = [[] for _ in sides]
    order = list(zip(sides, given, strict=True))
    for _ in range(rounds):
        for side, results in order:
            results.append(side())
        order.reverse()
    return given


def quotients(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Round by round, one sequence divided by the other."""
    return [a / b for a, b in zip(over, under, strict=True)]


def percentile(samples: Sequence[float], percent: int) -> float:
    """The value that so many percent of the samples do not exceed; 1 to 99."""
    return statistics.quantiles(samples, n=100, method="inclusive")[percent - 1]


def growth(samples: Sequence[float]) -> float:
    """Mean of the last tenth over that of the first, less 1."""
    tenth = max(1, len(samples) // 10)
    return statistics.fmean(samples[-tenth:]) / statistics.fmean(samples[:tenth]) - 1


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Replace results.json as a whole."""
    aside = path.with_name(f".{path.name}.partial")
    aside.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    aside.replace(path)


def keep_soak(path: Path, result: dict[str, Any]) -> None:
    """Put the result of a soak into results.json; all else there stays."""
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_results(path, {**kept, **dict(zip(SOAK, (result["rss_growth"], result), strict=True))})


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
