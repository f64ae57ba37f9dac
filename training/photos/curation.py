"""Decoded photos -> which to use, in which split, and which of them look alike."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from training.dataset import Split
from training.photos.decoding import DecodedPhoto
from training.photos.near_duplicates import linked_groups, near_duplicate_groups
from training.photos.pair_comparison import Views
from training.photos.product_view import VIEW_PX
from training.photos.scan import LeftOut, PhotoRef
from training.photos.split import split_groups


@dataclass(frozen=True, slots=True)
class KeptPhoto:
    """A photo of the dataset.

    Attributes:
        row: Its row among all photos that were read.
        sha256: Hash of the file's bytes, hex.
        split: Its split.
        near_duplicate: Number of the group of photos that look like it; None = none do.
    """

    row: int
    sha256: str
    split: Split
    near_duplicate: int | None


@dataclass
class Curated:
    """Photos kept, in the order of reading, and left out."""

    kept: list[KeptPhoto] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def curate(
    refs: Sequence[PhotoRef],
    decoded: Mapping[int, DecodedPhoto],
    validation_fraction: float | None,
) -> Curated:
    """Leave out exact duplicates, flag near duplicates, and split.

    Args:
        refs: All photos that were read.
        decoded: Usable photos by index into `refs`.
        validation_fraction: Fraction to split off; None = the photos given for validation are
            the validation split, and photos that look like one of them are left out of train.

    Returns:
        The same result whatever order `decoded` is in.
    """
    curated = Curated()
    # Of equal photos the first is used: one given for validation first, links last.
    rows = sorted(decoded, key=lambda row: (not refs[row].validation, refs[row].linked, row))
    first_of = _first_of_equals(rows, decoded)
    unique = sorted(row for row in rows if first_of[row] == row)
    for row in sorted(decoded):
        if first_of[row] != row:
            twin = refs[first_of[row]].path
            curated.left_out.append(
                LeftOut(refs[row].path, "exact_duplicate", f"the same image as {twin}")
            )
    look_alike = _look_alikes(unique, decoded)
    splits: dict[int, Split]
    if validation_fraction is None:
        unique, left_out = _clear_of_validation(unique, look_alike, refs)
        curated.left_out += left_out
        splits = {row: "validation" if refs[row].validation else "train" for row in unique}
    else:
        splits = _split(first_of, look_alike, refs, decoded, validation_fraction)
    numbers = _group_numbers(unique, look_alike)
    curated.kept = [
        KeptPhoto(row, decoded[row].sha256, splits[row], numbers.get(row)) for row in unique
    ]
    return curated


def _first_of_equals(rows: Sequence[int], decoded: Mapping[int, DecodedPhoto]) -> dict[int, int]:
    """Map each row to the first of `rows` with the same bytes or pixels."""
    first: dict[str | bytes, int] = {}
    result = {}
    for row in rows:
        photo = decoded[row]
        twin = first.get(photo.sha256, first.get(photo.pixel_hash, row))
        first.setdefault(photo.sha256, twin)
        first.setdefault(photo.pixel_hash, twin)
        result[row] = twin
    return result


def _look_alikes(rows: Sequence[int], decoded: Mapping[int, DecodedPhoto]) -> dict[int, int]:
    """Map each row to the first row of its group of near duplicates, perhaps itself."""
    if not rows:
        return {}
    pixels = np.frombuffer(b"".join(decoded[row].view.pixels for row in rows), np.uint8)
    frames = np.array([decoded[row].view.frame for row in rows], np.float32)
    views = Views(pixels.reshape(-1, VIEW_PX, VIEW_PX, 4), frames)
    groups = near_duplicate_groups(views).tolist()
    first: dict[int, int] = {}
    return {row: first.setdefault(group, row) for row, group in zip(rows, groups, strict=True)}


def _clear_of_validation(
    rows: Sequence[int], look_alike: Mapping[int, int], refs: Sequence[PhotoRef]
) -> tuple[list[int], list[LeftOut]]:
    """Remove photos from train that look like one given for validation."""
    given = {look_alike[row]: row for row in rows if refs[row].validation}
    twins = {
        row: given[look_alike[row]]
        for row in rows
        if not refs[row].validation and look_alike[row] in given
    }
    left_out = [
        LeftOut(
            refs[row].path,
            "near_duplicate_of_validation",
            f"looks like {refs[twin].path}, which is given for validation",
        )
        for row, twin in twins.items()
    ]
    return [row for row in rows if row not in twins], left_out


def _split(
    first_of: Mapping[int, int],
    look_alike: Mapping[int, int],
    refs: Sequence[PhotoRef],
    decoded: Mapping[int, DecodedPhoto],
    validation_fraction: float,
) -> dict[int, Split]:
    """Split of each row; near duplicates and photos of one SKU stay together."""
    linked = {row: look_alike[first] for row, first in first_of.items()}
    rows = sorted(linked)
    keys = [split_key(refs[row], decoded[row].sha256) for row in rows]
    first_with: dict[str, int] = {}
    same_key = [(row, first_with.setdefault(key, row)) for row, key in zip(rows, keys, strict=True)]
    pairs = np.array([*linked.items(), *same_key], dtype=np.int64).reshape(-1, 2)
    groups = linked_groups(np.arange(len(refs), dtype=np.int64), pairs)
    # An exact duplicate counts in the category of the photo that is used.
    categories = [refs[first_of[row]].category for row in rows]
    splits = split_groups(keys, groups[rows].tolist(), categories, validation_fraction)
    return dict(zip(rows, splits, strict=True))


def split_key(ref: PhotoRef, sha256: str) -> str:
    """The key that decides a photo's split: its SKU, or else its content hash."""
    return f"sha256:{sha256}" if ref.sku is None else f"sku:{ref.sku}"


def _group_numbers(rows: Sequence[int], look_alike: Mapping[int, int]) -> dict[int, int]:
    """Number the groups of near duplicates by their first photo; other photos get no number."""
    sizes = Counter(look_alike[row] for row in rows)
    numbers: dict[int, int] = {}
    return {
        row: numbers.setdefault(look_alike[row], len(numbers))
        for row in rows
        if sizes[look_alike[row]] > 1
    }
