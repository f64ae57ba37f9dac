"""What fp16 and int8 cost, and save. Writes bench/precision.json and docs/precision.md.

    python bench/precision.py --photos DIR --validation DIR [--source RUN|EXPORT|base:NAME]

One trained generator, exported in each precision as `catalogan export` does it. Speed: one picture
at a time on one thread, in turns, so that what else the machine does meets all alike. Quality:
against its own float32 pictures, and against the validation photos, over several sets of seeds
that are the same for all.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any, get_args

import numpy as np
import onnxruntime
import torch
from measuring import (
    REPOSITORY,
    catalogan,
    commit,
    interleaved,
    machine,
    quotients,
    write_results,
)
from numpy.typing import NDArray
from pages import DOCS, fill, markdown, spread
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
        split = ("--validation", options.validation)
        catalogan("prepare", options.photos, "--size", size, *split, "--out", dataset)
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
    draw_sheet(painters, len(source.categories), (options.out or DOCS) / SHEET)
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


def tables(results: dict[str, Any], name: str) -> str:
    """What goes into the page at <!-- table NAME -->."""
    if name == "run":
        facts = results["machine"]
        return (
            f"Of {results['source']}, {results['size']} px; commit {results['commit'][:7]}; "
            f"{facts['processor']}, load {facts['load_average_at_start']:g} on {facts['cores']} "
            f"cores at the start; median of {results['rounds']} rounds (lowest to highest); "
            f"{results['photos']} validation photos, {results['sets']} sets of "
            f"{results['samples']} seeds."
        )
    header, rows = {"speed": _speed, "losses": _losses, "distances": _distances}[name](results)
    return markdown(header, rows)


def _speed(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for precision in PRECISIONS:
        speed, ratios = results["speed"][precision], results["speed"][precision]["over_fp32"]
        over = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        size = f"{results['bytes'][precision] / 1e6:.2f} MB"
        rows.append([precision, size, f"{median(speed['ms']):.2f}", over])
    return ["precision", "generator", "ms an image", "over fp32"], rows


def _losses(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for precision in PRECISIONS:
        for name, loss in zip(SETTINGS, results["losses"][precision], strict=False):
            decibels = (loss["psnr_db"], loss["worst_psnr_db"])
            cells = ["none" if d is None else f"{d:.1f} dB" for d in decibels]
            steps = [f"{loss['mean_steps']:.2g}", f"{loss['max_steps']:g}"]
            rows.append([precision, name, *cells, *steps])
    return ["precision", "images", "PSNR", "of the worst", "mean difference", "largest"], rows


def _distances(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for precision in PRECISIONS:
        for name in SETTINGS:
            cells = []
            for metric, digits in (("frechet_distance", 2), ("kernel_distance", 4)):
                ours, exact = (
                    [one[metric] for one in results["distances"][name][p]]
                    for p in (precision, "fp32")
                )
                changes = [a - b for a, b in zip(ours, exact, strict=True)]
                changed = "" if precision == "fp32" else spread(changes, digits)
                cells += [f"{mean(ours):.{digits}f}", changed]
            rows.append([precision, name, *cells])
    return ["precision", "images", "Frechet distance", "change", "kernel distance", "change"], rows


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
    fill(PAGE, partial(tables, results), options.out or DOCS)


if __name__ == "__main__":
    main()
