"""The result of an evaluation: the models of `evaluation.json`."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from pydantic import ValidationError

from training.faults import first_fault
from training.features.extractor import ExtractorInfo
from training.learning.run import EVALUATION_FOLDER
from training.metrics.scores import Scores
from training.records import Fraction, Record

logger = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 2
REPORT_FILE: Final = "evaluation.json"


class CategoryScores(Record):
    """Scores of a category's generated images and train photos against its validation photos.

    Most scores need more photos than a category has. The covered share does not: the radii of
    its balls come from the photos of all categories, and only this category's images are counted.
    """

    generated: Scores
    real_floor: Scores
    covered_share: Fraction | None = None  # None without photos, or in an older report
    covered_share_floor: Fraction | None = None


class Agreement(Record):
    """Fraction of generated images that the classifier recognises as the requested category."""

    truncation_psi: float
    count: int
    overall: Fraction
    per_category: dict[str, Fraction]


class AgreementReport(Record):
    """Agreement with a linear classifier of the photos' features, and its accuracy on photos."""

    validation_accuracy: Fraction
    validation_accuracy_per_category: dict[str, Fraction]
    generated: Agreement
    generated_as_served: Agreement


class SecondOpinion(Record):
    """A small classifier's accuracy on validation photos, by the images it was trained on.

    It is trained from scratch, independently of the features that the distances are based on.
    """

    trained_on_generated: Fraction
    trained_on_photos: Fraction
    generated_count: int
    photo_count: int


class NearestPhoto(Record):
    """A generated image beside the training photo that it came nearest to."""

    category: str  # category that was requested
    photo: str  # the training photo's path in the catalogue
    mirrored: bool  # it is nearest when mirrored
    distance: float
    too_near: bool


class Memorisation(Record):
    """Fraction of generated images that are too near to a training photo.

    Too near means no farther than `threshold`. `expected_share` of new photos from the same
    shoot would be that near, too; 95 of 100 generators without copies stay at or below
    `chance_share`.
    """

    train_count: int
    validation_count: int
    generated_count: int
    threshold: float
    share: Fraction
    expected_share: Fraction
    chance_share: Fraction
    nearest: tuple[NearestPhoto, ...]


UsefulnessArmName = Literal["real", "augmented", "generated", "generated_augmented"]


class UsefulnessArm(Record):
    """Accuracy on validation photos of classifiers trained in one way."""

    mean: Fraction
    spread: float  # standard deviation over seeds
    accuracies: tuple[Fraction, ...]  # by seed; the same position in each arm is the same photos


class Usefulness(Record):
    """Classifiers trained on few photos, with and without augmentation and generated images."""

    photos_per_category: int
    generated_per_category: int
    categories: int
    steps: int
    validation_count: int
    arms: dict[UsefulnessArmName, UsefulnessArm]


class EvaluationReport(Record):
    """An evaluation in numbers; the same seed and software give the same report."""

    schema_version: Literal[2] = SCHEMA_VERSION
    dataset_hash: str
    features: ExtractorInfo
    nimg: int | None = None  # images that the model had seen, if known
    seed: int
    truncation_psi: float
    categories: tuple[str, ...]
    categories_only_in_model: tuple[str, ...]
    categories_only_in_dataset: tuple[str, ...]
    overall: Scores
    real_floor: Scores  # train photos against the same validation photos
    per_category: dict[str, CategoryScores]
    agreement: AgreementReport
    second_opinion: SecondOpinion | None  # None where there is one category
    memorisation: Memorisation
    usefulness: Usefulness | None = None  # None where it was not requested

    def headline(self) -> dict[str, float]:
        """Return the overall numbers under flat names, for a manifest or a table.

        Keys that end in `_floor` compare real photos with real photos; `_low` and `_high` are
        the ends of a 95 % interval.
        """
        named = {
            **_headline_scores(self.overall, self._frechet_key),
            "kernel_distance_over_floor": self.kernel_distance_over_floor,
            **_headline_scores(self.real_floor, self._frechet_key, "_floor"),
            "label_agreement": self.agreement.generated.overall,
            "label_agreement_as_served": self.agreement.generated_as_served.overall,
            "label_agreement_floor": self.agreement.validation_accuracy,
            "memorised_share": self.memorisation.share,
            "memorised_share_floor": self.memorisation.expected_share,
        }
        if self.second_opinion is not None:
            named["accuracy_trained_on_generated"] = self.second_opinion.trained_on_generated
            named["accuracy_trained_on_photos"] = self.second_opinion.trained_on_photos
        if self.usefulness is not None:
            named |= {f"few_photos_{arm}": v.mean for arm, v in self.usefulness.arms.items()}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def kernel_distance_over_floor(self) -> float | None:
        """Kernel distance relative to that of photos; None where the photos' may be 0."""
        floor, interval = self.real_floor.kernel_distance, self.real_floor.kernel_distance_interval
        generated = self.overall.kernel_distance
        if generated is None or floor is None or interval is None or interval[0] <= 0:
            return None
        return generated / floor

    def objections(self, nimg: int, dataset_hash: str) -> Iterator[str]:
        """Say why its numbers don't apply to a model of `nimg` images, trained on that dataset."""
        if self.nimg != nimg:
            yield "is of another moment of the run"
        if self.dataset_hash != dataset_hash:
            yield "is on another dataset than the run's"
        if self.truncation_psi != 1:
            yield f"is at truncation {self.truncation_psi:g}, not 1"

    @property
    def _frechet_key(self) -> str:
        return "fid" if self.features.frechet_name == "FID" else "frechet_distance"


def _headline_scores(scores: Scores, frechet_key: str, suffix: str = "") -> dict[str, float | None]:
    """Return the scores under flat names, the most important first."""
    low, high = scores.kernel_distance_interval or (None, None)
    return {
        f"kernel_distance{suffix}": scores.kernel_distance,
        f"kernel_distance{suffix}_low": low,
        f"kernel_distance{suffix}_high": high,
        f"{frechet_key}{suffix}": scores.frechet_distance,
        f"precision{suffix}": scores.precision,
        f"recall{suffix}": scores.recall,
        f"density{suffix}": scores.density,
        f"coverage{suffix}": scores.coverage,
    }


def read_headline(run: Path, nimg: int, dataset_hash: str) -> dict[str, float]:
    """Read the numbers of a run's evaluation, if they apply to this moment of the run.

    Returns:
        Nothing if the evaluation was of another moment, truncated, or on another dataset: with
        another split it may compare with photos that the run was trained on.
    """
    path = run / EVALUATION_FOLDER / REPORT_FILE
    if not path.exists():
        return {}
    try:
        report = EvaluationReport.model_validate_json(path.read_bytes())
    except ValidationError as error:
        objections = [f"can't be read ({first_fault(error)})"]
    else:
        objections = list(report.objections(nimg, dataset_hash))
    if objections:
        logger.warning("%s %s: exported without metrics", path, " and ".join(objections))
        return {}
    return report.headline()
