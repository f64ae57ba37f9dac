"""Distances and coverage between two sets of feature vectors; pure functions.

Throughout, `real` is [N, D] and `generated` [M, D], one row a picture's features. All sums
are in float64, whatever comes in.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.floating[Any]]

# Neighbours that span a picture's ball. Naeem et al. (2020) find 5 stable for a few hundred
# samples or more; one value for all four keeps them comparable.
NEAREST_K: Final = 5
# Rows of a pairwise matrix held at a time, so that memory grows with N, not N squared.
_BLOCK: Final = 1024


def frechet_distance(real: Features, generated: Features) -> float:
    """Frechet distance between the Gaussians fitted to both sets.

    Biased upwards for few samples, about as D squared over N: compare with real photos
    against real photos at the same counts.

    Args:
        real: [N, D], N of 2 or more.
        generated: [M, D], M of 2 or more.

    Returns:
        Squared distance, 0 or more, in squared feature units.

    Raises:
        ValueError: The shapes do not fit or a set is too small.
    """
    real, generated = _checked(real, generated, at_least=2)
    return gaussian_frechet_distance(
        real.mean(axis=0),
        np.cov(real, rowvar=False).reshape(real.shape[1], -1),
        generated.mean(axis=0),
        np.cov(generated, rowvar=False).reshape(real.shape[1], -1),
    )


def gaussian_frechet_distance(
    mean_a: Features, covariance_a: Features, mean_b: Features, covariance_b: Features
) -> float:
    """Frechet distance between two Gaussians.

    Args:
        mean_a: [D].
        covariance_a: [D, D], symmetric, positive semidefinite.
        mean_b: [D].
        covariance_b: [D, D], likewise.

    Returns:
        |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)), never below 0.

    Source: Dowson and Landau, 1982, equation 4.
    """
    values, vectors = np.linalg.eigh(covariance_a)
    root_a = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
    # A^(1/2) B A^(1/2) has the eigenvalues of A B but is symmetric, so that a covariance of
    # low rank, from few photos, gives no complex or exploding root.
    product = root_a @ covariance_b @ root_a
    root_trace = np.sqrt(np.clip(np.linalg.eigvalsh(product), 0.0, None)).sum()
    offset = mean_a - mean_b
    distance = offset @ offset + np.trace(covariance_a) + np.trace(covariance_b) - 2 * root_trace
    return float(max(distance, 0.0))


def kernel_distance(real: Features, generated: Features) -> float:
    """Unbiased squared maximum mean discrepancy under the kernel (x.y / D + 1)^3.

    Its expectation is 0 for two sets of one distribution at any counts, so that a single
    value can be slightly below 0; this makes it the one to trust for few photos.

    Args:
        real: [N, D], N of 2 or more.
        generated: [M, D], M of 2 or more.

    Returns:
        The estimate over all pairs.

    Raises:
        ValueError: The shapes do not fit or a set is too small.

    Source: Binkowski et al., 2018, section 4, arXiv 1801.01401.
    """
    real, generated = _checked(real, generated, at_least=2)
    n, m = len(real), len(generated)
    within_real = _kernel_sum(real, real) - _self_kernel_sum(real)
    within_generated = _kernel_sum(generated, generated) - _self_kernel_sum(generated)
    across = _kernel_sum(real, generated)
    return float(
        within_real / (n * (n - 1)) + within_generated / (m * (m - 1)) - 2 * across / (n * m)
    )


def precision(real: Features, generated: Features, k: int = NEAREST_K) -> float:
    """Share of generated pictures that lie within a ball of some real photo.

    Raises:
        ValueError: The shapes do not fit, or there are `k` real photos or fewer.

    Source: Kynkaanniemi et al., 2019, equation 2, arXiv 1904.06991.
    """
    real, generated = _checked(real, generated, at_least=k + 1)
    radii = _squared_ball_radii(real, real, k)
    inside = [(block <= radii).any(axis=1) for block in _squared_distances(generated, real)]
    return float(np.concatenate(inside).mean())


def recall(real: Features, generated: Features, k: int = NEAREST_K) -> float:
    """Share of real photos that lie within a ball of some generated picture.

    Raises:
        ValueError: The shapes do not fit, or there are `k` pictures or fewer.

    Source: Kynkaanniemi et al., 2019, equation 2, arXiv 1904.06991.
    """
    return precision(generated, real, k)


def density(real: Features, generated: Features, k: int = NEAREST_K) -> float:
    """In how many real photos' balls a generated picture lies, over `k`.

    About 1 for one distribution, and above it where generated pictures crowd around typical
    photos; unlike precision it does not count a single outlier's huge ball in full.

    Raises:
        ValueError: The shapes do not fit, or there are `k` real photos or fewer.

    Source: Naeem et al., 2020, equation 3, arXiv 2002.09797.
    """
    real, generated = _checked(real, generated, at_least=k + 1)
    radii = _squared_ball_radii(real, real, k)
    balls = sum(int((block <= radii).sum()) for block in _squared_distances(generated, real))
    return balls / (k * len(generated))


def coverage(real: Features, generated: Features, k: int = NEAREST_K) -> float:
    """Share of real photos whose ball holds a generated picture.

    Grows with the number of generated pictures: compare at equal counts.

    Raises:
        ValueError: The shapes do not fit, or there are `k` real photos or fewer.

    Source: Naeem et al., 2020, equation 4, arXiv 2002.09797.
    """
    real, generated = _checked(real, generated, at_least=k + 1)
    return covered_share(real, ball_radii(real, real, k), generated)


def covered_share(real: Features, radii: Features, generated: Features) -> float:
    """Share of real photos whose ball of a given radius holds a generated picture.

    Args:
        real: [N, D], N of 1 or more.
        radii: [N], as `ball_radii` gives them, perhaps among more photos than these.
        generated: [M, D], M of 1 or more.
    """
    distances, _ = nearest(real, generated)
    return float((distances <= radii).mean())


def ball_radii(rows: Features, among: Features, k: int = NEAREST_K) -> NDArray[np.float64]:
    """Distance from each row to its k-th nearest other one.

    Args:
        rows: [N, D], all of them also rows of `among`.
        among: [M, D], M above `k`.
        k: Which neighbour.

    Returns:
        [N].
    """
    rows, among = _checked(rows, among, at_least=1)
    return np.sqrt(_squared_ball_radii(rows, among, k))


def nearest(rows: Features, columns: Features) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distance from each row to its nearest column, and which that is.

    Args:
        rows: [N, D].
        columns: [M, D], M of 1 or more.

    Returns:
        Euclidean distances [N], and positions in `columns` [N].

    Raises:
        ValueError: The shapes do not fit or a set is empty.
    """
    rows, columns = _checked(rows, columns, at_least=1)
    blocks = [(b.min(axis=1), b.argmin(axis=1)) for b in _squared_distances(rows, columns)]
    squared, positions = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return np.sqrt(squared), positions


