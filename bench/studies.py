"""What long runs found, as figures for `make bench`: none is run here.

masking (docs/masking.md): does hiding features help? bench/masking.json was written down before its
first run; the evaluations are the lines of bench/masking.jsonl, and study.py says how to run them
again. lag, likewise: of lag.py. discriminator, likewise: today's default beside commit
5acf454's in the same time, on three catalogues (docs/decisions/0019). Quality: the cards of the
bases that ship, and what bench/quality.json says was measured by hand, and how.
"""

import json
import math
from pathlib import Path
from statistics import mean

from measuring import Measurement
from study import Study
from tables import interval

from training.bases import base_path

HERE = Path(__file__).parent
SIGNAL = "deviations own 1 kimg"  # what `dynamic` measures
SEEDS = range(3)


def measure(quick: bool) -> Measurement:
    """Read what was found."""
    measurement = Measurement()
    masking = Study(HERE / "masking.json")
    for arm in ("dynamic", "periodic"):
        logs = list(masking.log_ratios("clothing", arm, range(8)).values())
        ratio, low, high = map(math.exp, interval(logs))
        measurement.add(f"masking_{arm}_over_off", [math.exp(log) for log in logs], ratio)
        measurement.raw[f"masking_{arm}"] = {"interval_95": [low, high]}
    measurement.raw["masking"] = {"commits": masking.commits()}
    lag = json.loads((HERE / "lag.json").read_text(encoding="utf-8"))["signals"]
    measurement.add("lag_autocorrelation", lag[SIGNAL]["autocorrelation"])
    study = Study(HERE / "discriminator.json")
    stage = study.plan["stages"][0]
    by_data = [study.log_ratios(data, "both", SEEDS) for data in stage["data"]]
    whole = set.intersection(*map(set, by_data))  # seeds that have run on every catalogue
    over = [math.exp(mean(logs[seed] for logs in by_data)) for seed in sorted(whole)]
    measurement.add("kd_over_before", over, math.exp(mean(map(math.log, over))))
    by_hand = json.loads((HERE / "quality.json").read_text(encoding="utf-8"))
    card = json.loads((base_path("clothing") / "manifest.json").read_bytes())["metrics"]
    before = by_hand.pop("base_kd_before")["value"]
    measurement.add("base_kd", [card["kernel_distance"]])
    measurement.add("base_kd_over_before", [card["kernel_distance"] / before])
    measurement.add("base_coverage", [card["coverage"]])
    for name, found in by_hand.items():
        measurement.add(name, [found["value"]])
    measurement.raw["quality"] = by_hand
    return measurement
