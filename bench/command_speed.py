"""How long `catalogan prepare` and `catalogan evaluate` take, as whole commands.

`prepare` is compared with Pillow alone in as many processes, on the same JPEG files: the sample
catalogue enlarged to 256 px, and fewer of its photos enlarged to 1500 px, a camera's size.
Pillow reads photos, converts them to RGB, crops and resizes them like `prepare` by default, and
discards them: no checks, no colour management, no hashes, no dataset.

`evaluate` is timed on 1,000 images at 64 px, once the photos' features are cached, with a generator
of preset cpu-64 that is hardly trained: its quality does not change the time.
"""

import multiprocessing
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

from measuring import Measurement, catalogan, cores, interleaved, quotients, run, seconds
from PIL import Image, ImageOps

SIZE_PX, SMALL_PX, LARGE_PX = 64, 256, 1500
SAMPLES = 1000


def enlarge(photos: Path, folder: Path, count: int, side_px: int) -> None:
    """Enlarge `count` of the photos, from alternating categories, and save them as JPEG."""
    by_category = [sorted(c.iterdir()) for c in sorted(photos.iterdir()) if c.is_dir()]
    alternating = [photo for row in zip(*by_category, strict=False) for photo in row]
    for photo in alternating[:count]:
        target = folder / photo.parent.name / f"{photo.stem}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(photo) as image:
            enlarged = image.resize((side_px, side_px), Image.Resampling.BICUBIC)
        enlarged.save(target, "JPEG", quality=90)


def bare_decode(path: Path) -> int:
    """Decode, crop and resize a photo with Pillow alone."""
    with Image.open(path) as image:
        fitted = ImageOps.fit(image.convert("RGB"), (SIZE_PX, SIZE_PX), Image.Resampling.LANCZOS)
    return len(fitted.tobytes())


def bare_decode_all(folder: Path) -> None:
    """Run the command that `prepare` is compared with."""
    with multiprocessing.Pool(cores()) as pool:
        done = pool.map(bare_decode, sorted(folder.glob("*/*.jpg")), chunksize=8)
    if set(done) != {3 * SIZE_PX**2}:
        sys.exit("not every photo was decoded")


def add_preparing(measurement: Measurement, photos: Path, folder: Path, quick: bool) -> None:
    """Time `prepare` on both sizes of photos."""
    for prefix, count, side_px in (("", 1000, SMALL_PX), ("large_", 200, LARGE_PX)):
        enlarged, out = folder / f"{prefix}photos", folder / f"{prefix}dataset"
        enlarge(photos, enlarged, 16 if quick else count, side_px)
        count = len(list(enlarged.glob("*/*.jpg")))
        prepare = partial(
            catalogan, "prepare", enlarged, "--out", out, "--size", SIZE_PX, "--overwrite"
        )
        bare = partial(run, sys.executable, __file__, str(enlarged))
        prepare()  # from now on the files are in the page cache
        rounds = 1 if quick else 5
        product, pillow = interleaved(rounds, partial(seconds, prepare), partial(seconds, bare))
        measurement.add(f"prepare_{prefix}photos_per_s", [count / taken for taken in product])
        measurement.add(f"prepare_{prefix}over_decode", quotients(pillow, product))
        measurement.raw[f"preparing_{prefix}bare_photos_per_s"] = [count / t for t in pillow]


def add_evaluating(measurement: Measurement, photos: Path, folder: Path, quick: bool) -> None:
    """Time `evaluate`, except the first run, which computes the photos' features."""
    size, samples, kimg = (16, 40, 0.008) if quick else (SIZE_PX, SAMPLES, 0.1)
    dataset, trained = folder / "dataset", folder / "run"
    catalogan("prepare", photos, "--out", dataset, "--size", size)
    catalogan("train", dataset, "--out", trained, "--preset", "cpu-64", "--max-kimg", kimg)
    evaluate = partial(catalogan, "evaluate", trained, "--data", dataset, "--samples", samples)
    evaluate()
    taken = [seconds(evaluate) for _ in range(1 if quick else 3)]
    measurement.add("evaluate_1000_s", [s * SAMPLES / samples for s in taken])


def measure(quick: bool) -> Measurement:
    """Measure both commands."""
    measurement = Measurement()
    with tempfile.TemporaryDirectory(prefix="catalogan-bench-") as name:
        photos = Path(name) / "sample"
        catalogan("sample-catalogue", "--out", photos, *(["--part", "second"] if quick else []))
        if quick:  # of one category no classifier is trained
            shutil.rmtree(min(photos.iterdir()))
        for part in ("preparing", "evaluating"):
            (Path(name) / part).mkdir()
        add_preparing(measurement, photos, Path(name) / "preparing", quick)
        add_evaluating(measurement, photos, Path(name) / "evaluating", quick)
    return measurement


if __name__ == "__main__":
    bare_decode_all(Path(sys.argv[1]))
