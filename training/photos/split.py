"""Assigns photos to train or validation, stably as the catalogue grows.

A photo's split depends on its article number, or else on its own bytes, never on
the other photos of the catalogue. Two rules can override that, both in favour of train:

- Photos that are near duplicates of each other, or share an article number with one that
  is, must be in one split. If the members of such a group disagree, all go to train.
- A category must have something to train on. If all its photos would be for validation,
  the group that a smaller validation fraction would move to train first goes there.

So a growing catalogue moves photos from validation to train, never from train to
validation: no photo that a model was trained on is used to judge a later one. The only
exception is a photo that went to train because its category had no other: it may go back
when the category gets more. No rule that sees only today's catalogue could avoid that.
"""

import hashlib
from collections.abc import Hashable, Sequence

from training.dataset import Split


def split_of(key: str, validation_fraction: float) -> Split:
    """Choose the split of one article number or content hash.

    Args:
        key: Equal keys always get the same split.
        validation_fraction: Expected fraction of keys in validation, in [0, 1); a larger
            fraction only adds to validation.

    Returns:
        "train" or "validation".
    """
    return "validation" if _draw(key) < validation_fraction * 2**64 else "train"


def _draw(key: str) -> int:
    """Hash the key to a number in [0, 2^64)."""
    digest = hashlib.sha256(b"catalogan-split\0" + key.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8])


def split_groups(
    keys: Sequence[str],
    groups: Sequence[Hashable],
    categories: Sequence[str],
    validation_fraction: float,
) -> list[Split]:
    """Choose the split of each photo: groups stay together, and each category trains on one.

    Args:
        keys: Key of each photo, which decides its split.
        groups: Group of each photo, which must stay together.
        categories: Category of each photo.
        validation_fraction: See `split_of`.

    Returns:
        Split of each photo.
    """
    trained = {
        group
        for key, group in zip(keys, groups, strict=True)
        if split_of(key, validation_fraction) == "train"
    }
    by_draw = sorted(zip(map(_draw, keys), range(len(keys)), strict=True))
    trained |= set({categories[i]: groups[i] for _, i in by_draw}.values())  # the highest stays
    return ["train" if group in trained else "validation" for group in groups]
