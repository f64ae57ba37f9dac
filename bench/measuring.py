"""Shared by all measurements: interleaved rounds, medians, the machine, and results.json."""

import hashlib
import importlib.metadata
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

CATALOGAN = str(Path(sys.executable).with_name("catalogan"))
REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "bench" / "results.json"
# The keys of results.json that `make soak` writes, and `make bench` leaves as they are.
SOAK = ("soak_rss_growth", "soak")
# Files that every measurement changes.
FINDINGS = ("bench/results.json", "*.jsonl")
# PNG chunk of the C2PA manifest.
SIGNATURE_CHUNK = b"caBX"

A = TypeVar("A")


@dataclass
class Measurement:
    """The results of one part of the bench.

    Attributes:
        figures: Keys of results.json, which end in their unit if they have one: the
            median of the samples, unless another mean was requested.
        samples: Samples of each figure, one per round.
        raw: Further data that the figures were computed from.
    """

    figures: dict[str, float] = field(default_factory=dict)
    samples: dict[str, Sequence[float]] = field(default_factory=dict)
    raw: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, samples: Sequence[float], value: float | None = None) -> None:
        """Add the figure `name`: the median of `samples`, or `value`."""
        self.figures[name] = statistics.median(samples) if value is None else value
        self.samples[name] = samples


def interleaved(rounds: int, *sides: Callable[[], A]) -> list[list[A]]:
    """Run all sides alternately, so that other load on the machine affects them equally.

    The order is reversed from round to round, so that a drift over time favours none.

    Returns:
        The results of each side, round by round.
    """
    results: list[list[A]] = [[] for _ in sides]
    order = list(zip(sides, results, strict=True))
    for _ in range(rounds):
        for side, returned in order:
            returned.append(side())
        order.reverse()
    return results


def seconds(work: Callable[[], Any]) -> float:
    """Time one run."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def run(*command: str) -> None:
    """Run a command that must succeed, and show its output only if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-500:]}")


def catalogan(*arguments: Any) -> None:
    """Run one of the public commands."""
    run(CATALOGAN, *map(str, arguments))


def quotients(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Divide one sequence by the other, round by round."""
    return [a / b for a, b in zip(over, under, strict=True)]


def percentile(samples: Sequence[float], percent: int) -> float:
    """The value that so many percent of the samples do not exceed; 1 to 99."""
    return statistics.quantiles(samples, n=100, method="inclusive")[percent - 1]


def growth(samples: Sequence[float]) -> float:
    """Mean of the last tenth relative to that of the first, minus 1."""
    tenth = max(1, len(samples) // 10)
    return statistics.fmean(samples[-tenth:]) / statistics.fmean(samples[:tenth]) - 1


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def commit(checkout: Path = REPOSITORY) -> str:
    """Hash of the checked-out commit, with "-dirty" if files differ; "unknown" without git."""

    def git(*command: str) -> str:
        return subprocess.check_output(
            ["git", "-C", str(checkout), *command], stderr=subprocess.DEVNULL, text=True
        ).strip()

    try:
        others = [f":(exclude){name}" for name in FINDINGS]
        changes = git("status", "--porcelain", "-uno", "--", ".", *others)
        return git("rev-parse", "HEAD") + "-dirty" * bool(changes)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> dict[str, Any]:
    """Describe the machine: CPU, cores, memory, versions, and its load."""
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


def read_results(path: Path) -> dict[str, Any]:
    """Read the existing results, if any."""
    results: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    return results


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Replace results.json as a whole."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def keep_soak(path: Path, result: dict[str, Any]) -> None:
    """Write the result of a soak into results.json; everything else there stays."""
    soak = dict(zip(SOAK, (result["rss_growth"], result), strict=True))
    write_results(path, read_results(path) | soak)


def image_hash(png: bytes) -> str:
    """Hash a signed PNG's pixels and metadata, since signatures differ between equal images.

    Raises:
        ValueError: It is not signed.
    """
    if SIGNATURE_CHUNK not in png:
        raise ValueError("the image is not signed")
    with Image.open(io.BytesIO(png)) as image:
        return hashlib.sha256(image.tobytes() + repr(image.info).encode()).hexdigest()
