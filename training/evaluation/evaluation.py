"""How close are generated pictures to the catalogue's validation photos?

Generated pictures follow the validation photos' own labels, several times over, so that the
mix of categories is theirs and each round compares equal counts.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from models.manifest import SERVED_NOISE_SCALE, SERVED_TRUNCATION_PSI, category_index
from training.dataset import PreparedDataset
from training.evaluation.classifier import (
    CategoryClassifier,
    label_agreement,
    training_photos,
)
from training.evaluation.contact_sheet import SheetRow, draw_contact_sheet, sheet_photos
from training.evaluation.memorisation import MemorisationCheck, NearPair, TrainingFeatures
from training.evaluation.memorisation_sheet import draw_memorisation
from training.evaluation.record import (
    REPORT_FILE,
    Agreement,
    CategoryScores,
    ClassifierReport,
    EvaluationReport,
    Usefulness,
)
from training.evaluation.usefulness import UsefulnessOptions, measure_usefulness
from training.files import replace_file
from training.metrics.features import load_extractor
from training.metrics.scores import (
    MIN_FRECHET_PHOTOS,
    FeatureSet,
    covered_share,
    real_floor,
    score,
)

_logger = logging.getLogger(__name__)

SHEET_FILE: Final = "contact-sheet.png"
NEAREST_FILE: Final = "memorisation.png"
MIN_VALIDATION_PHOTOS: Final = 4  # scores that need more say so
# A share needs fewer pictures than a distance: 500 put it within 4 points.
SERVED_SAMPLES: Final = 500
SHEET_CATEGORIES: Final = 12
SHEET_COLUMNS: Final = 8


class EvaluationError(ValueError):
    """An evaluation that can't be made; the message says why and the way out."""


class Sampler(Protocol):
    """A generator of pictures: a run or an export."""

    @property
    def categories(self) -> tuple[str, ...]:
        """Names that labels index."""

    def sample(
        self,
        labels: NDArray[np.int64],
        *,
        seed: int,
        truncation_psi: float = 1.0,
        noise_scale: float = 1.0,
    ) -> NDArray[np.uint8]:
        """Pictures [N, height, width, channels] of categories[labels], fixed by `seed`.

        Evaluation asks in batches, each under its own seed: the evaluation's plus the number
        of pictures before the batch.
        """


