"""Photos -> prepared dataset: `prepare_dataset` and its steps.

List the photos, decode them into the images file, leave out unusable ones, split,
check that enough are left, and move the dataset to its folder in one step.
"""

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from training.dataset import INFO_FILE, REPORT_FILE, DatasetInfo, Split
from training.features.efficientnet_lite import WeightsError
from training.photos.categories import check_enough, merge_categories
from training.photos.curation import Curated, KeptPhoto, curate
from training.photos.dataset_writer import (
    allocate_images,
    check_destination,
    compact_images,
    temporary_dataset,
    write_index,
)
from training.photos.decode_pool import DecodeError, ImagesFile, decode_all
from training.photos.decoding import DecodedPhoto, UnusablePhoto
from training.photos.manifest import read_manifest
from training.photos.options import PrepareOptions, check_size
from training.photos.scan import LeftOut, Listing, PhotoRef, PrepareError, scan_folder
from training.photos.validation_gaps import validation_gaps
from training.photos.view_features import load_network
from training.records import Record

logger = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]


class PrepareReport(Record):
    """The outcome for each photo; stored as report.json.

    Attributes:
        dataset_hash: Equal for equal pixels, labels and splits.
        found: Number of photos, and of other entries found in their place.
        used: Number of photos in the dataset.
        left_out: How many were left out, by reason.
        left_out_photos: Each of them, with the reason in words.
        near_duplicates: Groups of photos in the dataset that look alike.
        merged_categories: Names that differ in letter case only -> the name used.
        formats: Files by format, those left out for their content too; "unknown": not read.
        counts: Photos by split and category.
        no_validation: Categories of ten photos or more without a validation photo, and why.
        options: Options of this preparation.
    """

    dataset_hash: str
    found: int
    used: int
    left_out: dict[str, int]
    left_out_photos: list[dict[str, str]]
    near_duplicates: list[list[str]]
    merged_categories: dict[str, str]
    formats: dict[str, int]
    counts: dict[Split, dict[str, int]]
    no_validation: dict[str, str]
    options: PrepareOptions


