"""Measures how close generated images are to the catalogue's validation photos.

Images are generated for the validation photos' own labels, several times over, so that both
have the same mix of categories and each round compares equal counts.
"""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from models.manifest import category_index
from training.dataset import PreparedDataset, Split
from training.evaluation.classifier import INPUT_PX as CLASSIFIER_PX
from training.evaluation.classifier import LabelledPhotos
from training.evaluation.contact_sheet import SheetRow, draw_contact_sheet, sheet_photos
from training.evaluation.copy_distance import TrainingPhotos
from training.evaluation.memorisation import MemorisationCheck, NearPair
from training.evaluation.memorisation_sheet import draw_memorisation
from training.evaluation.options import EvaluationOptions
from training.evaluation.probe import CategoryProbe, label_agreement
from training.evaluation.record import (
    REPORT_FILE,
    Agreement,
    AgreementReport,
    CategoryScores,
    EvaluationReport,
    SecondOpinion,
    Usefulness,
)
from training.evaluation.second_opinion import MAX_IMAGES, second_opinion
from training.evaluation.usefulness import measure_usefulness
from training.features.extractor import to_rgb_tensor
from training.features.load import load_extractor
from training.files import replace_file
from training.learning.samplers import Sampler
from training.metrics.photo_features import photo_features
from training.metrics.scores import FeatureSet, covered_share, real_floor, score

_logger = logging.getLogger(__name__)

# Part of the work, images done, images in all.
OnProgress = Callable[[str, int, int], None]

SHEET_FILE: Final = "contact-sheet.png"
NEAREST_FILE: Final = "memorisation.png"
MIN_VALIDATION_PHOTOS: Final = 4  # scores that need more are left out with a reason
# A fraction needs fewer images than a distance: 250 put it within 6 points.
SERVED_SAMPLES: Final = 250
SHEET_CATEGORIES: Final = 12
SHEET_COLUMNS: Final = 8


class EvaluationError(ValueError):
    """An evaluation that can't be done; the message says why and what to do."""


def evaluate(
    sampler: Sampler,
    dataset: PreparedDataset,
    options: EvaluationOptions,
    out: Path | None = None,
    on_progress: OnProgress = lambda part, done, total: None,
) -> EvaluationReport:
    """Score a generator against the validation photos, overall and per category.

    Args:
        sampler: Generates the images; its categories are matched to the dataset's by name.
        dataset: The real photos.
        options: Counts, seed and features.
        out: Folder for evaluation.json, contact-sheet.png and memorisation.png; None writes
            nothing.
        on_progress: Is notified of the part that is worked on, and how many of how many images
            are done.

    Returns:
        The report, as written.

    Raises:
        EvaluationError: No category matches, or there are too few photos.
        FeatureError: The feature extractor can't be loaded.
    """
    evaluation = _Evaluation(sampler, dataset, options, on_progress)
    report = evaluation.report()
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        replace_file(out / REPORT_FILE, report.model_dump_json(indent=2).encode())
        replace_file(out / SHEET_FILE, draw_contact_sheet(evaluation.sheet_rows(), report))
        replace_file(out / NEAREST_FILE, evaluation.nearest_sheet())
        _logger.info("wrote %s, %s and %s", out / REPORT_FILE, SHEET_FILE, NEAREST_FILE)
    return report


