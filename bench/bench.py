"""`make bench`: training, preparing, evaluating and serving, compared with lower bounds.

    python bench/bench.py [PART ...]

Prints one table and writes bench/results.json: the figures (medians), the commit, the
machine, and under "samples" and "raw" every round they were computed from. Each part is measured
in a process of its own; if parts are named, their figures are printed and not written. All of it
takes about twenty minutes on two idle cores; other programs make the figures worse.
"""

import argparse
import importlib
import multiprocessing
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from measuring import RESULTS, SOAK, Measurement, commit, machine, read_results, write_results
from rich.console import Console
from rich.table import Table

PARTS = ("training_speed", "studies", "command_speed", "serving_speed", "upload_speed")
# The project's goals, in words and as a test of the figure.
GOALS = {
    "train_step_over_convolutions": ("1.6 or less", lambda value: value <= 1.6),
    "masking_cost": ("under 0.01", lambda value: value < 0.01),
    "kd_over_before": ("0.5 or less", lambda value: value <= 0.5),
    "base_kd_over_before": ("1/3 or less", lambda value: value <= 1 / 3),
    "base_coverage": ("at least 0.35", lambda value: value >= 0.35),
    "finetune_label_agreement": ("at least 0.85", lambda value: value >= 0.85),
    "upscaler_kd_over_lanczos": ("1/2 or less", lambda value: value <= 1 / 2),
    "evaluate_1000_s": ("30 or less", lambda value: value <= 30),
    "serve_over_session": ("at least 0.9", lambda value: value >= 0.9),
    "serve_over_fastapi_cpu": ("1.15 or less", lambda value: value <= 1.15),
    "serve_over_litserve_cpu": ("under 1", lambda value: value < 1.0),
    "service_rss_mb": ("under 300", lambda value: value < 300.0),
    "p99_over_p50": ("under 2", lambda value: value < 2.0),
    "cold_start_s": ("under 3", lambda value: value < 3.0),
    "upload_augmentations_extra_ms": ("3 or less", lambda value: value <= 3.0),
    "upload_variations_extra_ms": ("3 or less", lambda value: value <= 3.0),
    "decoding_process_rss_mb": ("60 or less", lambda value: value <= 60.0),
}

# Wide enough for whole names where there is no terminal, as in a log.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def measure(part: str, quick: bool) -> Measurement:
    """Measure one part."""
    os.environ["PYTHONWARNINGS"] = "ignore"
    measured: Measurement = importlib.import_module(part).measure(quick)
    return measured


def measure_all(parts: Sequence[str], quick: bool) -> Measurement:
    """Measure the parts, each in a process of its own."""
    whole = Measurement()
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawned, max_tasks_per_child=1) as pool:
        for part in parts:
            console.print(f"measuring: {part} ...", markup=False)
            measured = pool.submit(measure, part, quick).result()
            whole.figures |= measured.figures
            whole.samples |= measured.samples
            whole.raw |= measured.raw
    return whole


def table(measured: Measurement, host: dict[str, Any]) -> Table:
    """All figures, with their spread and goals."""
    title = f"{host['processor']}, {host['cores']} cores, load {host['load_average_at_start']}"
    shown = Table("figure", "median", "lowest", "highest", "rounds", "goal", title=title)
    for name, value in measured.figures.items():
        samples = measured.samples[name]
        goal, is_reached = GOALS.get(name, ("", lambda _: True))
        cells = [f"{number:.4g}" for number in (value, min(samples), max(samples))]
        verdict = goal if is_reached(value) else f"[bold red]{goal}: missed[/]"
        shown.add_row(name, *cells, str(len(samples)), verdict)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="a trial of the bench: rough figures")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    host = machine()
    if host["load_average_at_start"] > host["cores"] / 2:
        console.print("the machine is busy: these figures are only a trial", style="yellow")
    measured = measure_all(options.parts or PARTS, options.quick)
    console.print(table(measured, host))
    if options.parts:
        return
    before = read_results(options.out)  # the results of `make soak` stay, with their own commit
    results = {
        **measured.figures,
        "commit": commit(),
        "machine": host,
        "quick": options.quick,
        "samples": measured.samples,
        "raw": measured.raw,
        **{key: before[key] for key in SOAK if key in before},
    }
    write_results(options.out, results)
    console.print(f"written to {options.out}", markup=False)


if __name__ == "__main__":
    main()
