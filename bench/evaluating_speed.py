"""How long `catalogan evaluate` takes for 1,000 images, once the photos' features are kept.

The whole command, from its start to its end, on the sample catalogue at 64 px and a generator
of preset cpu-64 that has hardly learnt: what it shows does not change the time.
"""

import subprocess
import tempfile
from pathlib import Path

from measuring import CATALOGAN, Measurement, run_part
from preparing_speed import command_seconds

SIZE_PX = 64
SAMPLES = 1000


def measure(quick: bool) -> Measurement:
    """The first evaluation computes the photos' features, and is not counted."""
    size, samples = (16, 100) if quick else (SIZE_PX, SAMPLES)
    with tempfile.TemporaryDirectory(prefix="catalogan-bench-") as name:
        photos, dataset, run = (Path(name) / part for part in ("photos", "dataset", "run"))
        part = ["--part", "second"] if quick else []
        for command in (
            ["sample-catalogue", "--out", str(photos), *part],
            ["prepare", str(photos), "--out", str(dataset), "--size", str(size)],
            ["train", str(dataset), "--out", str(run), "--preset", "cpu-64", "--max-kimg", "0.1"],
        ):
            subprocess.run([CATALOGAN, *command], check=True, capture_output=True)
        evaluate = [CATALOGAN, "evaluate", str(run), "--data", str(dataset)]
        evaluate += ["--samples", str(samples)]
        command_seconds(evaluate)
        seconds = [command_seconds(evaluate) for _ in range(1 if quick else 3)]
    measurement = Measurement()
    measurement.add("evaluate_1000_s", [s * SAMPLES / samples for s in seconds])
    return measurement


if __name__ == "__main__":
    run_part(measure)
