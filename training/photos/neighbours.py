"""Approximate nearest neighbours by a forest of random projection trees.

A tree halves the vectors at the median of their projection on the line through two of them,
chosen at random, and each half again, down to leaves of at most LEAF; vectors are compared
within leaves only. So a tree costs n log n whatever the vectors are, even with thousands of
equal ones. Near vectors sometimes fall into different leaves, but seldom in all TREES trees.
Vectors are scaled to one length and rounded to integers, so that all sums are exact: neither
the number of threads nor the order of summing changes the result.

Source: Dasgupta and Freund 2008, Random projection trees and low dimensional manifolds.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

TREES: Final = 10
LEAF: Final = 96
# Products with a difference of two such vectors stay below 2^24, where float32 is exact.
_LENGTH: Final = 2800.0


def nearest_pairs(vectors: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Find pairs in which one vector is among the `count` nearest found of the other.

    Args:
        vectors: [N, dimensions], of any length.
        count: Neighbours of each vector, at most.

    Returns:
        Rows of both [P, 2], the smaller first, each pair once; P is at most N * count. The
        result is deterministic.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = np.rint(vectors * (_LENGTH / np.maximum(lengths, 1e-12)))
    rng = np.random.default_rng(0)
    by_tree = [_nearest_in_leaves(vectors, count, rng) for _ in range(TREES)]
    rows = np.concatenate([rows for rows, _ in by_tree], axis=1)
    distances = np.concatenate([distances for _, distances in by_tree], axis=1)
    by_row = np.argsort(rows, axis=1, kind="stable")
    rows = np.take_along_axis(rows, by_row, axis=1)
    distances = np.take_along_axis(distances, by_row, axis=1)
    distances[:, 1:][rows[:, 1:] == rows[:, :-1]] = np.inf  # found in more than one tree
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :count]
    found = np.isfinite(np.take_along_axis(distances, nearest, axis=1))
    own = np.broadcast_to(np.arange(len(vectors))[:, None], nearest.shape)
    pairs = np.stack([own, np.take_along_axis(rows, nearest, axis=1)], axis=2)[found]
    return np.unique(np.sort(pairs, axis=1), axis=0)


def _nearest_in_leaves(
    vectors: NDArray[np.float32], count: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows [N, count] of the nearest vectors within one tree's leaves, and squared distances.

    If a leaf holds fewer, the other distances are infinite.
    """
    rows = np.zeros((len(vectors), count), dtype=np.int64)
    distances = np.full((len(vectors), count), np.inf, dtype=np.float32)
    for leaf in _leaves(vectors, rng):
        block = vectors[leaf]
        squares = (block * block).sum(axis=1)
        apart = squares[:, None] + squares - 2 * (block @ block.T)
        np.fill_diagonal(apart, np.inf)
        nearest = np.argsort(apart, axis=1, kind="stable")[:, :count]
        taken = nearest.shape[1]
        rows[leaf, :taken] = leaf[nearest]
        distances[leaf, :taken] = np.take_along_axis(apart, nearest, axis=1)
    return rows, distances


def _leaves(vectors: NDArray[np.float32], rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Rows of each leaf of one tree; each row is in one leaf."""
    pending = [rng.permutation(len(vectors))]  # so that equal vectors are split at random
    while pending:
        rows = pending.pop()
        if len(rows) <= LEAF:
            yield rows
            continue
        one, other = rows[rng.integers(len(rows), size=2)]
        along = vectors[rows] @ (vectors[one] - vectors[other])
        half = len(rows) // 2
        rows = rows[np.argpartition(along, half)]
        pending += [rows[:half], rows[half:]]
