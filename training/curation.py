"""Decoded photos -> which are kept, on which side of the split, and which look alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from training.dataset import Split
from training.near_duplicates import linked_groups, near_duplicate_pairs
from training.photo_decoding import DecodedPhoto
from training.photo_scan import LeftOut, PhotoRef
from training.split import split_groups


@dataclass(frozen=True, slots=True)
class KeptPhoto:
    """A photo of the dataset.

    Attributes:
        row: Its row among all photos that were read.
        sha256: Of the file's bytes, hex.
        split: Its side.
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
    refs: Sequence[PhotoRef], decoded: Mapping[int, DecodedPhoto], validation_share: float | None
) -> Curated:
    """Leave out exact duplicates, flag near ones, and split.

    Args:
        refs: All photos that were read.
        decoded: By index into `refs`, those that could be used.
        validation_share: Share to split off; None = the photos given for validation are
            the validation side, and what looks like one of them is left out of train.

    Returns:
        The same whatever order `decoded` is in.
    """
    curated = Curated()
    # Photos given for validation come first, so that of two equal ones they stay.
    rows = sorted(decoded, key=lambda row: (not refs[row].validation, row))
    first_of = _first_of_equals(rows, decoded)
    unique = sorted(row for row in rows if first_of[row] == row)
    for row in sorted(decoded):
        if first_of[row] != row:
            twin = refs[first_of[row]].path
            curated.left_out.append(
                LeftOut(refs[row].path, "exact_duplicate", f"the same picture as {twin}")
            )
    pairs = _look_alikes(unique, decoded)
    if validation_share is None:
        unique, pairs, left_out = _clear_of_validation(unique, pairs, refs)
        curated.left_out += left_out
        splits = {row: _given_side(refs[row]) for row in unique}
    else:
        links = np.concatenate([pairs, np.array(list(first_of.items()), dtype=np.int64)])
        splits = _split(sorted(decoded), links, refs, decoded, validation_share)
    numbers = _group_numbers(unique, pairs)
    curated.kept = [
        KeptPhoto(row, decoded[row].sha256, splits[row], numbers.get(row)) for row in unique
    ]
    return curated


def _first_of_equals(rows: Sequence[int], decoded: Mapping[int, DecodedPhoto]) -> dict[int, int]:
    """For each row, the first of `rows` with the same bytes or pixels."""
    first: dict[str | bytes, int] = {}
    result = {}
    for row in rows:
        photo = decoded[row]
        twin = first.get(photo.sha256, first.get(photo.pixel_hash, row))
        first.setdefault(photo.sha256, twin)
        first.setdefault(photo.pixel_hash, twin)
        result[row] = twin
    return result


def _look_alikes(rows: Sequence[int], decoded: Mapping[int, DecodedPhoto]) -> NDArray[np.int64]:
    """Pairs of rows [P, 2] that are near duplicates."""
    if not rows:
        return np.empty((0, 2), dtype=np.int64)
    hashes = np.array([decoded[row].perceptual_hash for row in rows], dtype=np.uint64)
    thumbnails = np.stack([np.frombuffer(decoded[row].thumbnail, np.uint8) for row in rows])
    return np.asarray(rows, dtype=np.int64)[near_duplicate_pairs(hashes, thumbnails)]


def _clear_of_validation(
    rows: Sequence[int], pairs: NDArray[np.int64], refs: Sequence[PhotoRef]
) -> tuple[list[int], NDArray[np.int64], list[LeftOut]]:
    """Take photos out of train that look like one given for validation."""
    twins: dict[int, int] = {}
    for pair in pairs.tolist():
        given = [row for row in pair if refs[row].validation]
        if len(given) == 1:
            train_row = pair[0] if given[0] == pair[1] else pair[1]
            twins.setdefault(train_row, given[0])
    left_out = [
        LeftOut(
            refs[row].path,
            "near_duplicate_of_validation",
            f"looks like {refs[twins[row]].path}, which is given for validation",
        )
        for row in sorted(twins)
    ]
    remaining = ~np.isin(pairs, list(twins)).any(axis=1)
    return [row for row in rows if row not in twins], pairs[remaining], left_out


def _given_side(ref: PhotoRef) -> Split:
    return "validation" if ref.validation else "train"


def _split(
    rows: Sequence[int],
    links: NDArray[np.int64],
    refs: Sequence[PhotoRef],
    decoded: Mapping[int, DecodedPhoto],
    validation_share: float,
) -> dict[int, Split]:
    """Side of each row; what is linked, or has one SKU, stays together."""
    keys = [_key(refs[row], decoded[row]) for row in rows]
    first_with: dict[str, int] = {}
    same_key = [(row, first_with.setdefault(key, row)) for row, key in zip(rows, keys, strict=True)]
    every = np.concatenate([links, np.array(same_key, dtype=np.int64).reshape(-1, 2)])
    groups = linked_groups(len(refs), every)
    sides = split_groups(keys, [int(groups[row]) for row in rows], validation_share)
    return dict(zip(rows, sides, strict=True))


def _key(ref: PhotoRef, photo: DecodedPhoto) -> str:
    """What decides a photo's side."""
    return f"sha256:{photo.sha256}" if ref.sku is None else f"sku:{ref.sku}"


def _group_numbers(rows: Sequence[int], pairs: NDArray[np.int64]) -> dict[int, int]:
    """Number the groups of near duplicates by their first photo; the others have none."""
    if not len(pairs):
        return {}
    groups = linked_groups(max(rows) + 1, pairs)
    members = np.unique(pairs)
    numbers: dict[int, int] = {}
    return {int(row): numbers.setdefault(int(groups[row]), len(numbers)) for row in members}
