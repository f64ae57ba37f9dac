"""What the long studies found, as figures for `make bench`: no study is run here.

masking (docs/masking.md): does hiding features help? bench/masking.json was written down before its
first run, but for the strengths of R1. finetuning (docs/fine-tuning.md): a base learns a catalogue
without two of its categories; then these are learnt from a hundred photos each, from the base and
from scratch. What counts are the images that fine-tuning needs for the lowest distance of training
from scratch, over those it took. Their evaluations are the lines of bench/*.jsonl; study.py says
how to run them again.
"""

import math
from pathlib import Path

from measuring import Measurement
from study import Run, Study
from tables import interval

UNSEEN = range(10, 15)  # seeds on which no choice was made
WINNER = "both-0.2"


def measure(quick: bool) -> Measurement:
    """Read what was found."""
    measurement = Measurement()
    masking, tuning = (
        Study(Path(__file__).with_name(f"{name}.json")) for name in ("masking", "finetuning")
    )
    logs = masking.log_ratios("clothing-300", WINNER, UNSEEN)
    if logs:
        ratio, low, high = map(math.exp, interval(list(logs.values())))
        measurement.add("masking_dynamic_over_off", [math.exp(log) for log in logs.values()], ratio)
        measurement.raw["masking"] = {"interval_95": [low, high], "commits": masking.commits()}
    found = images_over_scratch(tuning)
    if found:
        # A seed that did not get there counts as if it had with its last image: it took more.
        measurement.add("finetune_images_over_scratch", [share for share, _ in found.values()])
        missed = [seed for seed, (_, reached) in found.items() if not reached]
        measurement.raw["finetuning"] = {"not_reached": missed, "commits": tuning.commits()}
    return measurement


def images_over_scratch(tuning: Study) -> dict[int, tuple[float, bool]]:
    """Images to scratch's lowest distance, over scratch's, and whether it was reached; by seed."""
    found, score = {}, tuning.plan["score"]
    for seed in (run.seed for run in tuning.records if run.arm == "tuned"):
        scratch, tuned = (tuning.records[Run("few", arm, seed)] for arm in ("scratch", "tuned"))
        goal = min(scratch, key=lambda record: record[score])
        reached = [record["nimg"] for record in tuned if record[score] <= goal[score]]
        found[seed] = ([*reached, tuned[-1]["nimg"]][0] / goal["nimg"], bool(reached))
    return found
