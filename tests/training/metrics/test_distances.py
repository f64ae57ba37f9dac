import numpy as np
import pytest
from scipy.linalg import sqrtm

from training.metrics import distances

RNG = np.random.default_rng(0)


def normal(count, dimensions, *, seed, mean=0.0, scale=1.0):
    return np.random.default_rng(seed).normal(mean, scale, (count, dimensions))


def test_gaussian_frechet_distance_of_diagonal_covariances():
    a, b = np.asarray([1.0, 4.0, 9.0]), np.asarray([4.0, 4.0, 1.0])
    distance = distances.gaussian_frechet_distance(
        np.zeros(3), np.diag(a), np.asarray([1.0, 2.0, 0.0]), np.diag(b)
    )
    assert distance == pytest.approx(1 + 4 + (1 - 2) ** 2 + 0 + (3 - 1) ** 2)


def test_gaussian_frechet_distance_of_covariances_that_do_not_commute():
    factor_a, factor_b = RNG.normal(size=(2, 6, 6))
    a, b = factor_a @ factor_a.T, factor_b @ factor_b.T
    expected = np.trace(a + b - 2 * sqrtm(a @ b).real)
    distance = distances.gaussian_frechet_distance(np.zeros(6), a, np.zeros(6), b)
    assert distance == pytest.approx(expected)


def test_frechet_distance_fits_the_gaussians():
    real = normal(20_000, 4, seed=1)
    generated = normal(20_000, 4, seed=2, mean=0.5, scale=2.0)
    assert distances.frechet_distance(real, generated) == pytest.approx(4 * 0.25 + 4, rel=0.05)


def test_frechet_distance_with_fewer_photos_than_features():
    few = normal(20, 64, seed=3)
    assert distances.frechet_distance(few, few) == pytest.approx(0, abs=1e-5)
    assert np.isfinite(distances.frechet_distance(few, normal(15, 64, seed=4)))


def test_frechet_distance_is_symmetric_and_at_float32_precision():
    real, generated = normal(50, 8, seed=5), normal(70, 8, seed=6, mean=1)
    there = distances.frechet_distance(real, generated)
    assert there == pytest.approx(distances.frechet_distance(generated, real))
    assert there == pytest.approx(
        distances.frechet_distance(real.astype(np.float32), generated.astype(np.float32)), rel=1e-5
    )


@pytest.mark.parametrize("mean", [0.0, 0.3])
def test_the_interval_of_the_kernel_distance_holds_the_truth(mean):
    truth = distances.kernel_distance(normal(4000, 5, seed=1), normal(4000, 5, seed=2, mean=mean))
    hits = widths = 0
    for i in range(60):
        real, generated = normal(40, 5, seed=10 + i), normal(90, 5, seed=100 + i, mean=mean)
        low, high = distances.kernel_distance_interval(real, generated, seed=i)
        hits += low <= truth <= high
        widths += high - low
    # Of 60 with 95 %, fewer than 50 come once in 10,000 times.
    assert hits >= 50
    # Nor is it so wide that it says nothing: four photos in place of 40 say far less.
    few = distances.kernel_distance_interval(normal(4, 5, seed=3), normal(4, 5, seed=4, mean=mean))
    assert few[1] - few[0] > 3 * widths / 60


def test_too_few_photos_have_no_interval():
    with pytest.raises(ValueError, match="needs 4 rows"):
        distances.kernel_distance_interval(normal(3, 5, seed=1), normal(9, 5, seed=2))


def test_kernel_distance_is_unbiased_for_one_distribution():
    estimates = [
        distances.kernel_distance(normal(12, 5, seed=2 * i), normal(30, 5, seed=2 * i + 1))
        for i in range(400)
    ]
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates)) < 3 * error
    assert min(estimates) < 0 < max(estimates)


def test_kernel_distance_equals_the_sum_over_pairs():
    # More rows than the blocks that the sums go in.
    real, generated = normal(1100, 2, seed=1), normal(1050, 2, seed=2, mean=0.3)

    def kernel(x, y):
        return (x @ y.T / 2 + 1) ** 3

    within_real = kernel(real, real)[~np.eye(1100, dtype=bool)].mean()
    within_generated = kernel(generated, generated)[~np.eye(1050, dtype=bool)].mean()
    expected = within_real + within_generated - 2 * kernel(real, generated).mean()
    assert distances.kernel_distance(real, generated) == pytest.approx(expected)


