"""A catalogue's categories: their names, and whether each has enough photos."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from training.photos.curation import KeptPhoto
from training.photos.scan import LeftOut, Listing, PrepareError

# What an export's manifest can hold.
MAX_CATEGORIES: Final = 10_000
MAX_CATEGORY_LENGTH: Final = 200

_TRAIN_FOLDERS: Final = {"train", "training"}
_OTHER_FOLDERS: Final = {"validation", "valid", "val", "test", "testing"}


def merge_categories(listing: Listing) -> dict[str, str]:
    """Merge categories whose names differ in letter case only, and check the names.

    Args:
        listing: Its photos and categories are renamed in place.

    Returns:
        Each merged name, and the name that replaces it.

    Raises:
        PrepareError: A name can't be a category, or has no photo.
    """
    merged = _case_variants(listing.categories | listing.validation_categories)
    listing.photos = [
        replace(photo, category=merged.get(photo.category, photo.category))
        for photo in listing.photos
    ]
    listing.categories = {merged.get(name, name) for name in listing.categories}
    given = {merged.get(name, name) for name in listing.validation_categories}
    _check_names(listing.categories)
    if unknown := given - listing.categories:
        raise PrepareError(
            f"categories in the validation folder but not in train: {_quoted(unknown)}"
        )
    with_photos = {photo.category for photo in listing.photos if not photo.validation}
    if empty := listing.categories - with_photos:
        raise PrepareError(
            f"categories without a photo: {_quoted(empty)}; add photos or remove them"
            f"{_why(listing.left_out)}"
        )
    return merged


def _case_variants(names: Iterable[str]) -> dict[str, str]:
    """Map names that differ in letter case only to the first of them."""
    first: dict[str, str] = {}
    return {
        name: kept
        for name in sorted(names)
        if (kept := first.setdefault(name.casefold(), name)) != name
    }


def _check_names(categories: set[str]) -> None:
    """Refuse names that can't be categories."""
    if not categories:
        raise PrepareError("there is no category: put photos into a folder for each category")
    if categories & _TRAIN_FOLDERS and categories <= _TRAIN_FOLDERS | _OTHER_FOLDERS:
        raise PrepareError(
            f"{_quoted(categories)} are no categories but a split: give the folder of training "
            "photos, and --validation for the other"
        )
    for name in sorted(categories):
        if not 1 <= len(name) <= MAX_CATEGORY_LENGTH:
            raise PrepareError(f"category {name!r}: a name has 1 to {MAX_CATEGORY_LENGTH} letters")
    if len(categories) > MAX_CATEGORIES:
        raise PrepareError(
            f"{len(categories)} categories, over {MAX_CATEGORIES}: is the first folder level "
            "(or the manifest's category) really a category?"
        )


def check_enough(listing: Listing, kept: Sequence[KeptPhoto], min_photos: int) -> None:
    """Refuse a dataset that nothing can be learned from.

    Raises:
        PrepareError: Too few photos, or a category has none, or none to train on.
    """
    why = _why(listing.left_out)
    if len(kept) < min_photos:
        raise PrepareError(
            f"{len(kept)} usable photos, fewer than the minimum of {min_photos}{why}"
        )
    usable = {listing.photos[photo.row].category for photo in kept}
    if empty := listing.categories - usable:
        raise PrepareError(f"categories without a usable photo: {_quoted(empty)}{why}")
    trained = {listing.photos[photo.row].category for photo in kept if photo.split == "train"}
    if untrained := listing.categories - trained:
        raise PrepareError(
            f"categories without a training photo: {_quoted(untrained)}; add photos to them{why}"
        )


def _quoted(names: set[str]) -> str:
    """List the first ten names, sorted, for a message."""
    shown = [repr(name) for name in sorted(names)]
    return ", ".join(shown[:10]) + (f" and {len(shown) - 10} more" if len(shown) > 10 else "")


def _why(left_out: Sequence[LeftOut]) -> str:
    """Summarise why photos were left out, for a message."""
    reasons = Counter(item.reason for item in left_out)
    if not reasons:
        return ""
    listed = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return f" (left out: {listed}; the first: {left_out[0].path}, {left_out[0].message})"
