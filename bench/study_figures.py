"""What masking costs in time, measured now, and what the two long studies found.

The studies take hours; their figures come from what they left behind, bench/masking-runs.jsonl
and bench/finetuning.json, with the commits that ran them.
"""

import json
import math
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from masking_ledger import Ledger, interval, log_ratios, read_ledger
from masking_plan import CONFIRMATION_SEEDS
from masking_report import chosen
from measuring import REPOSITORY, Measurement, interleaved, run_part
from training_speed import Intervals, make_trainer, prepare_photos

from training.learning.device import keep_freed_memory

FINETUNING = REPOSITORY / "bench" / "finetuning.json"


def add_masking(measurement: Measurement, ledger: Ledger) -> None:
    """The winner's paired ratio on the seeds that no choice was made on."""
    winner = chosen(ledger)
    logs = {} if winner is None else log_ratios(ledger, "clothing-300", winner, CONFIRMATION_SEEDS)
    if not logs:
        print("masking study: nothing confirmed yet")
        return
    ratio, low, high = interval(list(logs.values()))
    measurement.add("masking_dynamic_over_off", [math.exp(log) for log in logs.values()], ratio)
    commits = {ledger[f"clothing-300/{winner}/{seed}"]["commit"] for seed in logs}
    measurement.raw["masking"] = {
        "configuration": winner,
        "seeds": list(logs),
        "interval_95": [low, high],
        "commits": sorted(commits),
    }


def add_finetuning(measurement: Measurement) -> None:
    """Images that fine-tuning took over those of training from scratch."""
    if not FINETUNING.exists():
        print("fine-tuning study: not run yet")
        return
    results = json.loads(FINETUNING.read_text(encoding="utf-8"))
    ratios = results["images_over_scratch"]
    # A seed that did not get there counts as if it had with its last image: it took more.
    ends = [curve[-1]["nimg"] / scratch[-1]["nimg"] for curve, scratch in _pairs(results)]
    counted = [end if r is None else r for r, end in zip(ratios, ends, strict=True)]
    measurement.add("finetune_images_over_scratch", counted)
    not_reached = [s for s, r in zip(results["seeds"], ratios, strict=True) if r is None]
    measurement.raw["finetuning"] = {
        "seeds": results["seeds"],
        "not_reached": not_reached,
        "commits": results["commits"],
    }


def _pairs(results: dict[str, Any]) -> Iterable[tuple[Any, Any]]:
    return zip(results["tuned"], results["scratch"], strict=True)


def measure(quick: bool) -> Measurement:
    """Time training with and without masking in turn, and read the studies."""
    os.environ["PYTHONWARNINGS"] = "ignore"
    keep_freed_memory()
    measurement = Measurement()
    with tempfile.TemporaryDirectory(prefix="catalogan-bench-") as name:
        folder = Path(name)
        dataset = prepare_photos(folder)
        # As many steps as lie between two measurements of lag, and then some.
        intervals = 1 if quick else 8
        off, dynamic = (
            Intervals(
                make_trainer(folder / mode, dataset, masking={"mode": mode}, max_kimg=1000),
                intervals,
            )
            for mode in ("off", "dynamic")
        )
        off.run()
        dynamic.run()
        without, masked = interleaved(1 if quick else 7, off.seconds, dynamic.seconds)
    measurement.add("masking_cost", [m / w - 1 for m, w in zip(masked, without, strict=True)])
    add_masking(measurement, read_ledger())
    add_finetuning(measurement)
    return measurement


if __name__ == "__main__":
    run_part(__doc__, measure)
