"""Distances and coverage between two sets of feature vectors; pure functions.

Throughout, `real` is [N, D] and `generated` [M, D]; each row has one image's features. All sums
are in float64, whatever the input's type.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.floating[Any]]

# Neighbours that an image's ball reaches to. Naeem et al. (2020) find 5 stable for a few hundred
# samples or more; one value for all four metrics keeps them comparable.
NEAREST_K: Final = 5
# Rows of a pairwise matrix in memory at a time, so that memory grows with N, not N squared.
_BLOCK: Final = 1024
# Random halves that an interval is computed from: 200 leave five beyond each end.
_SUBSETS: Final = 200


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
        ValueError: The shapes do not match or a set is too small.
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
    # A^(1/2) B A^(1/2) has the eigenvalues of A B but is symmetric, so a covariance of low
    # rank, from few photos, has no complex or exploding root.
    product = root_a @ covariance_b @ root_a
    root_trace = np.sqrt(np.clip(np.linalg.eigvalsh(product), 0.0, None)).sum()
    offset = mean_a - mean_b
    distance = offset @ offset + np.trace(covariance_a) + np.trace(covariance_b) - 2 * root_trace
    return float(max(distance, 0.0))


def kernel_distance(real: Features, generated: Features) -> float:
    """Unbiased squared maximum mean discrepancy under the kernel (x.y / D + 1)^3.

    Its expectation is 0 for two sets of one distribution at any counts (so a single value can be
    slightly below 0), which makes it the most reliable distance for few photos.

    Args:
        real: [N, D], N of 2 or more.
        generated: [M, D], M of 2 or more.

    Returns:
        The estimate over all pairs.

    Raises:
        ValueError: The shapes do not match or a set is too small.

    Source: Binkowski et al., 2018, section 4, arXiv 1801.01401.
    """
    everything = (np.ones((1, len(real))), np.ones((1, len(generated))))
    return float(_kernel_distances(real, generated, *everything)[0])


def kernel_distance_interval(
    real: Features, generated: Features, *, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the kernel distance, over other samples of the same two distributions.

    It is the middle 95 % of the distances between random halves of both sets, drawn without
    replacement: a half deviates from the whole sample as the whole sample deviates from the
    truth. (If the sets don't differ, halves deviate up to 1.7 times as far; then the interval is
    too wide, not too narrow.)

    Args:
        real: [N, D], N of 4 or more.
        generated: [M, D], M of 4 or more.
        seed: Determines the halves.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: The shapes do not match or a set is too small.

    Source: Politis and Romano, 1994, Annals of Statistics 22(4), section 2.
    """
    rng = np.random.default_rng(seed)
    halves = [_random_halves(len(rows), rng) for rows in (real, generated)]
    low, high = np.quantile(_kernel_distances(real, generated, *halves), (0.025, 0.975))
    return float(low), float(high)


def precision(real: Features, generated: Features, k: int = NEAREST_K) -> float:
    """Fraction of generated images that lie within a ball of some real photo.

    Raises:
        ValueError: The shapes do not match, or there are `k` real photos or fewer.

    Source: Kynkaanniemi et al., 2019, equation 2, arXiv 1904.06991.
    """
    real, generated = _checked(real, generated, at_least=k + 1)
    radii = _squared_ball_radii(real, real, k)
    inside = [(block <= radii).any(axis=1) for block in _squared_distances(generated, real)]
    return float(np.concatenate(inside).mean())


def recall(real: Features, generated: Features, k: int = NEAREST_K) -> float:
    """Fraction of real photos that lie within a ball of some generated image.

    Raises:
        ValueError: The shapes do not match, or there are `k` images or fewer.

    Source: Kynkaanniemi et al., 2019, equation 2, arXiv 1904.06991.
    """
    return precision(generated, real, k)


def density(real: Features, generated: Features, k: int = NEAREST_K) -> float:
    """Mean number of real photos' balls that a generated image lies in, divided by `k`.

    It is about 1 for one distribution, and larger if generated images crowd around typical
    photos; unlike precision it does not count a single outlier's huge ball in full.

    Raises:
        ValueError: The shapes do not match, or there are `k` real photos or fewer.

    Source: Naeem et al., 2020, equation 3, arXiv 2002.09797.
    """
    real, generated = _checked(real, generated, at_least=k + 1)
    radii = _squared_ball_radii(real, real, k)
    balls = sum(int((block <= radii).sum()) for block in _squared_distances(generated, real))
    return balls / (k * len(generated))