def _checked(
    real: Features, generated: Features, *, at_least: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both sets as float64, or a ValueError that names the shapes."""
    if real.ndim != 2 or generated.ndim != 2 or real.shape[1] != generated.shape[1]:
        raise ValueError(f"expected [N, D] and [M, D], got {real.shape} and {generated.shape}")
    if min(len(real), len(generated)) < at_least:
        raise ValueError(
            f"needs {at_least} rows or more on each side, got {len(real)} and {len(generated)}"
        )
    return real.astype(np.float64), generated.astype(np.float64)


def _squared_distances(
    rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> Iterator[NDArray[np.float64]]:
    """Squared Euclidean distances, some rows at a time: [<= _BLOCK, len(columns)]."""
    column_norms = np.einsum("ij,ij->i", columns, columns)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        norms = np.einsum("ij,ij->i", block, block)[:, None]
        yield np.clip(norms + column_norms - 2 * block @ columns.T, 0.0, None)


def _squared_ball_radii(
    rows: NDArray[np.float64], among: NDArray[np.float64], k: int
) -> NDArray[np.float64]:
    """Squared distance from each row to its k-th nearest other row of `among`, [N]."""
    # Position 0 of the sorted distances is the row itself.
    kth = [np.partition(block, k, axis=1)[:, k] for block in _squared_distances(rows, among)]
    return np.concatenate(kth)


def _kernel_sum(rows: NDArray[np.float64], columns: NDArray[np.float64]) -> float:
    """Sum of the cubic kernel over all pairs."""
    return sum(
        _cubed_sum(rows[start : start + _BLOCK] @ columns.T, rows.shape[1])
        for start in range(0, len(rows), _BLOCK)
    )


def _self_kernel_sum(rows: NDArray[np.float64]) -> float:
    """Sum of the cubic kernel of each row with itself."""
    return _cubed_sum(np.einsum("ij,ij->i", rows, rows), rows.shape[1])


def _cubed_sum(products: NDArray[np.float64], dimensions: int) -> float:
    """Sum of (p / D + 1)^3; plain products, since numpy's power is ten times slower."""
    base = products / dimensions + 1
    return float((base * base * base).sum())