def prepare_dataset(
    photos: Path,
    out: Path,
    options: PrepareOptions,
    *,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> PrepareReport:
    """Prepare a dataset from a folder of photos.

    Args:
        photos: Folder whose first level is the category, or that the manifest's paths
            are relative to. Nothing in it is changed.
        out: Folder of the dataset: a new or empty one, or with `overwrite` a dataset.
        options: Size and shape, split, limits.
        overwrite: Replace the dataset at `out`.
        on_progress: Called with the number of photos done and their total.

    Returns:
        The outcome for each photo.

    Raises:
        PrepareError: No network can be built for the size, too few photos are usable, a
            category has none, the manifest lacks a column, or the folder can't be
            written; nothing is left behind.
    """
    check_size(options.width, options.height)
    folders = [photos] if options.validation is None else [photos, options.validation]
    folder = check_destination(out, folders, overwrite=overwrite)
    listing = _list_photos(photos, options)
    merged = merge_categories(listing)
    shape = (len(listing.photos), options.height, options.width, options.channels)
    with temporary_dataset(folder) as temporary:
        images = allocate_images(temporary, shape)
        decoded = _decode(listing, options, images, on_progress)
        curated = curate(listing.photos, decoded, options.fraction_to_split)
        listing.left_out += curated.left_out
        check_enough(listing, curated.kept, options.min_photos)
        info = _write(temporary, images, listing, curated, options)
        report = _report(listing, curated, info, merged, options)
        (temporary / REPORT_FILE).write_text(report.model_dump_json(indent=1), encoding="utf-8")
    _warn(report)
    return report


def _warn(report: PrepareReport) -> None:
    """Warn about what is allowed but may be a mistake."""
    for name, kept in report.merged_categories.items():
        logger.warning("Category %r differs from %r in letter case only: merged", name, kept)
    if not any(report.counts["validation"].values()):
        logger.warning("No photo is in the validation split: nothing to evaluate against")
    for name, reason in report.no_validation.items():
        logger.warning("Category %r has no validation photo: %s", name, reason)


def _list_photos(photos: Path, options: PrepareOptions) -> Listing:
    """List the photos to read, train before validation."""
    if options.manifest is not None:
        listing = read_manifest(options.manifest, photos, options)
    else:
        listing = scan_folder(photos)
    if options.validation is not None:
        given = scan_folder(options.validation, validation=True)
        listing.photos += given.photos
        listing.left_out += given.left_out
        listing.validation_categories = given.categories
    return listing


def _decode(
    listing: Listing, options: PrepareOptions, images: ImagesFile, on_progress: OnProgress | None
) -> dict[int, DecodedPhoto]:
    """Decode all photos; add the unusable ones to the listing's left out, and count formats."""
    decoded: dict[int, DecodedPhoto] = {}
    unusable: dict[int, UnusablePhoto] = {}
    files = [photo.file for photo in listing.photos]
    outcomes = decode_all(files, options, images, processes=_cores())
    try:
        load_network()  # if this failed later, hours of decoding would be lost
        with closing(outcomes):
            for done, (row, outcome) in enumerate(outcomes, start=1):
                if isinstance(outcome, UnusablePhoto):
                    unusable[row] = outcome
                else:
                    decoded[row] = outcome
                if on_progress is not None:
                    on_progress(done, len(files))
    except (DecodeError, WeightsError) as error:
        raise PrepareError(str(error)) from error
    listing.left_out += [
        LeftOut(listing.photos[row].path, unusable[row].reason, unusable[row].message)
        for row in sorted(unusable)
    ]
    formats = Counter(photo.format for photo in decoded.values())
    formats.update(photo.format for photo in unusable.values())
    listing.formats = dict(sorted(formats.items()))
    return decoded


def _cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _write(
    folder: Path, images: ImagesFile, listing: Listing, curated: Curated, options: PrepareOptions
) -> DatasetInfo:
    """Write images, index and dataset.json."""
    categories = sorted(listing.categories)
    label_of = {name: label for label, name in enumerate(categories)}
    kept, refs = curated.kept, [listing.photos[photo.row] for photo in curated.kept]
    labels = [label_of[ref.category] for ref in refs]
    shape = (options.height, options.width, options.channels)
    header = json.dumps({"shape": shape, "categories": categories})
    # Over size, categories, and each image's pixels, label and split, in order.
    digest = hashlib.sha256(header.encode())
    stored = compact_images(images, (len(listing.photos), *shape), [photo.row for photo in kept])
    for label, photo, pixels in zip(labels, kept, stored, strict=True):
        digest.update(f"{label}:{photo.split}:".encode() + hashlib.sha256(pixels).digest())
    write_index(folder, refs, labels, kept)
    info = DatasetInfo(
        hash=digest.hexdigest(),
        width=options.width,
        height=options.height,
        channels=options.channels,
        categories=tuple(categories),
        fit=options.fit,
        background=options.background,
        counts=_counts(refs, kept, categories),
    )
    (folder / INFO_FILE).write_text(info.model_dump_json(indent=1), encoding="utf-8")
    return info


def _counts(
    refs: Sequence[PhotoRef], kept: Sequence[KeptPhoto], categories: Sequence[str]
) -> dict[Split, dict[str, int]]:
    """Photos by split and category, zeros included."""
    found = Counter((photo.split, ref.category) for ref, photo in zip(refs, kept, strict=True))
    splits: tuple[Split, Split] = ("train", "validation")
    return {split: {name: found[split, name] for name in categories} for split in splits}


def _report(
    listing: Listing,
    curated: Curated,
    info: DatasetInfo,
    merged: dict[str, str],
    options: PrepareOptions,
) -> PrepareReport:
    groups: dict[int, list[str]] = {}
    for photo in curated.kept:
        if photo.near_duplicate is not None:
            groups.setdefault(photo.near_duplicate, []).append(listing.photos[photo.row].path)
    return PrepareReport(
        dataset_hash=info.hash,
        found=len(curated.kept) + len(listing.left_out),
        used=len(curated.kept),
        left_out=dict(sorted(Counter(item.reason for item in listing.left_out).items())),
        left_out_photos=[
            asdict(item) for item in sorted(listing.left_out, key=lambda item: item.path)
        ],
        near_duplicates=list(groups.values()),
        merged_categories=merged,
        formats=listing.formats,
        counts=info.counts,
        no_validation=validation_gaps(
            listing.photos, curated.kept, listing.left_out, options.fraction_to_split
        ),
        options=options,
    )
