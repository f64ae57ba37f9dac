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


@dataclass(frozen=True)
class MetricRow:
    """A metric, what it is for generated pictures, and what it is for real photos."""

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
    "generated": "the same and generated pictures",
    "generated_augmented": "the same and generated pictures, all augmented",
}

# Score's name -> how it is called, which way is better, and what it says.
_SCORES: Final = {
    "frechet_distance": (
        "Frechet distance",
        "lower",
        "How far the generated pictures, taken as a crowd, are from the validation photos in "
        "what they show and how sharp, noisy and coloured they are.",
    ),
    "kernel_distance": (
        "Kernel distance",
        "lower",
        "The same question, asked so that few photos do not bias the answer: about 0 where "
        "nothing tells the two crowds apart.",
    ),
    "precision": (
        "Precision",
        "higher",
        "Share of generated pictures that look like photos of the catalogue do.",
    ),
    "density": (
        "Density",
        "nearer to the photos'",
        "How thickly generated pictures lie around real photos. Far above the photos' own value "
        "means that they crowd around typical goods.",
    ),
    "recall": (
        "Recall",
        "higher",
        "Share of validation photos that lie within the range of the generated pictures.",
    ),
    "coverage": (
        "Coverage",
        "higher",
        "Share of validation photos that have a generated picture right beside them: how much of "
        "the catalogue's variety is painted at all.",
    ),
}


def metric_rows(report: EvaluationReport) -> list[MetricRow]:
    """Every overall metric, beside what real photos score by the same procedure."""
    floor = report.real_floor.train_against_validation
    rows = [
        MetricRow(
            report.features.frechet_name if name == "frechet_distance" else called,
            number(getattr(report.overall, name)),
            number(getattr(floor, name)),
            better,
            explanation,
        )
        for name, (called, better, explanation) in _SCORES.items()
    ]
    classifier = report.classifier
    for agreement in (classifier.generated, classifier.generated_as_served):
        rows.append(
            MetricRow(
                f"Labelled as asked at psi {agreement.truncation_psi:g}",
                percent(agreement.overall),
                percent(classifier.validation_accuracy),
                "higher",
                "Share of generated pictures that a small classifier, trained on the real photos, "
                "puts into the category that was asked for. A smaller psi gives more typical and "
                "less varied pictures.",
            )
        )
    if report.memorisation is not None:
        rows.append(_memorised_row(report.memorisation))
    return rows


def _memorised_row(found: Memorisation) -> MetricRow:
    return MetricRow(
        "Memorised",
        percent(found.share),
        percent(found.expected_share),
        "lower",
        "Share of generated pictures that are nearer to a training photo than "
        f"{percent(1 - found.expected_share)} of the validation photos are. With "
        f"{found.validation_count} validation photos up to {percent(found.chance_share)} can be "
        "chance.",
    )


def category_rows(report: EvaluationReport) -> list[CategoryRow]:
    """A row for each category, in the dataset's order."""
    labelled = report.classifier.generated_as_served.per_category
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
    """What generated pictures add to the classical way, in one sentence."""
    with_them, without = found.arms["generated_augmented"], found.arms["augmented"]
    gains = [100 * (a - b) for a, b in zip(with_them.accuracies, without.accuracies, strict=True)]
    # Fewer seeds than it takes for a test of significance: only a gain that is clear of its
    # own scatter is called one.
    margin = 2 * stdev(gains) / len(gains) ** 0.5
    amount = f"{mean(gains):+.1f} points on top of classical augmentation"
    if mean(gains) > margin and min(gains) > 0:
        return f"Generated pictures helped: {amount}."
    if mean(gains) < -margin and max(gains) < 0:
        return f"Generated pictures did harm: {amount}."
    return f"No clear difference: {amount}, which is within the scatter over seeds."


def headline_tiles(nimg: int, seconds: float, report: EvaluationReport | None) -> list[Tile]:
    """What a reader looks at first."""
    tiles = [Tile("images shown in training", f"{nimg:,}", f"in {duration(seconds)}")]
    if report is None:
        return tiles
    floor = report.real_floor.train_against_validation
    if report.overall.frechet_distance is not None:
        tiles.append(
            Tile(
                "FID" if report.features.frechet_name == "FID" else "Frechet distance",
                number(report.overall.frechet_distance),
                f"real photos {number(floor.frechet_distance)}; lower is better",
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
    served = report.classifier.generated_as_served
    accuracy = percent(report.classifier.validation_accuracy)
    tiles.append(Tile("labelled as asked", percent(served.overall), f"real photos {accuracy}"))
    if report.memorisation is not None:
        tiles.append(_memorised_tile(report.memorisation))
    return tiles


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
