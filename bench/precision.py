"""What fp16 and int8 cost, and save. Writes bench/precision.json and docs/precision.md.

    python bench/precision.py --photos DIR --validation DIR [--source RUN|EXPORT|base:NAME]

One trained generator, exported in each precision as `catalogan export` does it. Speed: one picture
at a time on one thread, in turns, so that what else the machine does meets all alike. Quality:
against its own float32 pictures, and against the validation photos, over several sets of seeds
that are the same for all.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any, get_args

import numpy as np
import onnxruntime
import torch
from machine import commit, machine
from measuring import CATALOGAN, REPOSITORY, interleaved, quotients, write_results
from numpy.typing import NDArray
from PIL import Image

from models.generator import Generator
from models.manifest import INPUT_NAMES, SERVED_NOISE_SCALE, SERVED_TRUNCATION_PSI
from training.dataset import PreparedDataset
from training.export.export import generator_graph
from training.export.graphs import Precision
from training.export.loss import FULL_VARIETY, Setting
from training.features.load import load_extractor
from training.learning.recorder import to_pixels
from training.learning.samplers import random_inputs
from training.learning.sources import open_source
from training.metrics.distances import frechet_distance, kernel_distance

RESULTS, PAGE, SHEET = "precision.json", "precision.md", "precision.webp"
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
SETTINGS = {
    "full variety": FULL_VARIETY,
    "as served": Setting(SERVED_TRUNCATION_PSI, SERVED_NOISE_SCALE),
}
BATCH = 64
PICTURES_A_ROUND = 20
SHEET_SEED = 7


class Painter:
    """One graph, run on one thread as the service runs it."""

    def __init__(self, generator: Generator, graph: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._generator = generator
        self._session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )

    def paint(self, labels: NDArray[np.int64], seed: int, setting: Setting) -> NDArray[np.uint8]:
        """Pictures [N, height, width, channels] of these categories."""
        generator = self._generator
        arrays = random_inputs(
            labels,
            categories=generator.shape.categories,
            z_dim=generator.z_dim,
            noise_dim=generator.noise_dim,
            seed=seed,
            noise_scale=setting.noise_scale,
        )
        psi = np.full(len(labels), setting.truncation_psi, dtype=np.float32)
        given = dict(zip(INPUT_NAMES, (*arrays[:2], psi, arrays[2]), strict=True))
        parts = []
        for start in range(0, len(labels), BATCH):
            feed = {name: array[start : start + BATCH] for name, array in given.items()}
            parts.append(to_pixels(torch.from_numpy(self._session.run(None, feed)[0])))
        return np.concatenate(parts)

    def milliseconds(self, pictures: int) -> float:
        """Of one picture, alone in its batch; the mean over several."""
        label, setting = np.zeros(1, dtype=np.int64), SETTINGS["as served"]
        start = time.perf_counter()
        for seed in range(pictures):
            self.paint(label, seed, setting)
        return 1000 * (time.perf_counter() - start) / pictures


def measure_speed(painters: dict[Precision, Painter], rounds: int) -> dict[Precision, Any]:
    """Milliseconds a picture, and over those of fp32, round by round."""
    asked: list[Callable[[], float]] = [
        partial(painter.milliseconds, PICTURES_A_ROUND) for painter in painters.values()
    ]
    interleaved(2, *asked)  # warms up
    times = dict(zip(painters, interleaved(rounds, *asked), strict=True))
    return {
        precision: {"ms": ms, "over_fp32": quotients(ms, times["fp32"])}
        for precision, ms in times.items()
    }


def measure_distances(
    painters: dict[Precision, Painter], dataset: PreparedDataset, sets: int, samples: int
) -> dict[str, dict[Precision, list[dict[str, float]]]]:
    """Distances to the validation photos, by setting and precision, for each set of seeds."""
    rows = dataset.indices("validation")
    extractor = load_extractor()
    real = extractor(dataset.images[rows])
    # The validation photos' own mix of categories.
    labels = np.resize(np.random.default_rng(0).permutation(dataset.labels[rows]), samples)
    found: dict[str, dict[Precision, list[dict[str, float]]]] = {}
    for name, setting in SETTINGS.items():
        found[name] = {precision: [] for precision in painters}
        for seed in range(sets):
            for precision, painter in painters.items():
                features = extractor(painter.paint(labels, seed, setting))
                found[name][precision].append(
                    {
                        "frechet_distance": frechet_distance(real, features),
                        "kernel_distance": kernel_distance(real, features),
                    }
                )
            print(f"distances {name}: {seed + 1} of {sets} sets", flush=True)
    return found


def draw_sheet(painters: dict[Precision, Painter], categories: int, path: Path) -> None:
    """A row for each precision, a column for each category; as served."""
    labels = np.arange(min(categories, 12))
    rows = [p.paint(labels, SHEET_SEED, SETTINGS["as served"]) for p in painters.values()]
    pixels = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    Image.fromarray(pixels.squeeze()).save(path, lossless=True)


def prepare(options: argparse.Namespace, size: str) -> Path:
    """The dataset at the source's size, by the public command; one that is there is taken."""
    dataset: Path = options.work / f"dataset-{size}"
    if not dataset.exists():
        command = [CATALOGAN, "prepare", str(options.photos), "--size", size]
        command += ["--validation", str(options.validation), "--out", str(dataset)]
        subprocess.run(command, check=True)
    return dataset


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Export in each precision, draw the sheet, and measure size, loss, speed and distances."""
    facts = machine()
    options.work.mkdir(parents=True, exist_ok=True)
    source = open_source(options.source)
    generator = source.build_generator()
    generator.update_w_avg()
    size = f"{source.width}x{source.height}"
    dataset = PreparedDataset(prepare(options, size))
    if dataset.info.categories != source.categories:
        sys.exit(f"precision: the photos' categories are not those of {options.source}")
    graphs, losses = {}, {}
    for precision in PRECISIONS:
        graphs[precision], _, found = generator_graph(generator, precision, SETTINGS["as served"])
        losses[precision] = [loss.model_dump() for loss in found]
    painters = {precision: Painter(generator, graph) for precision, graph in graphs.items()}
    draw_sheet(painters, len(source.categories), (options.out or REPOSITORY / "docs") / SHEET)
    return {
        "commit": commit(),
        "machine": facts,
        "source": options.source,
        "size": size,
        "rounds": options.rounds,
        "sets": options.sets,
        "samples": options.samples,
        "photos": len(dataset.indices("validation")),
        "bytes": {precision: len(graph) for precision, graph in graphs.items()},
        "losses": losses,
        "speed": measure_speed(painters, options.rounds),
        "distances": measure_distances(painters, dataset, options.sets, options.samples),
    }


def write_page(results: dict[str, Any], path: Path) -> None:
    """The figures for people."""
    facts = results["machine"]
    text = f"""# Precision: what fp16 and int8 cost, and save

