"""Finds photos that are copies of one another: features propose pairs, pixels decide.

Each photo is represented by a small view of its product, without its plain background
(`product_view`). Its candidates are the NEIGHBOURS nearest views by the features of a pretrained
network (`view_features`, `neighbours`): features hardly change when a photo is resized,
recompressed, cropped a little or mirrored. Pixels then decide (`pair_comparison`).
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from training.photos.neighbours import nearest_pairs
from training.photos.pair_comparison import Views, same_photo
from training.photos.view_features import view_features

NEIGHBOURS: Final = 4


def near_duplicate_groups(views: Views) -> NDArray[np.int64]:
    """Group photos that are near duplicates, mirrored or not, directly or through others.

    Args:
        views: Product view of each photo.

    Returns:
        Group of each photo [N]; a photo that resembles no other is a group of its own.
    """
    pairs = nearest_pairs(view_features(views.pixels), NEIGHBOURS)
    alone = np.arange(len(views.pixels), dtype=np.int64)
    return linked_groups(alone, pairs[same_photo(views, pairs)])


def linked_groups(groups: NDArray[np.int64], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Merge groups that `pairs` link, directly or through others.

    Args:
        groups: Group of each item [N], in [0, N).
        pairs: Linked items [P, 2].

    Returns:
        Group of each item [N], renumbered in [0, N).
    """
    count = len(groups)
    ends = groups[pairs]
    links = coo_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), (count, count))
    merged: NDArray[np.int64] = connected_components(links, directed=False)[1].astype(np.int64)
    return merged[groups]
