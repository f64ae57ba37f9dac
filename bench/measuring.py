"""What all measurements share: interleaved rounds, medians, the machine, and where figures go."""

import hashlib
import importlib.metadata
import json
import os
import platform
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

CATALOGAN = str(Path(sys.executable).with_name("catalogan"))
REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "bench" / "results.json"
# The keys of results.json that `make soak` writes, and `make bench` leaves as they are.
SOAK = ("soak_rss_growth", "soak")
# Of a PNG: holds the C2PA manifest, whose times and ids differ between equal images.
SIGNATURE_CHUNK = b"caBX"

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


def seconds(work: Callable[[], Any]) -> float:
    """How long it takes once."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def run(*command: str) -> None:
    """Run a command that must succeed, and show what it says only where it does not."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-500:]}")


def catalogan(*arguments: Any) -> None:
    """Run one of the public commands."""
    run(CATALOGAN, *map(str, arguments))


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


def commit(checkout: Path = REPOSITORY) -> str:
    """Hash of the checked-out commit, with "-dirty" where files differ; "unknown" without git."""
    git = ["git", "-C", str(checkout)]
    try:
        head, changes = (
            subprocess.run([*git, *command], check=True, capture_output=True, text=True).stdout
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno", "-z"])
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    # What is measured changes these with every run.
    findings = ("bench/results.json", ".jsonl")
    dirty = any(not line.endswith(findings) for line in changes.split("\0") if line)
    return head.strip() + "-dirty" * dirty


def machine() -> dict[str, Any]:
    """Processor, cores, memory, versions, and how busy the machine is already."""
    installed = {d.name: d.version for d in importlib.metadata.distributions()}
    runtimes = ("onnxruntime", "onnxruntime-gpu")
    return {
        "processor": _processor(),
        "cores": cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": installed["torch"],
        "onnxruntime": next((f"{r} {installed[r]}" for r in runtimes if r in installed), "none"),
        "load_average_at_start": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Replace results.json as a whole."""
    aside = path.with_name(f".{path.name}.partial")
    aside.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    aside.replace(path)


def keep_soak(path: Path, result: dict[str, Any]) -> None:
    """Put the result of a soak into results.json; all else there stays."""
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_results(path, {**kept, **dict(zip(SOAK, (result["rss_growth"], result), strict=True))})


def unsigned_sha256(png: bytes) -> str:
    """SHA-256 of a PNG without its signature.

    Raises:
        ValueError: There is none.
    """
    digest, signed, at = hashlib.sha256(png[:8]), False, 8
    while at < len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        if kind == SIGNATURE_CHUNK:
            signed = True
        else:
            digest.update(png[at : at + 12 + length])
        at += 12 + length
    if not signed:
        raise ValueError("the image is not signed")
    return digest.hexdigest()
