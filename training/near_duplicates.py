"""Photos that show almost the same picture: perceptual hashes, compared in buckets.

Two photos are near duplicates when their 64-bit perceptual hashes (DCT, of brightness)
differ in at most MAX_BITS bits and their 8 x 8 colour thumbnails by little on average:
the hash alone is blind to colour, and a red shirt is no duplicate of the same in blue.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

MAX_BITS: Final = 5
MAX_COLOUR_DIFFERENCE: Final = 12.0
# Bands of the hash: hashes that differ in at most MAX_BITS bits agree in one of 6 bands.
_BANDS: Final = ((0, 11), (11, 11), (22, 11), (33, 11), (44, 10), (54, 10))
# Pairs compared at once: bounds memory where one bucket holds most of a catalogue.
_PAIRS_AT_ONCE: Final = 4_000_000


def near_duplicate_pairs(
    hashes: NDArray[np.uint64], thumbnails: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Find all pairs of near duplicates.

    Args:
        hashes: Perceptual hashes [N].
        thumbnails: Colour thumbnails [N, ...] of one size.

    Returns:
        Pairs of indices [P, 2], each with the smaller first, sorted, without repeats.
    """
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.int16)
    found = [np.empty((0, 2), dtype=np.int64)]
    for shift, bits in _BANDS:
        band = (hashes >> np.uint64(shift)) & np.uint64((1 << bits) - 1)
        order = np.argsort(band, kind="stable")
        starts = np.flatnonzero(np.diff(band[order], prepend=np.uint64(1 << 63)))
        for bucket in np.split(order, starts[1:]):
            if len(bucket) > 1:
                found.append(_pairs_within(bucket, hashes, flat))
    return np.unique(np.concatenate(found), axis=0)


def _pairs_within(
    bucket: NDArray[np.int64], hashes: NDArray[np.uint64], flat: NDArray[np.int16]
) -> NDArray[np.int64]:
    """Near duplicates among the indices of one bucket, in ascending order [P, 2]."""
    rows = max(1, _PAIRS_AT_ONCE // len(bucket))
    found = []
    for start in range(0, len(bucket), rows):
        part = hashes[bucket[start : start + rows], None]
        bits = np.bitwise_count(part ^ hashes[bucket[None, start:]])
        left, right = np.nonzero(bits <= MAX_BITS)
        left, right = left[left < right] + start, right[left < right] + start
        a, b = bucket[left], bucket[right]
        colour = np.abs(flat[a] - flat[b]).mean(axis=1)
        close = colour <= MAX_COLOUR_DIFFERENCE
        found.append(np.stack([a[close], b[close]], axis=1))
    return np.concatenate(found)


def linked_groups(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the groups that `pairs` link, directly or through others.

    Args:
        count: How many items there are.
        pairs: Linked indices [P, 2].

    Returns:
        Group of each item [count]; an item without a link is a group of its own.
    """
    links = coo_array(
        (np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count)
    )
    groups = connected_components(links, directed=False)[1]
    return np.asarray(groups, dtype=np.int64)
