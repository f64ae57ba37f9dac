"""What the long studies found: their figures, from the ledgers that they left.

    python bench/studies.py masking --photos DIR --validation DIR
    python bench/studies.py finetuning --photos DIR

prepares the datasets of one (those that are there stay), does what is missing of it, and fills the
tables of its page. To measure again, move its bench/NAME.jsonl away.

masking: does hiding features help? bench/masking.json was written down before its first run, but
for the strengths of R1. finetuning: a base learns a catalogue without two of its categories; then
these are learnt from a hundred photos each, from the base and from scratch. What counts are the
images that fine-tuning needs for the lowest distance of training from scratch, over those it took.
"""

import argparse
import math
import shutil
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from measuring import REPOSITORY, Measurement, catalogan, cores
from pages import DOCS, fill, interval, markdown, spread
from study import Run, Study

HERE = Path(__file__).parent
SIZE_PX = 32
UNSEEN = range(10, 15)  # seeds on which no choice was made
WINNER = "both-0.2"
NEW, FEW = ("dress", "shorts"), 100


def read(name: str) -> Study:
    return Study(HERE / f"{name}.json")


def measure(quick: bool) -> Measurement:
    """Read what was found; no study is begun."""
    measurement, masking, tuning = Measurement(), read("masking"), read("finetuning")
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


def finetuning_table(tuning: Study) -> str:
    """A row for each seed."""
    score = tuning.plan["score"]
    rows = []
    for seed, (share, reached) in images_over_scratch(tuning).items():
        scratch, tuned = (tuning.records[Run("few", arm, seed)] for arm in ("scratch", "tuned"))
        lowest = min(record[score] for record in scratch)
        ends = [f"{records[-1]['nimg'] / 1000:.0f} kimg" for records in (scratch, tuned)]
        said = f"{share:.2f}" if reached else "not reached"
        rows.append(
            [str(seed), f"{lowest:.3f} by {ends[0]}", f"{tuned[-1][score]:.3f} at {ends[1]}", said]
        )
    shares = [share for share, _ in images_over_scratch(tuning).values()]
    rows.append(["mean", "", "", spread(shares, 2)])
    return markdown(["seed", "from scratch", "fine-tuned", "images over scratch"], rows)


def draw_curves(study: Study, colours: dict[tuple[str, str], str], out: Path) -> None:
    """The score along training, a line for each run of some (data, arm)."""
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes, score = figure.subplots(), study.plan["score"]
    for (data, arm), colour in colours.items():
        for i, run in enumerate(r for r in study.records if (r.data, r.arm) == (data, arm)):
            kimg = [record["nimg"] / 1000 for record in study.records[run]]
            values = [record[score] for record in study.records[run]]
            axes.plot(kimg, values, color=colour, label=None if i else arm)
    axes.set(xlabel="thousand images shown", ylabel=score.replace("_", " "), yscale="log")
    for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        which(StrMethodFormatter("{x:g}"))
    axes.legend()
    figure.savefig(out)


def split_photos(photos: Path, count: int, first: Path, others: Path) -> None:
    """Copy the first `count` photos of each category to one folder and the others to another."""
    for category in sorted(p for p in photos.iterdir() if p.is_dir()):
        for i, photo in enumerate(sorted(category.iterdir())):
            target = (first if i < count else others) / category.name
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(photo, target / photo.name)


def prepare(photos: Path, validation: Path, out: Path) -> None:
    """By the public command, unless it is there."""
    if not out.exists():
        split = ("--validation", validation) if validation.exists() else ()
        catalogan("prepare", photos, "--out", out, "--size", SIZE_PX, *split)


def prepare_masking(photos: Path, validation: Path, work: Path) -> dict[str, str]:
    """30 photos of each category to train on and all others to judge by, of two catalogues."""
    few, sample = work / "photos/clothing-300", work / "photos/sample-300"
    if not few.exists():
        split_photos(photos, 30, few / "train", few / "validation")
        split_photos(validation, 0, few / "train", few / "validation")
        catalogan("sample-catalogue", "--out", work / "sample")
        split_photos(work / "sample", 30, sample / "train", sample / "validation")
    for folder in (few, sample):
        prepare(folder / "train", folder / "validation", work / folder.name)
    prepare(photos, validation, work / "clothing")
    data = {name: str(work / name) for name in ("clothing-300", "sample-300", "clothing")}
    return {**data, "clothing-300-long": data["clothing-300"]}


def prepare_finetuning(photos: Path, work: Path) -> dict[str, str]:
    """The base's categories, and a hundred photos of each of the two new ones."""
    base, few, others = (work / "photos" / name for name in ("base", "few", "others"))
    if not base.exists():
        for category in (p for p in photos.iterdir() if p.is_dir()):
            target = work / "photos" / ("new" if category.name in NEW else "base")
            shutil.copytree(category, target / category.name)
        split_photos(work / "photos/new", FEW, few, others)
    prepare(base, work / "none", work / "base")
    prepare(few, others, work / "few")
    return {name: str(work / name) for name in ("base", "few")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=("masking", "finetuning"))
    parser.add_argument("--photos", type=Path, required=True, help="a folder for each category")
    parser.add_argument("--validation", type=Path, default=Path(), help="the same, held out")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "build" / "studies")
    options = parser.parse_args()
    study, work = read(options.study), options.work / options.study
    if options.study == "masking":
        data = prepare_masking(options.photos, options.validation, work)
        study.run(data, work, cores())
        fill("masking.md", study.table)
    else:
        study.run(prepare_finetuning(options.photos, work), work, cores())
        fill("fine-tuning.md", lambda _: finetuning_table(study))
        colours = {("few", "scratch"): "tab:gray", ("few", "tuned"): "tab:blue"}
        draw_curves(study, colours, DOCS / "fine-tuning.svg")


if __name__ == "__main__":
    main()