class EvaluationOptions(BaseModel):
    """Settings of an evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    samples: Annotated[
        int,
        Field(ge=1, le=1_000_000, description="Generated pictures, rounded up to whole rounds."),
    ] = 2000
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    truncation_psi: Annotated[
        float, Field(ge=0, le=1, description="1 judges the whole distribution.")
    ] = 1.0
    served_truncation_psi: Annotated[
        float, Field(ge=0, le=1, description="Of the contact sheet and the second agreement.")
    ] = SERVED_TRUNCATION_PSI
    served_noise_scale: Annotated[
        float, Field(ge=0, le=1, description="Of the contact sheet and the second agreement.")
    ] = SERVED_NOISE_SCALE
    batch_size: Annotated[int, Field(ge=1, le=4096, description="Pictures held at a time.")] = 64
    classifier_steps: Annotated[
        int, Field(ge=10, le=100_000, description="Training steps of the category classifier.")
    ] = 600
    usefulness: Annotated[
        UsefulnessOptions | None, Field(description="Also train on few photos with help.")
    ] = None
    features: Literal["catalogan", "inception"] = "catalogan"
    inception_weights: Path | None = None
    device: str = "cpu"


def evaluate(
    sampler: Sampler,
    dataset: PreparedDataset,
    options: EvaluationOptions,
    out: Path | None = None,
) -> EvaluationReport:
    """Score a generator against the validation photos, overall and per category.

    Args:
        sampler: What makes the pictures; categories are matched to the dataset's by name.
        dataset: The real photos.
        options: Counts, seed and features.
        out: Folder for evaluation.json, contact-sheet.png and memorisation.png; None writes
            nothing.

    Returns:
        The report, as written.

    Raises:
        EvaluationError: No category matches, or there are too few photos.
        FeatureError: The feature extractor can't be loaded.
    """
    evaluation = _Evaluation(sampler, dataset, options)
    report = evaluation.report()
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        replace_file(out / REPORT_FILE, report.model_dump_json(indent=2).encode())
        replace_file(out / SHEET_FILE, draw_contact_sheet(evaluation.sheet_rows(), report))
        replace_file(out / NEAREST_FILE, evaluation.nearest_sheet())
        _logger.info("wrote %s, %s and %s", out / REPORT_FILE, SHEET_FILE, NEAREST_FILE)
    return report


class _Evaluation:
    """One evaluation's parts: whose pictures, against which photos, judged by what."""

    def __init__(
        self, sampler: Sampler, dataset: PreparedDataset, options: EvaluationOptions
    ) -> None:
        """Match the categories, then load the extractor and train the classifier."""
        self._sampler, self._dataset, self._options = sampler, dataset, options
        self._names = dataset.info.categories
        self._near_pairs: list[NearPair] = []
        # Dataset label -> sampler label.
        self._matched = _matched_labels(sampler.categories, self._names)
        self._validation_rows = self._rows("validation")
        if len(self._validation_rows) < MIN_VALIDATION_PHOTOS:
            raise EvaluationError(
                f"{dataset.path} has {len(self._validation_rows)} validation photos of the "
                f"model's categories, needs {MIN_VALIDATION_PHOTOS}: prepare it with more "
                "photos, or with --validation"
            )
        self._extractor = load_extractor(
            options.features, device=options.device, inception_weights=options.inception_weights
        )
        self._train_rows = np.random.default_rng(options.seed).permutation(self._rows("train"))
        if not len(self._train_rows):
            raise EvaluationError(f"{dataset.path} has no train photos of the model's categories")
        self._classifier = CategoryClassifier(
            [training_photos(dataset, seed=options.seed)],
            len(self._names),
            seed=options.seed,
            device=options.device,
            steps=options.classifier_steps,
        )

    def report(self) -> EvaluationReport:
        """Generate, extract and score."""
        validation = self._real_features(self._validation_rows)
        all_train = self._real_features(self._train_rows)
        check = self._memorisation_check(all_train, validation)
        generated, agreement = self._judged(check)
        self._near_pairs = check.pairs()
        # Shuffled by the seed: the first are a fair sample, as many as there is use for.
        train = all_train.taken(np.arange(len(all_train))[: len(validation) + len(generated)])
        known = {self._sampler.categories[label] for label in self._matched.values()}
        return EvaluationReport(
            dataset_hash=self._dataset.info.hash,
            features=self._extractor.info,
            nimg=getattr(self._sampler, "nimg", None),
            seed=self._options.seed,
            truncation_psi=self._options.truncation_psi,
            categories=tuple(self._names[label] for label in self._matched),
            categories_only_in_model=tuple(n for n in self._sampler.categories if n not in known),
            categories_only_in_dataset=tuple(
                name for label, name in enumerate(self._names) if label not in self._matched
            ),
            overall=score(validation, generated, frechet_minimum=MIN_FRECHET_PHOTOS),
            real_floor=real_floor(train, validation, len(generated)),
            per_category=self._per_category(validation, generated, train),
            classifier=self._classifier_report(agreement),
            memorisation=check.record(self._names, self._dataset.photo_paths),
            usefulness=self._usefulness(len(generated)),
        )

    def sheet_rows(self) -> list[SheetRow]:
        """Real and generated pictures of the largest categories, in the dataset's order."""
        counts = np.bincount(self._dataset.labels, minlength=len(self._names))
        largest = sorted(self._matched, key=lambda label: -counts[label])[:SHEET_CATEGORIES]
        rng = np.random.default_rng(self._options.seed)
        rows = []
        for position, label in enumerate(sorted(largest)):
            photos = sheet_photos(self._dataset, label, SHEET_COLUMNS, rng)
            generated = self._sampler.sample(
                np.full(SHEET_COLUMNS, self._matched[label], dtype=np.int64),
                seed=self._options.seed + position * SHEET_COLUMNS,
                truncation_psi=self._options.served_truncation_psi,
                noise_scale=self._options.served_noise_scale,
            )
            rows.append(SheetRow(self._names[label], photos, generated))
        return rows

    def nearest_sheet(self) -> bytes:
        """The pictures judged by `report` that came nearest to training photos, as a PNG."""
        return draw_memorisation(self._near_pairs, self._dataset)

    def _rows(self, split: Literal["train", "validation"]) -> NDArray[np.int64]:
        """Rows of a split whose category the model knows."""
        rows = self._dataset.indices(split)
        return rows[np.isin(self._dataset.labels[rows], list(self._matched))]

    def _real_features(self, rows: NDArray[np.int64], *, mirrored: bool = False) -> FeatureSet:
        """Features of the dataset's photos, read a batch at a time."""
        size, step = self._options.batch_size, -1 if mirrored else 1
        parts = [
            self._extractor(self._dataset.images[rows[start : start + size]][:, :, ::step])
            for start in range(0, len(rows), size)
        ]
        empty = np.empty((0, self._extractor.info.dimensions), dtype=np.float32)
        return FeatureSet(
            features=np.concatenate([empty, *parts]), labels=self._dataset.labels[rows]
        )

    def _rounds(self, samples: int) -> NDArray[np.int64]:
        """The validation photos' labels, over and over: `samples` or somewhat more."""
        labels = self._dataset.labels[self._validation_rows]
        return np.tile(labels, -(-samples // len(labels)))

    def _pictures(
        self,
        labels: NDArray[np.int64],
        truncation_psi: float,
        *,
        noise_scale: float = 1.0,
        first: int = 0,
    ) -> Iterator[NDArray[np.uint8]]:
        """Generated pictures for the dataset's `labels`, a batch at a time.

        Pictures number `first` and on: other numbers, other pictures.
        """
        asked = np.asarray([self._matched[int(label)] for label in labels], dtype=np.int64)
        for start in range(0, len(asked), self._options.batch_size):
            batch = asked[start : start + self._options.batch_size]
            images = self._sampler.sample(
                batch,
                seed=self._options.seed + first + start,
                truncation_psi=truncation_psi,
                noise_scale=noise_scale,
            )
            if len(images) != len(batch):
                raise EvaluationError(f"asked for {len(batch)} pictures, got {len(images)}")
            yield images

    def _judged(self, check: MemorisationCheck) -> tuple[FeatureSet, Agreement]:
        """Features and the classifier's verdict, in one pass over the pictures."""
        labels = self._rounds(self._options.samples)
        starts = range(0, len(labels), self._options.batch_size)
        pictures = self._pictures(labels, self._options.truncation_psi)
        features, predicted = [], []
        for start, images in zip(starts, pictures, strict=True):
            features.append(self._extractor(images))
            predicted.append(self._classifier.predict(images))
            check.add(images, features[-1], labels[start : start + len(images)])
        return (
            FeatureSet(features=np.concatenate(features), labels=labels),
            self._agreement(labels, np.concatenate(predicted), self._options.truncation_psi),
        )

    def _memorisation_check(self, train: FeatureSet, validation: FeatureSet) -> MemorisationCheck:
        """Ready to take generated pictures."""
        mirrored = self._real_features(self._train_rows, mirrored=True)
        check = MemorisationCheck(
            TrainingFeatures(
                upright=train.features, mirrored=mirrored.features, rows=self._train_rows
            ),
            validation.features,
        )
        if check.twins is not None:
            rows = [int(self._validation_rows[check.twins[0]]), check.twins[1]]
            _logger.warning(
                "validation photo %s is all but training photo %s: copies may go unseen. Prepare "
                "the photos anew, which keeps twins on one side, or take one of the two out",
                *self._dataset.photo_paths(rows),
            )
        return check

    def _usefulness(self, judged: int) -> Usefulness | None:
        """Classifiers on few photos, where asked for; with other pictures than those judged."""
        if self._options.usefulness is None:
            return None
        return measure_usefulness(
            self._dataset,
            np.asarray(sorted(self._matched)),
            lambda labels, first: self._pictures(
                labels, self._options.truncation_psi, first=judged + first
            ),
            self._options.usefulness,
            seed=self._options.seed,
            device=self._options.device,
        )

    def _agreement(
        self, labels: NDArray[np.int64], predicted: NDArray[np.int64], truncation_psi: float
    ) -> Agreement:
        """What the classifier says of one pass of generated pictures."""
        overall, per_category = label_agreement(labels, predicted, self._names)
        return Agreement(
            truncation_psi=truncation_psi,
            count=len(labels),
            overall=overall,
            per_category=per_category,
        )

    def _classifier_report(self, generated: Agreement) -> ClassifierReport:
        """The classifier's own accuracy beside what it says of generated pictures."""
        rows = self._validation_rows
        predicted = self._classifier.predict(self._dataset.images[rows])
        accuracy, accuracies = label_agreement(self._dataset.labels[rows], predicted, self._names)
        psi = self._options.served_truncation_psi
        labels = self._rounds(SERVED_SAMPLES)
        pictures = self._pictures(labels, psi, noise_scale=self._options.served_noise_scale)
        served = [self._classifier.predict(images) for images in pictures]
        return ClassifierReport(
            validation_accuracy=accuracy,
            validation_accuracy_per_category=accuracies,
            generated=generated,
            generated_as_served=self._agreement(labels, np.concatenate(served), psi),
        )

    def _per_category(
        self, validation: FeatureSet, generated: FeatureSet, train: FeatureSet
    ) -> dict[str, CategoryScores]:
        """Scores by category; a covariance needs more photos than there are features."""
        minimum = self._extractor.info.dimensions + 1
        return {
            self._names[label]: CategoryScores(
                generated=score(validation.of(label), generated.of(label), frechet_minimum=minimum),
                real_floor=score(validation.of(label), train.of(label), frechet_minimum=minimum),
                covered_share=covered_share(label, validation, generated),
                covered_share_floor=covered_share(label, validation, train),
            )
            for label in self._matched
        }


def _matched_labels(model: tuple[str, ...], dataset: tuple[str, ...]) -> dict[int, int]:
    """Dataset label -> model label, for the names that both know."""
    found = {label: category_index(name, model) for label, name in enumerate(dataset)}
    matched = {label: index for label, index in found.items() if index is not None}
    if not matched:
        raise EvaluationError(
            f"the model's categories ({', '.join(model)}) and the dataset's "
            f"({', '.join(dataset)}) have no name in common: evaluate on the catalogue that "
            "the model was trained on, or rename its folders"
        )
    return matched