def test_kernel_distance_rises_with_the_offset():
    real = normal(200, 5, seed=1)
    found = [
        distances.kernel_distance(real, normal(200, 5, seed=2, mean=mean)) for mean in (0, 0.5, 1)
    ]
    assert found[0] < found[1] < found[2]


def brute_force_neighbours(real, generated, k):
    """All four by their definitions, one pair at a time."""

    def distance(x, y):
        return np.sqrt(((x - y) ** 2).sum())

    def radii(points):
        return [sorted(distance(x, y) for y in points)[k] for x in points]

    real_radii, generated_radii = radii(real), radii(generated)
    inside = np.asarray(
        [
            [distance(g, r) <= radius for r, radius in zip(real, real_radii, strict=True)]
            for g in generated
        ]
    )
    held = np.asarray(
        [
            [distance(r, g) <= radius for g, radius in zip(generated, generated_radii, strict=True)]
            for r in real
        ]
    )
    return {
        "precision": inside.any(axis=1).mean(),
        "recall": held.any(axis=1).mean(),
        "density": inside.sum() / (k * len(generated)),
        "coverage": inside.any(axis=0).mean(),
    }


@pytest.mark.parametrize("k", [1, 3])
def test_neighbour_scores_follow_their_definitions(k):
    real, generated = normal(25, 3, seed=1), normal(31, 3, seed=2, mean=0.7)
    expected = brute_force_neighbours(real, generated, k)
    for name, value in expected.items():
        assert 0 < value < 1
        assert getattr(distances, name)(real, generated, k) == pytest.approx(value), name


def scores(real, generated):
    return {
        name: getattr(distances, name)(real, generated)
        for name in ("precision", "recall", "density", "coverage")
    }


def test_neighbour_scores_of_one_distribution_are_high():
    found = scores(normal(500, 4, seed=1), normal(500, 4, seed=2))
    assert min(found.values()) > 0.85
    assert found["density"] == pytest.approx(1, abs=0.15)


def test_far_images_cost_precision_and_density_but_not_recall():
    real, generated = normal(300, 4, seed=1), normal(300, 4, seed=2)
    generated[:150] += 100
    before, after = scores(real, normal(300, 4, seed=2)), scores(real, generated)
    assert after["precision"] == pytest.approx(0.5, abs=0.1)
    assert after["density"] < 0.65 * before["density"]
    assert after["recall"] > 0.8


def test_a_dropped_mode_costs_recall_and_coverage_but_not_precision():
    real = normal(300, 4, seed=1)
    real[:150] += 10
    found = scores(real, normal(300, 4, seed=2))
    assert found["precision"] > 0.9
    assert found["recall"] < 0.6
    assert found["coverage"] < 0.6


def test_duplicates_cost_recall_and_coverage_but_not_precision():
    found = scores(normal(300, 4, seed=1), normal(10, 4, seed=2).repeat(30, axis=0))
    assert found["precision"] > 0.8
    assert found["recall"] < 0.1
    assert found["coverage"] < 0.4


def test_typical_images_raise_density_above_one():
    found = scores(normal(300, 4, seed=1), normal(300, 4, seed=2, scale=0.3))
    assert found["density"] > 1.1
    assert found["precision"] > 0.98
    assert found["recall"] < 0.5


DISTANCES = ("frechet_distance", "kernel_distance")
NEIGHBOURS = ("precision", "recall", "density", "coverage")


@pytest.mark.parametrize("measure", DISTANCES + NEIGHBOURS)
@pytest.mark.parametrize(
    ("real", "generated"), [((50, 3), (50, 4)), ((50,), (50, 3)), ((50, 3), (1, 3))]
)
def test_sets_that_do_not_fit_are_refused(measure, real, generated):
    with pytest.raises(ValueError, match=r"got \(?\d"):
        getattr(distances, measure)(np.zeros(real), np.zeros(generated))


@pytest.mark.parametrize("measure", NEIGHBOURS)
def test_no_more_photos_than_neighbours_are_refused(measure):
    with pytest.raises(ValueError, match="needs 6 rows or more"):
        getattr(distances, measure)(np.zeros((5, 3)), np.zeros((50, 3)))


def test_nearest_finds_distance_and_position_across_blocks():
    rows, columns = normal(2500, 3, seed=11), normal(70, 3, seed=12)
    found, positions = distances.nearest(rows, columns)
    every = np.linalg.norm(rows[:, None] - columns[None], axis=2)
    np.testing.assert_array_equal(positions, every.argmin(axis=1))
    np.testing.assert_allclose(found, every.min(axis=1), atol=1e-6)
