"""Which side of the split a photo is on, now and when the catalogue has grown.

A photo's side follows from its article number, or else from its own bytes, never from
what else is in the catalogue. One thing can overrule that: photos that are near
duplicates of each other, or share an article number with one that is, must be on one
side. Where such a group's members disagree, all go to train. So the only change that a
growing catalogue can bring is from validation to train, never from train to validation:
no photo that a model was trained on is ever used to judge a later one.
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
    digest = hashlib.sha256(b"catalogan-split\0" + key.encode("utf-8", "surrogateescape")).digest()
    return "validation" if int.from_bytes(digest[:8]) < validation_share * 2**64 else "train"


def split_groups(
    keys: Sequence[str], groups: Sequence[Hashable], validation_share: float
) -> list[Split]:
    """Side of each photo, whole groups together.

    Args:
        keys: Per photo, what decides its side.
        groups: Per photo, the group that must not be torn apart.
        validation_share: See `side_of`.

    Returns:
        Per photo, its side.
    """
    trained = {
        group
        for key, group in zip(keys, groups, strict=True)
        if side_of(key, validation_share) == "train"
    }
    return ["train" if group in trained else "validation" for group in groups]
