"""Which side of the split a photo is on, now and when the catalogue has grown.

A photo's side follows from its article number, or else from its own bytes, never from
what else is in the catalogue. Two things can overrule that, both in favour of train:

- Photos that are near duplicates of each other, or share an article number with one that
  is, must be on one side. Where such a group's members disagree, all go to train.
- A category must have something to train on. Where all its photos would be for
  validation, the one that a smaller share would send to train first goes there.

So the change that a growing catalogue brings is from validation to train, never from train
to validation: no photo that a model was trained on is used to judge a later one. The only
exception is a photo that went to train for its category's sake: it may go back when the
category gets others. No rule that looks at the catalogue of today alone could avoid that.
"""

import hashlib
from collections.abc import Hashable, Sequence

from training.dataset import Split


def side_of(key: str, validation_share: float) -> Split:
    """The side of one article number or content hash.

    Args:
        key: What decides; equal keys are on the same side for ever.
        validation_share: Expected share of keys on the validation side, in [0, 1); a
            larger share only adds to the validation side.

    Returns:
        "train" or "validation".
    """
    return "validation" if _draw(key) < validation_share * 2**64 else "train"


def _draw(key: str) -> int:
    """The key's number in [0, 2^64), the same for ever."""
    digest = hashlib.sha256(b"catalogan-split\0" + key.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8])


def split_groups(
    keys: Sequence[str],
    groups: Sequence[Hashable],
    categories: Sequence[str],
    validation_share: float,
) -> list[Split]:
    """Side of each photo: whole groups together, and a group of each category in train.

    Args:
        keys: Per photo, what decides its side.
        groups: Per photo, the group that must not be torn apart.
        categories: Per photo, its category.
        validation_share: See `side_of`.

    Returns:
        Per photo, its side.
    """
    trained = {
        group
        for key, group in zip(keys, groups, strict=True)
        if side_of(key, validation_share) == "train"
    }
    by_draw = sorted(zip(map(_draw, keys), range(len(keys)), strict=True))
    trained |= set({categories[i]: groups[i] for _, i in by_draw}.values())  # the highest stays
    return ["train" if group in trained else "validation" for group in groups]