Written by `python bench/precision.py --photos DIR --validation DIR` ({results["source"]},
{results["size"]} px; commit {results["commit"][:7]}; {facts["processor"]},
load {facts["load_average_at_start"]:g} on {facts["cores"]} cores at the start).

`catalogan export run --out export --precision fp32|fp16|int8` chooses. All three keep the same
inputs and outputs in float32, and are served alike.

Time on one thread, median of {results["rounds"]} rounds (lowest to highest):

| precision | generator | ms a picture | over fp32 |
|---|---|---|---|
{_rows(_speed_row, results)}

Against the float32 pictures of the same seeds, in steps of 255:

| precision | pictures | PSNR | of the worst | mean difference | largest |
|---|---|---|---|---|---|
{_rows(_loss_rows, results)}

Against {results["photos"]} validation photos: distances on EfficientNet-Lite2's features (no FID),
the mean over {results["sets"]} sets of {results["samples"]} seeds, and how far each set was from
that of fp32, mean and standard deviation:

| precision | pictures | Frechet distance | change | kernel distance | change |
|---|---|---|---|---|---|
{_rows(_distance_rows, results)}

![Rows: fp32, fp16, int8; a column for each category](precision.webp)

From above: fp32, fp16, int8; the same seeds, as served.

{_NOTES}"""
    path.write_text(text, encoding="utf-8")


def _rows(write: Callable[[str, dict[str, Any]], list[str]], results: dict[str, Any]) -> str:
    lines = [line for precision in PRECISIONS for line in write(precision, results)]
    return "\n".join(lines)


def _speed_row(precision: str, results: dict[str, Any]) -> list[str]:
    speed, size = results["speed"][precision], results["bytes"][precision]
    ratios = speed["over_fp32"]
    return [
        f"| {precision} | {size / 1e6:.2f} MB | {median(speed['ms']):.2f} "
        f"| {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
    ]


def _loss_rows(precision: str, results: dict[str, Any]) -> list[str]:
    lines = []
    for name, loss in zip(SETTINGS, results["losses"][precision], strict=False):
        decibels = (
            "none" if d is None else f"{d:.1f} dB" for d in (loss["psnr_db"], loss["worst_psnr_db"])
        )
        lines.append(
            f"| {precision} | {name} | {' | '.join(decibels)} | {loss['mean_steps']:.2g} "
            f"| {loss['max_steps']:g} |"
        )
    return lines


def _distance_rows(precision: str, results: dict[str, Any]) -> list[str]:
    lines = []
    for name in SETTINGS:
        cells = []
        for metric, digits in (("frechet_distance", 2), ("kernel_distance", 4)):
            ours, plain = (
                [one[metric] for one in results["distances"][name][p]] for p in (precision, "fp32")
            )
            changes = [a - b for a, b in zip(ours, plain, strict=True)]
            cells += [
                f"{mean(ours):.{digits}f}",
                ""
                if precision == "fp32"
                else f"{mean(changes):+.{digits}f} ± {stdev(changes):.{digits}f}",
            ]
        lines.append(f"| {precision} | {name} | {' | '.join(cells)} |")
    return lines


_NOTES = """## int8