def coverage(real: Features, generated: Features, k: int = NEAREST_K) -> float:
    """Fraction of real photos whose ball contains a generated image.

    It grows with the number of generated images: compare at equal counts.

    Raises:
        ValueError: The shapes do not match, or there are `k` real photos or fewer.

    Source: Naeem et al., 2020, equation 4, arXiv 2002.09797.
    """
    real, generated = _checked(real, generated, at_least=k + 1)
    return covered_share(real, ball_radii(real, real, k), generated)


def covered_share(real: Features, radii: Features, generated: Features) -> float:
    """Fraction of real photos whose ball of a given radius contains a generated image.

    Args:
        real: [N, D], N of 1 or more.
        radii: [N], from `ball_radii`, perhaps among more photos than these.
        generated: [M, D], M of 1 or more.
    """
    distances, _ = nearest(real, generated)
    return float((distances <= radii).mean())


def ball_radii(rows: Features, among: Features, k: int = NEAREST_K) -> NDArray[np.float64]:
    """Distance from each row to its k-th nearest other row.

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
    """Distance from each row to its nearest column, and that column's position.

    Args:
        rows: [N, D].
        columns: [M, D], M of 1 or more.

    Returns:
        Euclidean distances [N], and positions in `columns` [N].

    Raises:
        ValueError: The shapes do not match or a set is empty.
    """
    rows, columns = _checked(rows, columns, at_least=1)
    blocks = [(b.min(axis=1), b.argmin(axis=1)) for b in _squared_distances(rows, columns)]
    squared, positions = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return np.sqrt(squared), positions


def _checked(
    real: Features, generated: Features, *, at_least: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Convert both sets to float64; raises a ValueError that names the shapes."""
    if real.ndim != 2 or generated.ndim != 2 or real.shape[1] != generated.shape[1]:
        raise ValueError(f"expected [N, D] and [M, D], got {real.shape} and {generated.shape}")
    if min(len(real), len(generated)) < at_least:
        raise ValueError(
            f"needs {at_least} rows or more in each set, got {len(real)} and {len(generated)}"
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


def _random_halves(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw _SUBSETS random halves of `count` rows: 1 for drawn rows, else 0, [_SUBSETS, count]."""
    order = rng.permuted(np.tile(np.arange(count), (_SUBSETS, 1)), axis=1)
    return (order < count // 2).astype(np.float64)


def _kernel_distances(
    real: Features,
    generated: Features,
    of_real: NDArray[np.float64],
    of_generated: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Kernel distances between subsets.

    Args:
        real: [N, D].
        generated: [M, D].
        of_real: 1 where a row is in a subset, else 0, [S, N]; two rows or more in each.
        of_generated: The same for generated images, [S, M].

    Returns:
        [S].
    """
    real, generated = _checked(real, generated, at_least=2)
    n, m = of_real.sum(axis=1), of_generated.sum(axis=1)
    if min(n.min(), m.min()) < 2:
        raise ValueError(f"needs 4 rows or more in each set, got {len(real)} and {len(generated)}")
    within_real = _kernel_sums(real, real, of_real, of_real) - of_real @ _self_kernel(real)
    within_generated = _kernel_sums(generated, generated, of_generated, of_generated)
    within_generated -= of_generated @ _self_kernel(generated)
    across = _kernel_sums(real, generated, of_real, of_generated)
    distances: NDArray[np.float64] = (
        within_real / (n * (n - 1)) + within_generated / (m * (m - 1)) - 2 * across / (n * m)
    )
    return distances


def _kernel_sums(
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
    of_rows: NDArray[np.float64],
    of_columns: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Sums of the kernel over all pairs of each subset's rows and columns, [S]."""
    sums = np.zeros(len(of_rows))
    for start in range(0, len(rows), _BLOCK):
        kernel = _cubed(rows[start : start + _BLOCK] @ columns.T, rows.shape[1])
        sums += ((of_rows[:, start : start + _BLOCK] @ kernel) * of_columns).sum(axis=1)
    return sums


def _self_kernel(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The kernel of each row with itself, [N]."""
    return _cubed(np.einsum("ij,ij->i", rows, rows), rows.shape[1])


def _cubed(products: NDArray[np.float64], dimensions: int) -> NDArray[np.float64]:
    """Compute (p / D + 1)^3 by products, since numpy's power is ten times slower."""
    base = products / dimensions + 1
    return base * base * base
