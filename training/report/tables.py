"""An evaluation's numbers in plain words, for a run's report."""

from dataclasses import dataclass
from statistics import mean, stdev
from typing import Final

from training.evaluation.record import (
    EvaluationReport,
    Memorisation,
    Usefulness,
    UsefulnessArmName,
)
from training.metrics.scores import Scores


@dataclass(frozen=True)
class MetricRow:
    """A metric, what it is for generated images, and what it is for real photos."""

    name: str
    generated: str
    real: str
    better: str
    explanation: str


@dataclass(frozen=True)
class CategoryRow:
    """A category's scores; None where its photos are too few, or it has none."""

    name: str
    photos: int
    covered: float | None
    covered_floor: float | None
    kernel_distance: float | None
    kernel_distance_floor: float | None
    labelled: float | None


@dataclass(frozen=True)
class ArmRow:
    """One way to train a classifier on few photos, and how well it does."""

    name: str
    accuracy: float
    spread: float
    gain: str  # over few photos alone


@dataclass(frozen=True)
class Tile:
    """A figure to see first."""

    name: str
    value: str
    comment: str
    bad: bool = False


_ARMS: Final[dict[UsefulnessArmName, str]] = {
    "real": "few real photos",
    "augmented": "the same, classically augmented",
    "generated": "the same and generated images",
    "generated_augmented": "the same and generated images, all augmented",
}

# Score's name -> how it is called, which way is better, and what it says.
_SCORES: Final = {
    "kernel_distance": (
        "Kernel distance",
        "lower",
        "How far the generated images, taken as a crowd, are from the validation photos in what "
        "they show and how it looks: about 0 where nothing distinguishes the two crowds, however "
        "few the photos. In brackets its 95 % interval.",
    ),
    "frechet_distance": (
        "Frechet distance",
        "lower",
        "The same question under another formula, which is biased by how few the photos are: "
        "read it against the photos' own.",
    ),
    "precision": (
        "Precision",
        "higher",
        "Share of generated images that look like photos of the catalogue do.",
    ),
    "density": (
        "Density",
        "nearer to the photos'",
        "How thickly generated images lie around real photos. Far above the photos' own value "
        "means that they crowd around typical products.",
    ),
    "recall": (
        "Recall",
        "higher",
        "Share of validation photos that lie within the range of the generated images.",
    ),
    "coverage": (
        "Coverage",
        "higher",
        "Share of validation photos that have a generated image right beside them: how much of "
        "the catalogue's variety is generated at all.",
    ),
}


def metric_rows(report: EvaluationReport) -> list[MetricRow]:
    """Every overall metric, beside what real photos score by the same procedure."""
    rows = [
        MetricRow(
            report.features.frechet_name if name == "frechet_distance" else called,
            _score(report.overall, name),
            _score(report.real_floor, name),
            better,
            explanation,
        )
        for name, (called, better, explanation) in _SCORES.items()
    ]
    opinion = report.second_opinion
    if opinion is not None:
        rows.append(
            MetricRow(
                "Teaches a classifier",
                percent(opinion.trained_on_generated),
                percent(opinion.trained_on_photos),
                "higher",
                "Validation photos that a small classifier names rightly when it was trained from "
                "scratch on generated images alone; beside it, on photos alone. A second opinion, "
                "which does not rest on the distances' features.",
            )
        )
    found = report.agreement
    for agreement in (found.generated, found.generated_as_served):
        rows.append(
            MetricRow(
                f"In the category requested, at psi {agreement.truncation_psi:g}",
                percent(agreement.overall),
                percent(found.validation_accuracy),
                "higher",
                "Share of generated images that a classifier of the photos' features puts into "
                "the category that was requested. A smaller psi gives more typical and less "
                "varied images.",
            )
        )
    return [*rows, _memorised_row(report.memorisation)]


def _score(scores: Scores, name: str) -> str:
    """A score, the kernel distance with its interval; where there is none, why."""
    value = getattr(scores, name)
    if value is None:
        return scores.reasons.get(name, "–")
    if name != "kernel_distance" or scores.kernel_distance_interval is None:
        return number(value)
    low, high = scores.kernel_distance_interval
    return f"{number(value)} ({number(low)} to {number(high)})"


