"""Finds categories that should have validation photos but have none, and says why."""

from collections.abc import Sequence
from typing import Final

from training.photos.curation import KeptPhoto, split_key
from training.photos.scan import LeftOut, PhotoRef
from training.photos.split import split_of

# With fewer photos, a category without validation photos is to be expected.
_EXPECTED_FROM: Final = 10


def validation_gaps(
    refs: Sequence[PhotoRef],
    kept: Sequence[KeptPhoto],
    left_out: Sequence[LeftOut],
    validation_fraction: float | None,
) -> dict[str, str]:
    """Find categories of ten photos or more without any validation photo.

    Args:
        refs: All photos that were read.
        kept: Photos in the dataset.
        left_out: Photos that are not.
        validation_fraction: Fraction that was split off; None = a folder was given instead.

    Returns:
        Category -> reason, in words.
    """
    by_category: dict[str, list[KeptPhoto]] = {}
    for photo in kept:
        by_category.setdefault(refs[photo.row].category, []).append(photo)
    reasons = {}
    for category, photos in sorted(by_category.items()):
        if len(photos) >= _EXPECTED_FROM and all(photo.split == "train" for photo in photos):
            if validation_fraction is None:
                reasons[category] = _none_given(category, refs, left_out)
            else:
                keys = [split_key(refs[photo.row], photo.sha256) for photo in photos]
                reasons[category] = _none_split_off(keys, validation_fraction)
    return reasons


def _none_given(category: str, refs: Sequence[PhotoRef], left_out: Sequence[LeftOut]) -> str:
    given = {ref.path for ref in refs if ref.validation and ref.category == category}
    lost = [item for item in left_out if item.path in given]
    if lost:
        first = f"{lost[0].path}, {lost[0].message}"
        return f"none of its photos given by --validation was used (the first: {first})"
    return "the folder given by --validation has no photo of it"


def _none_split_off(keys: Sequence[str], validation_fraction: float) -> str:
    drawn = sum(split_of(key, validation_fraction) == "validation" for key in keys)
    if drawn:
        return (
            f"{drawn} of its {len(keys)} photos were drawn for validation, but look like photos "
            "that were drawn for training, or share their article number"
        )
    return (
        f"none of its {len(keys)} photos was drawn at a fraction of {validation_fraction:g}: "
        "give a larger --validation-share, or photos by --validation"
    )