class _Evaluation:
    """One evaluation: a sampler, the dataset to compare with, and the feature extractor."""

    def __init__(
        self,
        sampler: Sampler,
        dataset: PreparedDataset,
        options: EvaluationOptions,
        on_progress: OnProgress,
    ) -> None:
        """Match the categories, and load the extractor."""
        self._sampler, self._dataset, self._options = sampler, dataset, options
        self._on_progress = on_progress
        self._names = dataset.info.categories
        self._near_pairs: list[NearPair] = []
        self._matched = _matched_labels(sampler.categories, self._names)
        self._refuse_fewer("validation", MIN_VALIDATION_PHOTOS)
        self._refuse_fewer("train", 1)
        self._extractor = load_extractor(
            options.features, device=options.device, weights=options.feature_weights
        )

    def _refuse_fewer(self, split: Split, minimum: int) -> None:
        count = len(self._rows(split))
        if count < minimum:
            raise EvaluationError(
                f"{self._dataset.path} has {count} {split} photos of the model's categories, "
                f"needs {minimum}: prepare it with more photos, or with --validation"
            )

    def report(self) -> EvaluationReport:
        """Generate, extract and score."""
        validation, train = self._photos("validation"), self._photos("train")
        probe = CategoryProbe(train.features, train.labels)
        photos = self._training_photos(train)
        check = self._memorisation_check(photos, validation)
        generated, small = self._generate(photos, check)
        self._near_pairs = check.pairs()
        shuffled = train.rows(np.random.default_rng(self._options.seed).permutation(len(train)))
        return EvaluationReport(
            dataset_hash=self._dataset.info.hash,
            features=self._extractor.info,
            nimg=getattr(self._sampler, "nimg", None),
            seed=self._options.seed,
            truncation_psi=self._options.truncation_psi,
            categories=tuple(self._names[label] for label in self._matched),
            categories_only_in_model=tuple(
                name
                for label, name in enumerate(self._sampler.categories)
                if label not in self._matched.values()
            ),
            categories_only_in_dataset=tuple(
                name for label, name in enumerate(self._names) if label not in self._matched
            ),
            overall=score(validation, generated),
            real_floor=real_floor(shuffled, validation, len(generated)),
            per_category=self._per_category(validation, generated, shuffled),
            agreement=self._agreement_report(probe, validation, generated),
            second_opinion=self._second_opinion(small),
            memorisation=check.record(self._names, self._dataset.photo_paths),
            usefulness=self._usefulness(len(generated)),
        )

    def sheet_rows(self) -> list[SheetRow]:
        """Return real and generated images of the largest categories, in the dataset's order."""
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
        """Draw the generated images that came nearest to training photos, as a PNG."""
        return draw_memorisation(self._near_pairs, self._dataset)

    def _rows(self, split: Split) -> NDArray[np.int64]:
        """Rows of a split whose category the model knows."""
        rows = self._dataset.indices(split)
        return rows[np.isin(self._dataset.labels[rows], list(self._matched))]

    def _photos(self, split: Split, *, mirrored: bool = False) -> FeatureSet:
        """Compute the features of the photos of `_rows`."""
        labels = self._dataset.labels[self._dataset.indices(split)]
        features = photo_features(
            self._dataset,
            self._extractor,
            split,
            mirrored=mirrored,
            on_progress=partial(self._on_progress, f"photos for {split}"),
        )
        known = np.isin(labels, list(self._matched))
        return FeatureSet(features=features[known], labels=labels[known])

    def _rounds(self, samples: int) -> NDArray[np.int64]:
        """Repeat the validation photos' labels as a whole, for at least `samples` images."""
        labels = self._dataset.labels[self._rows("validation")]
        return np.tile(labels, -(-samples // len(labels)))

    def _images(
        self,
        labels: NDArray[np.int64],
        truncation_psi: float,
        noise_scale: float = 1.0,
        first: int = 0,
        part: str = "generated",
    ) -> Iterator[NDArray[np.uint8]]:
        """Generate images for the dataset's `labels`, a batch at a time.

        The number of an image determines it; the first one here is `first`. `part` is what
        their progress is shown as.
        """
        requested = np.asarray([self._matched[int(label)] for label in labels], dtype=np.int64)
        for start in range(0, len(requested), self._options.batch_size):
            batch = requested[start : start + self._options.batch_size]
            images = self._sampler.sample(
                batch,
                seed=self._options.seed + first + start,
                truncation_psi=truncation_psi,
                noise_scale=noise_scale,
            )
            if len(images) != len(batch):
                raise EvaluationError(
                    f"the model returned {len(images)} images of {len(batch)} requested"
                )
            yield images
            self._on_progress(part, start + len(batch), len(requested))

    def _generate(
        self, photos: TrainingPhotos, check: MemorisationCheck
    ) -> tuple[FeatureSet, LabelledPhotos]:
        """Generate all images once: their features, and small copies of the first of them."""
        labels = self._rounds(self._options.samples)
        starts = range(0, len(labels), self._options.batch_size)
        batches = self._images(labels, self._options.truncation_psi)
        features, small = [], []
        for start, images in zip(starts, batches, strict=True):
            features.append(self._extractor(images))
            nearest = photos.nearest(images, features[-1])
            check.add(images, nearest, labels[start : start + len(images)])
            if start < MAX_IMAGES:
                small.append(to_rgb_tensor(images, CLASSIFIER_PX))
        generated = FeatureSet(features=np.concatenate(features), labels=labels)
        first = torch.cat(small)
        return generated, LabelledPhotos(first, labels[: len(first)])

    def _memorisation_check(
        self, photos: TrainingPhotos, validation: FeatureSet
    ) -> MemorisationCheck:
        """Set up the memorisation check with the validation photos' distances."""
        rows = self._rows("validation")
        nearest = photos.nearest(self._dataset.images[rows], validation.features)
        check = MemorisationCheck(nearest, len(self._rows("train")))
        if check.twins is not None:
            pair = [int(rows[check.twins[0]]), check.twins[1]]
            _logger.warning(
                "validation photo %s is nearly training photo %s: copies may go unnoticed. Prepare "
                "the photos again, which puts near duplicates in one split, or remove one of them",
                *self._dataset.photo_paths(pair),
            )
        return check

    def _training_photos(self, train: FeatureSet) -> TrainingPhotos:
        """Prepare the training photos, among which copies are searched for."""
        rows, size = self._rows("train"), self._options.batch_size
        return TrainingPhotos(
            rows,
            train.features,
            self._photos("train", mirrored=True).features,
            [self._dataset.images[rows[i : i + size]] for i in range(0, len(rows), size)],
        )

    def _usefulness(self, first: int) -> Usefulness | None:
        """Train classifiers on few photos, if requested, with images from number `first` on."""
        if self._options.usefulness is None:
            return None
        return measure_usefulness(
            self._dataset,
            np.asarray(sorted(self._matched)),
            lambda labels, offset: self._images(
                labels, self._options.truncation_psi, first=first + offset, part="for classifiers"
            ),
            self._options.usefulness,
            seed=self._options.seed,
            device=self._options.device,
        )

    def _agreement_report(
        self, probe: CategoryProbe, validation: FeatureSet, generated: FeatureSet
    ) -> AgreementReport:
        """Apply the probe to generated images, and to photos for comparison."""
        psi = self._options.served_truncation_psi
        labels = self._rounds(min(SERVED_SAMPLES, self._options.samples))
        batches = self._images(labels, psi, self._options.served_noise_scale, part="as served")
        served = FeatureSet(
            features=np.concatenate([self._extractor(images) for images in batches]), labels=labels
        )

        def agreement(images: FeatureSet, truncation_psi: float = 1.0) -> Agreement:
            predicted = probe.predict(images.features)
            overall, per_category = label_agreement(images.labels, predicted, self._names)
            return Agreement(
                truncation_psi=truncation_psi,
                count=len(images),
                overall=overall,
                per_category=per_category,
            )

        photos = agreement(validation)
        return AgreementReport(
            validation_accuracy=photos.overall,
            validation_accuracy_per_category=photos.per_category,
            generated=agreement(generated, self._options.truncation_psi),
            generated_as_served=agreement(served, psi),
        )

    def _second_opinion(self, generated: LabelledPhotos) -> SecondOpinion | None:
        """Train classifiers on generated images and on photos; None with one category."""
        if len(self._matched) < 2:
            return None
        _logger.info(
            "training classifiers on %d generated images, and on photos", len(generated.labels)
        )
        return second_opinion(
            self._dataset,
            generated,
            seed=self._options.seed,
            steps=self._options.classifier_steps,
            device=self._options.device,
        )

    def _per_category(
        self, validation: FeatureSet, generated: FeatureSet, train: FeatureSet
    ) -> dict[str, CategoryScores]:
        """Compute the scores of each category."""
        return {
            self._names[label]: CategoryScores(
                generated=score(validation.of(label), generated.of(label)),
                real_floor=score(validation.of(label), train.of(label)),
                covered_share=covered_share(label, validation, generated),
                covered_share_floor=covered_share(label, validation, train),
            )
            for label in self._matched
        }


def _matched_labels(model: tuple[str, ...], dataset: tuple[str, ...]) -> dict[int, int]:
    """Map dataset labels to model labels, for the category names that both have."""
    found = {label: category_index(name, model) for label, name in enumerate(dataset)}
    matched = {label: index for label, index in found.items() if index is not None}
    if not matched:
        raise EvaluationError(
            f"the model's categories ({', '.join(model)}) and the dataset's "
            f"({', '.join(dataset)}) have no name in common: evaluate on the catalogue that "
            "the model was trained on, or rename its folders"
        )
    return matched