Quantised are the synthesis convolutions alone, by ONNX Runtime's own tools (`quantize_static`,
QDQ): they take nearly all the time. Mapping, modulation, activations, to-RGB and upsampling stay in
float32. Scales are static, from 200 pictures of the generator itself in all its categories, half of
them at truncation 1 and half as served, so that no picture depends on others of its batch.

- Activations are uint8; ranges leave out the rarest 0.005 % of values at each end. On 400 pictures
  of an earlier base, as served, this gave 36.4 dB, ranges that hold all values 33.9 dB. A picture
  with such extremes is cut there: hence the single values that are far off.
- Weights are int8 with a scale for each output channel, and use seven bits (`reduce_range`). x86
  processors that lack VNNI (AVX2, early AVX-512) add two products in 16 bits, and with eight bits
  the sum saturates: the same file would paint wrong pictures there. The eighth bit would give 0.3
  to 0.4 dB.
- Activation functions in int8, too, cost 0.7 to 1.6 dB and saved no time; the first or the last
  convolution left in float32 gained 0.4 dB or less.
- Sums in float32 differ in their last bits between kinds of processors. Where such a value lies on
  the edge between two steps, int8 makes a whole step of it. So a seed has the same pixels on one
  kind of processor, as in float32; between two kinds they may differ by more than the 1/255 of
  float32 (not measured).

`catalogan export` measures the loss on 100 pictures of either kind, or one of each category where
there are more, writes it into the manifest (`losses`) and the model card, and refuses an int8 graph
under 28 dB and an fp16 one under 45 dB. Distances judge crowds of pictures: where int8 brings one
down, as of pictures as served, that does not say that any of them is better.

To the eye, most pictures are the same: outlines move by less than a pixel, and even areas get a
faint grain. Of 100 pictures of an earlier base as served half are above 37 dB, and one in twenty
under 34 dB. In the worst one a detail grows and changes its colour; at truncation 1 one was of
another hue.

## fp16

Weights of convolutions take half the bytes. On x86 ONNX Runtime has no convolutions in half
precision: it casts to float32 and back, and nothing is gained in time. On a GPU neither fp16 nor
int8 has been measured; ONNX Runtime's quantised convolutions are those of its CPU provider.
"""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--photos", type=Path, required=True, help="a folder for each category")
    parser.add_argument("--validation", type=Path, required=True, help="the same, held out")
    parser.add_argument("--source", default="base:clothing", help="a run, an export or base:NAME")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "build" / "precision")
    parser.add_argument("--sets", type=int, default=5, help="of seeds, two or more")
    parser.add_argument("--samples", type=int, default=1024, help="seeds in a set")
    parser.add_argument("--rounds", type=int, default=31, help="in which speed is measured")
    parser.add_argument("--out", type=Path, help="for all that is written; else bench and docs")
    options = parser.parse_args()
    results = measure(options)
    write_results((options.out or REPOSITORY / "bench") / RESULTS, results)
    write_page(results, (options.out or REPOSITORY / "docs") / PAGE)


if __name__ == "__main__":
    main()
