"""How fast `catalogan prepare` is, against Pillow alone in as many processes.

Both are timed as whole commands, from their start to their end, on the same JPEG files:
the sample catalogue enlarged to 256 px, and fewer of its photos enlarged to 1500 px, as cameras
and shops have them.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from measuring import CATALOGAN, Measurement, cores, interleaved, quotients, run_part
from PIL import Image

SIZE_PX = 64
SMALL_PX, LARGE_PX = 256, 1500
BARE = Path(__file__).with_name("bare_decoding.py")


def enlarge(photos: Path, folder: Path, count: int, side_px: int) -> None:
    """Enlarge `count` of the photos, taken from all categories in turn, and save them as JPEG."""
    by_category = [sorted(c.iterdir()) for c in sorted(photos.iterdir())]
    in_turn = [photo for row in zip(*by_category, strict=False) for photo in row]
    for photo in in_turn[:count]:
        target = folder / photo.parent.name / f"{photo.stem}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(photo) as image:
            enlarged = image.resize((side_px, side_px), Image.Resampling.BICUBIC)
        enlarged.save(target, "JPEG", quality=90)


def command_seconds(command: Sequence[str]) -> float:
    """Time of one command that must succeed."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-500:]}")
    return seconds


def compare(photos: Path, out: Path, rounds: int) -> tuple[list[float], list[float]]:
    """Photos/s of `prepare` and of Pillow alone on one folder."""
    count = len(list(photos.glob("*/*.jpg")))
    prepare = (CATALOGAN, "prepare", str(photos), "--out", str(out), "--size", str(SIZE_PX))
    bare = (sys.executable, str(BARE), str(photos), str(SIZE_PX), str(cores()))
    command_seconds([*prepare, "--overwrite"])  # the files are in memory from now on
    ours, theirs = interleaved(
        rounds,
        lambda: command_seconds([*prepare, "--overwrite"]),
        lambda: command_seconds(bare),
    )
    return [count / s for s in ours], [count / s for s in theirs]


def measure(quick: bool) -> Measurement:
    """Measure both kinds of photos."""
    os.environ["PYTHONWARNINGS"] = "ignore"
    rounds = 1 if quick else 5
    measurement = Measurement()
    with tempfile.TemporaryDirectory(prefix="catalogan-bench-") as name:
        photos, small, large, out = (
            Path(name) / n for n in ("photos", "small", "large", "dataset")
        )
        command_seconds([CATALOGAN, "sample-catalogue", "--out", str(photos)])
        enlarge(photos, small, 16 if quick else 1000, SMALL_PX)
        enlarge(photos, large, 16 if quick else 200, LARGE_PX)
        small_ours, small_bare = compare(small, out, rounds)
        large_ours, large_bare = compare(large, out, rounds)
    measurement.add("prepare_photos_per_s", small_ours)
    measurement.add("prepare_over_decode", quotients(small_ours, small_bare))
    measurement.add("prepare_large_photos_per_s", large_ours)
    measurement.add("prepare_large_over_decode", quotients(large_ours, large_bare))
    measurement.raw["preparing"] = {
        "processes": cores(),
        "large_px": LARGE_PX,
        "bare_photos_per_s": small_bare,
        "bare_large_photos_per_s": large_bare,
    }
    return measurement


if __name__ == "__main__":
    run_part(__doc__, measure)