def _memorised_row(found: Memorisation) -> MetricRow:
    return MetricRow(
        "Memorised",
        percent(found.share),
        percent(found.expected_share),
        "lower",
        "Share of generated images that are nearer to a training photo than "
        f"{percent(1 - found.expected_share)} of the validation photos are. With "
        f"{found.validation_count} validation photos up to {percent(found.chance_share)} can be "
        "chance.",
    )


def category_rows(report: EvaluationReport) -> list[CategoryRow]:
    """A row for each category, in the dataset's order."""
    labelled = report.agreement.generated_as_served.per_category
    return [
        CategoryRow(
            name=name,
            photos=scores.generated.real_count,
            covered=scores.covered_share,
            covered_floor=scores.covered_share_floor,
            kernel_distance=scores.generated.kernel_distance,
            kernel_distance_floor=scores.real_floor.kernel_distance,
            labelled=labelled.get(name),
        )
        for name, scores in report.per_category.items()
    ]


def arm_rows(found: Usefulness) -> list[ArmRow]:
    """A row for each way of training, the plainest first."""
    plain = found.arms["real"].accuracies
    rows = []
    for arm, name in _ARMS.items():
        record = found.arms[arm]
        # Paired by seed: the same photos, the same first weights.
        gains = [100 * (a - b) for a, b in zip(record.accuracies, plain, strict=True)]
        gain = "" if arm == "real" else f"{mean(gains):+.1f} ± {stdev(gains):.1f} points"
        rows.append(ArmRow(name, record.mean, record.spread, gain))
    return rows


def usefulness_verdict(found: Usefulness) -> str:
    """What generated images add to the classical way, in one sentence."""
    with_them, without = found.arms["generated_augmented"], found.arms["augmented"]
    gains = [100 * (a - b) for a, b in zip(with_them.accuracies, without.accuracies, strict=True)]
    # Fewer seeds than it takes for a test of significance: only a gain that is clear of its
    # own scatter is called one.
    margin = 2 * stdev(gains) / len(gains) ** 0.5
    amount = f"{mean(gains):+.1f} points on top of classical augmentation"
    if mean(gains) > margin and min(gains) > 0:
        return f"Generated images helped: {amount}."
    if mean(gains) < -margin and max(gains) < 0:
        return f"Generated images did harm: {amount}."
    return f"No clear difference: {amount}, which is within the scatter over seeds."


def headline_tiles(nimg: int, seconds: float, report: EvaluationReport | None) -> list[Tile]:
    """What a reader looks at first."""
    tiles = [Tile("images shown in training", f"{nimg:,}", f"in {duration(seconds)}")]
    if report is None:
        return tiles
    floor = report.real_floor
    if report.overall.kernel_distance is not None:
        times = report.kernel_distance_over_floor
        tiles.append(
            Tile(
                "kernel distance",
                number(report.overall.kernel_distance),
                f"real photos {number(floor.kernel_distance)}; lower is better"
                + ("" if times is None else f" ({number(times)} times as far)"),
            )
        )
    if report.overall.coverage is not None:
        tiles.append(
            Tile(
                "of the catalogue's variety covered",
                percent(report.overall.coverage),
                f"real photos {percent(floor.coverage)}",
            )
        )
    served = report.agreement.generated_as_served
    accuracy = percent(report.agreement.validation_accuracy)
    tiles.append(
        Tile("in the category requested", percent(served.overall), f"real photos {accuracy}")
    )
    return [*tiles, _memorised_tile(report.memorisation)]


def _memorised_tile(found: Memorisation) -> Tile:
    """Marked where chance does not explain it."""
    bad = found.share > found.chance_share
    comment = (
        "more than chance explains" if bad else f"photos never seen {percent(found.expected_share)}"
    )
    return Tile("too near to a training photo", percent(found.share), comment, bad)


def number(value: float | None) -> str:
    """Three digits, or a dash."""
    return "–" if value is None else f"{value:.3g}"


def percent(value: float | None) -> str:
    """A share in per cent, with a digit more where it is small; or a dash."""
    if value is None:
        return "–"
    return f"{value:.1%}" if 0 < value < 0.1 else f"{value:.0%}"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
